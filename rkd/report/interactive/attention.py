"""The attention maps of ABF after chosen epochs: pictures to step through, their means, and what those say.

ABF weighs the student's own map by z1 and what the deeper level passed on, the residual, by z2 (ReviewKD section 3.2
and Figure 4a). Both lie between 0 and 1, and they need not sum to one.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rkd.experiments.snapshots import Snapshots
from rkd.report.diagrams import CARD, INK, QUIET, Drawing, show
from rkd.report.interactive.stack import SliderStack, slider_stack
from rkd.report.interactive.strips import column, img, photos, scale
from rkd.report.tables import scrolling

COLOURS = "viridis"  # perceptually uniform, and ordered by lightness alone for colour-blind readers
MEANING = (
    "Bright: the map passes in full at this position. Dark: it is left out. One scale for all maps, levels and epochs. "
    "z₁ weighs the student's own map, z₂ the residual."
)
WEIGHTS = (("z₁", "student map", "student"), ("z₂", "residual", "residual"))
# Okabe-Ito, as in the other figures; shapes differ as well.
LINES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#000000", "v"))


@dataclass(frozen=True)
class MeanWeight:
    """Attention of one level after one epoch, over images and positions.

    Attributes:
        epoch: number of finished epochs.
        level: its name.
        mean: of z1 (student map) and z2 (residual), each in [0, 1].
        spread: standard deviation of each over all images and positions.
    """

    epoch: int
    level: str
    mean: tuple[float, float]
    spread: tuple[float, float]


def attention_levels(snapshots: Snapshots) -> tuple[str, ...]:
    """Levels that fuse by attention, deep to shallow; none for a run that fuses otherwise."""
    last = snapshots.epochs[-1]
    return tuple(level for level in snapshots.levels if snapshots.attention(last, level) is not None)


def mean_weights(snapshots: Snapshots) -> list[MeanWeight]:
    """One entry per epoch and level with attention, epochs ascending, levels deep to shallow."""
    found = []
    for epoch in snapshots.epochs:
        for level in attention_levels(snapshots):
            z = _attention(snapshots, epoch, level).astype(np.float64)
            mean, spread = z.mean(axis=(0, 2, 3)), z.std(axis=(0, 2, 3))
            found.append(MeanWeight(epoch, level, tuple(mean.tolist()), tuple(spread.tolist())))
    return found


def attention_stack(snapshots: Snapshots, title: str) -> SliderStack:
    """Images beside their attention maps at every level; the slider goes through the epochs and starts at the last.

    Args:
        snapshots: of a run with attention (see `attention_levels`).
        title: of the run, for the alternative texts.
    """
    drawn = _images(snapshots)
    total = snapshots.epochs[-1]
    return slider_stack(
        [_grid(snapshots, epoch, drawn) for epoch in snapshots.epochs],
        [f"after epoch {epoch} of {total}" for epoch in snapshots.epochs],
        "epoch",
        f"attention maps, {title}",
        below=f"<p>Images from top to bottom: {html.escape(', '.join(snapshots.classes))}.{unseen(snapshots)}</p>"
        + scale(COLOURS, ("0", "0.5", "1"), MEANING),
        start=len(snapshots.epochs) - 1,
        fallback=attention_figure(snapshots, title),
    )


def unseen(snapshots: Snapshots) -> str:
    """Says why images are grey, where they are."""
    return (
        ""
        if snapshots.pictured
        else " They are not shown: the data set is not on the machine that drew this."
    )


def attention_figure(snapshots: Snapshots, title: str, images: int = 3) -> Drawing:
    """The same on paper: maps of a few images after the first and the last epoch looked at."""
    levels = attention_levels(snapshots)
    epochs = list(dict.fromkeys((snapshots.epochs[0], snapshots.epochs[-1])))
    count = min(images, len(snapshots.images))
    columns = 1 + 2 * len(levels)
    figure = Figure(figsize=(1.12 * columns + 0.9, (1.08 * count + 0.75) * len(epochs)), facecolor=CARD)
    figure.set_layout_engine("constrained")
    for part, epoch in zip(figure.subfigures(len(epochs), 1, squeeze=False)[:, 0], epochs, strict=True):
        part.set_facecolor(CARD)
        part.suptitle(f"after epoch {epoch}", fontsize=11, color=INK, weight="bold")
        axes = part.subplots(count, columns, squeeze=False)
        for row in range(count):
            axes[row, 0].imshow(snapshots.images[row])
            for i, level in enumerate(levels):
                z = _attention(snapshots, epoch, level)[row]
                for side in range(2):
                    axes[row, 1 + 2 * i + side].imshow(z[side], cmap=COLOURS, vmin=0, vmax=1)
        axes[0, 0].set_title("image", fontsize=9, color=INK)
        for i, level in enumerate(levels):
            for side, name in enumerate(("$z_1$", "$z_2$")):
                axes[0, 1 + 2 * i + side].set_title(f"{level}\n{name}", fontsize=9, color=INK)
        for ax in axes.flat:
            ax.set_axis_off()
        legend = part.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=axes[:, -1].tolist(), aspect=30)
        legend.set_label("0 left out, 1 in full", fontsize=9, color=INK)
    named = ", ".join(snapshots.classes[:count])
    return show(
        figure,
        f"Attention maps z1 (student map) and z2 (residual) at {', '.join(levels)}, for images of {named}, after "
        f"epoch {' and '.join(map(str, epochs))}; {title}. {attention_sentence(snapshots)}",
    )


def means_figure(snapshots: Snapshots, title: str) -> Drawing:
    """Mean weights against epochs: a line per level, the student map's left, the residual's right."""
    means, levels = mean_weights(snapshots), attention_levels(snapshots)
    figure = Figure(figsize=(8.2, 3.3), facecolor=CARD, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for side, (ax, (_, name, _)) in enumerate(zip(axes, WEIGHTS, strict=True)):
        for level, (colour, marker) in zip(levels, _cycle(len(levels)), strict=True):
            own = [m for m in means if m.level == level]
            x, y = [m.epoch for m in own], [m.mean[side] for m in own]
            ax.plot(x, y, "-", marker=marker, color=colour, markersize=5, label=level)
        _dress(ax, f"{name}, $z_{side + 1}$", snapshots.epochs)
    axes[0].set_ylabel("mean weight", color=INK)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(levels), frameon=False)
    return show(figure, f"Mean attention weights against epochs, {title}. {attention_sentence(snapshots)}")


def means_table(snapshots: Snapshots) -> str:
    """HTML: mean (and spread) of both weights per level, after the first and the last epoch looked at."""
    epochs = list(dict.fromkeys((snapshots.epochs[0], snapshots.epochs[-1])))
    means = {(m.epoch, m.level): m for m in mean_weights(snapshots)}
    heads = [
        "level, size",
        *(f"{sign} {name}, epoch {epoch}" for epoch in epochs for sign, name, _ in WEIGHTS),
    ]
    rows = []
    for level in attention_levels(snapshots):
        h, w = _attention(snapshots, epochs[0], level).shape[-2:]
        cells = [
            f'<td><span class="rkd-number">{m.mean[side]:.2f}</span> '
            f'<span class="rkd-n">± {m.spread[side]:.2f}</span></td>'
            for m in (means[epoch, level] for epoch in epochs)
            for side in range(2)
        ]
        rows.append(f'<tr><th scope="row">{html.escape(level)}, {h} × {w}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    table = f'<table class="rkd-table rkd-results"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    note = (
        f"Mean ± standard deviation over {len(snapshots.images)} images and all positions of a map: the deviation "
        "tells how much the weight depends on where."
    )
    return f'{scrolling(table)}<p class="rkd-note">{note}</p>'


def attention_sentence(snapshots: Snapshots) -> str:
    """What the means say, in words made from the numbers alone."""
    means, levels = mean_weights(snapshots), attention_levels(snapshots)
    last = [m for m in means if m.epoch == snapshots.epochs[-1]]
    ahead = [m for m in last if m.mean[1] > m.mean[0]]
    each = "; ".join(f"{m.level}: {m.mean[1]:.2f} against {m.mean[0]:.2f}" for m in last)
    spreads = [s for m in last for s in m.spread]
    text = (
        f"After epoch {snapshots.epochs[-1]} the residual weighs more than the student's own map at {len(ahead)} of "
        f"{len(levels)} levels ({each}). Over images and positions the weights vary by a standard deviation of "
        f"{min(spreads):.2f} to {max(spreads):.2f}."
    )
    if len(snapshots.epochs) == 1:
        return text
    first = {m.level: m for m in means if m.epoch == snapshots.epochs[0]}
    moves = [
        (m.mean[side] - first[m.level].mean[side], WEIGHTS[side][0], m.level)
        for m in last
        for side in range(2)
    ]
    change, sign, level = max(moves, key=lambda move: abs(move[0]))
    by = f"{change:+.2f}".replace("-", "−")
    return f"{text} Since epoch {snapshots.epochs[0]}, {sign} at {level} changed most, by {by}."


def _images(snapshots: Snapshots) -> str:
    """The column of images; their names where they are not to be had."""
    if snapshots.pictured:
        return img(photos(snapshots.images), f"images of {', '.join(snapshots.classes)}, from top to bottom")
    names = "".join(f"<span>{html.escape(name)}</span>" for name in snapshots.classes)
    return f'<div class="rkd-side">{names}</div>'


def _grid(snapshots: Snapshots, epoch: int, drawn: str) -> str:
    """One epoch as HTML: a column of images, then two columns of maps per level."""
    levels = attention_levels(snapshots)
    over, heads = ["<div></div>"], ["<div>image</div>"]
    columns = [drawn]
    for level in levels:
        z = _attention(snapshots, epoch, level)
        size = f"{z.shape[-2]} × {z.shape[-1]}"
        over.append(f'<div style="grid-column: span 2"><b>{html.escape(level)}</b>{size}</div>')
        for side, (sign, name, short) in enumerate(WEIGHTS):
            mean = f"mean {z[:, side].mean():.2f}"
            heads.append(f"<div>{sign} {short}<br>{mean}</div>")
            said = f"weight {sign} of the {name} at {level} ({size}) after epoch {epoch}, {mean}"
            columns.append(img(column(z[:, side], COLOURS, 0, 1), said))
    style = f"grid-template-columns: repeat({1 + 2 * len(levels)}, 1fr)"
    return f'<div class="rkd-grid" style="{style}">{"".join([*over, *heads, *columns])}</div>'


def _attention(snapshots: Snapshots, epoch: int, level: str) -> np.ndarray:
    z = snapshots.attention(epoch, level)
    assert z is not None, f"{level} has no attention; see attention_levels"
    return z


def _cycle(count: int) -> list[tuple[str, str]]:
    return [LINES[i % len(LINES)] for i in range(count)]


def _dress(ax: Axes, title: str, epochs: Sequence[int]) -> None:
    ax.set_title(title, fontsize=11, color=INK)
    ax.set_xlabel("epoch", color=INK)
    ax.set_ylim(0, 1)
    ax.set_facecolor("white")
    if len(epochs) <= 6:
        ax.set_xticks(epochs)
    ax.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
