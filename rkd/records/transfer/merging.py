"""Merging an export into a store, run by run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rkd.errors import RecordError
from rkd.records.store import Store
from rkd.records.transfer.layout import KINDS, local
from rkd.records.transfer.manifest import Entry, Manifest
from rkd.records.transfer.parts import PartReader
from rkd.records.transfer.rules import MERGES

# How long a run's lock is tried for: others hold it for an instant to see whether the run is being trained.
_TRIES, _PAUSE = 4, 0.05


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
    run the one further on stays; where the run is recorded, checkpoints are ignored, and the record of a run removes
    its checkpoint here. Each file is put in place atomically, under its run's lock. A second call changes nothing.

    Args:
        store: where to.
        folder: what `export` wrote.

    Returns:
        One outcome per file of the export, in its order.

    Raises:
        RecordError: no export, or one whose manifest is damaged, of another format, or names a place outside a store;
            the store cannot be written.
    """
    manifest = Manifest.read(folder)
    parts = PartReader(folder, manifest.parts)
    by_run: dict[str, list[Entry]] = {}
    for entry in manifest.files:
        by_run.setdefault(entry.run, []).append(entry)
    outcomes: dict[str, Outcome] = {}
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        # Of two imports at once the second waits: it would else take the first for a training process.
        with FileLock(store.work / ".import.lock"):
            for run, entries in by_run.items():
                outcomes |= {outcome.path: outcome for outcome in _merge_run(store, run, entries, parts)}
    except OSError as error:
        raise RecordError(f"the import into {store.records} failed: {error}") from error
    return [outcomes[entry.path] for entry in manifest.files]


def _merge_run(store: Store, run: str, entries: list[Entry], parts: PartReader) -> Iterator[Outcome]:
    """What becomes of the files of one run."""
    contents: dict[Entry, bytes] = {}
    for entry in sorted(entries, key=lambda entry: KINDS.index(entry.kind)):
        try:
            contents[entry] = parts.read(entry)
        except RecordError as error:
            yield Outcome(entry.path, entry.kind, "refused", str(error))
    if not contents:
        return
    with _held(store, run) as ours:
        contradicted = False
        for entry, data in contents.items():
            path = local(store, entry.path)
            try:
                if not ours:
                    raise RecordError(f"run {run} is being trained here now; import again when it has ended")
                if contradicted:
                    raise RecordError(f"the record of run {run} that came with it was refused")
                added = MERGES[entry.kind](store, run, path, data)
            except RecordError as error:
                contradicted |= entry.kind == "record"
                yield Outcome(entry.path, entry.kind, "refused", str(error))
            else:
                yield Outcome(entry.path, entry.kind, "added" if added else "here")


@contextmanager
def _held(store: Store, run: str) -> Iterator[bool]:
    """Hold the run; False when another process keeps it for longer than a look takes."""
    for _ in range(_TRIES):
        with store.lock(run, wait=False) as ours:
            if ours:
                yield True
                return
        time.sleep(_PAUSE)
    yield False
