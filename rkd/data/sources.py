"""Which images a run sees, as written in profiles and records, and where they come from: data sets by name, and npz
files by path."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rkd import paths
from rkd.config import CONTROL, Count, Flag, Natural, Share, frozen
from rkd.data.normalisation import Statistics, preset
from rkd.errors import ConfigError, unknown
from rkd.files import is_file, write_atomic

NAMED = 10  # most names listed in a sentence


@frozen
class DataConfig:
    """A data set and what is done to its images.

    Attributes:
        name: "cifar10", "cifar100", "embedded" (generated, needs no download), the path of an npz file with uint8
            arrays x_train, y_train, x_test, y_test, that of a folder of images (with a "/": "my_images/", see
            `rkd.data.folders`), or "torchvision:" and the name of one of its data sets.
        normalisation: preset of `rkd.data.normalisation`, or mean and std by channel.
        train_images: size of a class-balanced subset of the training images; None takes all that are not held
            out. A smaller subset lies within a larger one of the same seed. Where the classes do not divide
            the number, the first classes have one image more. A set, or a class, that has fewer gives all it has.
        test_images: the same of the test images.
        holdout: training images set aside as a validation split, class-balanced likewise; no subset of the
            training images contains one.
        seed: of the choices above, and of the embedded set's images. Nothing else: order and augmentation
            follow the run's seed.
        padding: pixels added on each side before a random crop to the old size; 0 means no crop.
        padding_mode: what is added: "zeros", or the image mirrored at its border ("reflect").
        flip: mirror each training image left to right with probability 1/2.
        sha256: of what a user's own set holds (the npz file; the decoded images), so that other images under the same
            name are another run; None for named sets.
        image_size: side in pixels that the images of folders and of torchvision's sets are brought to: the shorter side
            is resized and the middle taken; None: they are square, and of one size.
        test_share: share of each class's images that is for tests, where a folder has no parts of its own.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "cifar100"
    normalisation: Statistics = "cifar10_reviewkd"
    train_images: Count | None = None
    test_images: Count | None = None
    holdout: Natural = 0
    seed: Natural = 0
    padding: Natural = 4
    flip: Flag = True
    sha256: str | None = None
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    image_size: Count | None = None
    test_share: Share | None = None

    def __post_init__(self) -> None:
        if CONTROL.search(self.name):
            raise ConfigError(f"data set {self.name!r} has a control character in its name")
        preset(self.normalisation)
        decodes = reader_of(self.name).decodes
        for name in ("image_size", "test_share"):
            if getattr(self, name) is not None and not decodes:
                raise ConfigError(f"{name} is for folders of images and torchvision's sets, not {self.name}")


@dataclass(frozen=True)
class Source:
    """A data set before images are chosen: labels at hand, pixels on demand. `pixels` maps "train" or "test" and
    indices (n,) to images (n, H, W, 3) uint8; generated sets make only what is asked for."""

    train_y: np.ndarray  # (N,) int64, classes from 0
    test_y: np.ndarray
    pixels: Callable[[str, np.ndarray], np.ndarray]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was done to the images, for people


def pixel_hash(image: np.ndarray) -> bytes:
    """Return a hash of an image's pixels."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def compare_parts(
    prints: Mapping[str, Sequence[tuple[bytes, str]]],
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    folder: Path | None = None,
) -> Iterator[str]:
    """Yield sentences on images that are in both parts of a set or in two classes, and on classes without test images.

    Args:
        prints: by split, each image's `pixel_hash` and name.
        labels: by split, (N,) classes.
        folder: where names that are too many for a sentence are written.
    """
    train = dict(reversed(prints["train"]))
    if both := sorted(f"{train[key]} = {name}" for key, name in prints["test"] if key in train):
        yield f"{len(both)} images are in both parts: {join_names(both, folder and folder / 'in-both-parts.txt')}"
    first, twice = {}, []
    for (key, name), label in zip(prints["train"], labels["train"].tolist(), strict=True):
        if first.setdefault(key, (name, label))[1] != label:
            twice.append(f"{first[key][0]} = {name}")
    if twice:
        file = folder and folder / "of-two-classes.txt"
        yield f"{len(twice)} images to train on are of two classes: {join_names(twice, file)}"
    tested = {*labels["test"].tolist()}
    if alone := [name for n, name in enumerate(classes) if n not in tested]:
        yield f"{len(alone)} classes have no image for tests: {join_names(alone, folder and folder / 'untested.txt')}"


def join_names(names: Sequence[str], file: Path | None = None) -> str:
    """Return names for a sentence: the first ten and, if there are more, how many and the file that lists all."""
    if len(names) > NAMED and file:
        write_atomic(file, "".join(f"{name}\n" for name in names).encode())
    where = f", all in {file}" if file else ""
    more = f" and {len(names) - NAMED} more{where}" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class Reader(ABC):
    """How a data set is found and opened. Methods raise DataError for what is missing or damaged.

    Attributes:
        decodes: whether it resizes image files, and sets some aside for tests.
    """

    decodes = False

    @abstractmethod
    def open(self, config: DataConfig, root: Path, download: bool) -> Source:
        """Return the data set, downloaded into `root` if it is missing, can be downloaded, and `download` is true."""

    def identity(self, config: DataConfig, root: Path) -> str | None:
        """Return a hash of the content if that may change under a name; None for sets that are the same everywhere."""
        return None

    def files(self, config: DataConfig, root: Path) -> dict[str, Path]:
        """Return the files it reads, by the path they have, or would have, below `root`; by default none."""
        return {}

    def is_there(self, config: DataConfig, root: Path) -> bool:
        """Whether `open` needs no download."""
        return all(map(is_file, self.files(config, root).values()))


_READERS: dict[str, Reader] = {}
# Keys of the readers for all names that end with, contain, or begin with these.
NPZ, FOLDER, TORCHVISION = ".npz", "/", "torchvision:"


def register_source(name: str) -> Callable[[type[Reader]], type[Reader]]:
    """Decorator: make a `Reader` class, built without arguments, the reader of the data set `name`."""

    def add(reader: type[Reader]) -> type[Reader]:
        _READERS[name] = reader()
        return reader

    return add


def source_names() -> list[str]:
    """Return the names of all named data sets, sorted."""
    return sorted(set(_READERS) - {NPZ, FOLDER, TORCHVISION})


def reader_of(name: str) -> Reader:
    """Return the reader for a data set's name or path; raise ConfigError for any other."""
    forms = {
        NPZ: name.lower().endswith(NPZ),
        TORCHVISION: name.startswith(TORCHVISION),
        FOLDER: FOLDER in name,
    }
    kind = next((form for form, is_one in forms.items() if is_one), name)
    if kind not in _READERS:
        raise unknown("data set", name, [*source_names(), "<path>.npz", "<folder>/", "torchvision:<name>"])
    return _READERS[kind]


def full_name(name: str) -> str:
    """Return a data set's name as it is recorded: that of an existing folder ends with "/"."""
    own = name not in _READERS and FOLDER not in name
    return (
        f"{name}/" if own and any(map(os.path.isdir, paths.dataset_candidates(name, Path("data")))) else name
    )


def is_changing(name: str) -> bool:
    """Whether the images under this name may change, as a user's own may."""
    return name not in source_names()
