"""What a network's features are worth: a new linear layer fitted on them, the network itself untouched."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.data import ImageSet, evaluation_batches
from rkd.training.arithmetic import exact_kernels


@torch.no_grad()
def linear_probe(network: nn.Module, images: ImageSet, ridge: float = 1e-2) -> float:
    """Test accuracy in percent of a linear classifier on the pooled features, fitted on the training images.

    The layer solves ridge regression onto one-hot labels in closed form, in float64, on standardised features:
    deterministic, no learning rate to choose.

    Args:
        network: with `taps`, on the images' device.
        images: the data set.
        ridge: penalty per training image.
    """
    network.eval()
    with exact_kernels():
        train = _features(network, images.train_x, images.train_y, images)
        test = _features(network, images.test_x, images.test_y, images)
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    x = _with_bias((train - mean) / std)  # (N, C + 1)
    targets = F.one_hot(images.train_y, images.classes).double()
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ targets)  # (C + 1, classes)
    return (
        100.0
        * ((_with_bias((test - mean) / std) @ weights).argmax(1) == images.test_y).double().mean().item()
    )


def _features(network: nn.Module, x: Tensor, y: Tensor, images: ImageSet) -> Tensor:
    dtype = next(network.parameters()).dtype
    batches = evaluation_batches(x, y, images.mean, images.std, 500)
    return torch.cat([network.taps(batch.to(dtype)).pooled.double() for batch, _ in batches])


def _with_bias(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
