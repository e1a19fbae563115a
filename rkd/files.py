"""Atomic writing, and checksums."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and puts it in place when the block ends well: a reader sees
    the old file or the new, never half of one. The temporary name is fixed, so that what a killed process left is
    overwritten by the next; writers of one file are kept apart by the run's lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def place(path: Path, data: bytes) -> None:
    """Put a file in place atomically, and on the disk."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
