"""A data set: all its uint8 images, on one device, or on the CPU or disk and copied to it batch by batch."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rkd.data.normalisation import preset
from rkd.data.sources import DataConfig, reader_of
from rkd.data.subsets import choose
from rkd.errors import DataError

_IMAGES, _LABELS = ("train_x", "test_x", "holdout_x"), ("train_y", "test_y", "holdout_y")
TENSORS = (*_IMAGES, *_LABELS)
SHARE = 0.25  # of a GPU's free memory that images may take: networks, feature maps and gradients need it more
CHUNK = 2**24  # values counted at a time


@dataclass(frozen=True)
class ImageSet:
    """All uint8 images of one data set. Labels are on the device that computes; images are there too or, where they do
    not fit, on the CPU, where those of a decoded folder are read from disk as needed.

    Attributes:
        train_x, train_y: (N, H, H, 3) uint8 and (N,) int64; likewise for the test images and the held-out ones, of
            which there may be none.
        mean, std: per channel, as the normalisation setting says, for pixel values in [0, 1].
        checksum: SHA-256, in hexadecimal, of the bytes and shapes of the six arrays, after every choice of images.
        notes: sentences for people: what was done to the images, and where there are fewer than asked for.
    """

    name: str
    classes: int
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    holdout_x: Tensor
    holdout_y: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    checksum: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device | str, most: float | None = None) -> "ImageSet":
        """Return the same set for another device: labels move there, and images too unless they take more than `most`
        bytes (None: a quarter of a GPU's free memory)."""
        device = torch.device(device)
        if most is None:
            most = SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
        size, names, notes = sum(getattr(self, name).nbytes for name in _IMAGES), TENSORS, self.notes
        if size > most and device.type != "cpu":
            names = _LABELS
            notes += (
                f"its images, {size / 1e6:,.0f} MB, do not fit on {device} beside the training, which leaves them "
                f"{most / 1e6:,.0f} MB: they are brought there batch by batch",
            )
        return replace(self, notes=notes, **{name: getattr(self, name).to(device) for name in names})


def load(config: DataConfig, root: str | Path = "data", download: bool = True) -> ImageSet:
    """Return the images of a config, on the CPU. CIFAR is read from the folder `root`, and downloaded into it if it is
    missing and `download` is true; the embedded set needs no files. DataError if the data set is missing or damaged, or
    has too few images to hold out."""
    source = reader_of(config.name).open(config, Path(root), download)
    classes = len(source.class_names)
    asked = config.train_images, config.holdout, config.seed
    train, held = choose(source.train_y, classes, *asked, "training")
    test, _ = choose(source.test_y, classes, config.test_images, 0, config.seed, "test")
    arrays = {
        "train_x": source.pixels("train", train),
        "train_y": source.train_y[train],
        "test_x": source.pixels("test", test),
        "test_y": source.test_y[test],
        "holdout_x": source.pixels("train", held),
        "holdout_y": source.train_y[held],
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    fewer = [
        f"{wanted:,} {what} images were asked for; {config.name} has {len(there):,}, and all are used"
        for what, wanted, there in (
            ("training", config.train_images, train),
            ("test", config.test_images, test),
        )
        if wanted is not None and len(there) < wanted
    ]
    norm = preset(config.normalisation)
    mean, std = (norm.mean, norm.std) if norm else measure_statistics(tensors["train_x"])
    return ImageSet(
        name=config.name,
        classes=classes,
        **tensors,
        mean=mean,
        std=std,
        checksum=_checksum(arrays),
        class_names=source.class_names,
        notes=(*source.notes, *fewer),
    )


def is_there(config: DataConfig, root: str | Path = "data") -> bool:
    """Whether the data set can be read without a download."""
    return reader_of(config.name).is_there(config, Path(root))


def describe(config: DataConfig, root: str | Path = "data", download: bool = True) -> dict[str, object]:
    """Return facts about a data set, for people: numbers of images, size, checksum, and statistics measured on the
    training images, in units of [0, 1] pixel values. DataError as for `load`."""
    images = load(config, root, download=download)
    mean, std = measure_statistics(images.train_x)
    return {
        "name": images.name,
        "train_images": len(images.train_y),
        "test_images": len(images.test_y),
        "holdout_images": len(images.holdout_y),
        "classes": images.classes,
        "size": f"{images.train_x.shape[1]} x {images.train_x.shape[2]}",
        "mean": mean,
        "std": std,
        "sha256": images.checksum,
        **({"notes": "; ".join(images.notes)} if images.notes else {}),
    }


def measure_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel of images (N, H, W, 3) uint8, in units of [0, 1], to four
    digits. DataError if there are no images."""
    if not len(x):
        raise DataError("no images to measure")
    counts = torch.zeros(3, 256, dtype=torch.int64, device=x.device)
    for part in x.split(max(1, CHUNK // x[0].numel())):  # one channel of all images would be another copy
        counts += torch.stack([torch.bincount(part[..., c].flatten(), minlength=256) for c in range(3)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=x.device) / 255
    mean = shares @ values
    std = (shares @ values**2 - mean**2).clamp(min=0).sqrt()
    return tuple(round(m, 4) for m in mean.tolist()), tuple(round(s, 4) for s in std.tolist())


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
