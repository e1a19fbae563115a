"""Like What You Like: Neuron Selectivity Transfer (Huang and Wang 2017, Equation 8).

Channels as samples: the maximum mean discrepancy of student and teacher channels under the kernel (x . y)^2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rkd.config import Weight, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import match, no_autocast, pair_stages, upcast


@frozen
class NstOptions(Options):
    """RepDistiller's value (`-b 50`)."""

    loss_weight: Weight = 50.0


def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """(B, C_a, P) and (B, C_b, P), P positions -> mean over images and pairs of channels of (a_i . b_j)^2, a scalar."""
    if a.shape[2] >= max(a.shape[1], b.shape[1]):
        return (a @ b.mT).square().mean()
    # sum_ij (a_i . b_j)^2 = <sum_i a_i a_i', sum_j b_j b_j'>, which is smaller where positions are few
    return ((a.mT @ a) * (b.mT @ b)).sum() / (a.shape[0] * a.shape[1] * b.shape[1])


@register_method("nst", NstOptions, "NST")
class Nst(SingleLoss):
    """Sum over stages of the squared discrepancy; channel vectors have Euclidean length 1 over positions.

    The teacher's own term is part of the value, as in RepDistiller; without it the loss could not reach 0. Stages
    are paired from the deepest up, the larger map is average-pooled to the smaller, and channels may differ in number.
    """

    def loss(self, batch: Batch) -> Tensor:
        levels = []
        with no_autocast(batch.student.logits):
            for student, teacher in pair_stages(batch.student.stages, batch.teacher.stages):
                s, t = (F.normalize(x.flatten(2), dim=2) for x in match(upcast(student), upcast(teacher)))
                levels.append(mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t))
            return torch.stack(levels).sum()
