"""Batches made on the images' device, every image with its own crop and mirroring."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rkd.data.augment import draw_epoch
from rkd.data.images import ImageSet


def normalise(
    x: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(x / 255 - mean) / std: (B, H, W, 3) uint8 -> (B, 3, H, W) `dtype`, channels last in memory."""
    return scaled(x, *affine(x.shape[1:3], mean, std, x.device, dtype))


def affine(
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Scale and shift of each value of an image, (H * W * 3,) each: what normalisation is to `scaled`."""
    area = size[0] * size[1]
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=dtype, device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device)
    return scale.repeat(area), shift.repeat(area)


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`normalise` by what `affine` gave: nothing is brought to the device."""
    # One row per image, so that the fast dimension is the long one and not the three channels.
    rows = torch.addcmul(shift, x.flatten(1).to(scale.dtype), scale)
    return rows.reshape(x.shape).permute(0, 3, 1, 2)


def _padded(x: Tensor, padding: int, mode: str) -> Tensor:
    """(N, H, W, 3) uint8 with `padding` pixels more on each side."""
    if not padding:
        return x
    if mode == "zeros":
        return pad(x, (0, 0, padding, padding, padding, padding))
    rows, columns = (np.pad(np.arange(size), padding, mode="reflect") for size in x.shape[1:3])
    return x[:, rows][:, :, columns]


def used_images(images: int, batch_size: int, drop_last: bool) -> int:
    """How many of so many training images an epoch uses: all; but a last batch of a single image is left out, and with
    `drop_last` any that is smaller than the others."""
    last = images % batch_size
    return images - last if drop_last or last == 1 else images


class Batches:
    """Epochs of augmented, normalised batches of the training images.

    Same crops as torchvision's `RandomCrop(H, padding)` and `RandomHorizontalFlip()` in front of `ToTensor`
    and `Normalize`: the border is black before normalisation.

    `epoch` iterates. `begin` and `take` do the same by hand, reading the position in the epoch from a tensor, so that
    one and the same sequence of kernels makes every batch (a CUDA graph can hold it).

    Batches come on the device of the images; `padding`, `flip` and `padding_mode` are as of `DataConfig`.
    """

    def __init__(self, images: ImageSet, padding: int, flip: bool, padding_mode: str = "zeros") -> None:
        x = images.train_x
        self.images, self.padding, self.flip = images, padding, flip
        self.size = x.shape[1], x.shape[2]
        padded = _padded(x, padding, padding_mode)
        self._pixels = padded.reshape(-1, 3)
        self._width = padded.shape[2]
        self._area = padded.shape[1] * padded.shape[2]
        rows = torch.arange(self.size[0], device=x.device)[:, None] * self._width
        columns = torch.arange(self.size[1], device=x.device)
        # Offsets of a crop's pixels from its first one: as they are, and mirrored.
        self._offsets = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])
        # Draws of the current epoch: images in order; each image's first pixel, and whether it is mirrored.
        self._order, self._first, self._mirrored = (
            torch.zeros(len(self), dtype=torch.int64, device=x.device) for _ in range(3)
        )
        self._counting = torch.arange(len(self), device=x.device)
        self._scale, self._shift = affine(self.size, images.mean, images.std, x.device)

    def __len__(self) -> int:
        """Number of training images."""
        return len(self.images.train_y)

    def begin(self, epoch: int, seed: int) -> None:
        """Draw an epoch: which images follow each other, and each one's crop and mirroring (see `draw_epoch`)."""
        n = len(self)
        draws = draw_epoch(n, epoch, seed, self.padding, self.flip)
        self._order.copy_(draws.order)
        self._first.copy_(torch.arange(n) * self._area + draws.dy * self._width + draws.dx)
        self._mirrored.copy_(draws.flip.long())

    def take(self, position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of `size` images that starts at `position` (int64 scalar on the device) of the epoch.

        Returns:
            (x, y, index): x (size, 3, H, W) float32 in channels-last memory order; y (size,) int64; index (size,)
            int64, positions in the training set.
        """
        index = self._order.index_select(0, self._counting[:size] + position)
        flat = self._offsets.index_select(0, self._mirrored.index_select(0, index))
        flat = flat.add_(self._first.index_select(0, index)[:, None])
        x = self._pixels.index_select(0, flat.flatten()).view(size, *self.size, 3)
        return scaled(x, self._scale, self._shift), self.images.train_y.index_select(0, index), index

    def sizes(self, batch_size: int, start: int = 0, drop_last: bool = False) -> list[int]:
        """Sizes of the batches from `start` to the end of an epoch; the last may be smaller, or left out (see
        `used_images`)."""
        n = used_images(len(self), batch_size, drop_last)
        return [min(batch_size, n - at) for at in range(start, n, batch_size)]

    def epoch(
        self, epoch: int, seed: int, batch_size: int, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of one epoch, as `take` returns them; which are left out: see `used_images`."""
        self.begin(epoch, seed)
        position = torch.zeros((), dtype=torch.int64, device=self._order.device)
        for size in self.sizes(batch_size, drop_last=drop_last):
            yield self.take(position, size)
            position += size


def evaluation_batches(
    x: Tensor, y: Tensor, mean: Sequence[float], std: Sequence[float], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, H, W, 3) uint8 in order, normalised and otherwise as they are, none left out.

    Yields:
        (x, y): (B, 3, H, W) float32 in channels-last memory order, (B,) int64.
    """
    for start in range(0, len(y), batch_size):
        part = slice(start, start + batch_size)
        yield normalise(x[part], mean, std), y[part]
