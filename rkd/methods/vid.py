"""Variational Information Distillation (Ahn et al. 2019, Equation 4): how well the student predicts the teacher.

A Gaussian per channel of the teacher's map, whose mean is regressed from the student's and whose variance is learnt.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import wide
from rkd.methods.options import Options, positive
from rkd.methods.resize import match, paired
from rkd.models import tap_shapes
from rkd.models.layers import conv1x1

MIN_VARIANCE = 1e-5


@dataclass(frozen=True)
class VidOptions(Options):
    """Options of VID; RepDistiller's values (`-b 1`).

    Attributes:
        loss_weight: weight against cross-entropy.
        init_variance: of every channel before training; above 0.00001, the least that a variance may become.
    """

    loss_weight: float = 1.0
    init_variance: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("init_variance - 0.00001", self.init_variance - MIN_VARIANCE)


class Level(nn.Module):
    """The Gaussian of one stage: mean by three 1x1 convolutions, variance softplus(rho) + 1e-5 per channel."""

    def __init__(self, inputs: int, outputs: int, init_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            conv1x1(inputs, outputs), nn.ReLU(inplace=True),
            conv1x1(outputs, outputs), nn.ReLU(inplace=True),
            conv1x1(outputs, outputs),
        )  # fmt: skip
        self.rho = nn.Parameter(torch.full((outputs,), _inverse_softplus(init_variance - MIN_VARIANCE)))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Negative log-likelihood of the teacher's map, without its constant, as a mean over all elements."""
        student, teacher = match(student, teacher)
        error = wide(self.mean(student)) - wide(teacher)
        variance = (F.softplus(wide(self.rho)) + MIN_VARIANCE)[:, None, None]
        return 0.5 * (error.square() / variance + variance.log()).mean()


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


class Vid(SingleLoss):
    """Sum over stages of the negative log-likelihood; stages are paired from the deepest up.

    Args:
        channels: of student and teacher at each pair of stages.
        options: see VidOptions.
    """

    def __init__(self, channels: list[tuple[int, int]], options: VidOptions) -> None:
        super().__init__("vid", options)
        self.levels = nn.ModuleList(Level(s, t, options.init_variance) for s, t in channels)

    def loss(self, batch: Batch) -> Tensor:
        pairs = paired(batch.student.stages, batch.teacher.stages)
        return torch.stack([level(*pair) for level, pair in zip(self.levels, pairs, strict=True)]).sum()


@register_method("vid", VidOptions, "VID")
def build_vid(context: Context, options: VidOptions) -> Vid:
    """VID for the pair in `context`."""
    student, teacher = (tap_shapes(n, context.image_size).stages for n in (context.student, context.teacher))
    return Vid([(s[0], t[0]) for s, t in paired(student, teacher)], options)
