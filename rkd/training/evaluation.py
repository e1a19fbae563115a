"""Accuracy of a network on a set of images."""

import torch
from torch import Tensor, nn

from rkd.data import evaluation_batches


@torch.no_grad()
def accuracy(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int | None = None,
) -> float:
    """Top-1 accuracy in percent, in eval mode, every image counted once; the training flag is left as it was.

    Args:
        network: gives logits (B, classes).
        x: (N, H, W, 3) uint8, on the network's device.
        y: (N,) int64.
        mean, std: normalisation, in units of pixel values in [0, 1].
        batch_size: images at a time; None: 2000 on CUDA, 500 elsewhere.
    """
    batch_size = batch_size or (2000 if x.is_cuda else 500)
    training = network.training
    network.eval()
    dtype = next(network.parameters()).dtype
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    for images, labels in evaluation_batches(x, y, mean, std, batch_size):
        correct += (network(images.to(dtype)).argmax(1) == labels).sum()
    network.train(training)
    return 100.0 * correct.item() / len(y)
