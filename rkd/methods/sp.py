"""SP, similarity-preserving distillation (Tung and Mori 2019, Equation 4): which images of a batch have similar last
maps."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import no_autocast, wide
from rkd.methods.options import Options


@dataclass(frozen=True)
class SpOptions(Options):
    """
    Attributes:
        loss_weight: 3000 in RepDistiller, mdistiller and KD-Zoo.
    """

    loss_weight: float = 3000.0


class Sp(SingleLoss):
    """Sum of squared differences of the two (B, B) similarities of last maps, over B^2. Sizes of maps may differ."""

    def loss(self, batch: Batch) -> Tensor:
        with no_autocast(batch.student.pooled):
            student, teacher = (
                _similarities(wide(taps.stages[-1])) for taps in (batch.student, batch.teacher)
            )
            return F.mse_loss(student, teacher)


def _similarities(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B), the products of flattened maps, rows of length 1."""
    rows = maps.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


@register_method("sp", SpOptions, "SP")
def build_sp(context: Context, options: SpOptions) -> Sp:
    """SP for the pair in `context`."""
    return Sp("sp", options)
