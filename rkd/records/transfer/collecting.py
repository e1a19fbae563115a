"""Which files of a store are to be exported, and their content."""

from collections.abc import Iterable, Iterator

from rkd.errors import RecordError
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer.content import read
from rkd.records.transfer.layout import RUN_ID, local, places, read_bytes
from rkd.training import RunConfig


def runs_here(store: Store) -> tuple[list[str], dict[str, str]]:
    """Ids of all runs with a record or a work folder, sorted; and files among the records that are none."""
    records = set(store.ids())
    foreign = sorted(name for name in records if not RUN_ID.fullmatch(name))
    works = {path.name for path in store.work.iterdir()} if store.work.is_dir() else set()
    begun = {
        run
        for run in works
        if RUN_ID.fullmatch(run) and any(local(store, path).exists() for path in places(run))
    }
    left_out = {f"records/{name}.json": "its name is not a run's id" for name in foreign}
    return sorted((records - set(foreign)) | begun), left_out


class Collected:
    """Iterates over (run, path, content) of all files to export: records, checkpoints, weights, maps. What cannot be
    read is put into `left_out`."""

    def __init__(
        self,
        store: Store,
        runs: list[str],
        planned: Iterable[RunConfig],
        all_weights: bool,
        left_out: dict[str, str],
    ) -> None:
        self._store = store
        self._runs = runs
        self._planned = {config.id: config for config in planned}
        self._all_weights = all_weights
        self._left_out = left_out
        self._records: dict[str, Record] = {}
        self._teachers = {_teacher(config) for config in self._planned.values()}
        self.without_weights: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        for run in self._runs:
            yield from self._record(run)
        for run in self._runs:
            if run not in self._records:
                # A run in training has a checkpoint; one that has ended since the first look has a record.
                yield from self._checkpoint(run) or self._record(run)
            yield from self._files(run, f"maps/{run}.npz" if run in self._records else f"work/{run}/maps.npz")
        for run, record in self._records.items():
            yield from self._weights(run, record.status == "finished" and run in self._teachers)

    def _record(self, run: str) -> list[tuple[str, str, bytes]]:
        found = self._files(run, f"records/{run}.json")
        for _, _, data in found:
            self._records[run] = read("record", run, data)
            self._teachers.add(_teacher(self._records[run].config))
        return found

    def _checkpoint(self, run: str) -> list[tuple[str, str, bytes]]:
        found = self._files(run, f"work/{run}/checkpoint.pt")
        if found and run not in self._planned and read("checkpoint", run, found[0][2]).get("method"):
            # It learns from some run, and does not say from which.
            self._teachers |= {run for run, record in self._records.items() if record.config.teacher is None}
        return found

    def _weights(self, run: str, teaches: bool) -> list[tuple[str, str, bytes]]:
        if not (teaches or self._all_weights):
            return []
        found = self._files(run, f"work/{run}/last.pt", f"work/{run}/best.pt")
        if teaches and not found:
            self.without_weights.append(run)
        return found

    def _files(self, run: str, *paths: str) -> list[tuple[str, str, bytes]]:
        """Those of the files that are there and sound."""
        found = []
        for path in paths:
            data = read_bytes(local(self._store, path))
            if data is None:
                continue
            try:
                read(places(run)[path], run, data)
            except RecordError as error:
                self._left_out[path] = str(error)
            else:
                found.append((run, path, data))
        return found


def _teacher(config: RunConfig) -> str | None:
    """Id of the run whose weights this one needs."""
    teacher = config.teacher
    return teacher.run.id if teacher and teacher.run and teacher.weights != "random" else None
