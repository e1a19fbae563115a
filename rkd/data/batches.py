"""Batches made on the device, each image with its own crop and flip, from images that are on the device or are copied
to it a batch at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rkd.data.augment import draw_epoch
from rkd.data.images import ImageSet
from rkd.errors import DataError


def normalise(
    x: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(x / 255 - mean) / std: (B, H, W, 3) uint8 -> (B, 3, H, W) `dtype`, channels last in memory."""
    return apply_normalisation(x, *normalisation_affine(x.shape[1:3], mean, std, x.device, dtype))


def normalisation_affine(
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of each value of an image, (H * W * 3,) each, for `apply_normalisation`. DataError
    where a standard deviation is 0, as for images of a single value."""
    if 0 in std:
        raise DataError(
            "a channel has one value in all training images, so that their own statistics cannot normalise them; name "
            "others, for example normalisation: cifar100"
        )
    area = size[0] * size[1]
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=dtype, device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device)
    return scale.repeat(area), shift.repeat(area)


def apply_normalisation(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Do as `normalise`, with the result of `normalisation_affine`: nothing is copied to the device."""
    # One row per image, so that the fast dimension is the long one and not the three channels.
    rows = torch.addcmul(shift, x.flatten(1).to(scale.dtype), scale)
    return rows.reshape(x.shape).permute(0, 3, 1, 2)


def on_other_device(x: Tensor, device: torch.device) -> bool:
    """Whether images are on another device than `device`, where they are needed (see `ImageSet.to`)."""
    return x.device != device


def used_images(images: int, batch_size: int, drop_last: bool) -> int:
    """Return how many of `images` training images an epoch uses: all, except a last batch of a single image and, with
    `drop_last`, any last batch that is smaller than the others."""
    last = images % batch_size
    return images - last if drop_last or last == 1 else images


class Batches:
    """Epochs of augmented, normalised batches of the training images.

    Crops and flips are those of torchvision's `RandomCrop(H, padding)` and `RandomHorizontalFlip()` before `ToTensor`
    and `Normalize`: the border is black before normalisation.

    `epoch` iterates. `begin`, `bring` and `take` do the same by hand: `take` reads the position in the epoch from a
    tensor, so that the same sequence of kernels makes every batch, and a CUDA graph can hold it. `bring` copies images
    from elsewhere to the labels' device; the copy is not part of the graph, which finds all batches of one size in one
    place.

    Batches are on the labels' device; `padding`, `flip` and `padding_mode` are as in `DataConfig`.
    """

    def __init__(self, images: ImageSet, padding: int, flip: bool, padding_mode: str = "zeros") -> None:
        x, device = images.train_x, images.train_y.device
        self.images, self.padding, self.flip = images, padding, flip
        self.size, self._device, self._apart = (x.shape[1], x.shape[2]), device, on_other_device(x, device)
        self._there: dict[int, Tensor] = {}  # copied images, by batch size
        # The rows and columns that an image with a mirrored border shows; a black border needs none.
        sides = self.size if padding and padding_mode == "reflect" else ()
        around = (np.pad(np.arange(size), padding, mode="reflect") for size in sides)
        self._around = [torch.from_numpy(places).to(device) for places in around]
        height, self._width = (size + 2 * padding for size in self.size)
        self._area = height * self._width
        rows = torch.arange(self.size[0], device=device)[:, None] * self._width
        columns = torch.arange(self.size[1], device=device)
        # Offsets of a crop's pixels from its first one: plain, and mirrored.
        self._offsets = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])
        # Draws of the current epoch: images in order; each image's first pixel, and whether it is mirrored.
        self._order, self._first, self._mirrored = (
            torch.zeros(len(self), dtype=torch.int64, device=device) for _ in range(3)
        )
        self._ahead = torch.zeros(len(self), dtype=torch.int64)  # the order, on the host
        self._counting = torch.arange(len(self), device=device)
        self._scale, self._shift = normalisation_affine(self.size, images.mean, images.std, device)

    def __len__(self) -> int:
        """Number of training images."""
        return len(self.images.train_y)

    def begin(self, epoch: int, seed: int) -> None:
        """Draw an epoch: the order of the images, and each one's crop and flip (see `draw_epoch`)."""
        n = len(self)
        draws = draw_epoch(n, epoch, seed, self.padding, self.flip)
        self._ahead = draws.order
        self._order.copy_(draws.order)
        self._first.copy_(draws.dy * self._width + draws.dx)
        self._mirrored.copy_(draws.flip.long())

    def bring(self, start: int, size: int) -> None:
        """Copy the images of the batch that `take` makes next to the device, unless all images are there."""
        if not self._apart:
            return
        x = self.images.train_x
        # torch manages pinned memory: it reuses none before the copies from it have finished.
        host = torch.empty((size, *x.shape[1:]), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        torch.index_select(x, 0, self._ahead[start : start + size], out=host)
        if size not in self._there:
            self._there[size] = torch.empty(host.shape, dtype=torch.uint8, device=self._device)
        self._there[size].copy_(host, non_blocking=True)

    def take(self, position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the batch of `size` images that starts at `position` (int64 scalar on the device) in the epoch.

        Returns:
            (x, y, index): x (size, 3, H, W) float32 in channels-last memory order; y (size,) int64; index (size,)
            int64, positions in the training set.
        """
        index = self._order.index_select(0, self._counting[:size] + position)
        flat = self._offsets.index_select(0, self._mirrored.index_select(0, index))
        flat = flat.add_((self._first.index_select(0, index) + self._counting[:size] * self._area)[:, None])
        images = self._there[size] if self._apart else self.images.train_x.index_select(0, index)
        if self._around:
            images = images.index_select(1, self._around[0]).index_select(2, self._around[1])
        elif self.padding:
            images = pad(images, (0, 0, *(self.padding,) * 4))
        pixels = images.reshape(-1, 3)
        x = pixels.index_select(0, flat.flatten()).view(size, *self.size, 3)
        return (
            apply_normalisation(x, self._scale, self._shift),
            self.images.train_y.index_select(0, index),
            index,
        )

    def sizes(self, batch_size: int, start: int = 0, drop_last: bool = False) -> list[int]:
        """Return the sizes of the batches from `start` to the end of an epoch; the last may be smaller, or left out
        (see `used_images`)."""
        n = used_images(len(self), batch_size, drop_last)
        return [min(batch_size, n - at) for at in range(start, n, batch_size)]

    def epoch(
        self, epoch: int, seed: int, batch_size: int, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches of one epoch, as `take` returns them; `used_images` says which images are left out."""
        self.begin(epoch, seed)
        position, start = torch.zeros((), dtype=torch.int64, device=self._order.device), 0
        for size in self.sizes(batch_size, drop_last=drop_last):
            self.bring(start, size)
            yield self.take(position, size)
            position += size
            start += size


def evaluation_batches(
    x: Tensor, y: Tensor, mean: Sequence[float], std: Sequence[float], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images (N, H, W, 3) uint8 in order, on the labels' device, normalised and otherwise unchanged.

    Yields:
        (x, y): (B, 3, H, W) float32 in channels-last memory order, (B,) int64.
    """
    for start in range(0, len(y), batch_size):
        part = slice(start, start + batch_size)
        yield normalise(x[part].to(y.device), mean, std), y[part]
