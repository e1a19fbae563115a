"""Figures of the chapters (matplotlib and seaborn, static)."""

import math
from collections.abc import Mapping, Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.experiments.chapters import Line
from rkd.report.summary import Measured

# Okabe-Ito: told apart under every common colour blindness; shapes differ as well.
PUBLISHED_STYLE = {
    "ReviewKD paper": ("D", "#E69F00"),
    "[Re] paper": ("s", "#0072B2"),
    "[Re] README": ("^", "#56B4E9"),
}
OTHER_STYLE = ("v", "#999999")
MEASURED = "#D55E00"
CARD, INK, GRID = "#ffffff", "#222222", "#dddddd"


def dot_plot(lines: Sequence[Line], measured: Mapping[str, Measured], here: str, together: bool) -> Figure:
    """Published values and measured runs, one row per line; dots are seeds, the bar is the mean, its whiskers one
    sample standard deviation.

    Args:
        lines, measured: of the chapter.
        here: name of this execution.
        together: one axis for both (evidence), else two side by side, each with its own scale (accuracies of a short
            run on other data stand nowhere near the published ones).
    """
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.edgecolor": INK})
    height = 1.3 + 0.36 * len(lines) + 0.3 * len({line.group for line in lines if line.group})
    figure = Figure(figsize=(9.2, height), facecolor=CARD, layout="constrained")
    if together:
        left = right = figure.subplots()
    else:
        left, right = figure.subplots(1, 2, sharey=True)
    places = _places(lines)
    for line in lines:
        y = places[line.key]
        for p in line.published:
            marker, colour = PUBLISHED_STYLE.get(p.source, OTHER_STYLE)
            label = p.source if p.source in PUBLISHED_STYLE else "other sources"
            left.plot(
                p.value,
                y - (0.16 if together else 0),
                marker,
                color=colour,
                markersize=7,
                label=label,
                zorder=3,
            )
        _seeds(right, measured[line.key], y + (0.16 if together else 0))
    for ax in {left, right}:
        ax.set_yticks(list(places.values()), [line.label for line in lines])
        ax.grid(axis="x", color=GRID)
        ax.grid(axis="y", color=GRID, linewidth=0.5)
        ax.set_axisbelow(True)
        sns.despine(ax=ax)
    left.set_ylim(max(places.values()) + 0.7, -0.9)
    _groups(left, lines, places)
    if together:
        left.set_xlabel("test accuracy, %")
    else:
        low, high = left.get_xlim()
        if high - low < 1:  # a lone value, or nearly equal ones: no spurious precision on the axis
            left.set_xlim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
        left.set_title("published", fontsize=11)
        right.set_title(f"measured: {here}", fontsize=11)
        left.set_xlabel("test accuracy on CIFAR-100, %")
        right.set_xlabel("test accuracy in this execution, %")
    _legend(figure, [left, right])
    return figure


def weight_plot(lines: Sequence[Line], measured: Mapping[str, Measured], here: str) -> Figure:
    """Figure 6: accuracy against the loss weight, seeds as dots, their mean as a line, the claimed range shaded."""
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.edgecolor": INK})
    figure = Figure(figsize=(8.2, 4.4), facecolor=CARD, layout="constrained")
    ax = figure.subplots()
    ax.axvspan(0.5, 1.0, color="#0072B2", alpha=0.12, label="best range, as published", linewidth=0)
    swept = sorted((line for line in lines if line.x is not None), key=lambda line: line.x)
    means = [(line.x, measured[line.key].mean()) for line in swept if measured[line.key].last]
    if means:
        ax.plot(
            *zip(*means, strict=True), "-o", color=MEASURED, markersize=6, label=f"mean over seeds, {here}"
        )
    for i, line in enumerate(swept):
        values = measured[line.key].last
        ax.plot(
            [line.x] * len(values),
            values,
            "o",
            color=MEASURED,
            alpha=0.35,
            markersize=5,
            label=None if i else "single seeds",
        )
    for line in lines:
        if line.role != "distilled" and measured[line.key].last:
            style = {"teacher": "--", "student": ":"}[line.role]
            ax.axhline(measured[line.key].mean(), color=INK, linestyle=style, linewidth=1.2, label=line.label)
    ax.set_xlabel("weight of the review loss")
    ax.set_ylabel("test accuracy, %")
    ax.set_xticks([line.x for line in swept])
    ax.grid(color=GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _places(lines: Sequence[Line]) -> dict[str, float]:
    """Row of each line, with a gap for the heading of each group."""
    places, y, group = {}, 0.0, None
    for line in lines:
        if line.group and line.group != group:
            y += 0.8 if group is None else 1.0
            group = line.group
        places[line.key] = y
        y += 1.0
    return places


def _groups(ax: Axes, lines: Sequence[Line], places: Mapping[str, float]) -> None:
    seen = set()
    for line in lines:
        if line.group and line.group not in seen:
            seen.add(line.group)
            ax.text(
                0.0,
                places[line.key] - 0.62,
                line.group,
                transform=ax.get_yaxis_transform(),
                fontsize=9,
                fontweight="bold",
            )


def _seeds(ax: Axes, m: Measured, y: float) -> None:
    if not m.last:
        return
    ax.plot(m.last, [y] * len(m.last), "o", color=MEASURED, alpha=0.4, markersize=5, label="seeds", zorder=2)
    spread = m.spread()
    ax.errorbar(
        m.mean(), y, xerr=None if math.isnan(spread) else spread, fmt="|", color=MEASURED, markersize=13,
        markeredgewidth=2.5, capsize=3, label="mean ± sd", zorder=4,
    )  # fmt: skip


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=min(5, len(entries)),
            frameon=False,
        )
