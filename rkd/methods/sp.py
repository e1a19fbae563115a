"""SP, similarity-preserving distillation (Tung and Mori 2019, Equation 4): which images of a batch have similar last
maps."""

import torch.nn.functional as F
from torch import Tensor

from rkd.config import Weight, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import no_autocast, upcast


@frozen
class SpOptions(Options):
    """
    Attributes:
        loss_weight: 3000 in RepDistiller, mdistiller and KD-Zoo.
    """

    loss_weight: Weight = 3000.0


def _similarities(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B), the products of flattened maps, rows of length 1."""
    rows = maps.flatten(1)
    return F.normalize(rows @ rows.T, dim=1)


@register_method("sp", SpOptions, "SP")
class Sp(SingleLoss):
    """Sum of squared differences of the two (B, B) similarities of last maps, over B^2. Sizes of maps may differ."""

    def loss(self, batch: Batch) -> Tensor:
        with no_autocast(batch.student.pooled):
            last = (upcast(taps.stages[-1]) for taps in (batch.student, batch.teacher))
            return F.mse_loss(*map(_similarities, last))
