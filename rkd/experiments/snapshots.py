"""Maps of a few test images, taken while a run trains and kept beside its record: what the attention looked like after
which epoch, and the last pair of maps that was compared."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rkd import data as datasets
from rkd.data import ImageSet, evaluation_batches
from rkd.errors import ConfigError, RecordError
from rkd.files import replacing
from rkd.records import Store
from rkd.review import ReviewKD
from rkd.review.maps import level_maps_of
from rkd.training import RunConfig, TrainState


@dataclass(frozen=True)
class SnapshotTaker:
    """Which images, and when.

    Attributes:
        images: the first test image of each of so many classes.
        epochs: at most so many points in time, the first and the last epoch among them, the early ones closer together.
    """

    images: int = 6
    epochs: int = 12

    def __post_init__(self) -> None:
        if self.images < 1 or self.epochs < 1:
            raise ConfigError(f"images is {self.images} and epochs is {self.epochs}; both must be >= 1")

    def due(self, total: int) -> tuple[int, ...]:
        """Numbers of finished epochs after which a run of `total` epochs is looked at.

        >>> SnapshotTaker(epochs=5).due(240), SnapshotTaker().due(3)
        ((1, 16, 61, 135, 240), (1, 2, 3))
        """
        if self.epochs == 1:
            return (total,)
        places = [i / (self.epochs - 1) for i in range(self.epochs)]
        return tuple(sorted({round(1 + (total - 1) * place**2) for place in places}))

    def wants(self, config: RunConfig) -> bool:
        """Whether a run has maps to show."""
        return config.method == "reviewkd"

    def take(self, state: TrainState, teacher: nn.Module, images: ImageSet, folder: Path) -> None:
        """Look at a state between two epochs, if it is time; adds to `folder`/maps.npz.

        Args:
            state: at the end of an epoch.
            teacher: its teacher's network; evaluated with running statistics, whatever it trains with.
            images: the data set, on the state's device.
            folder: the run's working folder.
        """
        config = state.config
        if not self.wants(config) or state.epoch not in self.due(config.epochs):
            return
        assert isinstance(state.method, ReviewKD)
        chosen = self._chosen(images.test_y)
        dtype = next(state.student.parameters()).dtype
        x, _ = next(
            evaluation_batches(
                images.test_x[chosen], images.test_y[chosen], images.mean, images.std, len(chosen)
            )
        )
        levels = level_maps_of(state.method, state.student, teacher, x.to(dtype))
        path = folder / "maps.npz"
        arrays = dict(np.load(path)) if path.exists() else {}
        arrays |= {
            "run": np.array(config.id),
            "levels": np.array([maps.level for maps in levels]),
            "places": chosen.cpu().numpy(),
            "size": np.array(images.test_x.shape[1]),
            "labels": images.test_y[chosen].cpu().numpy(),
            "classes": np.array([images.class_names[int(label)] for label in images.test_y[chosen]]),
        }
        if images.name == "embedded":  # our own; those of other data sets are not ours to hand on
            arrays["images"] = images.test_x[chosen].cpu().numpy()
        for i, maps in enumerate(levels):
            if maps.attention is not None:
                arrays[f"attention_{state.epoch}_{i}"] = _bytes(maps.attention)
            channel = int(maps.teacher.double().var(dim=(0, 2, 3), correction=0).argmax())
            for side, tensor in (("student", maps.fused), ("teacher", maps.teacher)):
                arrays[f"{side}_{i}"] = tensor[:, channel].float().cpu().numpy().astype(np.float16)
        seen = {*(arrays["epochs"].tolist() if "epochs" in arrays else ()), state.epoch}
        arrays["epochs"] = np.array(sorted(e for e in seen if e <= state.epoch))
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def _chosen(self, labels: Tensor) -> Tensor:
        """Positions of the first image of each of the first classes that occur."""
        found: dict[int, int] = {}
        for place, label in enumerate(labels.tolist()):
            found.setdefault(label, place)
            if len(found) == self.images:
                break
        return torch.tensor(list(found.values()), device=labels.device)


@dataclass(frozen=True)
class Snapshots:
    """What a taker kept of one run.

    Attributes:
        epochs: numbers of finished epochs, ascending.
        levels: names, deep to shallow.
        images: (N, H, W, 3) uint8; grey where they are not to be had.
        labels: (N,) int64; classes: their names.
        arrays: as the file holds them.
        pictured: whether `images` are the images.
    """

    epochs: tuple[int, ...]
    levels: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    pictured: bool = True

    def attention(self, epoch: int, level: str) -> np.ndarray | None:
        """(N, 2, h, w) in [0, 1], to 1/255: the student map's weight, then the residual's; None where the level fuses
        nothing."""
        found = self.arrays.get(f"attention_{epoch}_{self.levels.index(level)}")
        return None if found is None else found.astype(np.float32) / 255

    def pair(self, level: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, H, W) float32 twice, student and teacher, after the last epoch: the channel in which the teacher varies
        most."""
        i = self.levels.index(level)
        return self.arrays[f"student_{i}"].astype(np.float32), self.arrays[f"teacher_{i}"].astype(np.float32)


def load_snapshots(store: Store, run: str, data_root: Path | None = None) -> Snapshots | None:
    """The maps kept of an ended run; None where there are none.

    Args:
        store: of the run.
        run: its id.
        data_root: folder of the data sets. The images of the embedded set lie with the maps; those of other sets are
            taken from there, if the set is there and the run is recorded. Nothing is downloaded.

    Raises:
        RecordError: the file is damaged or of another run.
    """
    path = store.maps(run)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if str(arrays["run"]) != run:
            raise RecordError(f"{path} holds maps of run {arrays['run']}; it was renamed or copied")
        found = Snapshots(
            tuple(arrays["epochs"].tolist()),
            tuple(arrays["levels"].tolist()),
            arrays.get("images", _grey(len(arrays["labels"]), int(arrays["size"]))),
            arrays["labels"],
            tuple(arrays["classes"].tolist()),
            arrays,
            pictured="images" in arrays,
        )
    except RecordError:
        raise
    except Exception as error:  # zip, pickle and key errors of many kinds
        raise RecordError(f"{path} is damaged: {error}") from error
    if found.pictured or data_root is None or not store.has(run):
        return found
    config = store.load(run).config.data
    if not datasets.is_there(config, data_root):
        return found
    images = datasets.load(config, data_root, progress=False, download=False)
    return dataclasses.replace(found, images=images.test_x[found.arrays["places"]].numpy(), pictured=True)


def _grey(count: int, size: int) -> np.ndarray:
    return np.full((count, size, size, 3), 190, dtype=np.uint8)


def _bytes(attention: Tensor) -> np.ndarray:
    return (attention.float() * 255).round().to(torch.uint8).cpu().numpy()
