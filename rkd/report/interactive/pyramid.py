"""HCL's comparison, seen: one channel of the student's fused map and of the teacher's, and their difference, at every
size of the pyramid (ReviewKD section 3.3)."""

import html
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from rkd.errors import ConfigError
from rkd.experiments.snapshots import Snapshots
from rkd.report.diagrams import CARD, INK, Drawing, show
from rkd.report.interactive.attention import unseen
from rkd.report.interactive.stack import SliderStack, slider_stack
from rkd.report.interactive.strips import column, img, photos, scale
from rkd.report.tables import scrolling
from rkd.review import ReviewOptions, level_weights

COLOURS = "RdBu_r"  # blue below zero, white at zero, red above: apart for colour-blind readers too
ROWS = ("student", "teacher", "difference")


@dataclass(frozen=True)
class Comparison:
    """One channel of N images at one size of the pyramid.

    Attributes:
        size: height and width k of the pooled maps.
        weight: w_k divided by the level's normaliser: what HCL multiplies the mean squared error by.
        listed: w_k as the options list it.
        student, teacher, difference: (N, k, k), after pooling.
    """

    size: int
    weight: float
    listed: float
    student: np.ndarray
    teacher: np.ndarray
    difference: np.ndarray

    def mse(self, image: int | None = None) -> float:
        """Mean of the squared difference, of one image or of all."""
        part = self.difference if image is None else self.difference[image]
        return float(np.square(part, dtype=np.float64).mean())


def comparisons(snapshots: Snapshots, level: str, options: ReviewOptions) -> list[Comparison]:
    """What HCL compares at a level, in its order; under L2 the full map alone.

    Args:
        snapshots: of a run.
        level: one of `snapshots.levels`.
        options: of the run: sizes, weights and pooling.
    """
    student, teacher = snapshots.pair(level)
    height = student.shape[-2]
    used, normaliser = ([(height, 1.0)], 1.0) if options.loss == "l2" else level_weights(height, options)
    found = []
    for size, weight in used:
        ours, theirs = (_pooled(maps, size, options.hcl_pooling) for maps in (student, teacher))
        share = weight / normaliser if normaliser else 0.0  # no weight left: the level adds nothing
        found.append(Comparison(size, share, weight, ours, theirs, ours - theirs))
    return found


def pyramid_stack(snapshots: Snapshots, options: ReviewOptions, title: str, image: int = 0) -> SliderStack:
    """Maps of one image at every size; the slider goes through the review levels, deep to shallow.

    Args:
        snapshots: of a run.
        options: of the run.
        title: of the run, for the alternative texts.
        image: place of the image among those of the snapshots.

    Raises:
        ConfigError: there is no such image.
    """
    if not 0 <= image < len(snapshots.images):
        raise ConfigError(f"image is {image}; the run keeps maps of images 0 to {len(snapshots.images) - 1}")
    photo = ""
    if snapshots.pictured:
        photo = img(photos(snapshots.images[image : image + 1]), f"image of {snapshots.classes[image]}")
    named = html.escape(snapshots.classes[image])
    labels = []
    for level in snapshots.levels:
        h, w = snapshots.pair(level)[0].shape[-2:]
        labels.append(f"{level}, {h} × {w}")
    return slider_stack(
        [_grid(snapshots, level, options, image) for level in snapshots.levels],
        labels,
        "level",
        f"pyramid, {title}",
        above=f'<div class="rkd-photo">{photo}<p>Image {image}: {named}{unseen(snapshots)}</p></div>',
        start=len(labels) - 1,
        fallback=pyramid_figure(snapshots, options, title, image),
    )


def pyramid_figure(snapshots: Snapshots, options: ReviewOptions, title: str, image: int = 0) -> Drawing:
    """The same on paper, for the shallowest level, which has the largest maps."""
    level = snapshots.levels[-1]
    parts = comparisons(snapshots, level, options)
    bound = _bound(parts, image)
    figure = Figure(figsize=(1.75 * len(parts) + 1.6, 5.6), facecolor=CARD, layout="constrained")
    axes = figure.subplots(3, len(parts), squeeze=False)
    for i, part in enumerate(parts):
        for row, name in enumerate(ROWS):
            ax = axes[row, i]
            drawn = ax.imshow(getattr(part, name)[image], cmap=COLOURS, vmin=-bound, vmax=bound)
            ax.set_xticks([])
            ax.set_yticks([])
            if i == 0:
                ax.set_ylabel(name, fontsize=10, color=INK)
        axes[0, i].set_title(f"{part.size} × {part.size}", fontsize=10, color=INK)
        axes[2, i].set_xlabel(f"MSE {part.mse(image):.3g}\nweight {part.listed:g}", fontsize=9, color=INK)
    figure.colorbar(drawn, ax=list(axes.flat), shrink=0.6, aspect=30)
    figure.suptitle(f"{level}, {snapshots.classes[image]}", fontsize=11, color=INK)
    said = "; ".join(f"{p.size} x {p.size}: MSE {p.mse(image):.3g}, weight {p.listed:g}" for p in parts)
    return show(
        figure,
        f"One channel of student and teacher and their difference at {level}, {title}. {said}.",
        width=560,
    )


def pyramid_table(snapshots: Snapshots, options: ReviewOptions) -> str:
    """HTML: mean squared error, weight and share of HCL at every size of every level, over all images kept."""
    compared = {level: comparisons(snapshots, level, options) for level in snapshots.levels}
    most = max(len(parts) for parts in compared.values())
    rows = []
    for level, parts in compared.items():
        total = sum(p.weight * p.mse() for p in parts)
        cells = []
        for p in parts:
            share = f", {100 * p.weight * p.mse() / total:.0f} %" if total else ""
            cells.append(
                f'<span class="rkd-n">{p.size} × {p.size}</span> <span class="rkd-number">{p.mse():.3g}</span> '
                f'<span class="rkd-n">weight {p.listed:g}{share}</span>'
            )
        cells += [""] * (most - len(parts)) + [f"<strong>{total:.3g}</strong>"]
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(level)}</th>{row}</tr>')
    heads = ["level", *(f"MSE, size {i + 1}" for i in range(most)), "HCL"]
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    table = f'<table class="rkd-table rkd-results"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    note = (
        f"Of one channel, the one in which the teacher varies most, over {len(snapshots.images)} images, after the "
        "last epoch, networks in evaluation mode; training averages over all channels and the images of a batch. "
        "HCL is their sum, each times its weight and divided by the normaliser; the percentage is a size's share of it."
    )
    return f'{scrolling(table)}<p class="rkd-note">{note}</p>'


def pyramid_sentence(snapshots: Snapshots, options: ReviewOptions) -> str:
    """What pooling does to the difference, in words made from the numbers alone."""
    said = []
    for level in snapshots.levels:
        parts = sorted(comparisons(snapshots, level, options), key=lambda p: p.size)
        if not parts or parts[0].size == parts[-1].size or not parts[-1].mse():
            continue
        small, large = parts[0], parts[-1]
        share = 100 * small.mse() / large.mse()
        said.append(f"{share:.0f} % at {level} ({large.size} × {large.size} to {small.size} × {small.size})")
    if not said:
        return "At no level are two sizes compared."
    return (
        f"Pooling to the smallest size leaves, of the largest one's mean squared error, {', '.join(said)}; the rest "
        "only the larger sizes see."
    )


def _grid(snapshots: Snapshots, level: str, options: ReviewOptions, image: int) -> str:
    """One level as HTML: a column per size; student, teacher and difference below one another."""
    parts = comparisons(snapshots, level, options)
    if not parts:
        return "<p>No size of the pyramid fits this level: it adds nothing to the loss.</p>"
    bound = _bound(parts, image)
    side = "".join(f"<span>{name}</span>" for name in ROWS)
    heads = ["<div></div>", *(f"<div><b>{p.size} × {p.size}</b></div>" for p in parts)]
    cells = [f'<div class="rkd-side">{side}</div>']
    for p in parts:
        maps = np.stack([getattr(p, name)[image] for name in ROWS])
        said = f"{', '.join(ROWS)} at {level} pooled to {p.size} × {p.size}, MSE {p.mse(image):.3g}"
        cells.append(img(column(maps, COLOURS, -bound, bound), said, "rkd-framed"))
    feet = ["<div></div>"]
    feet += [f'<div class="rkd-foot">MSE {p.mse(image):.3g}<br>weight {p.listed:g}</div>' for p in parts]
    style = f"grid-template-columns: minmax(3.2rem, auto) repeat({len(parts)}, minmax(0, 150px))"
    total = sum(p.weight * p.mse(image) for p in parts)
    words = " + ".join(f"{p.weight:.3g} · {p.mse(image):.3g}" for p in parts)
    legend = scale(
        COLOURS,
        (f"−{bound:.2g}", "0", f"{bound:.2g}"),
        f"One scale for all maps of this level. HCL of this channel and image: {words} = {total:.3g}.",
    )
    return f'<div class="rkd-grid" style="{style}">{"".join([*heads, *cells, *feet])}</div>{legend}'


def _bound(parts: list[Comparison], image: int) -> float:
    """Largest magnitude among the maps of a level: the scale's ends. Not 0, so that equal maps can be drawn."""
    largest = max(float(np.abs(getattr(p, name)[image]).max()) for p in parts for name in ROWS)
    return largest or 1.0


def _pooled(maps: np.ndarray, size: int, pooling: str) -> np.ndarray:
    """(N, h, w) -> (N, size, size)."""
    if size == maps.shape[-2]:
        return maps
    pool = F.adaptive_avg_pool2d if pooling == "average" else F.adaptive_max_pool2d
    return pool(torch.from_numpy(np.ascontiguousarray(maps)), size).numpy()
