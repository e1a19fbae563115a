"""Paying More Attention to Attention (Zagoruyko and Komodakis 2017, Equation 2): attention transfer.

Where each stage's energy lies: maps of mean squared activation, normalised per image.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import wide
from rkd.methods.options import Options, at_least
from rkd.methods.resize import match, paired


@dataclass(frozen=True)
class AtOptions(Options):
    """Options of attention transfer; RepDistiller's values (`-b 1000`).

    Attributes:
        loss_weight: weight against cross-entropy.
        p: power of the activations' magnitude.
    """

    loss_weight: float = 1000.0
    p: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("p", self.p, 1)


def attention(x: Tensor, p: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, H * W): mean over channels of |x|^p, each row of Euclidean length 1."""
    energy = x.square() if p == 2 else x.abs().pow(p)
    return F.normalize(energy.mean(1).flatten(1), dim=1)


class At(SingleLoss):
    """Sum over stages of the mean squared difference of two attention maps.

    That is RepDistiller's loss and, term by term, KnowledgeDistillation's: 1000 times the sum over three stages of the
    mean squared error between normalised mean-square maps. Stages are paired from the deepest up; the larger map is
    average-pooled to the smaller before its attention is taken.
    """

    def loss(self, batch: Batch) -> Tensor:
        total = 0.0
        for student, teacher in paired(batch.student.stages, batch.teacher.stages):
            s, t = (attention(x, self.options.p) for x in match(wide(student), wide(teacher)))
            total = total + F.mse_loss(s, t)
        return total


@register_method("at", AtOptions, "AT")
def build_at(context: Context, options: AtOptions) -> At:
    """Attention transfer; nothing in it depends on the pair."""
    return At("at", options)
