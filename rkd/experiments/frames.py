"""Runs and published figures as tidy DataFrames, which notebooks group, join and plot."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from rkd.experiments.chapters import Line, Published
from rkd.published.others import OtherRun
from rkd.records import Record

OWN = ", behind its own figures"  # appended to the source of runs
Names = Mapping[tuple[str, str], str]
RUNS = (
    "name", "label", "group", "key", "role", "x", "profile", "seed", "run", "status", "accuracy", "best", "best_epoch",
    "arithmetic", "device", "threads", "train_seconds", "images_per_second", "commit", "ended", "epochs",
)  # fmt: skip
NUMBERS = dict.fromkeys(("x", "accuracy", "best"), float)


def names_of(lines: Sequence[Line]) -> Names:
    """Return (group, label) -> the line's name in frames: the label, preceded by the group where labels coincide."""
    often = Counter(label for _, label in {(line.group, line.label) for line in lines})
    return {
        (line.group, line.label): f"{line.group}: {line.label}"
        if often[line.label] > 1 and line.group
        else line.label
        for line in lines
    }


def same_runs(lines: Sequence[Line]) -> dict[str, str]:
    """Return key of a line -> label of an earlier line with the same runs: given parameters can make lines coincide."""
    first, found = {}, {}
    for line in lines:
        earlier = first.setdefault(tuple(run.id for run in line.runs), line)
        if earlier is not line:
            found[line.key] = earlier.label
    return found


def runs_frame(
    lines: Sequence[Line], records: Mapping[str, Record], profile: str, names: Names | None = None
) -> pd.DataFrame:
    """Return a frame with one row per line and seed.

    Args:
        lines: lines of a chapter.
        records: records by run id.
        profile: name of the profile, which becomes a column.
        names: the lines' names; lines without one are left out. None: as `names_of` returns them.

    Returns:
        Columns: name (of the line), label, group, key, role, x (of a line that sweeps a number), profile, seed, run
        (id), status (finished, diverged or missing), accuracy (last epoch, test, %), best (best epoch, %), best_epoch
        (1-based), epochs, arithmetic, device, threads, train_seconds, images_per_second, commit, ended (UTC). What a
        record tells is missing for a run without one, and accuracies are missing for a diverged run.
    """
    rows = []
    for line, of_line in _described(lines, names):
        for run in line.runs:
            of_run = {"profile": profile, "seed": run.seed, "run": run.id, "epochs": run.epochs}
            rows.append(of_line | of_run | _of_record(records.get(run.id)))
    return pd.DataFrame(rows, columns=RUNS).astype(NUMBERS)


def others_frame(
    lines: Sequence[Line], runs: Sequence[OtherRun], chapter: str, names: Names | None = None
) -> pd.DataFrame:
    """Return the runs of a chapter's lines that others measured, with the columns of `runs_frame`, `source` and
    `epoch`: "last", or "best" where only the best epoch's accuracy is known. Runs behind a source's own figures appear
    only if a line has no independent ones, as when a claim about that line alone is judged. A claim that compares it
    with a line that has none is judged by the runs behind the figures on both sides, and says so."""
    rows = []
    for line, of_line in _described(lines, names):
        ours = [run for run in runs if f"{chapter}/{line.key}" in run.lines]
        for run in [run for run in ours if not run.behind] or ours:
            told = "best" if run.last is None else "last"
            rows.append({
                **of_line, "run": f"{run.file} {run.run}", "status": "finished", "best": run.best,
                "accuracy": getattr(run, told), "epoch": told, "epochs": run.epochs, "commit": run.commit,
                "source": f"{run.repository}{OWN * bool(run.behind)}",
            })  # fmt: skip
    return pd.DataFrame(rows, columns=[*RUNS, "epoch", "source"]).astype(NUMBERS)


def _described(lines: Sequence[Line], names: Names | None = None) -> Iterator[tuple[Line, dict[str, Any]]]:
    names = names_of(lines) if names is None else names
    for line in lines:
        if name := names.get((line.group, line.label)):
            told = {key: getattr(line, key) for key in ("label", "group", "key", "role", "x")}
            yield line, {"name": name, **told}


def _of_record(record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"status": "missing"}
    p, cost = record.provenance, record.cost
    return {
        "status": record.status,
        "accuracy": record.accuracy("last"),
        "best": record.accuracy("best"),
        "best_epoch": record.result["best_epoch"] + 1 if record.status == "finished" else None,
        "arithmetic": record.arithmetic,
        "device": p.get("device_name"),
        "threads": p.get("threads"),
        "train_seconds": cost.get("train_seconds"),
        "images_per_second": cost.get("images_per_second"),
        "commit": (p["commit"] or "unknown")[:8] + "+" * bool(p["changed"]),
        "ended": p.get("ended"),
    }


def published_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """Return what the sources print of the lines, one row per line and source; a line that none of them prints has one
    row without source and accuracy.

    Returns:
        Columns: name, label, group, key, role, source, accuracy (%), note.
    """
    rows = [
        {**of_line, "source": said.source or None, "accuracy": said.value, "note": said.note}
        for line, of_line in _described(lines)
        for said in line.published or (Published("", math.nan),)
    ]
    return pd.DataFrame(rows, columns=["name", "label", "group", "key", "role", "source", "accuracy", "note"])


def mean_sd(runs: pd.DataFrame, column: str = "accuracy") -> str:
    """Return the rows of one line as text: "70.95 ± 0.12 (n = 3)", with the sample standard deviation; then the number
    of runs in each arithmetic, if there are several, and the numbers of diverged and missing runs."""
    values = runs[column].dropna()
    parts = []
    if len(values):
        spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
        parts.append(f"{values.mean():.2f}{spread} (n = {len(values)})")
    used = runs.loc[values.index, "arithmetic"].value_counts()
    if len(used) > 1:
        parts.append(" and ".join(f"{count} in {name}" for name, count in used.items()))
    for status in ("diverged", "missing"):
        count = int((runs["status"] == status).sum())
        if count:
            parts.append(status if count == len(runs) else f"{count} {status}")
    return ", ".join(parts)


def on_record(runs: pd.DataFrame, column: str = "accuracy") -> str:
    """Return the runs of one line and grade of evidence as text: "B: 67.62 ± 0.10 (n = 3), best epoch", or "none"."""
    if runs["grade"].iloc[0] == "none":
        return "none"
    best = column == "accuracy" and (runs["epoch"] == "best").any()
    return f"{runs['grade'].iloc[0]}: {mean_sd(runs, column)}{', best epoch' * bool(best)}"


def printed(published: pd.DataFrame) -> str:
    """Return the published figures of one line as text: "71.89 (ReviewKD paper), 71.79 ([Re] paper)"."""
    sources = published.dropna(subset="accuracy").groupby("accuracy", sort=False)["source"].unique()
    found = (f"{value:.2f} ({', '.join(names)})" for value, names in sources.items())
    return ", ".join(found) or "not published"
