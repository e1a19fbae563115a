"""Atomic writes, and checksums."""

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
    """Yield a temporary path beside `path` to write to, and move it into place if the block succeeds: a reader sees the
    old file or the new one, never half of one. The temporary name is fixed, so that the next writer overwrites what a
    killed process left; the run's lock keeps writers of one file apart."""
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
    """Add the path to any OSError raised in the block: that of a full disk does not say which file it was."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically, and flush it to disk."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())


def check_regular(path: str | Path, most: float = math.inf) -> None:
    """Raise OSError unless a path is a regular file of at most `most` bytes: reading a pipe or device could block."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than {most}", str(path))


def check_stored_zip(file: IO[bytes]) -> None:
    """Check the CRC-32 of every entry of a zip file whose entries are not compressed, such as torch writes.

    Raises:
        BadZipFile: a checksum differs; entries are compressed, or announce more bytes than the file has; or it is not a
            zip file. A damaged one can raise other errors too.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = file.seek(0, os.SEEK_END)
        if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
            raise zipfile.BadZipFile("its entries are compressed, or larger than the file")
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{bad} does not match its checksum")


def known_file(path: Path, digest: str, what: str, remedy: str) -> Path:
    """Return a path whose file has this SHA-256; RecordError if it is missing, with a `remedy`, or differs."""
    if not is_file(path):
        raise RecordError(f"{what} {path} does not exist; {remedy}")
    if (found := sha256(path)) != digest:
        raise RecordError(f"{what} {path} has sha256 {found}, not {digest}")
    return path


def unused_path(path: Path) -> Path:
    """Return the path if nothing exists there, else the first free one with -2, -3 and so on after its name."""
    names = (f"{path.name}{f'-{i}' * (i > 1)}" for i in itertools.count(1))
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def is_file(path: Path) -> bool:
    """Whether a file exists; False also for a name that the system rejects as too long or malformed."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def digest(*parts: Path | str) -> str:
    """Return a hash of texts, and of files by path and content, as 64 hexadecimal digits; of a folder, every file
    counts except Python's caches and the `work` folders of runs in progress."""
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
    """Return the SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
