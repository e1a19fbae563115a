"""Sizes of a network: parameters, multiply-adds and the shapes of its taps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TapShapes:
    """Shapes of one image's taps.

    Attributes:
        stem: (channels, height, width).
        stages: the same for every stage, shallow to deep.
        stages_pre: the same for the maps before the stages' final ReLU.
        pooled: channels of the pooled vector.
        classes: number of logits.
    """

    stem: tuple[int, int, int]
    stages: tuple[tuple[int, int, int], ...]
    stages_pre: tuple[tuple[int, int, int], ...]
    pooled: int
    classes: int


def parameter_count(net: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers such as BN statistics do not count."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs(net: nn.Module, size: int = 32, channels: int = 3) -> int:
    """Multiply-adds of all convolution and linear modules for one image of `size` x `size` pixels.

    Biases, BatchNorm, activations and pooling do not count, nor do convolutions called as functions.
    """
    total = 0

    def count(module: nn.Module, args: tuple, output: Tensor) -> None:
        nonlocal total
        # Every output position meets every weight once: grouping is in the weight's shape already.
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        total += output.numel() // outputs * module.weight.numel()

    counted = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    handles = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, counted)]
    try:
        with _dry_image(net, size, channels) as image:
            net(image)
    finally:
        for handle in handles:
            handle.remove()
    return total


def tap_shapes(net: nn.Module, size: int = 32, channels: int = 3) -> TapShapes:
    """Shapes of the taps for one image of `size` x `size` pixels, from a dry forward pass in eval mode.

    Training flags, buffers and torch's random streams stay as they are.
    """
    with _dry_image(net, size, channels) as image:
        taps = net.taps(image)
    return TapShapes(
        stem=tuple(taps.stem.shape[1:]),
        stages=tuple(tuple(stage.shape[1:]) for stage in taps.stages),
        stages_pre=tuple(tuple(stage.shape[1:]) for stage in taps.stages_pre),
        pooled=taps.pooled.shape[1],
        classes=taps.logits.shape[1],
    )


@contextmanager
def _dry_image(net: nn.Module, size: int, channels: int) -> Iterator[Tensor]:
    """A zero image where the network is, which is in eval mode and without gradients until the block ends."""
    parameter = next(net.parameters(), torch.empty(0))
    flags = [(module, module.training) for module in net.modules()]
    devices = [parameter.device] if parameter.is_cuda else []
    try:
        net.eval()
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield torch.zeros(1, channels, size, size, device=parameter.device, dtype=parameter.dtype)
    finally:
        for module, training in flags:
            module.training = training
