"""What ended runs came to, for those who count or judge them. To read a record takes torch, and seconds for many: what
was read and found sound is kept in the build folder until its file changes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rkd.experiments.workspace import cached_values
from rkd.files import digest


class Ended(NamedTuple):
    """Of a record, under its names: see `rkd.records.Record`."""

    id: str
    status: str
    seed: int
    method: str
    precision: str
    arithmetic: str
    result: dict[str, Any]

    def accuracy(self, which: str = "last") -> float:
        """Test accuracy in percent at the "last" or the "best" epoch; NaN for a diverged run."""
        return self.result[f"{which}_accuracy"] if self.status == "finished" else math.nan


def ended(records: Path, runs: Iterable[str]) -> dict[str, Ended | None]:
    """Those of the runs that are recorded in a folder, by id; None: its record is damaged, which stderr says once."""
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
    from rkd.records import Store  # with torch

    if (record := Store(records, records).read([run]).get(run)) is None:
        return None
    config = record.config
    return Ended(
        run, record.status, config.seed, config.method, config.precision, record.arithmetic, record.result
    )
