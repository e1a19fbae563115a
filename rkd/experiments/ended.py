"""Results of recorded runs, for code that counts or judges them. Reading a record takes torch, and many take seconds,
so what was read and found sound is cached in the build folder until the record's file changes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rkd.experiments.workspace import cached_values
from rkd.files import digest


class Ended(NamedTuple):
    """Facts of a record, under the record's own names: see `rkd.records.Record`."""

    id: str
    status: str
    seed: int
    method: str
    precision: str
    arithmetic: str
    result: dict[str, Any]

    def accuracy(self, which: str = "last") -> float:
        """Return the test accuracy in percent at the "last" or the "best" epoch; NaN for a diverged run."""
        return self.result[f"{which}_accuracy"] if self.status == "finished" else math.nan


def ended(records: Path, runs: Iterable[str]) -> dict[str, Ended | None]:
    """Return facts of those `runs` that a folder records, by id; None for a damaged record, reported once on stderr."""
    found: dict[str, Ended | None] = {}
    with cached_values(f"ended/{digest(str(records.resolve()), str(Ended._fields))[:12]}") as known:
        for run in runs:
            try:
                about = (records / f"{run}.json").stat()
            except FileNotFoundError:
                continue
            version, *facts = known.get(run, [None])
            if version != (now := [about.st_size, about.st_mtime_ns]):
                facts = _read(records, run)
                known |= {run: [now, *facts]} if facts else {}
            found[run] = Ended(*facts) if facts else None
    return found


def _read(records: Path, run: str) -> Ended | None:
    from rkd.records import Store  # imports torch

    if (record := Store(records, records).read([run]).get(run)) is None:
        return None
    config = record.config
    return Ended(
        run, record.status, config.seed, config.method, config.precision, record.arithmetic, record.result
    )
