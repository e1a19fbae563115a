"""Accuracy of a network on a set of images."""

import torch
from torch import Tensor, nn

from rkd.data import evaluation_batches
from rkd.models.taps import evaluating
from rkd.training.arithmetic import Arithmetic, exact_kernels

OF_TABLES = 32 * 32  # pixels of an image


@torch.no_grad()
def accuracy(
    network: nn.Module, x: Tensor, y: Tensor, mean: tuple[float, ...], std: tuple[float, ...],
    batch_size: int | None = None, numbers: Arithmetic | None = None,
) -> float:  # fmt: skip
    """Return top-1 accuracy in percent, with exact kernels and in eval mode; the network's mode is restored.

    Args:
        x: (N, H, W, 3) uint8, on the network's device or on the CPU.
        y: (N,) int64, on the network's device.
        mean, std: normalisation, in units of pixel values in [0, 1].
        batch_size: images at a time; None: see `usual_batch`.
        numbers: the arithmetic; None: the network's own precision.
    """
    numbers = numbers or Arithmetic("own", next(network.parameters()).dtype)
    size = batch_size or usual_batch(y.device, x.shape[1] * x.shape[2])
    correct = torch.zeros((), dtype=torch.int64, device=y.device)
    with exact_kernels(), evaluating(network):
        for images, labels in evaluation_batches(x, y, mean, std, size):
            with numbers.autocast(y.device):
                logits = network(images.to(numbers.master))
            correct += (logits.argmax(1) == labels).sum()
    return 100.0 * correct.item() / len(y)


def usual_batch(device: torch.device, area: int) -> int:
    """Return how many images of `area` pixels to score at a time: fewer if larger, since their maps fill the memory."""
    return max(1, (2000 if device.type == "cuda" else 500) * OF_TABLES // max(area, OF_TABLES))
