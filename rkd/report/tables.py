"""HTML tables of a chapter: results, parameters, provenance."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from rkd.experiments.chapters import Line, Published
from rkd.records import Record, arithmetics
from rkd.report.summary import Measured, same_runs

_SOURCE_ORDER = {"ReviewKD paper": 0, "[Re] paper": 1, "[Re] README": 2}


def result_table(
    lines: Sequence[Line],
    measured: Mapping[str, Measured],
    recorded: Mapping[str, Mapping[str, Measured]],
    here: str,
) -> str:
    """Published against measured, one row per line.

    Args:
        lines: of the chapter.
        measured: by line key, this execution.
        recorded: heading of a further column -> by line key, committed runs of a profile.
        here: heading of this execution's columns.
    """
    repeated = same_runs(lines)
    heads = [
        "",
        "published",
        f"{here}: last epoch",
        "best epoch",
        *recorded,
    ]
    named = differ([*measured.values(), *(m for column in recorded.values() for m in column.values())])
    rows, group = [], None
    for line in lines:
        if line.group and line.group != group:
            group = line.group
            rows.append(
                f'<tr class="rkd-group"><th colspan="{len(heads)}" scope="rowgroup">{html.escape(group)}</th></tr>'
            )
        note = f"same runs as “{repeated[line.key]}”" if line.key in repeated else line.note
        label = html.escape(line.label) + (f'<div class="rkd-note">{html.escape(note)}</div>' if note else "")
        cells = [
            _published(line.published),
            numbers(measured[line.key], "last", named),
            numbers(measured[line.key], "best", named),
            *(
                numbers(column[line.key], "last", named) if line.key in column else badge("none", "missing")
                for column in recorded.values()
            ),
        ]
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return table_of(heads, rows, "rkd-results")


def _published(values: Iterable[Published]) -> str:
    said: dict[float, list[Published]] = {}
    for p in sorted(values, key=lambda p: _SOURCE_ORDER.get(p.source, len(_SOURCE_ORDER))):
        said.setdefault(p.value, []).append(p)
    parts = [
        f'<div class="rkd-published" title="{html.escape("; ".join(p.note for p in same if p.note), quote=True)}">'
        f'<span class="rkd-number">{value:.2f}</span> '
        f'<span class="rkd-source">{html.escape(", ".join(p.source for p in same))}</span></div>'
        for value, same in said.items()
    ]
    return "".join(parts) or '<span class="rkd-note">not published</span>'


def differ(measured: Iterable[Measured]) -> bool:
    """Whether not all runs were computed in one arithmetic: what is compared then names its own."""
    return len({name for m in measured for name in m.arithmetics}) > 1


def numbers(m: Measured, which: str, named: bool = False) -> str:
    """Mean, spread and n at the "last" or "best" epoch, with what is missing or diverged. Says in which arithmetics the
    runs were computed if these are several, or `named`."""
    values = getattr(m, which)
    parts = []
    if values:
        spread = m.spread(which)
        spread_text = "" if math.isnan(spread) else f" ± {spread:.2f}"
        parts.append(
            f'<span class="rkd-number">{m.mean(which):.2f}{spread_text}</span> '
            f'<span class="rkd-n">n = {len(values)}</span>'
        )
        if named or differ([m]):
            parts.append(f'<span class="rkd-n rkd-arithmetic">{html.escape(arithmetics(m.finished))}</span>')
    if m.diverged:
        parts.append(badge(f"{m.diverged} diverged", "diverged"))
    if m.missing:
        parts.append(badge("missing" if not values else f"{m.missing} missing", "missing"))
    return " ".join(parts)


def baseline_table(claims: pd.DataFrame) -> str:
    """Quoted accuracies of other methods: one row per method, one column per pair."""
    quoted = claims[
        (claims["metric"] == "top1_acc_percent") & (claims["variant"] == "quoted from prior work")
    ]
    pairs = list(dict.fromkeys(zip(quoted["student"], quoted["teacher"], strict=True)))
    rows = []
    for method in dict.fromkeys(quoted["method"]):
        cells = []
        for student, teacher in pairs:
            row = quoted[
                (quoted["method"] == method) & (quoted["student"] == student) & (quoted["teacher"] == teacher)
            ].iloc[0]
            note = (
                f' <abbr class="rkd-note" title="{html.escape(row["note"], quote=True)}">note</abbr>'
                if row["note"]
                else ""
            )
            cells.append(f'<td><span class="rkd-number">{row["value"]}</span>{note}</td>')
        rows.append(f'<tr><th scope="row">{html.escape(method)}</th>{"".join(cells)}</tr>')
    return table_of(
        ["method, %", *(f"{student} ← {teacher}" for student, teacher in pairs)], rows, "rkd-baselines"
    )


def probe_table(rows: Sequence[tuple[str, Measured, Measured]]) -> str:
    """Own classifier against refitted one: (label, probe, run) per line."""
    body = [
        f'<tr><th scope="row">{html.escape(label)}</th><td>{numbers(run, "last")}</td>'
        f"<td>{numbers(probe, 'last') or badge('weights not here', 'missing')}</td></tr>"
        for label, probe, run in rows
    ]
    return table_of(["", "own classifier, %", "refitted linear layer, %"], body, "rkd-probe")


def parameter_table(given: Mapping[str, Any], effective: Mapping[str, Any]) -> str:
    """Which parameters were given, and what all came to."""
    rows = []
    for name, value in effective.items():
        mark = badge("given", "given") if name in given else ""
        rows.append(
            f'<tr><th scope="row"><code>{name}</code></th><td>{html.escape(_text(value))}</td><td>{mark}</td></tr>'
        )
    return table_of(["parameter", "value in force", ""], rows, "rkd-parameters")


def provenance_table(lines: Sequence[Line], measured: Mapping[str, Measured], folder: str) -> str:
    """Where each number comes from: one row per run."""
    rows = []
    for line in lines:
        by_id = {record.id: record for record in measured[line.key].records}
        for run in line.runs:
            label = f"{line.group}: {line.label}" if line.group else line.label
            rows.append(_provenance_row(label, run.id, run.seed, by_id.get(run.id)))
    heads = [
        "line",
        "seed",
        "run",
        "status",
        "last %",
        "device",
        "threads",
        "train s",
        "images/s",
        "commit",
        "ended (UTC)",
    ]
    note = (
        f'<p class="rkd-note">Each run is one file, <code>{html.escape(folder)}/&lt;run&gt;.json</code>.</p>'
    )
    return note + table_of(heads, rows, "rkd-provenance")


def _provenance_row(label: str, run: str, seed: int, record: Record | None) -> str:
    if record is None:
        cells = [
            html.escape(label),
            str(seed),
            f"<code>{run}</code>",
            badge("missing", "missing"),
            *[""] * 7,
        ]
    else:
        p, cost = record.provenance, record.cost
        commit = (p["commit"] or "unknown")[:8] + ("+" if p["changed"] else "")
        last = f"{record.accuracy('last'):.2f}" if record.status == "finished" else ""
        cells = [
            html.escape(label), str(seed), f"<code>{run}</code>", badge(record.status, record.status), last,
            html.escape(p["device_name"]), str(p["threads"]), f"{cost['train_seconds']:.1f}",
            f"{cost['images_per_second']:.0f}", f"<code>{commit}</code>", p["ended"],
        ]  # fmt: skip
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def badge(text: str, kind: str) -> str:
    """A coloured word; the colour never says more than the word."""
    return f'<span class="rkd-badge rkd-{kind}">{html.escape(text)}</span>'


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table_of(heads: Sequence[str], rows: Sequence[str], kind: str) -> str:
    """A table of the book in a box that scrolls; `rows` are finished <tr> elements."""
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in heads)
    body = "\n".join(rows)
    table = f'<table class="rkd-table {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolling(table)


def scrolling(table: str) -> str:
    """A table in a box that scrolls where the page is too narrow, by keyboard too."""
    return f'<div class="rkd-scroll" role="region" aria-label="table" tabindex="0">{table}</div>'


def folded(heading: str, content: str) -> str:
    """Content that opens by a click on its heading."""
    return f"<details><summary>{html.escape(heading)}</summary>{content}</details>"
