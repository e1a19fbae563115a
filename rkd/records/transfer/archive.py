"""An export on disk: one tar file of a store's files, cut into parts, and a manifest that says where in it each file
begins. Reading relies only on the manifest and the parts' checksums: no tar header is used, nothing is executed."""

import errno
import functools
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import StringConstraints

from rkd.config import Count, Natural, from_values, frozen, validate
from rkd.errors import RecordError, one_line
from rkd.files import check_regular, sha256, write_atomic
from rkd.records.maps import read_maps
from rkd.records.record import MOST_BYTES, Record
from rkd.records.store import Store
from rkd.records.teachers import weights_digest
from rkd.training import checkpoint

MANIFEST = "manifest.json"
FORMAT = "rkd export 3"
# Part names contain the first digits of the SHA-256, so that no part overwrites another.
PART_NAME = r"part-[0-9]{4,}-[0-9a-f]{12}\.bin"
KINDS = ("record", "weights", "checkpoint", "maps")  # the costliest to compute first
_KIND_OF = {
    "records/RUN.json": "record",
    "work/RUN/last.pt": "weights",
    "work/RUN/best.pt": "weights",
    "work/RUN/checkpoint.pt": "checkpoint",
    "work/RUN/maps.npz": "maps",
    "maps/RUN.npz": "maps",
}


def add_file(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    """Add a file to a tar file without time or owner, so that the same content gives the same bytes."""
    member = tarfile.TarInfo(path)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def split_parts(whole: IO[bytes], folder: Path, max_part: int) -> dict[str, str]:
    """Write a file as parts of at most `max_part` bytes; return their SHA-256 by name, in order (names sort alike)."""
    found = {}
    whole.seek(0)
    while piece := whole.read(max_part):
        digest = hashlib.sha256(piece).hexdigest()
        name = f"part-{len(found) + 1:04d}-{digest[:12]}.bin"
        write_atomic(folder / name, piece)
        found[name] = digest
    return found


def check_folder(folder: Path, what: str, names: str) -> None:
    """Raise RecordError if a folder exists and holds anything but files of these names or their unfinished writes."""
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name one for {what}, or a new one")
    ours = re.compile(rf"\.?({names})(\.tmp)?")
    if others := sorted(path.name for path in folder.glob("*") if not ours.fullmatch(path.name)):
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RecordError(f"{folder} holds what is no part of {what} ({listed}); name an empty folder")


def kind_and_run(path: str) -> tuple[str, str]:
    """Return the kind and the run of a file, given its path in an export; RecordError if a store has no such file."""
    found = re.search("[0-9a-f]{12}", path)
    run = found[0] if found else "none"
    if (pattern := path.replace(run, "RUN")) not in _KIND_OF:
        raise RecordError(f"{path!r} is no place of a run's file in a store")
    return _KIND_OF[pattern], run


def local_path(store: Store, path: str) -> Path:
    """Return where a file of an export belongs in a store."""
    top, _, rest = path.partition("/")
    return {"records": store.records, "work": store.work, "maps": store.records / "maps"}[top] / rest


def comparable_content(path: str, data: bytes) -> Any:
    """Return what two files of the same path are compared by: for records and weights, what must be equal; for
    checkpoints and maps, how far they have come, in epochs and in images of the next one.

    Raises:
        RecordError: the file cannot be read, or belongs to another run. The message does not name the file.
    """
    kind, run = kind_and_run(path)
    try:
        if kind == "record":
            found = Record.from_json(data, "here")
            if found.id != run:
                raise RecordError(f"it belongs to run {found.id}, not {run}")
            return _outcome(found)
        if kind == "maps":
            return len(read_maps(io.BytesIO(data), run)["epochs"]), 0
        state = checkpoint.load(io.BytesIO(data))
        if kind == "checkpoint":
            return checkpoint.check_progress(state, run).proven
        if state["run"] != run or not state["student"]:
            raise RecordError(f"it belongs to run {state['run']!r}, or is empty")
        return weights_digest(state["student"])
    except Exception as error:  # a file from elsewhere can be wrong anywhere, with any type of error
        cause = error.__cause__ or error
        said = f"{type(cause).__name__}: {one_line(cause)}" if error.__cause__ else one_line(error)
        raise RecordError(f"it is damaged, or no {kind} of run {run} ({said})") from error


def _outcome(record: Record) -> list[Any]:
    """Return what must be equal in two records of a run, as JSON values, in which a non-finite loss equals itself.
    Paths of teacher and pretrained files are left out: they differ between machines, and hashes identify the files."""
    body = json.loads(record.to_json())
    if body["config"]["teacher"]:
        body["config"]["teacher"] |= {"checkpoint": None, "record": None}
    if body["config"]["pretrained"]:
        body["config"]["pretrained"]["checkpoint"] = None
    return [body[name] for name in ("config", "status", "curves", "result")]


@frozen
class ArchiveEntry:
    """One file of an export: its path, its first byte in the tar file, and its size in bytes."""

    path: str
    start: Natural
    size: Natural

    def __post_init__(self) -> None:
        kind_and_run(self.path)

    @property
    def kind(self) -> str:
        """The kind of the file, one of KINDS."""
        return kind_and_run(self.path)[0]

    @property
    def run(self) -> str:
        """The id of the run that the file belongs to."""
        return kind_and_run(self.path)[1]


@frozen
class Manifest:
    """What an export holds.

    Attributes:
        part_size: bytes in every part but the last.
        parts: names of the parts, which form the tar file when joined in this order.
    """

    part_size: Count
    parts: tuple[Annotated[str, StringConstraints(pattern=f"^{PART_NAME}$")], ...]
    files: tuple[ArchiveEntry, ...]
    format: Literal["rkd export 3"] = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of an export.

        Raises:
            RecordError: there is none; it is damaged or of another format; or it names a part outside the folder, or a
                file that has no place in a store (absolute, with "..", of an unknown kind).
        """
        path = folder / MANIFEST
        if not path.exists():
            raise RecordError(f"{folder} holds no export: there is no {MANIFEST} in it")
        try:
            check_regular(path, MOST_BYTES)
            found = json.loads(path.read_text(encoding="utf-8"))
            return from_values(cls, {"format": None} | validate(dict[str, Any], "it", found))
        except (OSError, ValueError, TypeError, RecursionError, RecordError) as error:
            raise RecordError(f"{path} is damaged, or no manifest of an export: {one_line(error)}") from error


def reader(folder: Path, manifest: Manifest) -> Callable[[ArchiveEntry], bytes]:
    """Return a function that reads a file of an export; its RecordError names the part that is missing or damaged."""

    @functools.cache
    def sound(name: str) -> tuple[Path, int]:
        """Return the path of a part and its size on disk, whatever size the manifest claims."""
        path = folder / name
        try:
            check_regular(path, manifest.part_size)
            if path.is_symlink():
                raise OSError(errno.ELOOP, "it is a link", str(path))
            found = sha256(path)
        except OSError as error:
            raise RecordError(f"{name} is missing, or cannot be read: {error.strerror}") from error
        if f"-{found[:12]}." not in name:
            raise RecordError(f"{name} is damaged: its SHA-256 differs")
        return path, path.stat().st_size

    def read(entry: ArchiveEntry) -> bytes:
        data, number = b"", entry.start // manifest.part_size
        while len(data) < entry.size and number < len(manifest.parts):
            path, size = sound(manifest.parts[number])
            with open(path, "rb") as part:
                part.seek(max(0, entry.start - number * manifest.part_size))
                data += part.read(min(size, entry.size - len(data)))
            number += 1
        if len(data) < entry.size:
            raise RecordError(f"the parts end before its {entry.size} bytes do")
        return data

    return read
