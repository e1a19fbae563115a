"""The pictures of the live page, each with an alternative text: curves and attention maps."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rkd.experiments.snapshots import Snapshots
from rkd.report.diagrams import Drawing, show

# Okabe-Ito: told apart under every common colour blindness; line styles and markers differ as well.
STYLES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"))


def training_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], epochs: int) -> list[Drawing]:
    """Test accuracy, cross-entropy and the method's losses against epochs, with and without distillation.

    Args:
        curves: per-epoch values by what the run is, as far as there are any.
        epochs: of the students' runs.
    """
    both = {name: curves.get(name, {}) for name in ("with distillation", "without distillation")}
    best = max(curves.get("teacher", {}).get("test_accuracy", ()), default=None)
    accuracy, entropy = (
        {name: of.get(curve, ()) for name, of in both.items()} for curve in ("test_accuracy", "loss_ce")
    )
    distilled = both["with distillation"]
    losses = {
        name[5:]: of for name, of in distilled.items() if name.startswith("loss_") and name != "loss_ce"
    }
    return [
        line_chart("test accuracy, %", accuracy, epochs, best),
        line_chart("cross-entropy, nats", entropy, epochs),
        line_chart("losses of the method", losses, epochs),
    ]


def line_chart(
    title: str, lines: Mapping[str, Sequence[float]], epochs: int, teacher: float | None = None
) -> Drawing:
    """Values of every epoch from the first on, by label; `epochs` to leave room for, the teacher's best as a level."""
    figure = Figure(figsize=(4.2, 3.1), facecolor="white", layout="constrained")
    ax = figure.subplots()
    if teacher is not None:
        ax.axhline(teacher, color="#555555", linestyle=":", label="teacher, best")
    for i, (label, values) in enumerate(lines.items()):
        colour, style, marker = STYLES[i % len(STYLES)]
        look = {"color": colour, "linestyle": style, "marker": marker if len(values) <= 40 else ""}
        ax.plot(range(1, len(values) + 1), values, markersize=4.5, label=label, **look)
    ends = [
        f"{label} {values[-1]:.3g} after epoch {len(values)}" for label, values in lines.items() if values
    ]
    if not ends:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "after the first epoch", transform=ax.transAxes, ha="center", color="#666666")
    elif title.startswith("test accuracy"):
        ax.set_ylim(bottom=0)
    ax.set_xlim(0.7, max(epochs, 2) + 0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xlabel("epoch")
    ax.grid(color="#dddddd")
    ax.spines[["top", "right"]].set_visible(False)
    if lines:
        ax.legend(frameon=False, fontsize=9)
    return show(figure, f"{title}, against epochs: {'; '.join(ends) or 'no epoch is finished yet'}.", 360)


def attention_maps(snapshots: Snapshots, epoch: int, images: Sequence[int]) -> Drawing | None:
    """Attention after one of the epochs looked at: a row per image, two columns per level that fuses by attention; None
    where none does."""
    maps = {
        f"{level}\n{side}": found[:, i]
        for level in snapshots.levels
        if (found := snapshots.attention(epoch, level)) is not None
        for i, side in enumerate(("student map", "residual"))
    }
    if not maps:
        return None
    columns = {"image": snapshots.images, **maps}
    size = (1.3 * len(columns), 1.25 * len(images) + 0.75)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for column, (name, found) in zip(axes.T, columns.items(), strict=True):
        for ax, image in zip(column, images, strict=True):
            ax.imshow(found[image], cmap="viridis", vmin=0, vmax=1)  # ordered by lightness alone
            ax.set_axis_off()
        mean = f"\nmean {found[images].mean():.2f}" * (name in maps)
        column[0].set_title(name + mean, fontsize=9)
    means = "; ".join(f"{' '.join(name.split())} {found[images].mean():.2f}" for name, found in maps.items())
    named = ", ".join(snapshots.classes[image] for image in images)
    return show(
        figure, f"Attention maps after epoch {epoch}, of {named}; means: {means}.", 104 * len(columns)
    )
