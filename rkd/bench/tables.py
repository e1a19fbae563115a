"""Reporting a measurement: its header in words, its tables as DataFrames, and all of it as plain text."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from rkd.bench.measurement import Request
from rkd.bench.result import EPOCHS, EVALUATION_IMAGES, BenchResult
from rkd.bench.steps import EPOCH_IMAGES
from rkd.models import display_name

MODES = {"running": "teacher on running statistics", "batch": "teacher on batch statistics"}


def header_lines(result: BenchResult) -> dict[str, str]:
    """Return where, when and how the measurement was made, the call that repeats it, and its notes; by label."""
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
    """Return the `rkd bench speed` call that repeats the measurement with this header."""
    words, pair = ["rkd", "bench", "speed"], f"{header['teacher']}/{header['student']}"
    if pair != f"{Request.teacher}/{Request.student}":
        words += ["--pair", pair]
    for field in fields(Request)[2:]:
        found = header.get(field.name, field.default)
        found = tuple(found) if isinstance(found, list) else found
        if found != field.default and (field.name != "threads" or header["device"] == "cpu"):
            name = {"kernels": "batch_norm"}.get(field.name, field.name)
            words.append(f"--{name.replace('_', '-')}")
            if found is not True:
                spelt = {tuple: ",".join, float: "{:g}".format}.get(type(found), str)
                words.append(spelt(found))
    return shlex.join(words)


def title(header: Mapping[str, Any]) -> str:
    """Return the network pair, the batch size and the number of images, in words."""
    pair = f"{display_name(header['student'])} <- {display_name(header['teacher'])}"
    return f"{pair}, batch {header['batch_size']}, {header['train_images']:,} images of the embedded set"


def times(result: BenchResult) -> dict[str, pd.DataFrame]:
    """Return, for each teacher mode, a table as text with one row per variant: the times of one student's step, what
    they amount to, and what a step does."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in result.rows:
        (low, median, high), epoch = result.ratio(row), result.epoch_seconds(row)
        c, n = row.counts, row.variant.group
        found.setdefault(MODES[row.variant.batch_norm], {})[row.name] = {
            "ms: median (best)": f"{row.median_ms:.2f} ({min(row.times_ms):.2f})",
            "images/s": f"{1000 * row.images / row.median_ms:,.0f}",
            "× conventional (quartiles)": f"{median:.2f} ({low:.2f}–{high:.2f})",
            "first step, s": f"{row.cold_seconds:.1f}",
            "s/epoch": f"{epoch:,.1f}",
            "h/run": f"{EPOCHS * epoch / 3600:.2f}",
            "operations": f"{c['ops'] / n:,.0f}" if c else "",
            "host reads": f"{c['host_reads'] / n:.0f}" if c else "",
            "GFLOP": f"{c['flops'] / n / 1e9:.2f}" if c else "",
        }
    return {mode: pd.DataFrame.from_dict(rows, orient="index") for mode, rows in found.items()}


def note(result: BenchResult) -> str:
    """Return what a reader of the tables of `times` has to know."""
    e = result.evaluation
    return (
        f"An epoch is {EPOCH_IMAGES:,} training images at the median rate and {EVALUATION_IMAGES:,} test images at the "
        f"measured one; a run is {EPOCHS} epochs. Ratios are medians over rounds, with quartiles. Operations are those "
        "that compute, of forward pass, backward pass and optimiser; compiled steps are not counted, and their first "
        f"step uses what earlier ones have compiled. Evaluation, {e['images']:,} test images: {e['conventional']:,.0f} "
        f"images/s by the conventional loader and through the fusion modules, {e['ours']:,.0f} by ours "
        f"({e['ours'] / e['conventional']:.1f} ×)."
    )


def report(result: BenchResult) -> str:
    """Return header, tables and note as plain text."""
    head = "\n".join(f"{name}: {text}" for name, text in header_lines(result).items())
    parts = [f"{mode}, step of one student\n{rows.to_string()}" for mode, rows in times(result).items()]
    return "\n\n".join([head, *parts, note(result)]) + "\n"
