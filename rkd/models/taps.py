"""What every network shows of itself: one tap protocol for teachers and students; and what can be read off it: shapes,
parameters, multiply-adds, the BatchNorm before each stage's final ReLU."""

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
        stem: first feature map, (B, C, H, W). After its ReLU where the stem has one.
        stages: one map per stage, shallow to deep, (B, C_i, H_i, W_i), after the stage's final ReLU (WRN: the
            raw residual stream, which no ReLU follows within the stage).
        stages_pre: the same maps before that ReLU (WRN: after the next BatchNorm; linear bottlenecks: the
            same tensors as `stages`, there being no ReLU to stand before).
        pooled: global-average-pooled vector, (B, C).
        logits: (B, classes).
    """

    stem: Tensor
    stages: tuple[Tensor, ...]
    stages_pre: tuple[Tensor, ...]
    pooled: Tensor
    logits: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All in one row, which is all that a graph can carry: stem, stages, stages before ReLU, pooled, logits."""
        return self.stem, *self.stages, *self.stages_pre, self.pooled, self.logits

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Taps":
        """The taps whose `tensors` these are."""
        stem, *maps, pooled, logits = tensors
        n = len(maps) // 2
        return cls(stem, tuple(maps[:n]), tuple(maps[n:]), pooled, logits)


class TapNet(nn.Module):
    """A network that can be distilled. One of your own need not derive from this: `forward` and `taps` are enough."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, num_classes)."""
        return self.taps(x).logits

    def taps(self, x: Tensor) -> Taps:
        """Maps of stem and stages, pooled vector and logits of one forward pass."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` compiles in place of this: TorchScript knows no taps, but logits alone hold none."""
        return fx.symbolic_trace(self)


@dataclass(frozen=True)
class TapShapes:
    """Shapes of one image's taps: (channels, height, width) of maps, and the lengths of pooled vector and logits."""

    stem: tuple[int, int, int]
    stages: tuple[tuple[int, int, int], ...]
    stages_pre: tuple[tuple[int, int, int], ...]
    pooled: int
    classes: int


def check_network(what: str, net: object) -> None:
    """Raises ConfigError, which begins with `what`, unless `net` is a network that can be distilled."""
    if not isinstance(net, nn.Module) or not callable(getattr(net, "taps", None)):
        raise ConfigError(
            f"{what} is {'None' if net is None else f'a {type(net).__name__}'}, not a network with a taps(x) method; "
            "rkd.models.build makes one by name, rkd.models.from_module of any torch module"
        )


def tap_shapes(net: nn.Module, size: int = 32, channels: int = 3) -> TapShapes:
    """Shapes of the taps for one image of `size` x `size` pixels, from a dry forward pass in eval mode.

    Training flags, buffers and torch's random streams stay as they are. ConfigError for what is no network with
    taps, or cannot take such images.
    """
    check_network("the network", net)
    with _dry_image(net, size, channels) as image:
        taps = net.taps(image)
    if not isinstance(taps, Taps):
        raise ConfigError(f"{type(net).__name__}.taps returns a {type(taps).__name__}, not rkd.models.Taps")
    stages, before = (tuple(tuple(m.shape[1:]) for m in maps) for maps in (taps.stages, taps.stages_pre))
    return TapShapes(tuple(taps.stem.shape[1:]), stages, before, taps.pooled.shape[1], taps.logits.shape[1])


def parameter_count(net: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers such as BN statistics do not count."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs(net: nn.Module, size: int = 32, channels: int = 3) -> int:
    """Multiply-adds of all convolutions and matrix products for one image of `size` x `size` pixels.

    Biases, BatchNorm, activations and pooling do not count.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with _dry_image(net, size, channels) as image, FlopCounterMode(display=False) as counter:
        net(image)
    return counter.get_total_flops() // 2


@contextmanager
def _dry_image(net: nn.Module, size: int, channels: int) -> Iterator[Tensor]:
    """A zero image where the network is, which is in eval mode and without gradients until the block ends."""
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
    """All in eval mode until the block ends; each submodule's own mode is restored."""
    modes = {part: part.training for network in networks for part in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def final_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The BatchNorm before each stage's final ReLU, shallow to deep, from whose parameters the spread of what that ReLU
    sees is known: the last that acts on `Taps.stages_pre`, as the network's method `final_norms` says it.

    Raises:
        ConfigError: a network that does not say it, or has other layers there (ShuffleNets and MobileNetV2, whose
            stages do not end in BatchNorm and ReLU; reparameterised blocks; modules from elsewhere).

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
