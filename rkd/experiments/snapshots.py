"""Maps of a few test images, taken while a run trains and kept beside its record: the attention after several epochs,
and the last pair of student and teacher maps that was compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rkd import data as datasets
from rkd.data import ImageSet, evaluation_batches
from rkd.errors import RecordError, say_once
from rkd.files import replacing
from rkd.records import Store
from rkd.records.maps import read_maps
from rkd.records.record import REMEDY
from rkd.review.framework import level_maps_of
from rkd.training import RunConfig, TrainState

IMAGES = 6  # number of classes whose first test image is used
TIMES = 12  # largest number of points in time


def due(total: int) -> tuple[int, ...]:
    """Return the numbers of finished epochs after which maps of a run of `total` epochs are taken: the first and the
    last are among them, and early ones are closer together.

    >>> due(240), due(3)
    ((1, 3, 9, 19, 33, 50, 72, 98, 127, 161, 199, 240), (1, 2, 3))
    """
    return tuple(sorted({round(1 + (total - 1) * (i / (TIMES - 1)) ** 2) for i in range(TIMES)}))


def has_maps(config: RunConfig) -> bool:
    """Whether a run has maps to show."""
    return config.method == "reviewkd"


def take(state: TrainState, teacher: nn.Module, images: ImageSet, folder: Path) -> None:
    """Add the maps of a state between two epochs to `folder`/maps.npz, if this epoch is due (see `due`).

    Args:
        teacher: the teacher's network, evaluated with running statistics, whatever training uses.
    """
    if state.epoch not in due(state.config.epochs):
        return
    labels = images.test_y.tolist()
    first = sorted(labels.index(label) for label in set(labels))[:IMAGES]
    test_y, pixels = images.test_y[first], images.test_x[first]
    x, _ = next(evaluation_batches(pixels, test_y, images.mean, images.std, len(first)))
    levels = level_maps_of(state.method, state.student, teacher, x.to(next(state.student.parameters()).dtype))
    path = folder / "maps.npz"
    arrays = {"epochs": np.array([], dtype=np.int64)}
    if path.exists():
        try:
            arrays = read_maps(path, state.config.id)
        except RecordError as error:
            say_once(f"maps {path}: {error}; they are kept anew from epoch {state.epoch} on")
    arrays |= {
        "run": np.array(state.config.id),
        "levels": np.array([maps.level for maps in levels]),
        "places": np.array(first),
        "size": np.array(images.test_x.shape[1]),
        "labels": test_y.cpu().numpy(),
        "classes": np.array([images.class_names[label] for label in test_y.tolist()]),
    }
    if images.name == "embedded":  # these are our own; other sets' images are not ours to pass on
        arrays["images"] = pixels.cpu().numpy()
    for i, maps in enumerate(levels):
        if maps.attention is not None:
            attention = (maps.attention.float() * 255).round().to(torch.uint8)
            arrays[f"attention_{state.epoch}_{i}"] = attention.cpu().numpy()
        channel = int(maps.teacher.double().var(dim=(0, 2, 3), correction=0).argmax())
        for side, tensor in (("student", maps.fused), ("teacher", maps.teacher)):
            arrays[f"{side}_{i}"] = tensor[:, channel].float().cpu().numpy().astype(np.float16)
    seen = arrays["epochs"]  # a resumed run may be back before some of them
    arrays["epochs"] = np.union1d(seen[seen < state.epoch], [state.epoch])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


@dataclass(frozen=True)
class Snapshots:
    """The maps kept of one run.

    Attributes:
        epochs: numbers of finished epochs, ascending.
        levels: names, deep to shallow.
        images: (N, H, W, 3) uint8; grey if the images are not available.
        pictured: whether `images` are the real images.
    """

    epochs: tuple[int, ...]
    levels: tuple[str, ...]
    images: np.ndarray
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    pictured: bool = True

    def attention(self, epoch: int, level: str) -> np.ndarray | None:
        """Return (N, 2, h, w) in [0, 1], to the nearest 1/255: the student map's weight, then the residual's; None if
        the level fuses nothing."""
        found = self.arrays.get(f"attention_{epoch}_{self.levels.index(level)}")
        return None if found is None else found.astype(np.float32) / 255

    def pair(self, level: str) -> tuple[np.ndarray, np.ndarray]:
        """Return two (N, H, W) float32 arrays, of student and teacher, after the last epoch taken: the channel in which
        the teacher varies most."""
        i = self.levels.index(level)
        return self.arrays[f"student_{i}"].astype(np.float32), self.arrays[f"teacher_{i}"].astype(np.float32)


def load_snapshots(store: Store, run: str, data_root: Path | None = None) -> Snapshots | None:
    """Return the maps kept of a run that has ended; None if there are none, or damaged ones, which is reported once.

    Args:
        data_root: folder of the data sets. Images of the embedded set are stored with the maps; those of other sets are
            read from this folder, if the set is there and the run is recorded. Nothing is downloaded.
    """
    path = store.maps(run)
    if not path.exists():
        return None
    try:
        arrays = read_maps(path, run)
    except RecordError as error:
        say_once(f"maps {path}: {error}; {REMEDY}")
        return None
    grey = len(arrays["labels"]), *[int(arrays["size"])] * 2, 3
    epochs, levels, classes = (tuple(arrays[name].tolist()) for name in ("epochs", "levels", "classes"))
    images = arrays.get("images")
    for record in store.read([run]).values() if images is None and data_root and "places" in arrays else ():
        if datasets.is_there(record.config.data, data_root):
            found = datasets.load(record.config.data, data_root, download=False).test_x
            if ((arrays["places"] >= 0) & (arrays["places"] < len(found))).all():
                images = found[arrays["places"]].numpy()
    shown = np.full(grey, 190, dtype=np.uint8) if images is None else images
    return Snapshots(epochs, levels, shown, classes, arrays, pictured=images is not None)
