"""The folder of records of one profile, and the working files beside it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from rkd.config import SETTLED
from rkd.errors import RecordError, say_once
from rkd.files import check_regular, write_atomic
from rkd.records.record import MOST_BYTES, REMEDY, Record
from rkd.training.config import RunConfig


@dataclass(frozen=True)
class Store:
    """The records and working files of one profile.

    Attributes:
        records: folder of `<id>.json`, one per finished run; small, meant to be committed.
        work: folder of one folder `<id>/` per run: checkpoint, last and best weights, log, lock. Never committed.
    """

    records: Path
    work: Path

    def path(self, run: str) -> Path:
        """Return the path of a run's record."""
        return self.records / f"{run}.json"

    def folder(self, run: str) -> Path:
        """Return the path of a run's working folder."""
        return self.work / run

    def maps(self, run: str) -> Path:
        """Return the path of a finished run's maps of a few test images, if it kept any (see experiments.snapshots)."""
        return self.records / "maps" / f"{run}.npz"

    def has(self, run: str) -> bool:
        """Whether the run is recorded, even if its record is damaged."""
        return self.path(run).exists()

    def recorded(self, run: RunConfig, first: str = SETTLED[0]) -> Iterator[RunConfig]:
        """Yield the recorded runs that a run stands for: itself or, where it leaves its own or its teacher's arithmetic
        open ("auto"), all runs that differ from it only in that. They are ordered by their own arithmetic, then by
        their teacher's: `first`, fp32, fp16, bf16."""
        for names in run.choices(first):
            if self.has(run.settled_id(*names)):
                yield run.settled(*names)

    def load(self, run: str) -> Record:
        """Read the record of a run.

        Raises:
            RecordError: the record is missing, damaged, or of another run than its file name says.
        """
        path = self.path(run)
        if not path.exists():
            raise RecordError(f"run {run} is not recorded in {self.records}")
        try:
            check_regular(path, MOST_BYTES)
            data = path.read_bytes()
        except OSError as error:
            raise RecordError(f"record {path} cannot be read: {error.strerror}; {REMEDY}") from error
        record = Record.from_json(data, str(path))
        if record.id != run:
            raise RecordError(f"record {path} belongs to run {record.id}; it was renamed or copied; {REMEDY}")
        return record

    def save(self, record: Record) -> Path:
        """Write a record atomically (readers see the old file or the new, never half of one) and return its path."""
        write_atomic(self.path(record.id), record.to_json().encode())
        return self.path(record.id)

    def ids(self) -> list[str]:
        """Return the ids of all recorded runs, sorted."""
        return sorted(p.stem for p in self.records.glob("*.json")) if self.records.exists() else []

    def read(self, runs: Iterable[str]) -> dict[str, Record]:
        """Return the records of the runs that have one, by id. Damaged ones are left out, and named once, on stderr."""
        found = {}
        for run in filter(self.has, runs):
            try:
                found[run] = self.load(run)
            except RecordError as error:
                say_once(str(error))
        return found

    def __iter__(self) -> Iterator[Record]:
        """Iterate over all readable records."""
        return iter(self.read(self.ids()).values())

    @contextmanager
    def lock(self, run: str, wait: float = 0.0) -> Iterator[bool]:
        """Lock the run for this process; yield whether that succeeded, False if another process still holds the lock
        after `wait` seconds. The lock ends with the process, however that ends."""
        lock = FileLock(self.folder(run) / "lock", timeout=wait)
        self.folder(run).mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            lock.acquire()
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def running(self, run: str) -> bool:
        """Whether a process holds the run's lock now."""
        if not (self.folder(run) / "lock").exists():
            return False
        with self.lock(run) as ours:
            return not ours
