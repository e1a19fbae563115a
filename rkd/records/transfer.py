"""Carrying results from machine to machine: records, checkpoints and weights as one folder of numbered parts with
checksums, and merging such a folder into a store.

The files are laid end to end and cut into parts of at most a given size, so that each part passes where large files do
not; `manifest.json` says where in them each file lies. It is written last: a folder with a manifest is a whole export.
"""

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

import rkd
from rkd.errors import ConfigError, RecordError
from rkd.files import replacing
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.training import RunConfig, checkpoint

FORMAT = 1
KINDS = ("record", "checkpoint", "weights")
MANIFEST = "manifest.json"
_WHAT = "rkd export"
_LOCK = ".lock"
_RUN = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"part-[0-9]{4,}-[0-9a-f]{12}\.bin")
_TEMPORARY = ".part.tmp"
# How long a run's lock is tried for: others hold it for an instant to see whether the run is being trained.
_TRIES, _PAUSE = 4, 0.05


@dataclass(frozen=True)
class Entry:
    """One file of an export.

    Attributes:
        path: relative, with forward slashes: "records/RUN.json", "work/RUN/checkpoint.pt", "work/RUN/last.pt" or
            "work/RUN/best.pt".
        kind: one of KINDS.
        run: id of the run it belongs to.
        size: in bytes.
        sha256: of its content, hexadecimal.
        offset: of its first byte in the parts laid end to end.
    """

    path: str
    kind: str
    run: str
    size: int
    sha256: str
    offset: int


@dataclass(frozen=True)
class Part:
    """One part of an export: name within the folder, size in bytes, SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an export holds.

    Attributes:
        rkd: version that wrote it.
        files: in the order they lie in the parts.
        parts: in order.
    """

    rkd: str
    files: tuple[Entry, ...]
    parts: tuple[Part, ...]

    def to_json(self) -> str:
        """Its text; the same content gives the same text."""
        return json.dumps({"kind": _WHAT, "format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of an export.

        Raises:
            RecordError: there is none; it is damaged or of another format; or it names a file that has no place in a
                store (absolute, with "..", of an unknown kind) or outside its parts.
        """
        path = folder / MANIFEST
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RecordError(f"{folder} holds no export: there is no {MANIFEST} in it") from error
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise RecordError(f"{path} is damaged: not JSON ({error})") from error
        if not isinstance(body, dict) or body.get("kind") != _WHAT:
            raise RecordError(f"{path} is not the manifest of an export")
        if body.get("format") != FORMAT:
            raise RecordError(
                f"{path} has format {body.get('format')!r}; this version (rkd {rkd.__version__}) reads {FORMAT}"
            )
        try:
            files = tuple(Entry(**values) for values in body["files"])
            parts = tuple(Part(**values) for values in body["parts"])
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is damaged: {error}") from error
        _check(path, files, parts)
        return cls(str(body.get("rkd")), files, parts)


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files, parts: as in its manifest.
        left_out: why, by path, of each file here that could not be exported: damaged, or foreign.
        without_weights: ids of finished teachers whose weights are not on this machine.
    """

    files: tuple[Entry, ...]
    parts: tuple[Part, ...]
    left_out: dict[str, str]
    without_weights: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one file: state is "added", "here" (there was nothing to do) or "refused", and why."""

    path: str
    kind: str
    state: str
    why: str = ""


def places(run: str) -> dict[str, str]:
    """The files of a run that can be exported: path in the export -> kind."""
    return {
        f"records/{run}.json": "record",
        f"work/{run}/checkpoint.pt": "checkpoint",
        f"work/{run}/last.pt": "weights",
        f"work/{run}/best.pt": "weights",
    }


def export(
    store: Store,
    folder: Path,
    *,
    runs: Collection[str] | None = None,
    planned: Iterable[RunConfig] = (),
    max_part: int = 15_000_000,
    all_weights: bool = False,
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

    Raises:
        ConfigError: max_part is below 1.
        RecordError: the folder holds something else, or cannot be written; there is nothing to export; another process
            is exporting to the folder.
    """
    if max_part < 1:
        raise ConfigError(f"max_part is {max_part}; a part needs at least 1 byte")
    chosen, left_out = _runs_here(store)
    chosen = [run for run in chosen if runs is None or run in runs]
    if not chosen:
        raise RecordError(f"nothing to export: no record in {store.records}, no checkpoint in {store.work}")
    collected = _Collection(store, chosen, planned, all_weights, left_out)
    try:
        _check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK, timeout=0):
            manifest = _write(folder, collected, max_part)
    except Timeout as error:
        raise RecordError(f"another process is exporting to {folder}") from error
    except OSError as error:
        raise RecordError(f"the export to {folder} failed: {error}") from error
    return Exported(manifest.files, manifest.parts, left_out, tuple(collected.without_weights))


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
    parts = _PartReader(folder, manifest.parts)
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


# Reading a store


def _runs_here(store: Store) -> tuple[list[str], dict[str, str]]:
    """Ids of all runs with a record or a work folder, sorted; and files among the records that are none."""
    records = set(store.ids())
    foreign = sorted(name for name in records if not _RUN.fullmatch(name))
    works = {path.name for path in store.work.iterdir()} if store.work.is_dir() else set()
    begun = {
        run
        for run in works
        if _RUN.fullmatch(run) and any(_local(store, path).exists() for path in places(run))
    }
    left_out = {f"records/{name}.json": "its name is not a run's id" for name in foreign}
    return sorted((records - set(foreign)) | begun), left_out


def _local(store: Store, path: str) -> Path:
    """Where a file of an export lies in a store."""
    _, name, *file = path.split("/")
    return store.folder(name) / file[0] if file else store.path(name.removesuffix(".json"))


def _bytes(path: Path) -> bytes | None:
    """A file as it is at one moment: files are replaced, never rewritten, so one open file never changes."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class _Collection:
    """Iterates over (run, path, content) of all files to export: records, checkpoints, weights. What cannot be read is
    put into `left_out`."""

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
        for run, record in self._records.items():
            yield from self._weights(run, record.status == "finished" and run in self._teachers)

    def _record(self, run: str) -> list[tuple[str, str, bytes]]:
        found = self._files(run, f"records/{run}.json")
        for _, _, data in found:
            self._records[run] = _read("record", run, data)
            self._teachers.add(_teacher(self._records[run].config))
        return found

    def _checkpoint(self, run: str) -> list[tuple[str, str, bytes]]:
        found = self._files(run, f"work/{run}/checkpoint.pt")
        if found and run not in self._planned and _read("checkpoint", run, found[0][2]).get("method"):
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
            data = _bytes(_local(self._store, path))
            if data is None:
                continue
            try:
                _read(places(run)[path], run, data)
            except RecordError as error:
                self._left_out[path] = str(error)
            else:
                found.append((run, path, data))
        return found


def _teacher(config: RunConfig) -> str | None:
    """Id of the run whose weights this one needs."""
    teacher = config.teacher
    return teacher.run.id if teacher and teacher.run and teacher.weights != "random" else None


def _read(kind: str, run: str, data: bytes) -> Any:
    """The content of a file: a Record, or the dict of a checkpoint or of weights.

    Raises:
        RecordError: it cannot be read, or belongs to another run. The message does not name the file.
    """
    content = _READERS[kind](run, data)
    found = content.id if kind == "record" else content["run"]
    if found != run:
        raise RecordError(f"it belongs to run {found}, not {run}")
    return content


# A file from elsewhere can be wrong anywhere in its structure, with any type of error.


def _read_record(run: str, data: bytes) -> Record:
    try:
        record = Record.from_json(data.decode(), run)
        record.to_json()
    except RecordError:
        raise
    except Exception as error:
        raise RecordError(f"record {run} is damaged ({type(error).__name__}: {error})") from error
    if record.status not in ("finished", "diverged"):
        raise RecordError(f"record {run} has the unknown status {record.status!r}")
    return record


def _read_state(run: str, data: bytes) -> dict[str, Any]:
    try:
        state = checkpoint.load(io.BytesIO(data))
        if not isinstance(state["run"], str):
            raise TypeError("run is no text")
        if not all(isinstance(tensor, Tensor) for tensor in state["student"].values()):
            raise TypeError("student holds more than tensors")
        if not all(isinstance(count, int) and count >= 0 for count in _progress(state)):
            raise TypeError("epoch and position are no counts")
    except Exception as error:
        cause = error.__cause__ or error
        first = (str(cause).splitlines() or [""])[0]
        raise RecordError(f"it is damaged, or no file of a run ({type(cause).__name__}: {first})") from error
    return state


_READERS: dict[str, Callable[[str, bytes], Any]] = {
    "record": _read_record,
    "checkpoint": _read_state,
    "weights": _read_state,
}


def _progress(state: dict[str, Any]) -> tuple[int, int]:
    """How far a checkpoint is: epochs finished, images done of the next."""
    return state["epoch"], state.get("position", 0)


# Parts


class _PartWriter:
    """Lays files end to end and cuts them into parts. A part's name holds its hash, so that the parts of an export
    that is being replaced are not overwritten by others."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._parts: list[Part] = []
        self._offset = 0  # of the next file
        self._written = 0  # bytes of the part under way
        self._digest = hashlib.sha256()

    def add(self, run: str, path: str, data: bytes) -> Entry:
        """Append a file."""
        entry = Entry(path, places(run)[path], run, len(data), hashlib.sha256(data).hexdigest(), self._offset)
        self._offset += len(data)
        rest = memoryview(data)
        while len(rest):
            taken = rest[: self._size - self._written]
            with open(self._folder / _TEMPORARY, "ab" if self._written else "wb") as file:
                file.write(taken)
            self._digest.update(taken)
            self._written += len(taken)
            rest = rest[len(taken) :]
            if self._written == self._size:
                self._end_part()
        return entry

    def close(self) -> tuple[Part, ...]:
        """End the last part; returns all."""
        if self._written:
            self._end_part()
        return tuple(self._parts)

    def _end_part(self) -> None:
        digest = self._digest.hexdigest()
        part = Part(f"part-{len(self._parts) + 1:04d}-{digest[:12]}.bin", self._written, digest)
        temporary = self._folder / _TEMPORARY
        with open(temporary, "ab") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self._folder / part.name)
        self._parts.append(part)
        self._written, self._digest = 0, hashlib.sha256()


class _PartReader:
    """Files out of parts. Each part is verified once."""

    def __init__(self, folder: Path, parts: tuple[Part, ...]) -> None:
        self._folder = folder
        self._spans: list[tuple[int, Part, str]] = []  # first byte, part, what is wrong with it
        start = 0
        for part in parts:
            self._spans.append((start, part, self._fault(part)))
            start += part.size

    def _fault(self, part: Part) -> str:
        path = self._folder / part.name
        try:
            size = path.stat().st_size
            if size != part.size:
                return f"has {size} bytes instead of {part.size}"
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        return "" if digest == part.sha256 else "is damaged (its SHA-256 differs)"

    def read(self, entry: Entry) -> bytes:
        """A file's content; RecordError names the part that is wrong."""
        end = entry.offset + entry.size
        touched = [span for span in self._spans if span[0] < end and entry.offset < span[0] + span[1].size]
        faults = [f"{part.name} {fault}" for _, part, fault in touched if fault]
        if faults:
            raise RecordError("; ".join(faults))
        data = bytearray()
        for start, part, _ in touched:
            with open(self._folder / part.name, "rb") as file:
                file.seek(max(entry.offset - start, 0))
                data += file.read(min(end, start + part.size) - max(entry.offset, start))
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise RecordError("the parts are sound but hold other content than the manifest says")
        return bytes(data)


def _write(folder: Path, files: Iterable[tuple[str, str, bytes]], max_part: int) -> Manifest:
    """Parts, then the manifest; then parts of the export before go."""
    writer = _PartWriter(folder, max_part)
    try:
        entries = tuple(writer.add(*file) for file in files)
        if not entries:
            raise RecordError("nothing to export: no record or checkpoint can be read")
        manifest = Manifest(rkd.__version__, entries, writer.close())
    finally:
        (folder / _TEMPORARY).unlink(missing_ok=True)
    _place(folder / MANIFEST, manifest.to_json().encode())
    kept = {part.name for part in manifest.parts}
    for path in folder.iterdir():
        if _PART.fullmatch(path.name) and path.name not in kept:
            path.unlink()
    return manifest


def _check_folder(folder: Path) -> None:
    """RecordError if the folder of an export holds anything else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name one for the export, or a new one")
    ours = {MANIFEST, f".{MANIFEST}.tmp", _LOCK, _TEMPORARY}
    others = sorted(p.name for p in folder.iterdir() if p.name not in ours and not _PART.fullmatch(p.name))
    if others:
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RecordError(
            f"{folder} holds something that is no part of an export ({listed}); name an empty folder"
        )
    if (folder / MANIFEST).exists():
        Manifest.read(folder)


def _check(path: Path, files: tuple[Entry, ...], parts: tuple[Part, ...]) -> None:
    """RecordError if a manifest does not hold together, or reaches outside the folder or the store."""

    def fail(what: str) -> None:
        raise RecordError(f"{path} is refused: {what}")

    for item in (*files, *parts):
        name = item.path if isinstance(item, Entry) else item.name
        if not isinstance(item.sha256, str) or not _SHA256.fullmatch(item.sha256):
            fail(f"{name!r} has no SHA-256")
        counts = [item.size, item.offset] if isinstance(item, Entry) else [item.size]
        if not all(type(count) is int and count >= 0 for count in counts):
            fail(f"{name!r} has a size or offset that is no count of bytes")
    for part in parts:
        if not isinstance(part.name, str) or not _PART.fullmatch(part.name):
            fail(f"{part.name!r} is no name of a part")
    total = sum(part.size for part in parts)
    for entry in files:
        known = isinstance(entry.run, str) and _RUN.fullmatch(entry.run)
        if not known or not isinstance(entry.path, str) or places(entry.run).get(entry.path) != entry.kind:
            fail(f"{entry.path!r} ({entry.kind} of run {entry.run}) is no place in a store")
        if entry.offset + entry.size > total:
            fail(f"{entry.path} lies beyond the end of the parts")
    for names in ([entry.path for entry in files], [part.name for part in parts]):
        if len(set(names)) != len(names):
            fail("it names a file twice")


# Merging


def _merge_run(store: Store, run: str, entries: list[Entry], parts: _PartReader) -> Iterator[Outcome]:
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
            path = _local(store, entry.path)
            try:
                if not ours:
                    raise RecordError(f"run {run} is being trained here now; import again when it has ended")
                if contradicted:
                    raise RecordError(f"the record of run {run} that came with it was refused")
                added = _MERGES[entry.kind](store, run, path, data)
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


def _merge_record(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = _bytes(path)
    if here == data:
        return False
    record = _read("record", run, data)
    if here is None:
        _place(path, data)
        (store.folder(run) / "checkpoint.pt").unlink(missing_ok=True)
        return True
    mine, theirs = _outcome(_here(path, "record", run, here)), _outcome(record)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing:
        raise RecordError(f"conflict: the record here has another {' and '.join(differing)}; it stays")
    return False


def _merge_checkpoint(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = _bytes(path)
    if store.has(run) or here == data:
        return False
    state = _read("checkpoint", run, data)
    if here is not None and _progress(state) <= _progress(_here(path, "checkpoint", run, here)):
        return False
    _place(path, data)
    return True


def _merge_weights(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = _bytes(path)
    if here == data:
        return False
    weights = _read("weights", run, data)["student"]
    if here is None:
        _place(path, data)
        return True
    if not _same(weights, _here(path, "weights", run, here)["student"]):
        raise RecordError("conflict: the file here has other tensors; it stays")
    return False


_MERGES: dict[str, Callable[[Store, str, Path, bytes], bool]] = {
    "record": _merge_record,
    "weights": _merge_weights,
    "checkpoint": _merge_checkpoint,
}


def _here(path: Path, kind: str, run: str, data: bytes) -> Any:
    """The content of a file of this store."""
    try:
        return _read(kind, run, data)
    except RecordError as error:
        raise RecordError(
            f"the file here cannot be compared: {error}; delete {path} and import again"
        ) from error


def _place(path: Path, data: bytes) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _outcome(record: Record) -> dict[str, Any]:
    """What two records of one run must agree in. As JSON values, in which an infinite loss equals itself."""
    body = json.loads(record.to_json())
    if body["config"]["teacher"]:
        # The hash names a teacher's file; where it lies differs from machine to machine.
        body["config"]["teacher"]["checkpoint"] = None
    return {name: body[name] for name in ("config", "status", "curves", "result")}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts agree bit for bit, NaN included."""
    return one.keys() == other.keys() and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(_raw(a), _raw(b))
        for a, b in ((one[name], other[name]) for name in one)
    )


def _raw(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)
