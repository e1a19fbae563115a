"""A user's own images in one npz file."""

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npformat

from rkd import paths
from rkd.data.sources import (
    NPZ,
    DataConfig,
    Reader,
    Source,
    compare_parts,
    join_names,
    pixel_hash,
    register_source,
)
from rkd.errors import DataError, one_line
from rkd.files import check_regular, is_file, sha256

SPLITS = ("train", "test")
KEYS = ("x_train", "y_train", "x_test", "y_test")


@register_source(NPZ)
class Npz(Reader):
    """Arrays x_train, x_test: (N, H, H, 3) or (N, 3, H, H) uint8, or grey images, which are repeated to three channels:
    (N, H, H), (N, H, H, 1) or (N, 1, H, H); y_train, y_test: (N,) whole numbers from 0.

    Optional: class_names, (classes,) strings. The path is looked up in the user's folder, then in the data folder, then
    at the project's root.
    """

    def files(self, config: DataConfig, root: Path) -> dict[str, Path]:
        found = filter(is_file, paths.dataset_candidates(config.name, root))
        return {config.name: next(found, root / config.name)}

    def identity(self, config: DataConfig, root: Path) -> str:
        return sha256(self._find(config, root))

    def open(self, config: DataConfig, root: Path, download: bool) -> Source:
        path = self._find(config, root)
        if config.sha256 not in (None, sha256(path)):
            raise DataError(f"{path} is not the file this run was planned with: its checksum has changed")
        try:
            arrays = read_npz(path, machine_memory())
        except Exception as error:  # zip, zlib, header and pickle errors of many kinds
            said = one_line(error)
            raise DataError(f"{path} cannot be read as an npz file of plain arrays: {said}") from error
        try:
            return _source(arrays)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def _find(self, config: DataConfig, root: Path) -> Path:
        if not self.is_there(config, root):
            where = f"neither in the working directory nor in {str(root)!r}"
            raise DataError(f"the data set {config.name!r} is {where}")
        return self.files(config, root)[config.name]


def read_npz(file: Path | IO[bytes], most: float) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file of plain values. Announced sizes are checked before memory is allocated.

    Raises:
        ValueError: the arrays take more than `most` bytes, or one announces more than the file holds.
        Exception: a file that is damaged, or holds something else, can raise any other error.
    """
    if isinstance(file, Path):
        check_regular(file)
        with open(file, "rb") as opened:
            return read_npz(opened, most)
    with zipfile.ZipFile(file) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > most:
            raise ValueError(f"its arrays take {size:,} bytes, more than the {most:,.0f} there may be")
        for entry in archive.infolist():
            with archive.open(entry) as array:
                shape, _, dtype = _HEADERS[npformat.read_magic(array)](array)
                if math.prod(shape) * dtype.itemsize > entry.file_size and not dtype.hasobject:
                    said = f"announces shape {shape}, of which the file holds less"
                    raise ValueError(f"{entry.filename} {said}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


# By version; a later one is for field names in non-Latin letters, which no array of numbers has.
_HEADERS = {(1, 0): npformat.read_array_header_1_0, (2, 0): npformat.read_array_header_2_0}


def machine_memory() -> float:
    """Return this machine's memory in bytes; infinity where the system does not say (Windows)."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError):
        return math.inf


def _source(arrays: dict[str, np.ndarray]) -> Source:
    """Return the data set of these arrays; a DataError says what is wrong with them."""
    if missing := [key for key in KEYS if key not in arrays]:
        raise DataError(f"no array {missing[0]}; needed are {', '.join(KEYS)}, found {sorted(arrays)}")
    x = {split: _images(f"x_{split}", arrays[f"x_{split}"]) for split in SPLITS}
    train, test = (images.shape[1:] for images in x.values())
    if train != test:
        raise DataError(f"training images are {train}, but test images are {test}")
    y = {split: _whole(split, arrays[f"y_{split}"], len(x[split])) for split in SPLITS}
    names = _class_names(y, arrays.get("class_names"))
    grey = [split for split, images in x.items() if not images.strides[3]]
    notes = [f"the {' and '.join(grey)} images are grey: repeated to three channels"] if grey else []
    prints = {
        split: [(pixel_hash(image), f"x_{split}[{i}]") for i, image in enumerate(images)]
        for split, images in x.items()
    }
    notes += compare_parts(prints, y, names)
    return Source(y["train"], y["test"], lambda split, indices: x[split][indices], names, tuple(notes))


def _whole(split: str, labels: np.ndarray, images: int) -> np.ndarray:
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"y_{split} must be whole numbers, one for each of the {images} images of x_{split}, not "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if labels.max() > np.iinfo(np.int64).max:  # unsigned; would become negative
        raise DataError(f"labels of y_{split} must run from 0 without a gap, not to {labels.max()}")
    return labels.astype(np.int64)


def _class_names(y: dict[str, np.ndarray], given: np.ndarray | None) -> tuple[str, ...]:
    """Return a name for each class, numbered from 0 without a gap; the numbers themselves where no names are given."""
    found = np.unique(y["train"]).tolist()
    if found != list(range(len(found))):
        raise DataError(f"labels of y_train must run from 0 without a gap, not {found[0]} to {found[-1]}")
    if stray := sorted({*y["test"].tolist()} - {*found}):
        raise DataError(f"y_test has class {join_names([*map(str, stray)])}, of which y_train has no image")
    names = np.array(found) if given is None else given
    try:  # as text that can be written anywhere
        names = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(str)
        "".join(names.flat).encode("utf-8")
    except UnicodeError as error:
        raise DataError(f"class_names are no text in UTF-8: {error}") from error
    if names.shape != (len(found),):
        raise DataError(f"class_names has shape {names.shape}, but there are {len(found)} classes")
    return tuple(names.tolist())


def _images(key: str, x: np.ndarray) -> np.ndarray:
    """Return images as (N, H, H, 3); a grey image's three channels share memory."""
    given = x.shape
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim == 4 and x.shape[3] not in (1, 3):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    if x.ndim == 4 and x.shape[3] == 1:
        x = np.broadcast_to(x, (*x.shape[:3], 3))
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or x.shape[1] != x.shape[2] or not len(x):
        raise DataError(
            f"{key} must be square images, uint8 with values 0..255, (N, H, H, 3) or (N, 3, H, H), or grey without the "
            f"3, not {x.dtype} of shape {given}"
        )
    return x
