"""PKT, probabilistic knowledge transfer (Passalis and Tefas 2018): the distribution of each image's similarities to the
batch, from pooled vectors."""

import torch
from torch import Tensor

from rkd.config import Weight, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import no_autocast, upcast

_EPS = 1e-7


@frozen
class PktOptions(Options):
    """
    Attributes:
        loss_weight: 30000 in RepDistiller and mdistiller (the loss is a mean over B^2 small numbers); 10000 in KD-Zoo.
    """

    loss_weight: Weight = 30000.0


def _similarities(x: Tensor) -> Tensor:
    """(B, C) -> (B, B), rows of sum 1."""
    x = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS)
    similarities = (x @ x.T + 1) / 2
    return similarities / similarities.sum(1, keepdim=True)


@register_method("pkt", PktOptions, "PKT")
class Pkt(SingleLoss):
    """Mean over all pairs of images of t log(t / s), where the rows of s and t are (cosine + 1) / 2, divided by their
    sum."""

    def loss(self, batch: Batch) -> Tensor:
        with no_autocast(batch.student.pooled):
            s, t = (_similarities(upcast(taps.pooled)) for taps in (batch.student, batch.teacher))
            return (t * ((t + _EPS) / (s + _EPS)).log()).mean()
