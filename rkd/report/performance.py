"""What the performance chapter calls: a measurement made as the page runs, those on file, the report's cost."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from rkd.bench.gate import SECTION, Gate, committed
from rkd.bench.measurement import BATCH_NORMS
from rkd.bench.result import EPOCHS, EVALUATION_IMAGES, KIND, files
from rkd.bench.text import MODES, command, machine, title, versions
from rkd.bench.variants import EPOCH_IMAGES
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.execute import pick_device
from rkd.experiments.workspace import store_for
from rkd.records import Store
from rkd.report.book import write_mark
from rkd.report.diagrams import Drawing, show
from rkd.report.figures import CARD, GRID, INK
from rkd.report.tables import scrolling
from rkd.training import RunConfig

CHAPTER = "performance"
# Parameters beside those of the other chapters, their types, and what they must be.
OWN = {
    "seconds": (int | float, "a number"),
    "gang": (int, "a whole number"),
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
            gang=own.get("gang", 1),
            compile="engine" if s.compile else "no",
            seconds=own.get("seconds", LONG if profile == "paper" else SHORT),
        )
        pick_device(self.request.device)
        self.folder = paths.home() / "results" / "bench" if folder is None else folder
        self.paper = store_for("paper") if paper is None else paper
        self.result = None
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
        return HTML(times_table(self._done()))

    def work(self) -> HTML:
        """Operations, bytes, floors, and what part of each floor is reached."""
        result = self._done()
        return HTML(work_table(result) + floors_table(result) + ceilings_table(result))

    def figure(self) -> Drawing:
        """Time of a step against its floor."""
        result = self._done()
        said = "; ".join(
            f"{row.name}, {MODES[row.variant.batch_norm]}: {row.median_ms:.1f} ms" for row in result.rows
        )
        return show(
            step_bars(result), f"{title(result.header)}. Time of one step of one student, median: {said}."
        )

    def precision(self) -> HTML:
        """Gradients against float64, and evaluation."""
        return HTML(gradient_table(self._done()))

    def recorded(self) -> HTML:
        """Measurements on file, each under its own header."""
        found = [Result.load(path) for path in files(self.folder, KIND)]
        parts = [f"{header_table(result)}{times_table(result)}" for result in found]
        return HTML("".join(parts) or _note("No measurement is recorded in this copy."))

    def gates(self) -> HTML:
        """Accuracies in fp32 and in the quicker arithmetic, seed by seed."""
        shown = "".join(map(gate_table, committed(self.folder)))
        shown = shown or _note("No paired accuracies are recorded in this copy.")
        return HTML(f'<div id="{SECTION}">{shown}</div>')

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
        if self.result is not None:
            text = f"The measurement is read from <code>{html.escape(self._file.name)}</code>; nothing is timed now."
            return _callout("mini", text)
        text = (
            f"<strong>Timed while this page was executed</strong>, in about {self.request.seconds:g} s, on whatever "
            "machine that was and beside whatever else it was doing: the load average tells. Ratios are taken step by "
            "step in one process and bear this better than times do."
        )
        return _callout("smoke", text)


# --- tables ------------------------------------------------------------------------------------------------------


def header_table(result: Result) -> str:
    """Where, when and how, and what has to be known."""
    h = result.header
    lines = {
        "measured": f"{title(h)}; {h['rounds']} rounds in {h['seconds_used']:.0f} s",
        "machine": machine(h),
        "versions": versions(h),
        "time (UTC)": f"{h['began']} to {h['ended']}",
        "again": command(h),
        **{f"note {i}": note for i, note in enumerate(result.notes, 1)},
    }
    rows = [[name, html.escape(text)] for name, text in lines.items()]
    return _table(["", ""], rows, "rkd-parameters")


def times_table(result: Result) -> str:
    """One row per variant: times, ratios, what they come to."""
    heads = [
        "step of one student", "ms: median (best)", "images/s", "× conventional (quartiles)", "first step, s",
        "s/epoch", "h/run",
    ]  # fmt: skip

    def cells(row: Row) -> list[str]:
        ratio = result.ratio(row)
        return [
            f"{row.median_ms:.2f} ({row.best_ms:.2f})", f"{row.images_per_second:,.0f}",
            f"<strong>{ratio.median:.2f}</strong> ({ratio.low:.2f}–{ratio.high:.2f})",
            f"{row.cold_seconds:.1f}", f"{result.epoch_seconds(row):,.1f}",
            f"{result.run_seconds(row) / 3600:.2f}",
        ]  # fmt: skip

    note = (
        f"An epoch is {EPOCH_IMAGES:,} training images at the median rate and {EVALUATION_IMAGES:,} test images at the "
        f"measured one; a run is {EPOCHS} epochs. Ratios are medians over rounds, with quartiles."
        + " A compiled variant's first step uses what earlier ones have compiled."
        * (result.header["compile"] != "no")
    )
    return _table(heads, _by_mode(result, cells)) + _note(note)


def work_table(result: Result) -> str:
    """What a step does."""
    heads = [
        "work of one student", "operations", "host reads", "GFLOP", "GB in + out", "GB of products", "peak MB",
    ]  # fmt: skip

    def cells(row: Row) -> list[str]:
        counts, students = row.counts, row.variant.gang
        if counts is None:
            return ["not counted: its kernels are its own", *[""] * 5]
        return [
            f"{counts.ops / students:,.0f}", f"{counts.host_reads / students:.0f}",
            f"{counts.flops / students / 1e9:.2f}", f"{counts.bytes / students / 1e9:.2f}",
            f"{counts.product_bytes / students / 1e9:.2f}", f"{counts.memory_mb / students:,.0f}",
        ]  # fmt: skip

    note = (
        "Operations that compute, of forward pass, backward pass and optimiser. Products are convolutions and matrix "
        "products. Peak: tensors alive at once, beyond weights, momentum and data."
    )
    return _table(heads, _by_mode(result, cells)) + _note(note)


def floors_table(result: Result) -> str:
    """How near to its floors each variant comes."""
    heads = ["a step of one student", "ms, median", "FLOP floor", "convolution floor", "byte floor"]

    def cells(row: Row) -> list[str]:
        floors = result.floors(row)
        if floors is None:
            return [f"{row.median_ms:.2f}", *["not counted"] * 3]
        each = (floors.arithmetic, floors.convolutions, floors.bytes)
        return [f"{row.median_ms:.2f}", *(f"{ms:.2f} ms ({100 * ms / row.median_ms:.0f} %)" for ms in each)]

    note = (
        "In brackets, the floor as a part of the median time. FLOP: all floating-point operations at the highest rate "
        "seen on this machine. Convolution: each 3×3 convolution at the rate of one of its width. Bytes: what products "
        "read and write, at the speed of copying; a cache that holds the maps may beat it. A compiled step makes the "
        "same products as its eager twin, and has its floors."
    )
    return _table(heads, _by_mode(result, cells)) + _note(note)


def _by_mode(result: Result, cells: Callable[[Row], list[str]]) -> list[Sequence[str] | str]:
    """Rows of a table, under a heading for each mode of the teacher."""
    rows: list[Sequence[str] | str] = []
    for mode in result.header["batch_norms"]:
        rows.append(MODES[mode])
        rows += [
            [html.escape(row.name), *cells(row)] for row in result.rows if row.variant.batch_norm == mode
        ]
    return rows


def ceilings_table(result: Result) -> str:
    """What this machine reaches at best."""
    ceilings = result.ceilings
    widths = sorted({w for rates in ceilings.convolution.values() for w in rates})
    heads = ["at best, GFLOP/s", "matrix product", *(f"3×3 convolution, {w} channels" for w in widths)]
    rows = [
        [name, f"{rate / 1e9:,.0f}", *(f"{ceilings.convolution[name][w] / 1e9:,.0f}" for w in widths)]
        for name, rate in ceilings.matmul.items()
    ]
    copy = f"Copying: {ceilings.copy / 1e9:,.1f} GB/s, bytes read and bytes written together."
    return _table(heads, rows) + _note(copy)


def gradient_table(result: Result) -> str:
    """Agreement of one step's gradient with float64, and the evaluation."""
    rows = [
        [g.arithmetic, str(g.images), f"{g.cosine:.6f}", f"{g.relative_error:.1e}"] for g in result.gradients
    ]
    e = result.evaluation
    mode = MODES[result.header["gradient_batch_norm"]]
    note = (
        f"One step at the first weights, all parameters as one vector, {mode}. Evaluation, {e.images:,} test images: "
        f"{e.conventional:,.0f} images/s by the conventional loader and through the fusion modules, {e.ours:,.0f} by "
        f"ours ({e.ours / e.conventional:.1f} ×)."
    )
    heads = ["arithmetic", "images", "cosine with float64", "relative error"]
    return _table(heads, rows) + _note(note)


def gate_table(gate: Gate) -> str:
    """Accuracies of one gate, seed by seed."""
    h = gate.header
    rows: list[Sequence[str] | str] = [
        [
            str(p.seed),
            *("diverged" if v is None else f"{v:.2f}" for v in (p.reference, p.quick)),
            "" if p.difference is None else f"{p.difference:+.2f}",
        ]
        for p in gate.pairs
    ]
    if gate.differences:
        error = f" ± {gate.standard_error:.2f}" if len(gate.differences) > 1 else ""
        rows.append(["mean ± standard error", "", "", f"<strong>{gate.mean:+.2f}{error}</strong>"])
    note = (
        f"{models.display_name(h['student'])} ← {models.display_name(h['teacher'])}, row “{h['row']}” of "
        f"{h['chapter']}, {h['epochs']} epochs on {h['train_images']:,} images of {h['dataset']}, "
        f"{h['test_images']:,} test images; {h['device_name']}, torch {h['torch']}, {h['ended']}. "
        "Both runs of a seed have the same teacher, first weights and batches. "
        f"{gate.finding[:1].upper()}{gate.finding[1:]}. That is evidence about this setting, and about no other."
    )
    return _table(["seed", "fp32, %", f"{gate.arithmetic}, %", "difference, points"], rows) + _note(note)


def cost_table(pairs: Iterable[costs.PairCost]) -> str:
    """Sizes of pairs."""
    heads = [
        "", "parameters: student", "teacher", "fusion", "M multiply-adds: student", "teacher", "fusion", "G a step",
    ]  # fmt: skip
    pairs = list(pairs)
    rows = [
        [
            f"{models.display_name(p.student)} ← {models.display_name(p.teacher)}",
            f"{p.student_parameters:,}", f"{p.teacher_parameters:,}", f"{p.extra_parameters:,}",
            f"{p.student_macs / 1e6:.1f}", f"{p.teacher_macs / 1e6:.1f}", f"{p.extra_macs / 1e6:.1f}",
            f"{p.step_macs / 1e9:.1f}",
        ]
        for p in pairs
    ]  # fmt: skip
    sizes = ", ".join(str(n) for n in sorted({p.batch_size for p in pairs}))
    note = (
        f"Multiply-adds of one image's forward pass; a step has {sizes} images: three passes (one forward, two "
        "backward) of student and fusion modules, one of the teacher."
    )
    return _table(heads, rows) + _note(note)


def spent_table(runs: Mapping[str, Sequence[RunConfig]], store: Store) -> str:
    """Recorded training time and energy, by table and device."""
    parts = {name: costs.spent(part, store) for name, part in runs.items()}
    parts["all, each run once"] = costs.spent(costs.once(runs), store)
    metered = any(part.energy_runs for part in parts.values())
    rows: list[Sequence[str] | str] = []
    for name, part in parts.items():
        hours = "; ".join(f"{s / 3600:.2f} ({html.escape(d)})" for d, s in part.seconds.items())
        energy = f"{part.energy_kj / 3600:.2f} ({part.energy_runs} runs)" if part.energy_runs else ""
        rows.append(
            [html.escape(name), str(part.runs), str(part.recorded), hours or "none yet", *[energy] * metered]
        )
    heads = [
        "paper profile",
        "runs",
        "recorded",
        "hours of training, by device",
        *["kWh of the GPU"] * metered,
    ]
    return _table(heads, rows) + _note("Chapters share runs, and teachers: the last row counts each once.")


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
            html.escape(rate.source), html.escape(rate.device), html.escape(rate.how),
            f"{rate.macs_per_second / 1e9:,.0f}", f"{total / rate.macs_per_second / 3600:,.1f}",
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
    return _table(heads, rows) + _note(note)


# --- figure ------------------------------------------------------------------------------------------------------


def step_bars(result: Result) -> Figure:
    """Median time of a step of one student, by variant; a mark on each bar is the floor that binds it."""
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
    axes[0].set_xlim(
        0, 1.35 * max(row.median_ms for row in result.rows)
    )  # room for what stands beside the bars
    entries = [
        Patch(color=CONVENTIONAL, label="conventional"),
        Patch(color=SINGLE, label="ours, fp32"),
        Patch(color=LOW, label="ours, lower precision"),
        Line2D([], [], color=FLOOR, linewidth=2.5, label="highest of its floors here"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _bars(ax: Axes, result: Result, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        plain = CONVENTIONAL if row.variant.conventional else SINGLE
        colour = plain if row.arithmetic in ("fp32", "fp64") else LOW
        ax.barh(place, row.median_ms, height=0.62, color=colour)
        floors, end = result.floors(row), row.median_ms
        if floors is not None:
            ax.plot([floors.highest] * 2, [place - 0.36, place + 0.36], color=FLOOR, linewidth=2.5)
            end = max(end, floors.highest)
        ratio = result.ratio(row)
        text = f"{row.median_ms:.1f}" + ("" if row.variant.conventional else f" ({ratio.median:.2f} ×)")
        ax.annotate(
            text,
            (end, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)


# --- small things ------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Sequence[Sequence[str] | str], kind: str = "rkd-results") -> str:
    """Cells are HTML; a row that is one string is a heading over those that follow."""
    head = "".join(f'<th scope="col">{h}</th>' for h in heads) if any(heads) else ""
    body = []
    for row in rows:
        if isinstance(row, str):
            body.append(f'<tr class="rkd-group"><th colspan="{len(heads)}" scope="rowgroup">{row}</th></tr>')
        else:
            first, *rest = row
            body.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>')
    table = f'<table class="rkd-table {kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return scrolling(table)


def _note(text: str) -> str:
    return f'<p class="rkd-note">{html.escape(text)}</p>'


def _callout(kind: str, text: str) -> str:
    return f'<div class="rkd-callout {kind}"><p>{text}</p></div>'
