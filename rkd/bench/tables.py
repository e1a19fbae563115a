"""What a measurement says: its header in words, its tables, and all of it as plain text. The page shows the same."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rkd.bench.result import EPOCHS, EVALUATION_IMAGES, Result, Row
from rkd.bench.steps import EPOCH_IMAGES
from rkd.models import display_name

MODES = {"running": "teacher on running statistics", "batch": "teacher on batch statistics"}


class Table(NamedTuple):
    """Rows of text under headings; what a reader has to know."""

    heads: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[str]]]
    note: str


def header_lines(result: Result) -> dict[str, str]:
    """Where, when and how, and what has to be known."""
    h = result.header
    n, gpu = h["threads"], f", CUDA {h['cuda']}, cuDNN {h['cudnn']}" if h["cuda"] else ""
    threads = f", {n} thread{'s' * (n > 1)} on {h['cpus']} cores" if h["device"] == "cpu" else ""
    before, after = ("unknown" if v is None else f"{v:.2f}" for v in (h["load_before"], h["load_after"]))
    commit = (h["commit"] or "unknown")[:12] + ("+ local changes" if h["changed"] else "")
    return {
        "measured": f"{title(h)}; {h['rounds']} rounds in {h['seconds_used']:.0f} s",
        "machine": f"{h['device_name']}{threads}; load average {before} before, {after} after",
        "versions": f"Python {h['python']}, torch {h['torch']}{gpu}, {h['system']}; commit {commit}",
        "time (UTC)": f"{h['began']} to {h['ended']}",
        "again": command(h),
        **{f"note {i}": note for i, note in enumerate(result.notes, 1)},
    }


def command(header: Mapping[str, Any]) -> str:
    """What repeats the measurement."""
    forms, kernels = (
        header.get("teacher_forms", ("auto",)),
        header.get("kernels", ("cudnn",)),
    )  # none in early files
    parts = [
        f"rkd bench --pair {header['teacher']}/{header['student']} --batch-size {header['batch_size']}",
        f"--device {header['device']} --precision {' '.join(header['precisions'])}",
        f"--teacher-batch-norm {','.join(header['batch_norms'])} --seconds {header['seconds_asked']:g}",
        f"--threads {header['threads']}" if header["device"] == "cpu" else "",
        f"--group {header['group']}" if header["group"] > 1 else "",
        f"--compile {header['compile']}" if header["compile"] != "no" else "",
        f"--teacher-form {','.join(forms)}" if list(forms) != ["auto"] else "",
        f"--batch-norm {','.join(kernels)}" if list(kernels) != ["cudnn"] else "",
        "--cudnn-benchmark" if header.get("cudnn_benchmark") else "",
    ]
    return " ".join(part for part in parts if part)


def title(header: Mapping[str, Any]) -> str:
    """The pair and the size of a step."""
    pair = f"{display_name(header['student'])} <- {display_name(header['teacher'])}"
    return f"{pair}, batch {header['batch_size']}, {header['train_images']:,} images of the embedded set"


def times(result: Result) -> Table:
    """One row per variant: times, ratios, what they come to."""
    heads = [
        "step of one student", "ms: median (best)", "images/s", "× conventional (quartiles)", "first step, s",
        "s/epoch", "h/run",
    ]  # fmt: skip

    def cells(row: Row) -> list[str]:
        (low, median, high), epoch = result.ratio(row), result.epoch_seconds(row)
        return [
            f"{row.median_ms:.2f} ({min(row.times_ms):.2f})", f"{row.images_per_second:,.0f}",
            f"{median:.2f} ({low:.2f}–{high:.2f})", f"{row.cold_seconds:.1f}",
            f"{epoch:,.1f}", f"{EPOCHS * epoch / 3600:.2f}",
        ]  # fmt: skip

    e, compiled = result.evaluation, result.header["compile"] != "no"
    note = (
        f"An epoch is {EPOCH_IMAGES:,} training images at the median rate and {EVALUATION_IMAGES:,} test images at the "
        f"measured one; a run is {EPOCHS} epochs. Ratios are medians over rounds, with quartiles. Evaluation, "
        f"{e['images']:,} test images: {e['conventional']:,.0f} images/s by the conventional loader and through the "
        f"fusion modules, {e['ours']:,.0f} by ours ({e['ours'] / e['conventional']:.1f} ×)."
        + " A compiled variant's first step uses what earlier ones have compiled."
        * compiled
    )
    return Table(heads, _by_mode(result, cells), note)


def work(result: Result) -> Table:
    """What a step does, and how near to its floor each variant comes."""
    heads = ["work of one student", "operations", "host reads", "GFLOP", "ms, median", "floor, ms", "reached"]

    def cells(row: Row) -> list[str]:
        c, n, floor = row.counts, row.variant.group, result.floor_ms(row)
        counted = ["not counted", "", ""]
        if c is not None:
            counted = [f"{c.ops / n:,.0f}", f"{c.host_reads / n:.0f}", f"{c.flops / n / 1e9:.2f}"]
        reached = ["", ""] if floor is None else [f"{floor:.2f}", f"{100 * floor / row.median_ms:.0f} %"]
        return [*counted, f"{row.median_ms:.2f}", *reached]

    best = [
        f"{name}: {rate / 1e9:,.0f} in a matrix product; in 3×3 convolutions, by channels, "
        + ", ".join(f"{width}: {r / 1e9:,.0f}" for width, r in result.ceilings.convolution[name].items())
        for name, rate in result.ceilings.matmul.items()
    ]
    note = (
        "Operations that compute, of forward pass, backward pass and optimiser. Floor: the floating-point operations "
        "of each convolution at the highest rate seen here in one of its width, all others at the highest of all; a "
        f"compiled step makes those of its eager twin. At best, this machine reaches, in GFLOP/s, {'; '.join(best)}."
    )
    return Table(heads, _by_mode(result, cells), note)


def _by_mode(result: Result, cells: Callable[[Row], list[str]]) -> dict[str, list[list[str]]]:
    """Rows of a table, under a heading for each mode of the teacher."""
    return {
        MODES[mode]: [[row.name, *cells(row)] for row in result.rows if row.variant.batch_norm == mode]
        for mode in result.header["batch_norms"]
    }


def report(result: Result) -> str:
    """Header, tables and notes as plain text."""
    head = "\n".join(f"{name}: {text}" for name, text in header_lines(result).items())
    return "\n\n".join([head, *(f"{aligned(t)}\n{t.note}" for t in (times(result), work(result)))]) + "\n"


def aligned(table: Table) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    rows = [table.heads, *(row for group in table.groups.values() for row in group)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *padded]).rstrip()

    groups = [text for name, group in table.groups.items() for text in (name, *map(line, group)) if text]
    return "\n".join([line(table.heads), *groups])
