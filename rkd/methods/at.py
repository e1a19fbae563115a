"""Paying More Attention to Attention (Zagoruyko and Komodakis 2017, Equation 2): attention transfer.

It compares where each stage's energy lies: maps of mean squared activation, normalised per image.
"""

from torch import Tensor
from torch.nn import functional as F

from rkd.config import Count, Weight, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import match, pair_stages, upcast


@frozen
class AtOptions(Options):
    """RepDistiller's values (`-b 1000`).

    Attributes:
        p: power of the activations' magnitude. Of an odd one RepDistiller takes the power with its sign, x^p in place
            of |x|^p: on maps that are negative somewhere (WRN's) that is another loss.
    """

    loss_weight: Weight = 1000.0
    p: Count = 2


def attention(x: Tensor, p: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, H * W): mean over channels of |x|^p, each row of Euclidean length 1."""
    energy = x.square() if p == 2 else x.abs().pow(p)
    return F.normalize(energy.mean(1).flatten(1), dim=1)


@register_method("at", AtOptions, "AT")
class At(SingleLoss):
    """Sum over stages of the mean squared difference of two attention maps.

    That is RepDistiller's loss and, term by term, KnowledgeDistillation's: 1000 times the sum over three stages of the
    mean squared error between normalised mean-square maps. Stages are paired from the deepest up; the larger map is
    average-pooled to the smaller before its attention is taken.
    """

    def loss(self, batch: Batch) -> Tensor:
        pairs = pair_stages(batch.student.stages, batch.teacher.stages)
        pairs = (match(upcast(student), upcast(teacher)) for student, teacher in pairs)
        return sum(F.mse_loss(*(attention(x, self.options.p) for x in pair)) for pair in pairs)
