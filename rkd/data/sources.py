"""Where images come from: data sets by name, and npz files by path."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.errors import ConfigError, unknown

if TYPE_CHECKING:
    from rkd.data.config import DataConfig


@dataclass(frozen=True)
class Split:
    """Labels at hand, pixels on demand.

    Attributes:
        labels: (N,) int64, classes from 0.
        pixels: maps indices (n,) to images (n, H, W, 3) uint8; generated sets make only what is asked for.
    """

    labels: np.ndarray
    pixels: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Source:
    """A data set before any choice of images."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


class Reader(ABC):
    """How a data set is found and opened.

    Subclasses raise DataError for what is missing or damaged.
    """

    @abstractmethod
    def open(self, config: "DataConfig", root: Path, download: bool, progress: bool) -> Source:
        """The data set; fetched into `root` where it is not there, may be fetched, and `download` is true."""

    def check(self, config: "DataConfig", root: Path) -> None:  # noqa: B027  (most have nothing to check)
        """Raise what `open` would certainly raise, without reading images; nothing by default."""

    def is_there(self, config: "DataConfig", root: Path) -> bool:
        """Whether `open` needs no download; by default it needs none."""
        return True

    def files(self, config: "DataConfig", root: Path) -> dict[str, Path]:
        """The files it reads, by the path they have, or could have, below `root`; by default it reads none."""
        return {}


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
    if not isinstance(name, str):
        raise ConfigError(f"a data set's name must be a string, not {name!r}")
    key = NPZ if name.lower().endswith(NPZ) else name
    if key not in _READERS:
        raise unknown("data set", name, [*source_names(), "<path>.npz"])
    return _READERS[key]
