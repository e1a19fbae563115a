"""What ended runs came to, for those who count or judge them. To read a record takes torch, and seconds for many: what
was read and found sound is kept in the build folder until its file changes."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from rkd import paths
from rkd.files import digest, place


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
    file = paths.build() / "ended" / f"{digest(str(records.resolve()), str(Ended._fields))[:12]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Ended | None] = {}
    with FileLock(file.with_suffix(".lock")):  # chapters that are executed at once ask at once
        kept = json.loads(file.read_bytes()) if file.is_file() else {}
        before = dict(kept)
        for run in runs:
            try:
                about = (records / f"{run}.json").stat()
            except FileNotFoundError:
                continue
            version, *facts = kept.get(run, [None])
            if version != (now := [about.st_size, about.st_mtime_ns]):
                facts = _read(records, run)
                kept |= {run: [now, *facts]} if facts else {}
            found[run] = Ended(*facts) if facts else None
        if kept != before:
            place(file, json.dumps(kept).encode())
    return found


def _read(records: Path, run: str) -> Ended | None:
    from rkd.records import Store  # with torch

    if (record := Store(records, records).read([run]).get(run)) is None:
        return None
    config = record.config
    return Ended(
        run, record.status, config.seed, config.method, config.precision, record.arithmetic, record.result
    )
