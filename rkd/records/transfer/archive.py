"""An export on disk: tar files, whose members are named by their SHA-256, and a manifest that says which of them make
up which file of a store. Reading goes by the manifest and its checksums alone, and executes nothing."""

import functools
import hashlib
import io
import json
import math
import re
import tarfile
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import rkd
from rkd.config import Natural, build, frozen
from rkd.errors import RecordError
from rkd.files import place
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.teachers import digest
from rkd.training import checkpoint

MANIFEST = "manifest.json"
PART_NAME = re.compile(r"part-[0-9]{4,}-[0-9a-f]{12}\.tar")
KINDS = ("record", "weights", "checkpoint", "maps")  # what cost most to compute first
_KIND_OF = {
    "records/RUN.json": "record",
    "work/RUN/last.pt": "weights",
    "work/RUN/best.pt": "weights",
    "work/RUN/checkpoint.pt": "checkpoint",
    "work/RUN/maps.npz": "maps",
    "maps/RUN.npz": "maps",
}


def kind_and_run(path: str) -> tuple[str, str]:
    """Of a file of an export by its path there; RecordError if no such file has a place in a store."""
    found = re.search("[0-9a-f]{12}", path)
    run = found[0] if found else "none"
    if (pattern := path.replace(run, "RUN")) not in _KIND_OF:
        raise RecordError(f"{path!r} is no place of a run's file in a store")
    return _KIND_OF[pattern], run


def local(store: Store, path: str) -> Path:
    """Where a file of an export lies in a store."""
    top, _, rest = path.partition("/")
    return {"records": store.records, "work": store.work, "maps": store.records / "maps"}[top] / rest


def content(kind: str, run: str, data: bytes) -> tuple[Any, Any]:
    """What a file of a run holds, and what two of them are compared by.

    Returns:
        Of a record: the Record; what two of them must agree in, by name. Of weights: the dict; the same. Of a
        checkpoint or maps: the dict; how far they are, in epochs and in images of the next one.

    Raises:
        RecordError: it cannot be read, or belongs to another run. The message does not name the file.
    """
    found: Any
    try:
        if kind == "record":
            found = Record.from_json(data, "here")
            of, mark = found.id, _outcome(found)
        elif kind == "maps":
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = dict(file)
            of, mark = str(found["run"]), (len(found["epochs"]), 0)
        else:
            found = checkpoint.load(io.BytesIO(data))
            of, tensors = found["run"], digest(found["student"])
            done = int(found["epoch"]), int(found.get("position", 0))
            mark = {"state": tensors} if kind == "weights" else done
    except Exception as error:  # a file from elsewhere can be wrong anywhere, with any type of error
        cause = error.__cause__ or error
        said = str(cause).partition("\n")[0]
        raise RecordError(f"it is damaged, or no {kind} of a run ({type(cause).__name__}: {said})") from error
    if of != run:
        raise RecordError(f"it belongs to run {of}, not {run}")
    return found, mark


def _outcome(record: Record) -> dict[str, Any]:
    """As JSON values, in which an infinite loss equals itself. Where a teacher's file lies differs from machine to
    machine; its hash names it."""
    body = json.loads(record.to_json())
    if body["config"]["teacher"]:
        body["config"]["teacher"]["checkpoint"] = None
    return {name: body[name] for name in ("config", "status", "curves", "result")}


@frozen
class Entry:
    """One file of an export: its path, `kind_and_run` of that, its size in bytes, and the members (their SHA-256) that
    laid end to end are its content."""

    path: str
    kind: str
    run: str
    size: Natural
    pieces: tuple[str, ...]

    def __post_init__(self) -> None:
        if kind_and_run(self.path) != (self.kind, self.run):
            raise RecordError(f"{self.path!r} is no place for a {self.kind} of run {self.run}")


@frozen
class Manifest:
    """What an export holds, in the order in which it lies there.

    Attributes:
        kind, format, rkd: that it is one, and what wrote it.
        files: of the store.
        parts: the tar files by their names, which hold their hashes so that none takes the place of another, and their
            members.
    """

    kind: Literal["rkd export"] = "rkd export"
    format: Literal[2] = 2
    rkd: str = rkd.__version__
    files: tuple[Entry, ...] = ()
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := [name for name in self.parts if not PART_NAME.fullmatch(name)]:
            raise RecordError(f"{wrong[0]!r} is no name of a part")
        there = {piece for pieces in self.parts.values() for piece in pieces}
        if lost := [entry.path for entry in self.files if not there.issuperset(entry.pieces)]:
            raise RecordError(f"no part holds {lost[0]!r}")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of an export.

        Raises:
            RecordError: there is none; it is damaged or of another format; or it names a part outside the folder, or a
                file that has no place in a store (absolute, with "..", of an unknown kind).
        """
        path = folder / MANIFEST
        if not path.exists():
            raise RecordError(f"{folder} holds no export: there is no {MANIFEST} in it")
        try:
            needed = dict.fromkeys(("kind", "format", "files", "parts"))
            return build(cls, needed | json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecordError) as error:
            raise RecordError(f"{path} is damaged, or no manifest of an export: {error}") from error

    def write(self, folder: Path) -> None:
        """Put it in place in a folder; the same content gives the same bytes."""
        place(folder / MANIFEST, (json.dumps(asdict(self), indent=1) + "\n").encode())


class PartWriter:
    """Writes files into tar files of at most so many bytes; a file that does not fit into what is left of one goes on
    in the next. The same files give the same bytes.

    Attributes:
        parts: names of the tar files and of their members; all, once the writer is closed.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.parts: dict[str, tuple[str, ...]] = {}
        self._folder, self._held = folder, {}
        # A tar file is filled up to whole records, two blocks of which say that it ends; a member begins with a block.
        self._room = self._most = most // tarfile.RECORDSIZE * tarfile.RECORDSIZE - 3 * tarfile.BLOCKSIZE

    def parts_with(self, size: int) -> int:
        """How many parts there would be if a file of so many bytes were the last one."""
        return len(self.parts) + 1 + math.ceil(max(0, size - self._room) / self._most)

    def add(self, data: bytes) -> tuple[str, ...]:
        """Append a file; returns its pieces."""
        pieces = []
        while data:
            if self._room <= 0:
                self.close()
            piece, data = data[: self._room], data[self._room :]
            pieces.append(hashlib.sha256(piece).hexdigest())
            self._held[pieces[-1]] = piece
            self._room -= (1 + math.ceil(len(piece) / tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE
        return tuple(pieces)

    def close(self) -> None:
        """Write the part that was begun."""
        file = io.BytesIO()
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, piece in self._held.items():
                member = tarfile.TarInfo(name)
                member.size = len(piece)
                tar.addfile(member, io.BytesIO(piece))
        data = file.getvalue()
        name = f"part-{len(self.parts) + 1:04d}-{hashlib.sha256(data).hexdigest()[:12]}.tar"
        place(self._folder / name, data)
        self.parts[name] = tuple(self._held)
        self._held, self._room = {}, self._most


class PartReader:
    """Files out of the parts of an export."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._where = {piece: folder / name for name, pieces in manifest.parts.items() for piece in pieces}
        self._spans = functools.cache(_spans)

    def read(self, entry: Entry) -> bytes:
        """A file's content; RecordError names the part that is wrong."""
        return b"".join(map(self._piece, entry.pieces))

    def _piece(self, piece: str) -> bytes:
        path = self._where[piece]
        try:
            start, size = self._spans(path)[piece]
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size)
            if hashlib.sha256(data).hexdigest() != piece:
                raise tarfile.TarError("the SHA-256 of its content differs")
        except FileNotFoundError as error:
            raise RecordError(f"{path.name} is missing") from error
        except (OSError, tarfile.TarError, KeyError) as error:
            raise RecordError(f"{path.name} is damaged ({type(error).__name__}: {error})") from error
        return data


def _spans(path: Path) -> dict[str, tuple[int, int]]:
    """Where in a tar file the content of each member begins, and its size. Nothing but plain files counts."""
    with tarfile.open(path, "r:") as tar:
        return {m.name: (m.offset_data, m.size) for m in tar if m.isreg() and not m.issparse()}
