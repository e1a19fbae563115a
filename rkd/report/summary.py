"""Measured numbers of a chapter: mean, spread and n of each line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rkd.experiments.chapters import Line
from rkd.records import Record


@dataclass(frozen=True)
class Measured:
    """Accuracies of one line over seeds, in percent.

    Attributes:
        last, best: one value per finished run, at the last and at the best epoch.
        missing, diverged: runs without a record, and runs that ended in NaN.
        records: all records there are.
    """

    last: tuple[float, ...]
    best: tuple[float, ...]
    missing: int
    diverged: int
    records: tuple[Record, ...]

    @property
    def arithmetics(self) -> tuple[str, ...]:
        """What the finished runs were computed in; a mean over several says so."""
        return tuple(dict.fromkeys(record.arithmetic for record in self.finished))

    @property
    def finished(self) -> tuple[Record, ...]:
        """The records that enter the mean."""
        return tuple(record for record in self.records if record.status == "finished")

    def mean(self, which: str = "last") -> float:
        """Mean in percent; NaN when nothing was measured."""
        values = getattr(self, which)
        return float(np.mean(values)) if values else math.nan

    def spread(self, which: str = "last") -> float:
        """Sample standard deviation (n - 1) in percentage points; NaN below two runs."""
        values = getattr(self, which)
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def measure(line: Line, records: Mapping[str, Record]) -> Measured:
    """What the records say of one line."""
    found = [records[run.id] for run in line.runs if run.id in records]
    finished = [record for record in found if record.status == "finished"]
    return Measured(
        last=tuple(record.accuracy("last") for record in finished),
        best=tuple(record.accuracy("best") for record in finished),
        missing=len(line.runs) - len(found),
        diverged=len(found) - len(finished),
        records=tuple(found),
    )


def measure_values(values: Sequence[float], records: Sequence[Record] = ()) -> Measured:
    """Accuracies in percent that are not those of runs' own networks; `records`: whose they are, if of runs."""
    return Measured(tuple(values), tuple(values), 0, 0, tuple(records))


def same_runs(lines: Sequence[Line]) -> dict[str, str]:
    """Line key -> label of an earlier line answered by the very same runs (after injecting, rows may coincide)."""
    first: dict[tuple[str, ...], Line] = {}
    found = {}
    for line in lines:
        ids = tuple(run.id for run in line.runs)
        if ids in first:
            found[line.key] = first[ids].label
        else:
            first[ids] = line
    return found
