"""Which files of a store are to be exported, and writing them: the parts, then the manifest, so that a folder with a
manifest is a whole export."""

import json
import math
import re
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator
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

# A tar file is filled up to a whole block behind its last member, two empty ones follow, then up to a whole record.
END = 3 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE


@dataclass
class ExportResult:
    """What an export wrote.

    Attributes:
        left_out: why, by path, of each file here that could not be exported: damaged, or foreign.
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
    """Path in the export and content of all files, each read once: those of a store are replaced, never rewritten.
    Arguments as of `export`; what is not to be had goes into `done`."""
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
            # Twice: a run that was in training at the first look may have ended.
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
    """Write records, the checkpoints of unfinished runs, and weights of finished teachers as one tar file in parts.

    The store may be in use: only files that can be read back are written. At any moment the folder holds one whole
    export, the one before or this one. An unchanged store gives the same bytes.

    Args:
        folder: made if it is not there; holds nothing but an export, or nothing.
        planned: runs that may be unfinished. A checkpoint does not say from which run it learns: weights go along of
            the teachers that these and the records name.
        max_files: most files in the folder, manifest included, but for the moment in which an export replaces another.
            Records go first then, weights of teachers next, then checkpoints, then maps, each as long as it fits.

    Raises:
        ConfigError: max_part is below 1, or max_files below 2.
        RecordError: the folder holds something else, or cannot be written; there is nothing to export.
    """
    check_export(folder, max_part, max_files)
    done = ExportResult()
    files: Iterable[tuple[str, bytes]] = collect(store, runs, planned, all_weights, done)
    if max_files is not None:
        files = sorted(files, key=lambda file: KINDS.index(kind_and_run(file[0])[0]))
    room = math.inf if max_files is None else max_part * (max_files - 1) - END
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        # Of two exports at once the second waits.
        with FileLock(store.work / ".export.lock"), tempfile.TemporaryFile(dir=store.work) as whole:
            with tarfile.TarFile(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for path, data in files:
                    start = whole.tell() + tarfile.BLOCKSIZE  # behind its header
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
    """Raise what `export` would of its arguments, or where the folder of an export holds anything else."""
    check_value(Count, "max_part", max_part)
    if max_files is not None and max_files < 2:
        raise ConfigError(f"max_files is {max_files}; an export has at least 2, the manifest and a part")
    archive.check_folder(folder, "an export", rf"{archive.PART_NAME}|{re.escape(MANIFEST)}")
    if (folder / MANIFEST).exists():
        Manifest.read(folder)
