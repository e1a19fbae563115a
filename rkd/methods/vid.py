"""Variational Information Distillation (Ahn et al. 2019, Equation 4): how well the student predicts the teacher.

A Gaussian for each channel of the teacher's map: its mean is regressed from the student's map, its variance learned.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.config import Positive, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import match, pair_stages, upcast
from rkd.models.layers import conv1x1

MIN_VARIANCE = 1e-5


@frozen
class VidOptions(Options):
    """RepDistiller's values (`-b 1`).

    Attributes:
        init_variance: of every channel before training; above 0.00001, the least that a variance may become.
    """

    init_variance: Positive = 5.0

    def __post_init__(self) -> None:
        if self.init_variance <= MIN_VARIANCE:
            raise ConfigError(f"init_variance is {self.init_variance}; it must be > {MIN_VARIANCE:.5f}")


class Level(nn.Module):
    """The Gaussian of one stage: mean by three 1x1 convolutions, variance softplus(rho) + 1e-5 per channel."""

    def __init__(self, inputs: int, outputs: int, init_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            conv1x1(inputs, outputs), nn.ReLU(inplace=True),
            conv1x1(outputs, outputs), nn.ReLU(inplace=True),
            conv1x1(outputs, outputs),
        )  # fmt: skip
        value = init_variance - MIN_VARIANCE
        inverted = value + math.log(-math.expm1(-value))  # of softplus
        self.rho = nn.Parameter(torch.full((outputs,), inverted))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the negative log-likelihood of the teacher's map, without its constant, averaged over all elements."""
        student, teacher = match(student, teacher)
        error = upcast(self.mean(student)) - upcast(teacher)
        variance = (F.softplus(upcast(self.rho)) + MIN_VARIANCE)[:, None, None]
        return 0.5 * (error.square() / variance + variance.log()).mean()


@register_method("vid", VidOptions, "VID")
class Vid(SingleLoss):
    """Sum over stages of the negative log-likelihood; stages are paired from the deepest up."""

    def __init__(self, context: Context, options: VidOptions) -> None:
        super().__init__(context, options)
        pairs = pair_stages(*(shapes.stages for shapes in context.shapes))
        self.levels = nn.ModuleList(Level(s[0], t[0], options.init_variance) for s, t in pairs)

    def loss(self, batch: Batch) -> Tensor:
        pairs = pair_stages(batch.student.stages, batch.teacher.stages)
        return torch.stack([level(*pair) for level, pair in zip(self.levels, pairs, strict=True)]).sum()
