"""Merging an export into a store, run by run: what is added, what is here already, what is refused."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rkd.errors import RecordError
from rkd.files import check_regular, unused_path, write_atomic
from rkd.records.store import Store
from rkd.records.transfer.archive import KINDS, ArchiveEntry, Manifest, comparable_content, local_path, reader


@dataclass(frozen=True)
class Outcome:
    """What became of one file: state is "added", "here" (there was nothing to do) or "refused", and why."""

    path: str
    kind: str
    state: str
    why: str = ""


def merge(store: Store, folder: Path) -> list[Outcome]:
    """Merge an export into a store: add what is missing here, keep what is here.

    A file is refused, and the one here stays, when it lies in a part that is missing or damaged, cannot be read, is of
    another run than it claims, belongs to a run that is being trained here now, or contradicts the file here (a record
    of the same run with another config, status, curves or result; weights with other tensors). Of two checkpoints of a
    run, and of two files of its maps, the one further on, by what its content proves (see `checkpoint.check_progress`),
    stays; where the run is recorded, checkpoints are ignored, and the record of a run takes the place of its checkpoint
    here. What is replaced is kept, as NAME.before. Each file is put in place atomically, under its run's lock. A second
    call changes nothing.

    Returns one outcome per file of the export, in its order.

    Raises:
        RecordError: no export, or one whose manifest is damaged, of another format, or names a place outside a store;
            the store cannot be written.
    """
    manifest = Manifest.read(folder)
    read = reader(folder, manifest)
    by_run: dict[str, list[ArchiveEntry]] = {}
    for entry in sorted(manifest.files, key=lambda entry: KINDS.index(entry.kind)):
        by_run.setdefault(entry.run, []).append(entry)
    outcomes: dict[str, Outcome] = {}
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        # Of two imports at once the second waits: it would else take the first for a training process.
        with FileLock(store.work / ".import.lock"):
            for run, entries in by_run.items():
                # Others hold a run for an instant to see whether it is being trained.
                with store.lock(run, wait=0.2) as ours:
                    outcomes |= {done.path: done for done in _merge_run(store, entries, read, ours)}
    except OSError as error:
        raise RecordError(f"the import into {store.records} failed: {error}") from error
    return [outcomes[entry.path] for entry in manifest.files]


def _merge_run(
    store: Store, entries: list[ArchiveEntry], read: Callable[[ArchiveEntry], bytes], ours: bool
) -> Iterator[Outcome]:
    """Merge the files of one run, its record first: where that is refused, so are the others."""
    contradicted = False
    for entry in entries:
        try:
            data = read(entry)
            if not ours:
                raise RecordError(f"run {entry.run} is in training here; import again when it has ended")
            if contradicted:
                raise RecordError(f"the record of run {entry.run} that came with it was refused")
            contradicted = entry.kind == "record"
            state = "added" if _merge_file(store, entry, data) else "here"
            contradicted = False
            yield Outcome(entry.path, entry.kind, state)
        except RecordError as error:
            yield Outcome(entry.path, entry.kind, "refused", str(error))


def _merge_file(store: Store, entry: ArchiveEntry, data: bytes) -> bool:
    """Put a file in place if it is missing here, or further on; RecordError if it contradicts the one here."""
    run, kind, path = entry.run, entry.kind, local_path(store, entry.path)
    here = None
    if path.exists():
        try:
            check_regular(path)
        except OSError as error:
            raise RecordError(f"{path} here: {error.strerror}") from error
        here = path.read_bytes()
    unfinished = kind == "checkpoint" or (kind == "maps" and path.is_relative_to(store.folder(run)))
    if here == data or (unfinished and store.has(run)):
        return False
    theirs = comparable_content(entry.path, data)
    if here is not None:
        try:
            mine = comparable_content(entry.path, here)
        except RecordError as error:
            raise RecordError(
                f"the file here cannot be compared: {error}; delete {path} and import again"
            ) from error
        final = kind in ("record", "weights")
        if final and theirs != mine:
            raise RecordError(f"conflict: the {kind} here has other content; it stays")
        if final or theirs <= mine:
            return False
        _keep(path)
    write_atomic(path, data)
    if kind == "record":
        _keep(store.folder(run) / "checkpoint.pt")
    return True


def _keep(path: Path) -> None:
    """A file that another takes the place of, as NAME.before, NAME.before-2 and so on beside it."""
    if path.exists():
        path.rename(unused_path(path.with_name(f"{path.name}.before")))
