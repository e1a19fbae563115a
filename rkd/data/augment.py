"""The random draws of an epoch: order, crops, flips."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rkd.data.streams import stream_seed


@dataclass(frozen=True)
class EpochDraws:
    """All draws of one epoch over N training images, on the CPU.

    Attributes:
        order: (N,) int64, a permutation: position in the epoch -> image.
        dy, dx: (N,) int64 in 0..2*padding, first row and column of each image's crop in the padded image; indexed by
            image, not by position in the epoch.
        flip: (N,) bool, indexed likewise: whether the image is mirrored left to right after the crop.
    """

    order: Tensor
    dy: Tensor
    dx: Tensor
    flip: Tensor


def draw_epoch(n: int, epoch: int, seed: int, padding: int, flip: bool) -> EpochDraws:
    """Return the draws of an epoch, a function of the arguments alone.

    Order, crops and flips have random streams of their own, so that switching augmentation off leaves the order
    unchanged. There is no state between epochs: a killed run resumes with the same draws, and since they are made on
    the CPU, a GPU gets the same ones.
    """

    def stream(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(seed, name, epoch))

    crop = stream("crop")
    return EpochDraws(
        order=torch.randperm(n, generator=stream("order")),
        dy=torch.randint(2 * padding + 1, (n,), generator=crop),
        dx=torch.randint(2 * padding + 1, (n,), generator=crop),
        flip=torch.randint(2, (n,), generator=stream("flip")).bool() & flip,
    )
