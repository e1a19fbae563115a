"""Methods against pairs in one compact table, and their gains in one figure: for chapters whose lines are many."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd import published
from rkd.experiments.chapters import Line
from rkd.records import arithmetics
from rkd.report.figures import CARD, GRID, INK, MEASURED
from rkd.report.summary import Measured
from rkd.report.tables import differ, table_of

PUBLISHED = "#0072B2"
Cells = Mapping[tuple[str, str], tuple[Line, Measured]]  # (method, pair) -> its line and what was measured


@dataclass(frozen=True)
class Side:
    """Lines of one profile with what was measured of them, as (method, pair) -> cell."""

    cells: Cells
    pairs: tuple[str, ...]
    methods: tuple[str, ...]
    students: Mapping[str, tuple[Line, Measured]] = field(default_factory=dict)  # pair -> student alone

    def gain(self, pair: str, line: Line, m: Measured, which: str) -> float:
        """Points above the student alone; NaN where either is not measured, or of teacher and student themselves."""
        if line.role != "distilled" or pair not in self.students:
            return math.nan
        return m.mean(which) - self.students[pair][1].mean(which)

    def published_gain(self, pair: str, line: Line) -> float:
        """The same of the published values: of the source printed first, where it prints both."""
        if line.role != "distilled" or pair not in self.students:
            return math.nan
        alone = {p.source: p.value for p in self.students[pair][0].published}
        return next((p.value - alone[p.source] for p in line.published if p.source in alone), math.nan)


def side_of(lines: Sequence[Line], measured: Mapping[str, Measured]) -> Side:
    """Arrange lines: their group is the pair, their label the method."""
    cells = {(line.label, line.group): (line, measured[line.key]) for line in lines}
    students = {line.group: (line, measured[line.key]) for line in lines if line.role == "student"}
    pairs = tuple(dict.fromkeys(line.group for line in lines))
    return Side(cells, pairs, tuple(dict.fromkeys(line.label for line in lines)), students)


def printed_means() -> dict[str, str]:
    """Row -> mean of the four columns and gain, as KnowledgeDistillation's README prints them."""
    found: dict[str, str] = {}
    for row in published.load(source="knowledge_distillation", dataset="avg").itertuples():
        method = "student alone" if row.method == "baseline" else row.method
        found[method] = row.value if row.metric == "top1_acc_percent" else f"{found[method]} ({row.value})"
    return found


def grid_table(here: Side, recorded: Side, which: str, means: Mapping[str, str] | None = None) -> str:
    """One row per method, one column per pair; in each cell what was measured, above what is published.

    Args:
        here: of this execution. Its pairs that `recorded` has not come first.
        recorded: of the paper profile: its published values, and what is recorded of it. A cell that this execution has
            too shows this execution's.
        which: "last" or "best" epoch.
        means: method -> mean over all pairs as a source prints it; adds a column, measured where every pair of
            `recorded` is.
    """
    named = differ(m for side in (here, recorded) for _, m in side.cells.values())
    pairs = list(dict.fromkeys([*(p for p in here.pairs if p not in recorded.pairs), *recorded.pairs]))
    methods = list(dict.fromkeys([*recorded.methods, *here.methods]))
    rows = []
    for method in methods:
        shown = {pair: _cell(here, recorded, method, pair, which, named) for pair in pairs}
        columns = list(shown.values())
        if means is not None:
            columns.append(_mean_cell(here, recorded, method, which, means))
        rows.append(f'<tr><th scope="row">{html.escape(method)}</th>{"".join(columns)}</tr>')
    heads = [
        f"{'best' if which == 'best' else 'last'} epoch, %",
        *pairs,
        *(["mean"] if means is not None else []),
    ]
    note = (
        '<p class="rkd-note">In each cell: the mean over seeds, and its gain over the student alone; below it, '
        "in small print, what is published. A dash: not measured.</p>"
    )
    return table_of(heads, rows, "rkd-grid") + note


def _cell(here: Side, recorded: Side, method: str, pair: str, which: str, named: bool) -> str:
    side = here if (method, pair) in here.cells else recorded
    if (method, pair) not in side.cells:
        return "<td></td>"
    line, m = side.cells[(method, pair)]
    gain = side.gain(pair, line, m, which)
    said = _said(line)
    if m.last:
        spread = m.spread(which)
        sure = "one run" if math.isnan(spread) else f"sd {spread:.2f} over {len(m.last)} runs"
        number = f'<span class="rkd-number" title="{sure}">{m.mean(which):.2f}</span>{_signed(gain)}'
        number += f' <span class="rkd-n">{html.escape(arithmetics(m.finished))}</span>' if named else ""
    else:
        number = f'<span class="rkd-number">{"diverged" if m.diverged else "–"}</span>'
    return f"<td>{number}{said}</td>"


def _mean_cell(here: Side, recorded: Side, method: str, which: str, means: Mapping[str, str]) -> str:
    found = []
    for pair in recorded.pairs:
        side = here if (method, pair) in here.cells else recorded
        if (method, pair) in side.cells:
            found.append(side.cells[(method, pair)][1].mean(which))
    whole = len(found) == len(recorded.pairs) and not any(math.isnan(v) for v in found)
    number = f"{sum(found) / len(found):.2f}" if whole else "–"
    said = f'<div class="rkd-source">{html.escape(means[method])}</div>' if method in means else ""
    return f'<td><span class="rkd-number">{number}</span>{said}</td>'


def _said(line: Line) -> str:
    values = list(dict.fromkeys(f"{p.value:.2f}" for p in line.published))
    if not values:
        return ""
    title = "; ".join(f"{p.source} {p.value:.2f}{': ' + p.note if p.note else ''}" for p in line.published)
    return f'<div class="rkd-source" title="{html.escape(title, quote=True)}">{" / ".join(values)}</div>'


def _signed(gain: float) -> str:
    return (
        "" if math.isnan(gain) else f' <span class="rkd-n">{"+" if gain >= 0 else "−"}{abs(gain):.2f}</span>'
    )


def gain_plot(here: Side, recorded: Side, name: str, which: str, together: bool) -> Figure:
    """Gain of each method over the student alone: one row per method, one mark per pair, published and measured.

    Args:
        here, recorded: see `grid_table`; published gains are those of `recorded`, measured ones of `here`.
        name: of this execution.
        which: "last" or "best" epoch.
        together: one axis for both (evidence), else two side by side with scales of their own.
    """
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.edgecolor": INK})
    published = _gains(recorded, lambda side, pair, line, _: side.published_gain(pair, line))
    measured = _gains(here, lambda side, pair, line, m: side.gain(pair, line, m, which))
    methods = list(dict.fromkeys([*published, *measured]))
    figure = Figure(figsize=(9.2, 1.5 + 0.34 * len(methods)), facecolor=CARD, layout="constrained")
    if together:
        left = right = figure.subplots()
    else:
        left, right = figure.subplots(1, 2, sharey=True)
    shift = 0.15 if together else 0.0
    _marks(left, methods, published, -shift, "s", PUBLISHED, "published, one per pair", filled=False)
    _marks(right, methods, measured, shift, "o", MEASURED, f"measured, {name}", filled=True)
    for ax in {left, right}:
        ax.axvline(0, color=INK, linewidth=1)
        ax.set_yticks(range(len(methods)), methods)
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        sns.despine(ax=ax)
        ax.set_xlabel("points above the student alone")
    left.set_ylim(len(methods) - 0.4, -0.6)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def gains_in_words(here: Side, which: str) -> str:
    """The mean gain of each method over the measured pairs."""
    measured = _gains(here, lambda side, pair, line, m: side.gain(pair, line, m, which))
    said = [f"{method} {sum(v) / len(v):+.2f}" for method, v in measured.items()]
    return ", ".join(said) or "nothing measured"


def _gains(side: Side, of: object) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for (method, pair), (line, m) in side.cells.items():
        value = of(side, pair, line, m)
        if not math.isnan(value):
            found.setdefault(method, []).append(value)
    return found


def _marks(
    ax: Axes,
    methods: Sequence[str],
    gains: Mapping[str, Sequence[float]],
    shift: float,
    marker: str,
    colour: str,
    label: str,
    *,
    filled: bool,
) -> None:
    """Each pair's gain as a mark, their mean as a bar."""
    for method, values in gains.items():
        y = methods.index(method) + shift
        face = colour if filled else "none"
        ax.plot(
            values,
            [y] * len(values),
            marker,
            color=colour,
            markerfacecolor=face,
            alpha=0.6,
            markersize=6,
            label=label,
        )
        ax.plot([sum(values) / len(values)], [y], "|", color=colour, markersize=13, markeredgewidth=2.5)
        label = None  # once in the legend
