"""The manifest of an export, which says where in its parts each file lies, and its checks."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import rkd
from rkd.errors import RecordError
from rkd.records.transfer.layout import RUN_ID, places

FORMAT = 1
MANIFEST = "manifest.json"
_WHAT = "rkd export"
_SHA256 = re.compile(r"[0-9a-f]{64}")
PART_NAME = re.compile(r"part-[0-9]{4,}-[0-9a-f]{12}\.bin")


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
        if not isinstance(part.name, str) or not PART_NAME.fullmatch(part.name):
            fail(f"{part.name!r} is no name of a part")
    total = sum(part.size for part in parts)
    for entry in files:
        known = isinstance(entry.run, str) and RUN_ID.fullmatch(entry.run)
        if not known or not isinstance(entry.path, str) or places(entry.run).get(entry.path) != entry.kind:
            fail(f"{entry.path!r} ({entry.kind} of run {entry.run}) is no place in a store")
        if entry.offset + entry.size > total:
            fail(f"{entry.path} lies beyond the end of the parts")
    for names in ([entry.path for entry in files], [part.name for part in parts]):
        if len(set(names)) != len(names):
            fail("it names a file twice")
