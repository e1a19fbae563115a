"""Maps of a few test images of a run, stored in a file beside its record (see `rkd.experiments.snapshots`)."""

import re
from pathlib import Path
from typing import IO

import numpy as np

from rkd.data.npz import read_npz
from rkd.errors import RecordError, one_line

MOST_BYTES = 2**26
# Array names, each with the kind of its dtype and its number of dimensions; E is an epoch, L a level.
_FORMS = {
    "run": ("U", 0), "size": ("i", 0), "epochs": ("i", 1), "levels": ("U", 1), "places": ("i", 1),
    "labels": ("i", 1), "classes": ("U", 1), "images": ("u", 4), "attention_E_L": ("u", 4), "student_L": ("f", 3),
    "teacher_L": ("f", 3),
}  # fmt: skip
_NEEDED = {"run", "size", "epochs", "levels", "labels", "classes"}
_OF_IMAGES = ("labels", "classes", "places", "images", "attention_E_L", "student_L", "teacher_L")


def read_maps(file: Path | IO[bytes], run: str) -> dict[str, np.ndarray]:
    """Read and check the arrays of a run's maps.

    Raises:
        RecordError: they are damaged, have names, types or shapes that maps do not have, or are of another run. The
            message does not name the file.
    """
    try:
        arrays = read_npz(file, MOST_BYTES)
    except Exception as error:  # zip, zlib, header and pickle errors of many kinds
        raise RecordError(f"it is damaged: {one_line(error, 100)}") from error
    if lacking := _NEEDED - arrays.keys():
        raise RecordError(f"it holds no maps: there is no array {min(lacking)}")
    forms = {name: re.sub(r"_\d+$", "_L", re.sub(r"_\d+_\d+$", "_E_L", name)) for name in arrays}
    for name, array in arrays.items():
        if _FORMS.get(forms[name]) != (array.dtype.kind, array.ndim):
            raise RecordError(f"no maps have an array {name!r} of {array.dtype}, {array.ndim}-dimensional")
    count, size = len(arrays["labels"]), arrays["size"]
    for name in (name for name, form in forms.items() if form in _OF_IMAGES):
        if len(arrays[name]) != count or not arrays[name].size:
            raise RecordError(f"array {name} has shape {arrays[name].shape}, for {count} images")
    if (of := str(arrays["run"])) != run:
        raise RecordError(f"it holds maps of run {of!r}, not {run}; it was renamed or copied")
    if not 0 < size < 10_000 or ("images" in arrays and arrays["images"].shape[1:] != (size, size, 3)):
        raise RecordError(f"its images are of size {size}, which those of the file are not")
    pairs = {f"{side}_{i}" for side in ("student", "teacher") for i in range(len(arrays["levels"]))}
    if lacking := pairs - arrays.keys():
        raise RecordError(f"it holds no maps: there is no array {min(lacking)}")
    if arrays["epochs"].tolist() != sorted({*arrays["epochs"].tolist()}):
        raise RecordError("its epochs do not ascend")
    return arrays
