"""Choose the files of a store to export and write them: first the parts, then the manifest, so that a folder with a
manifest holds a complete export. For machines that may vanish at any moment, an export is kept up to date while runs
are trained."""

import functools
import json
import math
import re
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from rkd.config import Count
from rkd.config import validate as check_value
from rkd.errors import ConfigError, RecordError
from rkd.files import check_regular, write_atomic
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer import archive
from rkd.records.transfer.archive import KINDS, MANIFEST, ArchiveEntry, Manifest, kind_and_run
from rkd.training import RunConfig

# At its end a tar file is padded to a whole block, followed by two empty blocks, and padded to a whole tar record.
END = 3 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
LOOK_SECONDS = 1.0  # between checks for newly saved files
LEAST_SECONDS = 10.0  # between exports
SHARE = 0.2  # of the time that exports may take: they read all that they write


@dataclass
class ExportResult:
    """What an export wrote.

    Attributes:
        left_out: the reason, by path, for each file of the store that is damaged or foreign, and so not exported.
        without_weights: ids of finished teachers whose weights are not on this machine.
        no_room: paths of sound files that did not fit into `max_files`.
    """

    files: list[ArchiveEntry] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    without_weights: list[str] = field(default_factory=list)
    no_room: list[str] = field(default_factory=list)


def collect(
    store: Store,
    runs: Collection[str] | None,
    planned: Iterable[RunConfig],
    all_weights: bool,
    done: ExportResult,
) -> Iterator[tuple[str, bytes]]:
    """Yield each file's path in the export and its content. One read suffices: a store's files are replaced, never
    changed in place. Arguments are those of `export`; what cannot be exported is noted in `done`."""
    records: dict[str, Record] = {}

    def sound(*paths: str) -> list[tuple[str, bytes]]:
        found = []
        for path in paths:
            try:
                check_regular(local := archive.local_path(store, path))
                archive.comparable_content(path, data := local.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, RecordError) as error:
                done.left_out[path] = str(error)
                continue
            found.append((path, data))
        return found

    begun = (path.name for path in store.work.glob("[0-9a-f]*"))
    for run in sorted({*store.ids(), *begun}):
        if runs is None or run in runs:
            ended, state = f"records/{run}.json", f"work/{run}/checkpoint.pt"
            # Look for the record twice: a run that was in training the first time may have ended since.
            for path, data in (found := sound(ended) or sound(state) or sound(ended)):
                if path == ended:
                    records[run] = Record.from_json(data, path)
            yield from found
            yield from sound(f"maps/{run}.npz" if run in records else f"work/{run}/maps.npz")
    named = [config.teacher for config in (*planned, *(record.config for record in records.values()))]
    teachers = {t.run.id if t.run else t.record for t in named if t and t.weights != "random"}
    for run, record in records.items():
        teaches = run in teachers and record.status == "finished"
        if teaches or all_weights:
            yield from (found := sound(f"work/{run}/last.pt", f"work/{run}/best.pt"))
            if teaches and not found:
                done.without_weights.append(run)


def export(
    store: Store,
    folder: Path,
    *,
    runs: Collection[str] | None = None,
    planned: Iterable[RunConfig] = (),
    max_part: int = 15_000_000,
    all_weights: bool = False,
    max_files: int | None = None,
) -> ExportResult:
    """Write records, checkpoints of unfinished runs, maps, and weights of finished teachers as one tar file in parts.

    The store may be in use: only files that can be read back are written. At any moment the folder holds one complete
    export, the previous one or this one. An unchanged store gives the same bytes.

    Args:
        folder: created if missing; must be empty or hold an earlier export, nothing else.
        planned: runs that may be unfinished. Weights are exported of the teachers that these and the records name;
            checkpoints are not searched for teachers.
        max_files: most files in the folder, manifest included, except for the moment when one export replaces another.
            If given, records go first, then weights of teachers, checkpoints and maps, each file if it still fits.

    Raises:
        ConfigError: max_part is below 1, or max_files below 2.
        RecordError: the folder holds something else or cannot be written, or there is nothing to export.
    """
    check_export(folder, max_part, max_files)
    done = ExportResult()
    files: Iterable[tuple[str, bytes]] = collect(store, runs, planned, all_weights, done)
    if max_files is not None:
        files = sorted(files, key=lambda file: KINDS.index(kind_and_run(file[0])[0]))
    room = math.inf if max_files is None else max_part * (max_files - 1) - END
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        # A second export at the same time waits for the first.
        with FileLock(store.work / ".export.lock"), tempfile.TemporaryFile(dir=store.work) as whole:
            with tarfile.TarFile(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for path, data in files:
                    start = whole.tell() + tarfile.BLOCKSIZE  # after its header
                    if start + len(data) > room:
                        done.no_room.append(path)
                        continue
                    archive.add_file(tar, path, data)
                    done.files.append(ArchiveEntry(path, start, len(data)))
            if not done.files:
                lacking = f"no sound record in {store.records}, no checkpoint in {store.work}"
                raise RecordError(f"nothing to export: {lacking}")
            done.parts = list(archive.split_parts(whole, folder, max_part))
            manifest = asdict(Manifest(max_part, done.parts, done.files))
            write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
            for old in folder.glob("*part-*"):
                if old.name not in done.parts:
                    old.unlink()
    except OSError as error:
        raise RecordError(f"the export to {folder} failed: {error}") from error
    return done


def check_export(folder: Path, max_part: int, max_files: int | None) -> None:
    """Raise the errors that `export` would for these arguments, or if the folder holds anything but an export."""
    check_value(Count, "max_part", max_part)
    if max_files is not None and max_files < 2:
        raise ConfigError(f"max_files is {max_files}; an export has at least 2, the manifest and a part")
    archive.check_folder(folder, "an export", rf"{archive.PART_NAME}|{re.escape(MANIFEST)}")
    if (folder / MANIFEST).exists():
        Manifest.read(folder)


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
