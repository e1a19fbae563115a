"""An export that is kept up to date while runs are trained, for machines that may vanish at any moment."""

import functools
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rkd.errors import RecordError
from rkd.records.store import Store
from rkd.records.transfer.archive import MANIFEST, Manifest
from rkd.records.transfer.exporting import ExportResult, check_export, export
from rkd.training import RunConfig

LOOK_SECONDS = 1.0  # between checks for newly saved files
LEAST_SECONDS = 10.0  # between exports
SHARE = 0.2  # of the time that exports may take: they read all that they write


class KeptExport:
    """A context manager whose thread repeats an export after a run is recorded or a checkpoint saved, and that exports
    once more at the end of its block. It exports the planned runs that are not recorded when it is made, and the runs
    of an export that is already in the folder. Arguments and errors are those of `export`.

    Attributes:
        seconds: duration of the slowest export so far.
        last: the latest export; None until there has been something to export.
    """

    def __init__(
        self, store: Store, folder: Path, planned: Sequence[RunConfig], max_part: int, max_files: int | None
    ) -> None:
        check_export(folder, max_part, max_files)
        runs = {config.id for config in planned if not store.has(config.id)}
        if (folder / MANIFEST).exists():
            runs |= {entry.run for entry in Manifest.read(folder).files}
        self._export = functools.partial(
            export, store, folder, runs=runs, planned=planned, max_part=max_part, max_files=max_files
        )
        self._saves = [
            path for run in runs for path in (store.path(run), store.folder(run) / "checkpoint.pt")
        ]
        self._seen: dict[Path, int] = {}  # modification times of what was saved before the last export
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="export", daemon=True)
        self.seconds = 0.0
        self.last: ExportResult | None = None

    def __enter__(self) -> "KeptExport":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._write(self._saved())

    def _keep(self) -> None:
        wait = LOOK_SECONDS
        while not self._stopping.wait(wait):
            wait = LOOK_SECONDS
            if (saved := self._saved()) != self._seen:
                try:
                    self._write(saved)
                except RecordError as error:  # if the cause persists, the final export raises it again
                    print(f"{error}; training goes on", file=sys.stderr, flush=True)
                wait = max(LEAST_SECONDS, self.seconds / SHARE)

    def _write(self, saved: dict[Path, int]) -> None:
        if saved:
            started = time.monotonic()
            self.last = self._export()
            self._seen, self.seconds = saved, max(self.seconds, time.monotonic() - started)

    def _saved(self) -> dict[Path, int]:
        found = {}
        for path in self._saves:
            with suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
        return found
