"""Where images come from: data sets by name, and npz files by path."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.errors import unknown

if TYPE_CHECKING:
    from rkd.data.config import DataConfig


@dataclass(frozen=True)
class Source:
    """A data set before any choice of images: labels at hand, pixels on demand.

    Attributes:
        train_y, test_y: (N,) int64, classes from 0.
        pixels: maps "train" or "test" and indices (n,) to images (n, H, W, 3) uint8; generated sets make only what is
            asked for.
        class_names: (classes,) strings.
    """

    train_y: np.ndarray
    test_y: np.ndarray
    pixels: Callable[[str, np.ndarray], np.ndarray]
    class_names: tuple[str, ...]


class Reader(ABC):
    """How a data set is found and opened. Methods raise DataError for what is missing or damaged."""

    @abstractmethod
    def open(self, config: "DataConfig", root: Path, download: bool) -> Source:
        """The data set; fetched into `root` where it is not there, may be fetched, and `download` is true."""

    def files(self, config: "DataConfig", root: Path) -> dict[str, Path]:
        """The files it reads, by the path they have, or could have, below `root`; by default it reads none."""
        return {}

    def is_there(self, config: "DataConfig", root: Path) -> bool:
        """Whether `open` needs no download."""
        return all(path.is_file() for path in self.files(config, root).values())

    def check(self, config: "DataConfig", root: Path) -> None:  # noqa: B027  (most have nothing to check)
        """Raise what `open` would certainly raise, without reading images; nothing by default."""


_READERS: dict[str, Reader] = {}
NPZ = ".npz"  # the key of the reader of all names that end so


def register_source(name: str) -> Callable[[type[Reader]], type[Reader]]:
    """Decorator: make a `Reader` class, built without arguments, the reader of the data set `name`."""

    def add(reader: type[Reader]) -> type[Reader]:
        _READERS[name] = reader()
        return reader

    return add


def source_names() -> list[str]:
    """All data sets that have a name, sorted."""
    return sorted(set(_READERS) - {NPZ})


def reader_of(name: str) -> Reader:
    """The reader of a data set's name or npz path.

    Raises:
        ConfigError: neither.
    """
    key = NPZ if name.lower().endswith(NPZ) else name
    if key not in _READERS:
        raise unknown("data set", name, [*source_names(), "<path>.npz"])
    return _READERS[key]
