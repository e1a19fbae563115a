"""A user's own images: one npz file."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.data.sources import NPZ, Reader, Source, Split, register_source
from rkd.errors import DataError
from rkd.files import sha256

if TYPE_CHECKING:
    from rkd.data.config import DataConfig

KEYS = ("x_train", "y_train", "x_test", "y_test")


@register_source(NPZ)
class Npz(Reader):
    """Arrays x_train, x_test: (N, H, H, 3) or (N, 3, H, H) uint8; y_train, y_test: (N,) whole numbers from 0.

    Optional: class_names, (classes,) strings. The path is taken from the working directory, and, if nothing
    is there, from the data folder.
    """

    def open(self, config: "DataConfig", root: Path, download: bool, progress: bool) -> Source:
        path = find(config.name, root)
        if config.sha256 not in (None, sha256(path)):
            raise DataError(f"{path} is not the file this run was planned with: its checksum has changed")
        arrays = _read(path)
        train_x, test_x = (_images(path, key, arrays[key]) for key in ("x_train", "x_test"))
        train_y, test_y = (_labels(path, key, arrays[key]) for key in ("y_train", "y_test"))
        for x, y, split in ((train_x, train_y, "train"), (test_x, test_y, "test")):
            if len(x) != len(y):
                raise DataError(f"{path}: x_{split} has {len(x)} images, but y_{split} has {len(y)} labels")
        if train_x.shape[1:] != test_x.shape[1:]:
            raise DataError(
                f"{path}: training images are {_size(train_x)}, but test images are {_size(test_x)}"
            )
        classes = int(train_y.max()) + 1
        if absent := sorted(set(range(classes)) - set(train_y.tolist())):
            raise DataError(
                f"{path}: y_train goes up to {classes - 1}, but has no image of class {absent[0]}; "
                "labels must run from 0 without a gap"
            )
        if test_y.max() >= classes:
            raise DataError(f"{path}: y_test has class {test_y.max()}, but y_train ends at {classes - 1}")
        names = arrays.get("class_names", np.arange(classes)).astype(str)
        if names.shape != (classes,):
            raise DataError(f"{path}: class_names has shape {names.shape}, but there are {classes} classes")
        return Source(
            Split(train_y, train_x.__getitem__), Split(test_y, test_x.__getitem__), tuple(names.tolist())
        )

    def check(self, config: "DataConfig", root: Path) -> None:
        find(config.name, root)

    def is_there(self, config: "DataConfig", root: Path) -> bool:
        return any(place.is_file() for place in _places(config.name, root))

    def files(self, config: "DataConfig", root: Path) -> dict[str, Path]:
        return {config.name: find(config.name, root)}


def find(name: str, root: Path) -> Path:
    """Where an npz file lies: `name` from the working directory, else from the data folder."""
    for path in _places(name, root):
        if path.is_file():
            return path
    raise DataError(f"the data set {name!r} is neither in the working directory nor in {str(root)!r}")


def _places(name: str, root: Path) -> tuple[Path, Path]:
    return Path(name), root / name


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [key for key in KEYS if key not in file]:
                raise DataError(
                    f"{path}: no array {missing[0]}; needed are {', '.join(KEYS)}, found {sorted(file)}"
                )
            return {key: file[key] for key in (*KEYS, "class_names") if key in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an npz file of plain arrays: {error}") from error


def _images(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8:
        raise DataError(f"{path}: {key} must be uint8 with values 0..255, not {x.dtype}")
    if x.ndim != 4 or 3 not in (x.shape[3], x.shape[1]):
        raise DataError(f"{path}: {key} must be (N, H, W, 3) or (N, 3, H, W), not {x.shape}")
    if x.shape[3] != 3:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    if not len(x) or x.shape[1] != x.shape[2]:
        raise DataError(f"{path}: {key} must hold square images, not {len(x)} of {_size(x)}")
    return x


def _labels(path: Path, key: str, y: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: {key} must be (N,) whole numbers, not {y.dtype} of shape {y.shape}")
    if len(y) and y.min() < 0:
        raise DataError(f"{path}: {key} has the label {y.min()}; labels start at 0")
    return y.astype(np.int64)


def _size(x: np.ndarray) -> str:
    return f"{x.shape[1]} x {x.shape[2]}"
