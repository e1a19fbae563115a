"""Runs and published figures as tidy DataFrames: what notebooks group, join and plot."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rkd.experiments.chapters import Line, Published
from rkd.records import Record


def names_of(lines: Sequence[Line]) -> dict[str, str]:
    """Key of a line -> its name in frames: the label, with the group before it where several lines have that label."""
    often = Counter(line.label for line in lines)
    return {
        line.key: f"{line.group}: {line.label}" if often[line.label] > 1 and line.group else line.label
        for line in lines
    }


def same_runs(lines: Sequence[Line]) -> dict[str, str]:
    """Key of a line -> label of an earlier one of the very same runs: after injecting, lines may coincide."""
    first: dict[tuple[str, ...], str] = {}
    found = {}
    for line in lines:
        ids = tuple(run.id for run in line.runs)
        if ids in first:
            found[line.key] = first[ids]
        first.setdefault(ids, line.label)
    return found


def runs_frame(lines: Sequence[Line], records: Mapping[str, Record], profile: str) -> pd.DataFrame:
    """One row per line and seed.

    Args:
        lines: of a chapter.
        records: by run id.
        profile: name of the profile, a column.

    Returns:
        Columns: name (of the line), label, group, key, role, x (of a line that sweeps a number), profile, seed, run
        (id), status (finished, diverged or missing), accuracy (last epoch, test, %), best (best epoch, %), best_epoch
        (1-based), epochs, arithmetic, device, threads, train_seconds, images_per_second, commit, ended (UTC). Those of
        a run without a record, and accuracies of a diverged one, are missing values.
    """
    names = names_of(lines)
    rows = [
        {
            "name": names[line.key],
            "label": line.label,
            "group": line.group,
            "key": line.key,
            "role": line.role,
            "x": line.x,
            "profile": profile,
            "seed": run.seed,
            "run": run.id,
            **_of_record(records.get(run.id)),
            "epochs": run.epochs,
        }
        for line in lines
        for run in line.runs
    ]
    return pd.DataFrame(rows).astype({"accuracy": float, "best": float, "x": float})


def _of_record(record: Record | None) -> dict[str, Any]:
    empty = ("arithmetic", "device", "threads", "train_seconds", "images_per_second", "commit", "ended")
    if record is None:
        return {"status": "missing", "accuracy": None, "best": None, "best_epoch": None} | dict.fromkeys(
            empty
        )
    p = record.provenance
    return {
        "status": record.status,
        "accuracy": record.accuracy("last"),
        "best": record.accuracy("best"),
        "best_epoch": record.result["best_epoch"] + 1 if record.status == "finished" else None,
        "arithmetic": record.arithmetic,
        "device": p["device_name"],
        "threads": p["threads"],
        "train_seconds": record.cost["train_seconds"],
        "images_per_second": record.cost["images_per_second"],
        "commit": (p["commit"] or "unknown")[:8] + ("+" if p["changed"] else ""),
        "ended": p["ended"],
    }


def published_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """What the sources print of the lines, one row per line and source; a line of which they are silent has one row
    without source and accuracy.

    Returns:
        Columns: name, label, group, key, role, source, accuracy (%), note.
    """
    names, silent = names_of(lines), Published("", math.nan)
    rows = [
        (
            names[line.key],
            line.label,
            line.group,
            line.key,
            line.role,
            said.source or None,
            said.value,
            said.note,
        )
        for line in lines
        for said in line.published or (silent,)
    ]
    columns = ["name", "label", "group", "key", "role", "source", "accuracy", "note"]
    return pd.DataFrame(rows, columns=columns)


def mean_sd(runs: pd.DataFrame, column: str = "accuracy") -> str:
    """Rows of one line as text: "70.95 ± 0.12 (n = 3)", with the sample standard deviation; and how many runs diverged
    or are missing, and in which arithmetics they were computed where these are several."""
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


def printed(published: pd.DataFrame) -> str:
    """Published figures of one line as text: "71.89 (ReviewKD paper), 71.79 ([Re] paper)"."""
    sources = published.dropna(subset="accuracy").groupby("accuracy", sort=False)["source"].unique()
    return (
        ", ".join(f"{value:.2f} ({', '.join(names)})" for value, names in sources.items()) or "not published"
    )
