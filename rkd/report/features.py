"""What networks answer, beyond their accuracy: mean logits of each class against the teacher's, and pooled features of
a few classes in two dimensions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from rkd.data import ImageSet, evaluation_batches
from rkd.errors import ConfigError
from rkd.report.diagrams import Drawing
from rkd.report.figures import CARD, GRID, INK

CLASSES = 6  # of the picture of features
PERPLEXITY = 30.0
CLIPPED = 99.5  # percentile of all gaps at which the common scale of colours ends
# Okabe-Ito without yellow, and a shape for each colour.
MARKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#222222", "X"),
)


@dataclass(frozen=True)
class Answers:
    """What a network in eval mode says of N test images.

    Attributes:
        logits: (N, classes).
        pooled: (N, C), what the classifier sees.
        labels: (N,).
    """

    logits: np.ndarray
    pooled: np.ndarray
    labels: np.ndarray


@torch.no_grad()
def answers(network: nn.Module, images: ImageSet) -> Answers:
    """Of a network with taps, on the images' device, for all test images."""
    network.eval()
    dtype = next(network.parameters()).dtype
    logits, pooled = [], []
    for x, _ in evaluation_batches(images.test_x, images.test_y, images.mean, images.std, 500):
        taps = network.taps(x.to(dtype))
        logits.append(taps.logits.double().cpu())
        pooled.append(taps.pooled.double().cpu())
    return Answers(torch.cat(logits).numpy(), torch.cat(pooled).numpy(), images.test_y.cpu().numpy())


def class_means(found: Answers) -> np.ndarray:
    """(classes, classes): row c holds the mean logits over the test images of class c; NaN where there are none."""
    classes = found.logits.shape[1]
    sums, counts = np.zeros((classes, classes)), np.zeros(classes)
    np.add.at(sums, found.labels, found.logits)
    np.add.at(counts, found.labels, 1)
    return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)


def logit_gaps(teacher: Answers, student: Answers) -> tuple[np.ndarray, float]:
    """|student - teacher| of the class means, (classes, classes), with NaN on the diagonal; and the diagonal's mean.

    The diagonal, the logit of the right class, is far larger than the rest and would hide it.
    """
    gaps = np.abs(class_means(student) - class_means(teacher))
    diagonal = float(np.nanmean(np.diagonal(gaps)))
    np.fill_diagonal(gaps, np.nan)
    return gaps, diagonal


def gap_figure(teacher: Answers, students: Mapping[str, Answers]) -> Drawing:
    """Heat maps of `logit_gaps`, one per student, on one scale of colours, which ends at the 99.5th percentile of all
    of them.

    Args:
        teacher: its answers.
        students: name -> answers to the same images.
    """
    gaps = {name: logit_gaps(teacher, student) for name, student in students.items()}
    end = float(np.nanpercentile(np.stack([g for g, _ in gaps.values()]), CLIPPED))
    figure = Figure(figsize=(3.1 * len(gaps) + 0.9, 3.5), facecolor=CARD, layout="constrained")
    axes = figure.subplots(1, len(gaps), squeeze=False)[0]
    said = []
    for ax, (name, (values, diagonal)) in zip(axes, gaps.items(), strict=True):
        drawn = ax.imshow(values, cmap="cividis", vmin=0, vmax=end, interpolation="nearest")
        ax.set_facecolor(CARD)  # the diagonal, which is left out
        mean = float(np.nanmean(values))
        ax.set_title(f"{name}\nmean {mean:.2f}, diagonal {diagonal:.2f}", fontsize=9.5, color=INK)
        ax.set_xlabel("logit of class", fontsize=9)
        ax.tick_params(labelsize=8)
        said.append(f"{name} {mean:.2f} on average, {diagonal:.2f} on the diagonal")
    axes[0].set_ylabel("test images of class", fontsize=9)
    bar = figure.colorbar(drawn, ax=list(axes), extend="max", shrink=0.85)
    bar.set_label("|student − teacher|, class mean", fontsize=9)
    alt = (
        f"Heat maps of the absolute difference between student and teacher in the mean logits of each class, diagonal "
        f"left out, one scale from 0 to {end:.2f}: {'; '.join(said)}."
    )
    return Drawing(figure, alt, width=min(760, 250 * len(gaps) + 80))


def layout(features: np.ndarray, perplexity: float = PERPLEXITY, seed: int = 0) -> tuple[np.ndarray, float]:
    """(N, 2) by t-SNE, and the perplexity in force: at most a third of the number of neighbours.

    Raises:
        ConfigError: fewer than 5 images, or scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ConfigError(
            "scikit-learn is not installed; t-SNE needs it: pip install scikit-learn"
        ) from error
    if len(features) < 5:
        raise ConfigError(f"t-SNE of {len(features)} images shows nothing; take at least 5")
    perplexity = min(perplexity, (len(features) - 1) / 3)
    made = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        features.astype(np.float32)
    )
    return made, perplexity


def feature_figure(networks: Mapping[str, Answers], names: Sequence[str], classes: int = CLASSES) -> Drawing:
    """Pooled vectors of the test images of a few classes, evenly spaced in the list of all, by t-SNE, one panel per
    network.

    Args:
        networks: name -> answers.
        names: of all classes.
        classes: how many of them, at most 6.
    """
    picked = [i * len(names) // min(classes, len(MARKS)) for i in range(min(classes, len(MARKS)))]
    panels = {}
    for name, found in networks.items():
        chosen = np.isin(found.labels, picked)
        places, perplexity = layout(found.pooled[chosen])
        panels[name] = places, found.labels[chosen]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.5 * rows + 0.7), facecolor=CARD, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, (places, labels)) in zip(axes, panels.items(), strict=False):
        for label, (colour, marker) in zip(picked, MARKS, strict=False):
            ax.plot(
                *places[labels == label].T, marker, color=colour, markersize=4, alpha=0.75, label=names[label]
            )
        ax.set_title(name, fontsize=10, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        for edge in ax.spines.values():
            edge.set_color(GRID)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    count = len(next(iter(panels.values()))[1])
    alt = (
        f"t-SNE, perplexity {perplexity:.3g}, of the pooled features of {count} test images of {len(picked)} classes "
        f"({', '.join(names[label] for label in picked)}), one panel each: {', '.join(panels)}."
    )
    return Drawing(figure, alt, width=380 * columns)
