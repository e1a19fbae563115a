"""A Comprehensive Overhaul of Feature Distillation (Heo et al. 2019, Equations 2 to 5).

Compares maps before the final ReLU of each stage, where what the ReLU would cut off counts only down to a margin.
"""

import math

import torch
from torch import Tensor, nn

from rkd.config import Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import halving_sum, match, pair_stages, upcast
from rkd.models.layers import conv1x1
from rkd.models.taps import final_norms

RARE = 0.001  # where a negative value is less probable, its mean is of no use
RARE_MARGIN = -3.0  # in standard deviations


@frozen
class OfdOptions(Options):
    """mdistiller's value, small since the loss is a sum over elements."""

    loss_weight: Weight = 0.001


def margins(norm: nn.BatchNorm2d) -> Tensor:
    """Return (C,): the mean of the negative part of a Gaussian of mean `norm.bias` and standard deviation
    |`norm.weight`| (paper Equation 5); -3 standard deviations where hardly anything is negative."""
    mean, std = norm.bias.detach().double(), norm.weight.detach().double().abs()
    z = mean / std.clamp_min(1e-12)  # a channel switched off has its mean's negative part as margin
    negative = torch.special.ndtr(-z)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    margin = mean - std * density / negative.clamp_min(RARE)
    return torch.where(negative > RARE, margin, RARE_MARGIN * std).to(norm.weight.dtype)


def partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Return squared differences of maps (B, C, H, W) before ReLU, left out where both are negative and the student's
    is the lower: sum over elements, mean over images (paper Equation 3). The teacher's map is clamped from below to
    `margin` (C,)."""
    teacher = torch.maximum(teacher, margin[:, None, None])
    counts = (student > teacher) | (teacher > 0)
    return ((student - teacher).square() * counts).sum() / len(student)


@register_method("ofd", OfdOptions, "OFD")
class Ofd(SingleLoss):
    """Sum over stages of the partial L2 distance; each stage counts half as much as the next deeper one.

    The student's map passes through a trained 1x1 convolution and BatchNorm at every stage. Stages are paired from the
    deepest up, and the larger map is average-pooled to the smaller. The student may be any network: where it has no map
    before ReLU, its stage map is used. ConfigError for a teacher without BatchNorm before its stages' last ReLU.
    """

    def __init__(self, context: Context, options: OfdOptions) -> None:
        super().__init__(context, options)
        student, teacher = ([shape[0] for shape in shapes.stages_pre] for shapes in context.shapes)
        norms = final_norms(context.teacher)
        widths = [norm.num_features for norm in norms]
        if widths != teacher:
            raise ConfigError(
                f"ofd needs the BatchNorm before each of the teacher's stages of channels {teacher}, but final_norms "
                f"gives {widths} channels"
            )
        pairs = pair_stages(student, widths)
        self.connectors = nn.ModuleList(nn.Sequential(conv1x1(s, t), nn.BatchNorm2d(t)) for s, t in pairs)
        for conv, norm in self.connectors:
            nn.init.normal_(conv.weight, std=math.sqrt(2 / norm.num_features))
        for level, norm in enumerate(norms[-len(self.connectors) :]):
            self.register_buffer(f"margin{level}", margins(norm).cpu())

    def loss(self, batch: Batch) -> Tensor:
        pairs = pair_stages(batch.student.stages_pre, batch.teacher.stages_pre)
        return halving_sum([
            partial_l2(*match(upcast(connector(student)), upcast(teacher)), self.get_buffer(f"margin{level}"))
            for level, (connector, (student, teacher)) in enumerate(zip(self.connectors, pairs, strict=True))
        ])  # fmt: skip
