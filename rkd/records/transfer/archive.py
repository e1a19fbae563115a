"""An export on disk: one tar file in parts, so that it passes where large files do not, and a manifest that says where
in the parts laid end to end each file begins. Reading goes by the manifest and its checksums alone."""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

import rkd
from rkd.config import Natural, frozen
from rkd.errors import ConfigError, RecordError
from rkd.files import place, sha256
from rkd.records.transfer.content import places

MANIFEST = "manifest.json"
PART_NAME = re.compile(r"part-[0-9]{4,}-[0-9a-f]{12}\.bin")
_WHAT, _FORMAT = "rkd export", 1


@frozen
class Entry:
    """One file of an export.

    Attributes:
        path, kind, run: one of the `places` of that run.
        size: in bytes.
        sha256: of its content, hexadecimal.
        offset: of its first byte in the parts laid end to end.
    """

    path: str
    kind: str
    run: str
    size: Natural
    sha256: str
    offset: Natural


@frozen
class Part:
    """One part: name within the folder, size in bytes, SHA-256 in hexadecimal."""

    name: str
    size: Natural
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an export holds, in the order in which it lies there."""

    files: tuple[Entry, ...]
    parts: tuple[Part, ...]

    def to_json(self) -> str:
        """Its text; the same content gives the same text."""
        body = {"kind": _WHAT, "format": _FORMAT, "rkd": rkd.__version__, **asdict(self)}
        return json.dumps(body, indent=1) + "\n"

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
            body = json.loads(path.read_text(encoding="utf-8"))
            if (said := (body["kind"], body["format"])) != (_WHAT, _FORMAT):
                raise ValueError(f"it is {said[0]!r} of format {said[1]!r}, not {_WHAT!r} of {_FORMAT}")
            files = tuple(Entry(**values) for values in body["files"])
            parts = tuple(Part(**values) for values in body["parts"])
            for part in parts:
                if not PART_NAME.fullmatch(part.name):
                    raise ValueError(f"{part.name!r} is no name of a part")
            for e in files:
                if (e.path, e.kind) not in places(e.run).items():
                    raise ValueError(f"{e.path!r} ({e.kind} of run {e.run}) is no place in a store")
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise RecordError(f"{path} is damaged, or no manifest of an export: {error}") from error
        return cls(files, parts)


class TarWriter:
    """Writes a tar file in parts of at most so many bytes; laid end to end they are the tar file. The same members give
    the same bytes. A part's name holds its hash, so that it never takes the place of another.

    Attributes:
        parts: that have been written; all, once the writer is closed.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.parts: list[Part] = []
        self._folder, self._most = folder, most
        self._held = bytearray()
        self._tar = tarfile.TarFile(fileobj=self, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, data: bytes) -> int:
        """Append a member, without time or owner; returns where its content begins."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        return self.tell() - len(data) - -len(data) % tarfile.BLOCKSIZE

    def size_with(self, size: int) -> int:
        """Bytes of the whole tar file if a member of so many, with a name of at most 100 letters, were the last one: it
        takes a block, and whole blocks; two more end the file, and are filled up."""
        ended = self.tell() + (3 - -size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return ended + -ended % tarfile.RECORDSIZE

    def close(self) -> None:
        """End the tar file."""
        self._tar.close()
        if self._held:
            self._end_part()

    def tell(self) -> int:
        """Bytes of the tar file so far."""
        return sum(part.size for part in self.parts) + len(self._held)

    def write(self, data: bytes) -> None:
        """Append bytes of the tar file."""
        self._held += data
        while len(self._held) >= self._most:
            self._end_part()

    def _end_part(self) -> None:
        data = bytes(self._held[: self._most])
        del self._held[: self._most]
        digest = hashlib.sha256(data).hexdigest()
        part = Part(f"part-{len(self.parts) + 1:04d}-{digest[:12]}.bin", len(data), digest)
        place(self._folder / part.name, data)
        self.parts.append(part)


class PartReader:
    """Files out of parts. Each part is verified once."""

    def __init__(self, folder: Path, parts: tuple[Part, ...]) -> None:
        self._spans: list[tuple[int, int, Path, str]] = []  # first byte, end, file, what is wrong with it
        start = 0
        for part in parts:
            path, end = folder / part.name, start + part.size
            self._spans.append((start, end, path, _fault(path, part)))
            start = end

    def read(self, entry: Entry) -> bytes:
        """A file's content; RecordError names the part that is wrong."""
        stop = entry.offset + entry.size
        touched = [span for span in self._spans if span[0] < stop and entry.offset < span[1]]
        if faults := [f"{path.name} {fault}" for _, _, path, fault in touched if fault]:
            raise RecordError("; ".join(faults))
        data = b""
        for start, end, path, _ in touched:
            with open(path, "rb") as file:
                file.seek(max(entry.offset - start, 0))
                data += file.read(min(stop, end) - max(entry.offset, start))
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise RecordError("the parts are sound but hold other content than the manifest says")
        return data


def _fault(path: Path, part: Part) -> str:
    """What is wrong with a part; empty if nothing is."""
    try:
        if (size := path.stat().st_size) != part.size:
            return f"has {size} bytes instead of {part.size}"
        return "" if sha256(path) == part.sha256 else "is damaged (its SHA-256 differs)"
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
