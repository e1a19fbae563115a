"""Files laid end to end and cut into parts, so that each part passes where large files do not."""

import hashlib
import os
from pathlib import Path

from rkd.errors import RecordError
from rkd.records.transfer.layout import places
from rkd.records.transfer.manifest import Entry, Part

TEMPORARY = ".part.tmp"


class PartWriter:
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
        self.write(data)
        return entry

    def write(self, data: bytes) -> int:
        """Append bytes, as any file takes them."""
        self._offset += len(data)
        rest = memoryview(data)
        while len(rest):
            taken = rest[: self._size - self._written]
            with open(self._folder / TEMPORARY, "ab" if self._written else "wb") as file:
                file.write(taken)
            self._digest.update(taken)
            self._written += len(taken)
            rest = rest[len(taken) :]
            if self._written == self._size:
                self._end_part()
        return len(data)

    def close(self) -> tuple[Part, ...]:
        """End the last part; returns all."""
        if self._written:
            self._end_part()
        return tuple(self._parts)

    def _end_part(self) -> None:
        digest = self._digest.hexdigest()
        part = Part(f"part-{len(self._parts) + 1:04d}-{digest[:12]}.bin", self._written, digest)
        temporary = self._folder / TEMPORARY
        with open(temporary, "ab") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self._folder / part.name)
        self._parts.append(part)
        self._written, self._digest = 0, hashlib.sha256()


class PartReader:
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
