"""Merge an export into a store, run by run: which files are added, already here, or refused."""

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
    """What became of one file: state is "added", "here" (nothing to do) or "refused"; `why` says why it was refused."""

    path: str
    kind: str
    state: str
    why: str = ""


def merge(store: Store, folder: Path) -> list[Outcome]:
    """Merge an export into a store: add what is missing, keep what is there.

    A file is refused, and the store's own stays, if it lies in a missing or damaged part, cannot be read, is of another
    run than it claims, belongs to a run that is being trained here now, or contradicts the store's file (a record of
    the same run with another config, status, curves or result; weights with other tensors). Of two checkpoints or maps
    of a run, the one that has come further stays, judged by its content (see `checkpoint.check_progress`). Once a run
    is recorded, its checkpoints and unfinished maps are ignored; a record that is added replaces the run's checkpoint
    here. Replaced files are kept as NAME.before. Each file is put in place atomically, under its run's lock. A second
    call changes nothing.

    Returns one outcome per file of the export, in the export's order.

    Raises:
        RecordError: the folder holds no export, or one whose manifest is damaged, of another format, or names a place
            outside a store; or the store cannot be written.
    """
    manifest = Manifest.read(folder)
    read = reader(folder, manifest)
    by_run: dict[str, list[ArchiveEntry]] = {}
    for entry in sorted(manifest.files, key=lambda entry: KINDS.index(entry.kind)):
        by_run.setdefault(entry.run, []).append(entry)
    outcomes: dict[str, Outcome] = {}
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        # A second import at the same time waits: it would otherwise take the first for a training process.
        with FileLock(store.work / ".import.lock"):
            for run, entries in by_run.items():
                # Other processes briefly lock a run to see whether it is being trained.
                with store.lock(run, wait=0.2) as ours:
                    outcomes |= {done.path: done for done in _merge_run(store, entries, read, ours)}
    except OSError as error:
        raise RecordError(f"the import into {store.records} failed: {error}") from error
    return [outcomes[entry.path] for entry in manifest.files]


def _merge_run(
    store: Store, entries: list[ArchiveEntry], read: Callable[[ArchiveEntry], bytes], ours: bool
) -> Iterator[Outcome]:
    """Merge the files of one run, its record first: if that is refused, so are the others."""
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
    """Add a file that is missing here or has come further; return whether. RecordError if it contradicts ours."""
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
    """Rename a file that another will replace, to NAME.before, NAME.before-2 and so on."""
    if path.exists():
        path.rename(unused_path(path.with_name(f"{path.name}.before")))
