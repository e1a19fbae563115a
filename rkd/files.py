"""Atomic writing, and checksums."""

import errno
import hashlib
import itertools
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rkd.errors import RecordError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and puts it in place when the block ends well: a reader sees
    the old file or the new, never half of one. The temporary name is fixed, so that what a killed process left is
    overwritten by the next; writers of one file are kept apart by the run's lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    special = path.exists() and not path.is_file()  # such as /dev/stdout
    temporary = path if special else path.with_name(f".{path.name}.tmp")
    try:
        with naming_errors(path):
            yield temporary
            if not special:
                os.replace(temporary, path)
    except BaseException:
        if not special:
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """An OSError of the block says which file could not be written: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Put a file in place atomically, and on the disk."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())


def check_regular(path: str | Path, most: float = math.inf) -> None:
    """OSError for what is no regular file of at most so many bytes: a pipe or device would be waited for."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than {most}", str(path))


def check_stored_zip(file: IO[bytes]) -> None:
    """Compare the CRC-32 of every entry of a zip file whose entries are not compressed, such as torch writes.

    Raises:
        BadZipFile: one differs; entries are compressed, or announce more bytes than the file has; or it is no zip file.
            A damaged one can raise other errors too.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = file.seek(0, os.SEEK_END)
        if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
            raise zipfile.BadZipFile("its entries are compressed, or larger than the file")
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{bad} does not match its checksum")


def known_file(path: Path, digest: str, what: str, remedy: str) -> Path:
    """A file with this SHA-256; RecordError, which says what it is and what to do, if it is missing or another."""
    if not is_file(path):
        raise RecordError(f"{what} {path} does not exist; {remedy}")
    if (found := sha256(path)) != digest:
        raise RecordError(f"{what} {path} has sha256 {found}, not {digest}")
    return path


def unused_path(path: Path) -> Path:
    """The path itself where nothing is there, else with -2, -3 and so on behind its name."""
    names = (f"{path.name}{f'-{i}' * (i > 1)}" for i in itertools.count(1))
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def is_file(path: Path) -> bool:
    """Whether a file is there; no name is too long or too odd to be asked for."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def digest(*parts: Path | str) -> str:
    """A hash of texts, and of files by path and content, 64 hexadecimal digits; of a folder, of every file in it but
    Python's caches and what runs at work keep."""
    total, passing = hashlib.sha256(), {"__pycache__", "work"}
    for part in parts:
        files = [part]
        if isinstance(part, Path) and part.is_dir():
            below = sorted(path for path in part.rglob("*") if path.is_file())
            files = [path for path in below if not passing & {*path.relative_to(part).parts}]
        for file in files:
            total.update(f"\n{file}\n".encode())
            total.update(file.read_bytes() if isinstance(file, Path) and file.is_file() else b"")
    return total.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
