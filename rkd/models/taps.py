"""The tap protocol, by which teachers and students alike show their feature maps, and what can be read off a network:
shapes, parameters, multiply-adds, the BatchNorm before each stage's final ReLU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from rkd.errors import ConfigError, one_line


@dataclass(frozen=True)
class Taps:
    """Feature maps and outputs of one forward pass of B images.

    Attributes:
        stem: first feature map, (B, C, H, W), after the stem's ReLU if it has one.
        stages: one map per stage, shallow to deep, (B, C_i, H_i, W_i), after the stage's final ReLU (WRN: the
            raw residual stream, which no ReLU follows within the stage).
        stages_pre: the same maps before that ReLU (WRN: after the next BatchNorm; linear bottlenecks: the
            same tensors as `stages`, since there is no ReLU).
        pooled: global-average-pooled vector, (B, C).
        logits: (B, classes).
    """

    stem: Tensor
    stages: tuple[Tensor, ...]
    stages_pre: tuple[Tensor, ...]
    pooled: Tensor
    logits: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all in one flat tuple, as a graph needs it: stem, stages, stages before ReLU, pooled, logits."""
        return self.stem, *self.stages, *self.stages_pre, self.pooled, self.logits

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Taps":
        """Return the taps whose `tensors` these are."""
        stem, *maps, pooled, logits = tensors
        n = len(maps) // 2
        return cls(stem, tuple(maps[:n]), tuple(maps[n:]), pooled, logits)


class TapNet(nn.Module):
    """A network that can be distilled. One of your own need not derive from this: `forward` and `taps` are enough."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, 3, H, W)."""
        return self.taps(x).logits

    def taps(self, x: Tensor) -> Taps:
        """Return the maps of stem and stages, pooled vector and logits of one forward pass."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what `torch.jit.script` compiles instead: a graph of the logits, since TorchScript knows no taps."""
        return fx.symbolic_trace(self)


@dataclass(frozen=True)
class TapShapes:
    """Shapes of one image's taps: (channels, height, width) of each map, the lengths of pooled vector and logits."""

    stem: tuple[int, int, int]
    stages: tuple[tuple[int, int, int], ...]
    stages_pre: tuple[tuple[int, int, int], ...]
    pooled: int
    classes: int


def check_network(what: str, net: object) -> None:
    """Raise ConfigError, with a message beginning with `what`, unless `net` is a network that can be distilled."""
    if not isinstance(net, nn.Module) or not callable(getattr(net, "taps", None)):
        raise ConfigError(
            f"{what} is {'None' if net is None else f'a {type(net).__name__}'}, not a network with a taps(x) method; "
            "rkd.models.build makes one by name, rkd.models.from_module of any torch module"
        )


def tap_shapes(net: nn.Module, size: int = 32, channels: int = 3) -> TapShapes:
    """Return the shapes of the taps for one image of `size` x `size` pixels, from a dry forward pass in eval mode.

    Training flags, buffers and torch's random streams are left unchanged. Raises ConfigError if `net` is not a network
    with taps, or cannot take such images.
    """
    check_network("the network", net)
    with _dry_image(net, size, channels) as image:
        taps = net.taps(image)
    if not isinstance(taps, Taps):
        raise ConfigError(f"{type(net).__name__}.taps returns a {type(taps).__name__}, not rkd.models.Taps")
    stages, before = (tuple(tuple(m.shape[1:]) for m in maps) for maps in (taps.stages, taps.stages_pre))
    return TapShapes(tuple(taps.stem.shape[1:]), stages, before, taps.pooled.shape[1], taps.logits.shape[1])


def parameter_count(net: nn.Module) -> int:
    """Return the number of trainable and frozen parameters; buffers such as BN statistics do not count."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs(net: nn.Module, size: int = 32, channels: int = 3) -> int:
    """Return the multiply-adds of all convolutions and matrix products for one image of `size` x `size` pixels.

    Biases, BatchNorm, activations and pooling do not count.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with _dry_image(net, size, channels) as image, FlopCounterMode(display=False) as counter:
        net(image)
    return counter.get_total_flops() // 2


@contextmanager
def _dry_image(net: nn.Module, size: int, channels: int) -> Iterator[Tensor]:
    """Yield a zero image on the network's device, with the network in eval mode and without gradients meanwhile."""
    parameter = next(net.parameters(), torch.empty(0))
    devices = [parameter.device] if parameter.is_cuda else []
    with evaluating(net), torch.no_grad(), torch.random.fork_rng(devices):
        image = torch.zeros(1, channels, size, size, device=parameter.device, dtype=parameter.dtype)
        try:
            yield image
        except ConfigError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            what = f"{size} x {size} pixels in {channels} channels: {one_line(error)}"
            raise ConfigError(f"{type(net).__name__} cannot take images of {what}") from error


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put all networks in eval mode within the `with` block, then restore each submodule's own mode."""
    modes = {part: part.training for network in networks for part in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def final_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the BatchNorm before each stage's final ReLU, shallow to deep: the last layer behind `Taps.stages_pre`,
    according to the network's method `final_norms`. Its parameters tell the spread of what that ReLU sees.

    Raises:
        ConfigError: the network has no such method, or other layers there (ShuffleNets and MobileNetV2, whose stages do
            not end in BatchNorm and ReLU; reparameterised blocks; modules from elsewhere).

    >>> from rkd import models
    >>> [norm.num_features for norm in final_norms(models.build("wrn_16_2"))]
    [32, 64, 128]
    """
    norms = list(network.final_norms()) if callable(getattr(network, "final_norms", None)) else []
    if not norms or not all(isinstance(norm, nn.BatchNorm2d) for norm in norms):
        raise ConfigError(
            f"{type(network).__name__} has no BatchNorm before the last ReLU of each stage; networks that have: "
            "ResNets, WRNs, VGGs, and any network with a method final_norms()"
        )
    return norms
