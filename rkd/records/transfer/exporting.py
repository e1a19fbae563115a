"""Writing an export: the parts, then the manifest, so that a folder with a manifest is a whole export."""

import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

import rkd
from rkd.errors import ConfigError, RecordError
from rkd.records.store import Store
from rkd.records.transfer.collecting import Collected, runs_here
from rkd.records.transfer.layout import place, places
from rkd.records.transfer.manifest import MANIFEST, PART_NAME, Entry, Manifest, Part
from rkd.records.transfer.parts import TEMPORARY, PartWriter
from rkd.training import RunConfig

_LOCK = ".lock"
_STAGING = ".export"  # in the folder of working files
_FIRST = ("record", "weights", "checkpoint", "maps")  # where not all fits: what cost most to compute first


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files, parts: as in its manifest.
        left_out: why, by path, of each file here that could not be exported: damaged, or foreign.
        no_room: paths of sound files that did not fit into `max_files`.
        without_weights: ids of finished teachers whose weights are not on this machine.
    """

    files: tuple[Entry, ...]
    parts: tuple[Part, ...]
    left_out: dict[str, str]
    without_weights: tuple[str, ...]
    no_room: tuple[str, ...] = ()


def export(
    store: Store,
    folder: Path,
    *,
    runs: Collection[str] | None = None,
    planned: Iterable[RunConfig] = (),
    max_part: int = 15_000_000,
    all_weights: bool = False,
    max_files: int | None = None,
) -> Exported:
    """Write records, the checkpoints of unfinished runs, and weights of finished teachers as one folder of parts.

    The store may be in use: each file is read once, whole, and only files that can be read back are written. An export
    that was in the folder is replaced: its parts go once the new manifest stands, so that at any moment the folder
    holds one whole export. An unchanged store gives the same bytes.

    Args:
        store: where from.
        folder: made if it is not there; holds nothing but an export, or nothing.
        runs: ids; None: all there are.
        planned: runs that may be unfinished, since a checkpoint does not say from which run it learns: weights go
            along of the teachers that these and the records name. Where an unfinished run is not among them, every
            run without a teacher of its own counts as one.
        max_part: most bytes of one part; a file may lie in several.
        all_weights: weights of all recorded runs, not of finished teachers alone.
        max_files: most files in the folder, manifest included. Records go first then, weights of teachers next, then
            checkpoints, then maps, each as long as it fits; and the parts are written beside the working files and
            moved, so that the folder holds more files only for the moment in which an export replaces another.

    Raises:
        ConfigError: max_part is below 1, or max_files below 2.
        RecordError: the folder holds something else, or cannot be written; there is nothing to export; another process
            is exporting to the folder.
    """
    check(folder, max_part, max_files)
    chosen, left_out = runs_here(store)
    chosen = [run for run in chosen if runs is None or run in runs]
    if not chosen:
        raise RecordError(f"nothing to export: no record in {store.records}, no checkpoint in {store.work}")
    collected = Collected(store, chosen, planned, all_weights, left_out)
    files: Iterable[tuple[str, str, bytes]] = collected
    no_room: list[str] = []
    if max_files is not None:
        files = _fitting(collected, (max_files - 1) * max_part, no_room)
    # What comes back from some machines is counted in files: there parts are not written where they are to lie.
    desk = folder if max_files is None else store.work / _STAGING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(desk):
            manifest = _write(folder, desk, files, max_part)
    except Timeout as error:
        raise RecordError(f"another process is exporting to {folder}") from error
    except OSError as error:
        raise RecordError(f"the export to {folder} failed: {error}") from error
    return Exported(
        manifest.files, manifest.parts, left_out, tuple(collected.without_weights), tuple(no_room)
    )


@contextmanager
def _alone(desk: Path) -> Iterator[None]:
    """Hold the folder where parts are written; Timeout if another process does."""
    desk.mkdir(parents=True, exist_ok=True)
    with FileLock(desk / _LOCK, timeout=0):
        yield


def _fitting(
    files: Iterable[tuple[str, str, bytes]], room: int, no_room: list[str]
) -> Iterator[tuple[str, str, bytes]]:
    """Those that fit into so many bytes, in the order of _FIRST; the paths of the others go into `no_room`."""
    for run, path, data in sorted(files, key=lambda file: _FIRST.index(places(file[0])[file[1]])):
        if len(data) <= room:
            room -= len(data)
            yield run, path, data
        else:
            no_room.append(path)


def _write(folder: Path, desk: Path, files: Iterable[tuple[str, str, bytes]], max_part: int) -> Manifest:
    """Parts, then the manifest; then parts of the export before go."""
    writer = PartWriter(desk, max_part)
    try:
        entries = tuple(writer.add(*file) for file in files)
        if not entries:
            raise RecordError("nothing to export: no record or checkpoint can be read")
        manifest = Manifest(rkd.__version__, entries, writer.close())
    finally:
        (desk / TEMPORARY).unlink(missing_ok=True)
    if desk != folder:
        for part in manifest.parts:
            shutil.move(desk / part.name, folder / part.name)
    place(folder / MANIFEST, manifest.to_json().encode())
    kept = {part.name for part in manifest.parts}
    for path in folder.iterdir():
        if PART_NAME.fullmatch(path.name) and path.name not in kept:
            path.unlink()
    return manifest


def check(folder: Path, max_part: int, max_files: int | None) -> None:
    """Raise what `export` would of its arguments, or where the folder of an export holds anything else."""
    if max_part < 1:
        raise ConfigError(f"max_part is {max_part}; a part needs at least 1 byte")
    if max_files is not None and max_files < 2:
        raise ConfigError(f"max_files is {max_files}; an export has at least 2, the manifest and a part")
    try:
        _check_contents(folder)
    except OSError as error:
        raise RecordError(f"{folder} cannot be read: {error.strerror or error}") from error


def _check_contents(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name one for the export, or a new one")
    ours = {MANIFEST, f".{MANIFEST}.tmp", _LOCK, TEMPORARY}
    others = sorted(
        p.name for p in folder.iterdir() if p.name not in ours and not PART_NAME.fullmatch(p.name)
    )
    if others:
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RecordError(
            f"{folder} holds something that is no part of an export ({listed}); name an empty folder"
        )
    if (folder / MANIFEST).exists():
        Manifest.read(folder)
