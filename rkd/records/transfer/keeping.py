"""An export that is kept up to date while runs are trained, for machines that may go away at any moment."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rkd.errors import RecordError
from rkd.records.store import Store
from rkd.records.transfer.archive import MANIFEST, Manifest
from rkd.records.transfer.exporting import Exported, check, export
from rkd.training import RunConfig

LOOK_SECONDS = 1.0  # between looks whether something new was saved
LEAST_SECONDS = 10.0  # between exports
SHARE = 0.2  # of the time may go into them: they read all they write


class KeptExport:
    """Writes what is new in a store to a folder, by a thread of its own, whenever a run was recorded or a checkpoint
    saved: of the planned runs those that are not recorded when this object is made, and the runs of an export that lies
    in the folder already. As a context manager it begins with the block; after the block, `last` is of all there is.

    Arguments are as of `export`. Attributes:
        seconds: that the slowest export took so far.
        last: the latest export; None before there is something to export.

    Raises:
        ConfigError: max_part or max_files is too small.
        RecordError: the folder holds something else, or a damaged export; when the block ends: the last export failed.
    """

    def __init__(
        self, store: Store, folder: Path, planned: Sequence[RunConfig], max_part: int, max_files: int | None
    ) -> None:
        check(folder, max_part, max_files)
        self._store, self._folder, self._planned = store, folder, planned
        self._limits = {"max_part": max_part, "max_files": max_files}
        self._runs = {config.id for config in planned if not store.has(config.id)}
        if (folder / MANIFEST).exists():
            self._runs |= {entry.run for entry in Manifest.read(folder).files}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="export", daemon=True)
        self._seen: list[int] = []
        self.seconds = 0.0
        self.last: Exported | None = None

    def __enter__(self) -> "KeptExport":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._write()

    def _keep(self) -> None:
        wait = LOOK_SECONDS
        while not self._stopping.wait(wait):
            wait = LOOK_SECONDS
            if self._changes() == self._seen:
                continue
            try:
                self._write()
                wait = max(LEAST_SECONDS, self.seconds / SHARE)
            except RecordError as error:  # training goes on; if it does not help, the last one says so again
                print(f"{error}; training goes on", file=sys.stderr, flush=True)
                wait = LEAST_SECONDS

    def _write(self) -> None:
        checkpoints = [self._store.folder(run) / "checkpoint.pt" for run in self._runs]
        if not any(map(self._store.has, self._runs)) and not any(path.exists() for path in checkpoints):
            return
        seen, started = self._changes(), time.monotonic()
        self.last = export(self._store, self._folder, runs=self._runs, planned=self._planned, **self._limits)
        self._seen, self.seconds = seen, max(self.seconds, time.monotonic() - started)

    def _changes(self) -> list[int]:
        """Times at which files came into the folders of records and of runs, for each is put in place by renaming."""
        folders = [self._store.records]
        if self._store.work.is_dir():
            folders += sorted(p for p in self._store.work.iterdir() if not p.name.startswith("."))
        return [folder.stat().st_mtime_ns for folder in folders if folder.exists()]
