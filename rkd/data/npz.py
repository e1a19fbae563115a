"""A user's own images: one npz file."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.data.sources import NPZ, Reader, Source, register_source
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

    def open(self, config: "DataConfig", root: Path, download: bool) -> Source:
        path = find(config.name, root)
        if config.sha256 not in (None, sha256(path)):
            raise DataError(f"{path} is not the file this run was planned with: its checksum has changed")
        try:
            return _source(_read(path))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error.__cause__

    def check(self, config: "DataConfig", root: Path) -> None:
        find(config.name, root)

    def files(self, config: "DataConfig", root: Path) -> dict[str, Path]:
        return {config.name: _place(config.name, root)}


def find(name: str, root: Path) -> Path:
    """Where an npz file lies: `name` from the working directory, else from the data folder; DataError without one."""
    if not (path := _place(name, root)).is_file():
        raise DataError(f"the data set {name!r} is neither in the working directory nor in {str(root)!r}")
    return path


def _place(name: str, root: Path) -> Path:
    return Path(name) if Path(name).is_file() else root / name


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [key for key in KEYS if key not in file]:
                raise DataError(f"no array {missing[0]}; needed are {', '.join(KEYS)}, found {sorted(file)}")
            return {key: file[key] for key in (*KEYS, "class_names") if key in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"it cannot be read as an npz file of plain arrays: {error}") from error


def _source(arrays: dict[str, np.ndarray]) -> Source:
    """DataError says what is wrong with the arrays."""
    x = {split: _images(f"x_{split}", arrays[f"x_{split}"]) for split in ("train", "test")}
    y = {split: _labels(f"y_{split}", arrays[f"y_{split}"]) for split in ("train", "test")}
    for split, images in x.items():
        if len(images) != len(y[split]):
            raise DataError(f"x_{split} has {len(images)} images, but y_{split} has {len(y[split])} labels")
    if x["train"].shape[1:] != x["test"].shape[1:]:
        raise DataError(f"training images are {_size(x['train'])}, but test images are {_size(x['test'])}")
    classes, last = int(y["train"].max()) + 1, int(y["test"].max())
    if absent := sorted(set(range(classes)) - set(y["train"].tolist())):
        raise DataError(
            f"y_train goes up to {classes - 1}, but has no image of class {absent[0]}; "
            "labels must run from 0 without a gap"
        )
    if last >= classes:
        raise DataError(f"y_test has class {last}, but y_train ends at {classes - 1}")
    names = arrays.get("class_names", np.arange(classes)).astype(str)
    if names.shape != (classes,):
        raise DataError(f"class_names has shape {names.shape}, but there are {classes} classes")
    return Source(y["train"], y["test"], lambda split, indices: x[split][indices], tuple(names.tolist()))


def _images(key: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8:
        raise DataError(f"{key} must be uint8 with values 0..255, not {x.dtype}")
    if x.ndim != 4 or 3 not in (x.shape[3], x.shape[1]):
        raise DataError(f"{key} must be (N, H, W, 3) or (N, 3, H, W), not {x.shape}")
    if x.shape[3] != 3:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    if not len(x) or x.shape[1] != x.shape[2]:
        raise DataError(f"{key} must hold square images, not {len(x)} of {_size(x)}")
    return x


def _labels(key: str, y: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{key} must be (N,) whole numbers, not {y.dtype} of shape {y.shape}")
    if len(y) and y.min() < 0:
        raise DataError(f"{key} has the label {y.min()}; labels start at 0")
    return y.astype(np.int64)


def _size(x: np.ndarray) -> str:
    return f"{x.shape[1]} x {x.shape[2]}"
