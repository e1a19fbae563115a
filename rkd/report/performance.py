"""What the performance chapter calls: a measurement made as the page runs, those on file, the report's cost."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import seaborn as sns
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rkd import models, paths
from rkd.bench import Request, Result, Row, costs, measure
from rkd.bench.gate import SECTION, committed
from rkd.bench.gate import table as gate_table
from rkd.bench.measurement import BATCH_NORMS
from rkd.bench.result import KIND, files
from rkd.bench.tables import MODES, Table, command, header_lines, times, title, work
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.runner import pick_device
from rkd.experiments.workspace import store_for
from rkd.records import Store
from rkd.report.book import write_mark
from rkd.report.diagrams import Drawing, show
from rkd.report.figures import CARD, GRID, INK
from rkd.report.tables import table_of
from rkd.training import RunConfig

CHAPTER = "performance"
# Parameters beside those of the other chapters, their types, and what they must be.
OWN = {
    "seconds": (int | float, "a number"),
    "group": (int, "a whole number"),
    "recorded": (str, "the path of a file"),
}
SHORT, LONG = 20.0, 100.0  # seconds of a measurement: of a demonstration, and with the paper profile
# Okabe-Ito, as in the other figures.
CONVENTIONAL, SINGLE, LOW, FLOOR = "#999999", "#56B4E9", "#E69F00", "#000000"


def open_performance(namespace: Mapping[str, Any]) -> "PerformancePage":
    """Open the chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return PerformancePage(parameters.given_in(namespace, OWN))


class PerformancePage:
    """The executed chapter.

    Args:
        given: explicit parameters.
        folder: of recorded measurements; None: results/bench.
        paper: records of the paper profile; None: the project's.
    """

    def __init__(
        self, given: Mapping[str, Any], folder: Path | None = None, paper: Store | None = None
    ) -> None:
        own = {name: given[name] for name in OWN if name in given}
        for name, value in own.items():
            kind, words = OWN[name]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; it must be {words}")
        shared = {name: value for name, value in given.items() if name not in OWN}
        self.settings = s = parameters.resolve(CHAPTER, shared)
        profile = Path(s.profile).stem
        standing = parameters.load_profile(s.profile)
        precision = given.get("precision", "auto")
        if precision == standing.get("precision"):  # that of the profile's runs, not of this page
            precision = "auto"
        self.request = Request(
            teacher=s.teacher,
            student=s.student,
            batch_size=s.batch_size or 128,
            device=s.device,
            threads=s.threads,
            precisions=tuple(dict.fromkeys(("fp32", precision))),
            batch_norms=BATCH_NORMS if s.teacher_batch_norm is None else (s.teacher_batch_norm,),
            group=own.get("group", 1),
            compile="engine" if s.compile else "no",
            seconds=own.get("seconds", LONG if profile == "paper" else SHORT),
        )
        pick_device(self.request.device)
        self.folder = paths.home() / "results" / "bench" if folder is None else folder
        self.paper = store_for("paper") if paper is None else paper
        self.result: Result | None = None
        self._file = None if "recorded" not in own else paths.home() / own["recorded"]
        if self._file is not None:
            self.result = Result.load(self._file)
        display(HTML(self._banner()))

    def measure(self) -> HTML:
        """Measure now, or take the file that was named; shows where and when."""
        if self.result is None:
            handle = display({"text/plain": "preparing"}, raw=True, display_id=True)

            def say(text: str) -> None:
                handle.update({"text/plain": text}, raw=True)

            self.result = measure(self.request, say)
            handle.update({"text/html": ""}, raw=True)
        return HTML(header_table(self.result))

    def table(self) -> HTML:
        """Times and ratios."""
        return HTML(shown(times(self._done())))

    def work(self) -> HTML:
        """Operations, floating-point operations, and what part of their floor is reached."""
        return HTML(shown(work(self._done())))

    def figure(self) -> Drawing:
        """Time of a step against its floor."""
        result = self._done()
        rows = (f"{r.name}, {MODES[r.variant.batch_norm]}: {r.median_ms:.1f} ms" for r in result.rows)
        said = f"{title(result.header)}. Time of one step of one student, median: {'; '.join(rows)}."
        return show(step_bars(result), said)

    def recorded(self) -> HTML:
        """Measurements on file, each under its own header."""
        found = [Result.load(path) for path in files(self.folder, KIND)]
        parts = [header_table(result) + shown(times(result)) for result in found]
        return HTML("".join(parts) or _note("No measurement is recorded in this copy."))

    def gates(self) -> HTML:
        """Accuracies in fp32 and in the quicker arithmetic, seed by seed."""
        found = "".join(shown(gate_table(gate)) for gate in committed(self.folder))
        found = found or _note("No paired accuracies are recorded in this copy.")
        return HTML(f'<div id="{SECTION}">{found}</div>')

    def costs(self) -> HTML:
        """Sizes of the pairs of Tables 1 and 2, and the multiply-adds of a step."""
        return HTML(cost_table(costs.pair_costs()))

    def spent(self) -> HTML:
        """Time the recorded runs of the paper profile took, and what the whole of it comes to at measured rates."""
        runs = costs.paper_runs()
        return HTML(spent_table(runs, self.paper) + projection_table(runs, self.paper, self._sources()))

    def done(self) -> HTML:
        """What repeats this measurement. The chapter's last act."""
        used = costs.recorded(costs.once(costs.paper_runs()), self.paper)
        write_mark(CHAPTER, list(used), self.paper.records)
        return HTML(f"<p>Again: <code>{html.escape(command(self._done().header))}</code></p>")

    def _done(self) -> Result:
        if self.result is None:
            raise ConfigError("call page.measure() before this cell")
        return self.result

    def _sources(self) -> list[tuple[str, Result]]:
        live = "this page's measurement" if self._file is None else f"the measurement {self._file.name}"
        others = [(f"the measurement {path.name}", Result.load(path)) for path in files(self.folder, KIND)]
        return [(live, self._done()), *others]

    def _banner(self) -> str:
        kind, text = "smoke", (
            f"<strong>Timed while this page was executed</strong>, in about {self.request.seconds:g} s, on whatever "
            "machine that was and beside whatever else it was doing: the load average tells. Ratios are taken step by "
            "step in one process and bear this better than times do."
        )  # fmt: skip
        if self._file is not None:
            name = f"<code>{html.escape(self._file.name)}</code>"
            kind, text = "mini", f"The measurement is read from {name}; nothing is timed now."
        return f'<div class="rkd-callout {kind}"><p>{text}</p></div>'


# --- tables ------------------------------------------------------------------------------------------------------


def shown(table: Table, kind: str = "rkd-results") -> str:
    """A table as HTML, with a heading over each named group of its rows."""
    rows = []
    for name, group in table.groups.items():
        if name:
            heading = f'<th colspan="{len(table.heads)}" scope="rowgroup">{html.escape(name)}</th>'
            rows.append(f'<tr class="rkd-group">{heading}</tr>')
        for first, *rest in group:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
            rows.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    heads = table.heads if any(table.heads) else []
    return table_of(heads, rows, kind) + (_note(table.note) if table.note else "")


def header_table(result: Result) -> str:
    """Where, when and how, and what has to be known."""
    return shown(Table(["", ""], {"": list(header_lines(result).items())}, ""), "rkd-parameters")


def cost_table(pairs: Iterable[costs.PairCost]) -> str:
    """Sizes of pairs."""
    heads = [
        "", "parameters: student", "teacher", "fusion", "M multiply-adds: student", "teacher", "fusion", "G a step",
    ]  # fmt: skip
    pairs, parts = list(pairs), ("student", "teacher", "extra")
    rows = [
        [
            f"{models.display_name(p.student)} ← {models.display_name(p.teacher)}",
            *(f"{p.parameters[part]:,}" for part in parts), *(f"{p.macs[part] / 1e6:.1f}" for part in parts),
            f"{p.step_macs / 1e9:.1f}",
        ]
        for p in pairs
    ]  # fmt: skip
    sizes = ", ".join(str(n) for n in sorted({p.batch_size for p in pairs}))
    note = (
        f"Multiply-adds of one image's forward pass; a step has {sizes} images: three passes (one forward, two "
        "backward) of student and fusion modules, one of the teacher."
    )
    return shown(Table(heads, {"": rows}, note))


def spent_table(runs: Mapping[str, Sequence[RunConfig]], store: Store) -> str:
    """Recorded training time and energy, by table and device."""
    parts = {name: costs.spent(part, store) for name, part in runs.items()}
    parts["all, each run once"] = costs.spent(costs.once(runs), store)
    metered = any(part.energy_runs for part in parts.values())
    rows = []
    for name, part in parts.items():
        hours = "; ".join(f"{s / 3600:.2f} ({d})" for d, s in part.seconds.items())
        energy = f"{part.energy_kj / 3600:.2f} ({part.energy_runs} runs)" if part.energy_runs else ""
        rows.append([name, str(part.runs), str(part.recorded), hours or "none yet", *[energy] * metered])
    heads = ["paper profile", "runs", "recorded", "hours of training, by device"] + [
        "kWh of the GPU"
    ] * metered
    note = "Chapters share runs, and teachers: the last row counts each once."
    return shown(Table(heads, {"": rows}, note))


def projection_table(
    runs: Mapping[str, Sequence[RunConfig]], store: Store, results: Sequence[tuple[str, Result]]
) -> str:
    """The whole profile's multiply-adds over every rate there is."""
    each = costs.once(runs)
    total = costs.total_macs(each)
    rates = costs.rates_of_records(each, store)
    rates += [rate for source, result in results if (rate := costs.rate_of_result(source, result))]
    rows = [
        [
            rate.source, rate.device, rate.how, f"{rate.macs_per_second / 1e9:,.0f}",
            f"{total / rate.macs_per_second / 3600:,.1f}",
        ]
        for rate in rates
    ]  # fmt: skip
    note = (
        f"The {len(each)} runs of these chapters, those about ReviewKD, come to {total / 1e15:,.1f} · 10¹⁵ "
        "multiply-adds under the paper profile, their scoring included. Divided by a rate measured on other networks "
        "this is an extrapolation: wide networks reach higher rates than narrow ones, and runs in lock-step save "
        "teacher passes on top."
    )
    heads = ["rate taken from", "device", "how", "G multiply-adds/s", "hours for the whole profile"]
    return shown(Table(heads, {"": rows}, note))


# --- figure ------------------------------------------------------------------------------------------------------


def step_bars(result: Result) -> Figure:
    """Median time of a step of one student, by variant; a mark on each bar is its floor."""
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.edgecolor": INK})
    modes = result.header["batch_norms"]
    parts = [[row for row in result.rows if row.variant.batch_norm == mode] for mode in modes]
    height = 1.5 + 0.42 * max(len(part) for part in parts)
    figure = Figure(figsize=(9.2, height), facecolor=CARD, layout="constrained")
    axes = figure.subplots(1, len(modes), sharex=True, squeeze=False)[0]
    for ax, mode, rows in zip(axes, modes, parts, strict=True):
        _bars(ax, result, rows)
        ax.set_title(MODES[mode], fontsize=11)
        ax.set_xlabel("ms for one step of one student")
    slowest = max(row.median_ms for row in result.rows)
    axes[0].set_xlim(0, 1.35 * slowest)  # room for what stands beside the bars
    entries = [
        Patch(color=CONVENTIONAL, label="conventional"),
        Patch(color=SINGLE, label="ours, fp32"),
        Patch(color=LOW, label="ours, lower precision"),
        Line2D([], [], color=FLOOR, linewidth=2.5, label="its floor here"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bars(ax: Axes, result: Result, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        plain = CONVENTIONAL if row.variant.conventional else SINGLE
        colour = plain if row.arithmetic in ("fp32", "fp64") else LOW
        ax.barh(place, row.median_ms, height=0.62, color=colour)
        floor, end = result.floor_ms(row), row.median_ms
        if floor is not None:
            ax.plot([floor] * 2, [place - 0.36, place + 0.36], color=FLOOR, linewidth=2.5)
            end = max(end, floor)
        times = "" if row.variant.conventional else f" ({result.ratio(row)[1]:.2f} ×)"
        around = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": INK}
        ax.annotate(f"{row.median_ms:.1f}{times}", (end, place), (5, 0), **around)
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)


# --- small things ------------------------------------------------------------------------------------------------


def _note(text: str) -> str:
    return f'<p class="rkd-note">{html.escape(text)}</p>'
