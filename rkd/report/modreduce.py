"""What the chapter on ModReduce shows beside the common table: its three students, their group, and its weights."""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import seaborn as sns
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rkd.experiments.chapters import Line
from rkd.methods.modreduce import AGGREGATIONS, STUDENTS, student_accuracies
from rkd.records import Record
from rkd.report.diagrams import Drawing, show
from rkd.report.figures import CARD, GRID, INK
from rkd.report.page import Page
from rkd.report.summary import Measured, measure_values, same_runs
from rkd.report.tables import badge, numbers, table_of

COLOURS = {"response": "#0072B2", "relational": "#D55E00", "feature": "#009E73"}
MARKERS = {"response": "o", "relational": "s", "feature": "^"}


def best_student(record: Record, which: str = "best") -> tuple[str, float]:
    """The best of a run's three students, and its test accuracy in percent at the "last" or its "best" epoch."""
    found = student_accuracies(record, which)
    name = max(found, key=found.__getitem__)
    return name, found[name]


def students_table(page: Page) -> HTML:
    """One row per line of ModReduce: each student and the group at the last epoch, and the best student with and
    without choosing its epoch on the test set."""
    heads = [
        "", "published", *(f"{name} student" for name in STUDENTS), "group", "best student, last epoch",
        "best student, best epoch", "which",
    ]  # fmt: skip
    rows, group = [], None
    for line in _modreduce_lines(page.lines):
        if line.group != group:
            group = line.group
            rows.append(
                f'<tr class="rkd-group"><th colspan="{len(heads)}" scope="rowgroup">{html.escape(group)}</th></tr>'
            )
        measured = page.measured[line.key]
        records = measured.finished
        printed = ", ".join(f"{value:.2f}" for value in dict.fromkeys(p.value for p in line.published))
        cells = [printed or '<span class="rkd-note">not published</span>']
        for name in STUDENTS:
            cells.append(_cell(measured, [student_accuracies(record)[name] for record in records]))
        cells.append(_cell(measured, [record.result["last_accuracy_group"] for record in records]))
        for which in ("last", "best"):
            cells.append(_cell(measured, [best_student(record, which)[1] for record in records]))
        cells.append(html.escape(_which(records)))
        rows.append(
            f'<tr><th scope="row">{html.escape(line.label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    note = (
        '<p class="rkd-note">The README gives one number per pair and does not say of which student; the paper\'s '
        "abstract says that only the best of the three is used, and the code keeps each student's best epoch on the "
        "test set. <em>Best student, best epoch</em> is therefore what stands nearest to the published number: a "
        "maximum over three students and all epochs, chosen on the very images it is measured on. <em>Which</em> "
        "counts, over seeds, the student it was. <em>Group</em> is the ensemble of all three, three times the cost of "
        "a student in use.</p>"
    )
    return HTML(table_of(heads, rows, "rkd-students") + note)


def weights_figure(page: Page) -> Drawing:
    """Shares of the three students in the group over time, one panel per aggregation, and the share of online
    learning; thin lines are seeds, thick ones their mean."""
    lines = [line for line in page.lines if line.key.rpartition("-modreduce-")[2] in AGGREGATIONS]
    return show(
        _panels(lines, page.measured),
        f"Shares of the students in the group over the epochs. {_said(lines, page.measured)}",
    )


def _panels(lines: Sequence[Line], measured: Mapping[str, Measured]) -> Figure:
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.edgecolor": INK})
    columns = min(3, max(1, len(lines)))
    rows = -(-max(1, len(lines)) // columns)
    figure = Figure(figsize=(9.2, 2.5 * rows + 0.5), facecolor=CARD, layout="constrained")
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax, line in zip(axes, lines, strict=False):
        _panel(ax, line, measured[line.key].finished)
    for ax in axes[len(lines) :]:
        ax.set_axis_off()
    handles = {
        label: handle
        for ax in figure.axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _panel(ax: Axes, line: Line, records: Sequence[Record]) -> None:
    ax.set_title(line.label.removeprefix("ModReduce, "), fontsize=11)
    ax.axhline(1 / 3, color=INK, linewidth=0.8, linestyle=":", label="one third")
    for name in STUDENTS:
        series = [record.curves[f"weight_{name}"] for record in records]
        for values in series:
            ax.plot(range(1, len(values) + 1), values, color=COLOURS[name], alpha=0.3, linewidth=0.9)
        if series:
            mean = np.mean(series, axis=0)
            ax.plot(
                range(1, len(mean) + 1), mean, color=COLOURS[name], marker=MARKERS[name], linewidth=2,
                markersize=4, markevery=max(1, len(mean) // 8), label=f"{name} student",
            )  # fmt: skip
    if records:
        online = records[0].curves["online_share"]
        ax.plot(range(1, len(online) + 1), online, "--", color="#999999", label="online share (PCL: weight)")
    else:
        ax.text(0.5, 0.6, "nothing measured", transform=ax.transAxes, ha="center")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.tick_params(labelbottom=True)
    ax.set_ylabel("share")
    ax.grid(color=GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)


def _said(lines: Sequence[Line], measured: Mapping[str, Measured]) -> str:
    parts = []
    for line in lines:
        records = measured[line.key].finished
        if records:
            last = [np.mean([r.curves[f"weight_{name}"][-1] for r in records]) for name in STUDENTS]
            ends = ", ".join(f"{name} {value:.2f}" for name, value in zip(STUDENTS, last, strict=True))
            parts.append(f"{line.label} ends at {ends}")
    return "; ".join(parts) + "." if parts else "Nothing measured."


def _modreduce_lines(lines: Sequence[Line]) -> list[Line]:
    """Lines of ModReduce; one whose runs an earlier one has is left out."""
    repeated = same_runs(lines)
    return [line for line in lines if line.runs[0].method == "modreduce" and line.key not in repeated]


def _cell(measured: Measured, values: Sequence[float]) -> str:
    if values:
        return numbers(measure_values(values, measured.finished), "last")
    return badge("diverged", "diverged") if measured.diverged else badge("missing", "missing")


def _which(records: Iterable[Record]) -> str:
    """How often each student was the best: "relational 2, feature 1"."""
    winners = [best_student(record)[0] for record in records]
    return ", ".join(f"{name} {winners.count(name)}" for name in STUDENTS if name in winners)
