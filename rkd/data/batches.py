"""Batches made on the images' device, every image with its own crop and mirroring."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from rkd.data.augment import draw_epoch
from rkd.data.images import ImageSet


def normalise(
    x: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(x / 255 - mean) / std: (B, H, W, 3) uint8 -> (B, 3, H, W) `dtype`, channels last in memory."""
    # One row per image, so that the fast dimension is the long one and not the three channels.
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=dtype, device=x.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=x.device)
    batch, height, width, channels = x.shape
    rows = x.reshape(batch, height * width * channels).to(dtype)
    area = height * width
    rows = torch.addcmul(shift.repeat(area), rows, scale.repeat(area))
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Batches:
    """Epochs of augmented, normalised batches of the training images.

    Same crops as torchvision's `RandomCrop(H, padding)` and `RandomHorizontalFlip()` in front of `ToTensor`
    and `Normalize`: the border is black before normalisation.

    Args:
        images: a data set; batches come on its device.
        padding: zeros on each side, in pixels.
        flip: mirror each image with probability 1/2.
    """

    def __init__(self, images: ImageSet, padding: int, flip: bool) -> None:
        x = images.train_x
        self.images, self.padding, self.flip = images, padding, flip
        self.size = x.shape[1], x.shape[2]
        padded = pad(x, (0, 0, padding, padding, padding, padding)) if padding else x
        self._pixels = padded.reshape(-1, 3)
        self._width = padded.shape[2]
        self._area = padded.shape[1] * padded.shape[2]
        rows = torch.arange(self.size[0], device=x.device)[:, None] * self._width
        columns = torch.arange(self.size[1], device=x.device)
        # Offsets of a crop's pixels from its first one: as they are, and mirrored.
        self._offsets = torch.stack([(rows + columns).flatten(), (rows + columns.flip(0)).flatten()])

    def __len__(self) -> int:
        """Number of training images."""
        return len(self.images.train_y)

    def epoch(
        self, epoch: int, seed: int, batch_size: int, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of one epoch.

        Which images a batch has, and each image's crop and mirroring, follow from `epoch` and `seed` (see
        `draw_epoch`).

        Args:
            drop_last: leave out a last batch that is smaller than the others.

        Yields:
            (x, y, index): x (B, 3, H, W) float32 in channels-last memory order; y (B,) int64; index (B,)
            int64, positions in the training set.
        """
        n, device = len(self), self._pixels.device
        draws = draw_epoch(n, epoch, seed, self.padding, self.flip)
        first = torch.arange(n) * self._area + draws.dy * self._width + draws.dx
        order, first, mirrored = (t.to(device) for t in (draws.order, first, draws.flip.long()))
        for start in range(0, n - n % batch_size if drop_last else n, batch_size):
            index = order[start : start + batch_size]
            flat = self._offsets.index_select(0, mirrored[index]).add_(first[index][:, None])
            x = self._pixels.index_select(0, flat.flatten()).view(-1, *self.size, 3)
            yield normalise(x, self.images.mean, self.images.std), self.images.train_y[index], index


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
