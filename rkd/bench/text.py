"""A measurement as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

from rkd.bench.result import EPOCHS, EVALUATION_IMAGES, Result, Row
from rkd.bench.variants import EPOCH_IMAGES
from rkd.models import display_name

MODES = {"running": "teacher on running statistics", "batch": "teacher on batch statistics"}
NOT_COUNTED = "-"


def machine(header: Mapping[str, Any]) -> str:
    """Device, threads and load in one line."""
    n = header["threads"]
    threads = f", {n} thread{'s' * (n > 1)} on {header['cpus']} cores" if header["device"] == "cpu" else ""
    before, after = (
        "unknown" if header[name] is None else f"{header[name]:.2f}" for name in ("load_before", "load_after")
    )
    return f"{header['device_name']}{threads}; load average {before} before, {after} after"


def versions(header: Mapping[str, Any]) -> str:
    """Python, torch and commit in one line."""
    cuda = f", CUDA {header['cuda']}, cuDNN {header['cudnn']}" if header["cuda"] else ""
    commit = (header["commit"] or "unknown")[:12] + ("+ local changes" if header["changed"] else "")
    return f"Python {header['python']}, torch {header['torch']}{cuda}, {header['system']}; commit {commit}"


def command(header: Mapping[str, Any]) -> str:
    """What repeats the measurement."""
    parts = [
        f"rkd bench --pair {header['teacher']}/{header['student']} --batch-size {header['batch_size']}",
        f"--device {header['device']} --precision {' '.join(header['precisions'])}",
        f"--teacher-batch-norm {','.join(header['batch_norms'])} --seconds {header['seconds_asked']:g}",
        f"--threads {header['threads']}" if header["device"] == "cpu" else "",
        f"--gang {header['gang']}" if header["gang"] > 1 else "",
        f"--compile {header['compile']}" if header["compile"] != "no" else "",
    ]
    return " ".join(part for part in parts if part)


def title(header: Mapping[str, Any]) -> str:
    """The pair and the size of a step."""
    pair = f"{display_name(header['student'])} <- {display_name(header['teacher'])}"
    return f"{pair}, batch {header['batch_size']}, {header['train_images']:,} images of the embedded set"


def report(result: Result) -> str:
    """Header, tables, notes."""
    header = result.header
    head = [
        title(header),
        machine(header),
        versions(header),
        f"{header['began']} to {header['ended']}: {header['rounds']} rounds in {header['seconds_used']:.0f} s; again: "
        f"{command(header)}",
        *(f"NOTE: {note}" for note in result.notes),
    ]
    parts = ["\n".join(head)]
    for mode in header["batch_norms"]:
        rows = [row for row in result.rows if row.variant.batch_norm == mode]
        parts.append(f"{MODES[mode].capitalize()}\n{_times(result, rows)}\n\n{_work(result, rows)}")
    parts += [_explained(header["compile"] != "no"), _ceilings(result), _rest(result)]
    return "\n\n".join(parts) + "\n"


def _times(result: Result, rows: Sequence[Row]) -> str:
    heads = [
        "a step of one student", "ms median", "best", "images/s", "x conv. median", "(quartiles)", "x best",
        "first step s", "s/epoch", "h/run",
    ]  # fmt: skip
    body = []
    for row in rows:
        ratio = result.ratio(row)
        body.append(
            [
                row.name, f"{row.median_ms:.2f}", f"{row.best_ms:.2f}", f"{row.images_per_second:,.0f}",
                f"{ratio.median:.2f}", f"({ratio.low:.2f}-{ratio.high:.2f})", f"{ratio.best:.2f}",
                f"{row.cold_seconds:.1f}", f"{result.epoch_seconds(row):,.1f}",
                f"{result.run_seconds(row) / 3600:.2f}",
            ]
        )  # fmt: skip
    return aligned(heads, body)


def _work(result: Result, rows: Sequence[Row]) -> str:
    heads = [
        "work of one student", "ops", "host reads", "GFLOP", "GB in+out", "of products", "peak MB",
        "floors ms: FLOP", "conv.", "bytes", "reached: FLOP", "conv.", "bytes",
    ]  # fmt: skip
    body = []
    for row in rows:
        counts, floors, students = result.counts(row), result.floors(row), row.variant.gang
        if counts is None:
            body.append([row.name, *[NOT_COUNTED] * (len(heads) - 1)])
            continue
        # A compiled step does the same products, in an unknown number of kernels.
        own = row.counts is not None
        body.append(
            [
                row.name,
                *(
                    [
                        f"{counts.ops / students:,.0f}", f"{counts.host_reads / students:.0f}",
                        f"{counts.flops / students / 1e9:.2f}", f"{counts.bytes / students / 1e9:.2f}",
                        f"{counts.product_bytes / students / 1e9:.2f}", f"{counts.memory_mb / students:,.0f}",
                    ]
                    if own
                    else [NOT_COUNTED, NOT_COUNTED, f"{counts.flops / students / 1e9:.2f}", NOT_COUNTED,
                          f"{counts.product_bytes / students / 1e9:.2f}", NOT_COUNTED]
                ),
                *(f"{ms:.2f}" for ms in (floors.arithmetic, floors.convolutions, floors.bytes)),
                *(
                    f"{100 * ms / row.median_ms:.0f} %"
                    for ms in (floors.arithmetic, floors.convolutions, floors.bytes)
                ),
            ]
        )  # fmt: skip
    return aligned(heads, body)


def _explained(compiled: bool) -> str:
    return (
        "x conv.: times as quick as the conventional loop of the same teacher mode; median and quartiles over rounds,\n"
        "in each of which every variant made its steps in turn. ops: operations that compute, forward, backward and\n"
        "optimiser. Floors: FLOP at the highest rate seen here; conv. with each 3x3 convolution at the rate of its\n"
        "width; bytes of convolutions and matrix products at the speed of copying (a cache may beat it).\n"
        f"s/epoch = {EPOCH_IMAGES:,} / (images/s) + {EVALUATION_IMAGES:,} / (test images/s); h/run = {EPOCHS} epochs."
        + "\nThe first step of a compiled variant uses what earlier ones have compiled."
        * compiled
    )


def _ceilings(result: Result) -> str:
    ceilings = result.ceilings
    lines = ["At best, this machine reaches"]
    for name, rate in ceilings.matmul.items():
        widths = ", ".join(f"{w}: {r / 1e9:,.0f}" for w, r in ceilings.convolution[name].items())
        lines.append(
            f"  {name}: {rate / 1e9:,.0f} GFLOP/s in a matrix product; in 3x3 convolutions, by channels: {widths}"
        )
    lines.append(f"  copying: {ceilings.copy / 1e9:,.1f} GB/s, read and written")
    return "\n".join(lines)


def _rest(result: Result) -> str:
    e = result.evaluation
    lines = [
        f"Evaluation, {e.images:,} test images: {e.conventional:,.0f} images/s by the conventional loader through the "
        f"fusion modules, {e.ours:,.0f} by ours: {e.ours / e.conventional:.2f} x"
    ]
    mode = MODES[result.header["gradient_batch_norm"]]
    lines.append(f"Gradient of one step at the first weights against float64 ({mode})")
    heads = ["  arithmetic", "images", "cosine", "relative error"]
    body = [
        [f"  {g.arithmetic}", str(g.images), f"{g.cosine:.6f}", f"{g.relative_error:.2e}"]
        for g in result.gradients
    ]
    return "\n".join([*lines, aligned(heads, body)])


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join([first.ljust(widths[0]), *padded]).rstrip()

    return "\n".join(line(row) for row in (heads, *rows))
