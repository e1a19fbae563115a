"""The attention maps of ABF after chosen epochs: pictures to step through, their means, and what those say.

ABF weighs the student's own map by z1 and what the deeper level passed on, the residual, by z2 (ReviewKD section 3.2
and Figure 4a). Both lie between 0 and 1, and they need not sum to one.
"""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from rkd.experiments.snapshots import Snapshots
from rkd.report.interactive.curves import COLOURS
from rkd.report.interactive.markup import Html, join, number, quiet, table, tag
from rkd.report.interactive.plot import Plot
from rkd.report.interactive.stack import Stack
from rkd.report.interactive.strips import column, img, photos, scale, tiles
from rkd.report.tables import scrolling

COLOUR_MAP = "viridis"  # perceptually uniform, and ordered by lightness alone for colour-blind readers
MEANING = (
    "Bright: the map passes in full at this position. Dark: it is left out. One scale for all maps, levels and epochs. "
    "z₁ weighs the student's own map, z₂ the residual."
)
WEIGHTS = (("z₁", "student map", "student"), ("z₂", "residual", "residual"))


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
            z = snapshots.attention(epoch, level).astype(np.float64)
            mean, spread = z.mean(axis=(0, 2, 3)), z.std(axis=(0, 2, 3))
            found.append(MeanWeight(epoch, level, tuple(mean.tolist()), tuple(spread.tolist())))
    return found


def attention_stack(snapshots: Snapshots) -> Stack:
    """Images beside their attention maps at every level; the slider goes through the epochs and starts at the last."""
    epochs = snapshots.epochs
    named = f"Images from top to bottom: {', '.join(snapshots.classes)}.{unseen(snapshots)}"
    return Stack(
        {f"after epoch {epoch} of {epochs[-1]}": _page(snapshots, epoch) for epoch in epochs},
        "epoch",
        slider=True,
        start=len(epochs) - 1,
        below=join(tag("p", named), scale(COLOUR_MAP, ("0", "0.5", "1"), MEANING)),
    )


def unseen(snapshots: Snapshots) -> str:
    """Says why images are grey, where they are."""
    return (
        ""
        if snapshots.pictured
        else " They are not shown: the data set is not on the machine that drew this."
    )


def _page(snapshots: Snapshots, epoch: int) -> Html:
    """One epoch: a column of images, then two columns of maps per level."""
    said = f"images of {', '.join(snapshots.classes)}, from top to bottom"
    heads, cells = ["image"], [img(photos(snapshots.images), said)]
    for level in attention_levels(snapshots):
        z = snapshots.attention(epoch, level)
        size = f"{z.shape[-2]} × {z.shape[-1]}"
        for side, (sign, name, short) in enumerate(WEIGHTS):
            mean = f"mean {z[:, side].mean():.2f}"
            lines = (size, f"{sign} {short}", mean)
            heads.append(join(tag("b", level), *(tag("div", line) for line in lines)))
            said = f"weight {sign} of the {name} at {level} ({size}) after epoch {epoch}, {mean}"
            cells.append(img(column(z[:, side], COLOUR_MAP, 0, 1), said))
    return tiles(heads, cells)


def means_plot(snapshots: Snapshots, title: str) -> Plot:
    """Mean weights against epochs: a colour per level, the student map's solid, the residual's dashed."""
    figure, means = go.Figure(), mean_weights(snapshots)
    for i, level in enumerate(attention_levels(snapshots)):
        own = [m for m in means if m.level == level]
        for side, (sign, name, _) in enumerate(WEIGHTS):
            figure.add_scatter(
                x=[m.epoch for m in own],
                y=[round(m.mean[side], 4) for m in own],
                mode="lines+markers",
                line={"color": COLOURS[i % len(COLOURS)], "width": 2, "dash": ("solid", "dash")[side]},
                name=f"{level}, {sign} {name}",
                legendgroup=f"{level}{side}",
                hovertemplate="%{y:.2f}",
            )
    axis = {"title": {"text": "epoch"}, "unifiedhovertitle": {"text": "epoch %{x}"}}
    weight = {"title": {"text": "mean weight"}, "range": [0, 1]}
    figure.update_layout(hovermode="x unified", xaxis=axis, yaxis=weight)
    said = f"Mean attention weights against epochs, {title}. {attention_sentence(snapshots)}"
    return Plot(figure, said, title="Mean attention weights", height=320)


def means_table(snapshots: Snapshots) -> Html:
    """Mean (and spread) of both weights per level, after the first and the last epoch looked at."""
    epochs = list(dict.fromkeys((snapshots.epochs[0], snapshots.epochs[-1])))
    means = {(m.epoch, m.level): m for m in mean_weights(snapshots)}
    heads = (
        "level, size",
        *(f"{sign} {name}, epoch {epoch}" for epoch in epochs for sign, name, _ in WEIGHTS),
    )
    rows = []
    for level in attention_levels(snapshots):
        h, w = snapshots.attention(epochs[0], level).shape[-2:]
        both = ((means[epoch, level], side) for epoch in epochs for side in range(2))
        cells = (join(number(f"{m.mean[side]:.2f}"), quiet(f" ± {m.spread[side]:.2f}")) for m, side in both)
        rows.append((f"{level}, {h} × {w}", *cells))
    note = (
        f"Mean ± standard deviation over {len(snapshots.images)} images and all positions of a map: the deviation "
        "tells how much the weight depends on where."
    )
    return join(Html(scrolling(table(rows, heads))), tag("p", note, class_="rkd-note"))


def attention_sentence(snapshots: Snapshots) -> str:
    """What the means say, in words made from the numbers alone."""
    means, levels = mean_weights(snapshots), attention_levels(snapshots)
    last = [m for m in means if m.epoch == snapshots.epochs[-1]]
    ahead = [m for m in last if m.mean[1] > m.mean[0]]
    each = "; ".join(f"{m.level}: {m.mean[1]:.2f} against {m.mean[0]:.2f}" for m in last)
    spreads = [s for m in last for s in m.spread]
    said = (
        f"After epoch {snapshots.epochs[-1]} the residual weighs more than the student's own map at {len(ahead)} of "
        f"{len(levels)} levels ({each}). Over images and positions the weights vary by a standard deviation of "
        f"{min(spreads):.2f} to {max(spreads):.2f}."
    )
    if len(snapshots.epochs) == 1:
        return said
    first = {m.level: m for m in means if m.epoch == snapshots.epochs[0]}
    moves = [(m.mean[i] - first[m.level].mean[i], WEIGHTS[i][0], m.level) for m in last for i in range(2)]
    change, sign, level = max(moves, key=lambda move: abs(move[0]))
    by = f"{change:+.2f}".replace("-", "−")
    return f"{said} Since epoch {snapshots.epochs[0]}, {sign} at {level} changed most, by {by}."
