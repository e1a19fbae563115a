"""What every network shows of itself: one tap protocol for teachers and students."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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


class TapNet(Protocol):
    """A network that can be distilled: an `nn.Module` whose `forward` gives logits and `taps` gives all."""

    def forward(self, x: Tensor) -> Tensor: ...

    def taps(self, x: Tensor) -> Taps: ...
