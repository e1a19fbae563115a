"""Figures of the audit chapter: matplotlib on a light card, each with its alternative text."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.audit.pyramid import Pooled
from rkd.report.diagrams import CARD, INK, Drawing, show

# Okabe-Ito's blue, vermilion and green, dark enough for lines on a light card.
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"


def schedule(table: pd.DataFrame) -> Drawing:
    """`rkd.audit.training.schedules`: learning rate around its first fall, review weight over its first epochs."""
    figure, (left, right) = _figure(7.2, 2.9, 1, 2)
    near = table[(table["epoch"] >= 146) & (table["epoch"] <= 155)]
    left.step(near["epoch"], near["decayed before"], where="post", color=BLUE, label="text", linewidth=2)
    left.step(
        near["epoch"],
        near["decayed after"],
        where="post",
        color=RED,
        label="codes",
        linewidth=2,
        linestyle="--",
    )
    left.set(xlabel="epoch, from 0", ylabel="learning rate", ylim=(0, 0.115), xticks=range(146, 156, 2))
    first = table[table["epoch"] <= 40]
    right.plot(first["epoch"], first["no warm-up"], color=BLUE, label="[Re] code", linewidth=2)
    right.plot(
        first["epoch"], first["warm-up"], color=RED, label="released code", linewidth=2, linestyle="--"
    )
    right.set(xlabel="epoch, from 0", ylabel="share of λ in force", ylim=(0, 1.12))
    for ax, place in ((left, "upper right"), (right, "lower right")):
        ax.legend(frameon=False, loc=place)
    return show(
        figure,
        "Left: the text's learning rate falls from 0.1 to 0.01 at epoch 150, the codes' at epoch 151. Right: the "
        "review loss has its full weight from the start in the [Re] code, and from epoch 20 in the released code.",
        width=720,
    )


def drift(table: pd.DataFrame) -> Drawing:
    """`rkd.audit.teacher.drift`."""
    figure, (ax,) = _figure(6.0, 3.0, 1, 1)
    styles = {
        "fed as trained": (BLUE, "-"),
        "fed other statistics": (RED, "--"),
        "this package": (GREEN, ":"),
    }
    for name, (colour, line) in styles.items():
        ax.plot(table["step"], table[name], color=colour, linestyle=line, linewidth=2, label=name)
    ax.set(xlabel="steps in training mode", ylabel="shift of running means, sd")
    ax.legend(frameon=False)
    last = table.iloc[-1]
    return show(
        figure,
        "Shift of the running means in the layer that moves most, in standard deviations, after "
        f"{last['step']:.0f} steps: " + "; ".join(f"{name} {last[name]:.3f}" for name in styles) + ".",
        width=600,
    )


def pooling(pooled: Pooled) -> Drawing:
    """`rkd.audit.pyramid.average_and_max`: both maps at every size, averages above, maxima below."""
    figure, axes = _figure(6.4, 5.6, 4, 4)
    limit = max(pooled.student.abs().max().item(), pooled.teacher.abs().max().item())
    rows = [(kind, side) for kind in ("average", "max") for side in (0, 1)]
    for row, (kind, side) in enumerate(rows):
        for column, size in enumerate((8, 4, 2, 1)):
            ax = axes[4 * row + column]
            ax.grid(False)
            ax.spines[:].set_visible(False)
            ax.imshow(pooled.maps[kind, size][side].numpy(), cmap="PuOr", vmin=-limit, vmax=limit)
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(f"{size} × {size}", fontsize=11)
            if column == 0:
                ax.set_ylabel(f"{kind},\n{('student', 'teacher')[side]}", rotation=0, ha="right", va="center")
    terms = pooled.terms.set_index("pooling")
    said = "; ".join(
        f"{size}: {terms.loc['average', size]:.2f} with averages, {terms.loc['max', size]:.2f} with maxima"
        for size in terms.columns
    )
    return show(
        figure,
        f"One pair of maps, pooled by averages and by maxima. Mean squared differences at {said}.",
        640,
    )


def table3(table: pd.DataFrame) -> Drawing:
    """`rkd.audit.printed.table3`: the rows of Table 3 above the undistilled student."""
    figure, (ax,) = _figure(7.0, 3.3, 1, 1)
    alone = float((table["accuracy"] - table["above the student alone"]).iloc[0])
    places = range(len(table))
    ax.axvline(alone, color=INK, linestyle=":", linewidth=1.5)
    ax.text(alone + 0.03, -0.75, "student alone", fontsize=10, color=INK, va="center")
    colours = [RED if i < 3 else BLUE for i in places]
    ax.hlines(places, alone, table["accuracy"], color=colours, linewidth=2)
    ax.scatter(table["accuracy"], places, color=colours, zorder=3, s=45)
    for i, value in enumerate(table["accuracy"]):
        ax.text(value + 0.06, i, f"{value:.2f}", va="center", fontsize=10, color=INK)
    ax.text(70.3, 1, "script without\nthe teacher's weights", color=RED, fontsize=10, va="center")
    ax.set(yticks=list(places), yticklabels=table["row"], ylim=(5.6, -1.1), xlim=(alone - 0.15, 72.25))
    ax.set_xlabel("accuracy as published, %")
    said = "; ".join(f"{row.row} {row.accuracy:.2f}" for row in table.itertuples())
    return show(
        figure,
        f"Accuracies of Table 3 in percent, above the student alone at {alone:.2f}: {said}. The first three rows "
        "belong to the script that does not load its teacher.",
        width=700,
    )


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), facecolor=CARD, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_facecolor(CARD)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=INK)
        ax.grid(color="#dddddd")
        ax.set_axisbelow(True)
    return figure, axes
