"""Folders of a build, and how its files are written."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Folders:
    """Where a build of one profile reads and writes.

    Attributes:
        profile: name of the profile or path of its file.
        book: notebooks, prose, `_toc.yml` and `_assets`.
        config: the jupyter-book configuration.
        build: everything that is made.
    """

    profile: str
    book: Path
    config: Path
    build: Path

    @property
    def work(self) -> Path:
        return self.build / Path(self.profile).stem

    @property
    def chapters(self) -> Path:
        """Executed chapters, their logs, marks and states."""
        return self.work / "chapters"

    @property
    def variations(self) -> Path:
        """One folder per variation, each like `chapters`."""
        return self.work / "variations"

    @property
    def stage(self) -> Path:
        """Source of the site."""
        return self.work / "stage"

    def of(self, variation: str) -> Path:
        """Folder of a variation's executed chapters; that of the base chapters for the empty name."""
        return self.variations / variation if variation else self.chapters


def plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return _ANSI.sub("", text)


def write_if_changed(path: Path, content: str | bytes) -> bool:
    """Writes a file at once or not at all; False, and its time stays, if it holds just that."""
    content = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
    return True
