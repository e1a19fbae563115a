"""A Gift from Knowledge Distillation (Yim et al. 2017, Equations 1 and 2): the flow of the solution procedure.

How a network gets from one map to the next: inner products of their channels over positions.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rkd.config import Count, Weight, frozen
from rkd.methods.base import Batch, Context, Options, SingleLoss, Stage, register_method
from rkd.methods.numeric import check_alike, match, no_autocast, pair_stages, upcast
from rkd.models.taps import Taps, TapShapes


@frozen
class FspOptions(Options):
    """RepDistiller's values (`-b 50`, which has no effect there).

    Attributes:
        loss_weight: weight against cross-entropy, in "single_stage" alone.
        schedule: "two_stage" (paper, RepDistiller): a stage "fsp" with the sum over transitions as its only loss, then
            plain cross-entropy. "single_stage" (KnowledgeDistillation, with weight 1): together with cross-entropy, as
            the mean over transitions divided once more by their number (there three: a ninth of the sum).
        init_epochs: length of the stage, in "two_stage" alone.
    """

    loss_weight: Weight = 50.0
    schedule: Literal["two_stage", "single_stage"] = "two_stage"
    init_epochs: Count = 30

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fsp", self.init_epochs, ("fsp",)),) if self.schedule == "two_stage" else ()

    def unread(self) -> set[str]:
        return {"loss_weight"} if self.schedule == "two_stage" else {"init_epochs"}


def fsp_matrix(lower: Tensor, upper: Tensor) -> Tensor:
    """(B, C_l, H_l, W_l) and (B, C_u, H_u, W_u) -> (B, C_l, C_u): mean over positions of products of channels; the
    larger map is average-pooled to the smaller."""
    lower, upper = (x.flatten(2) for x in match(lower, upper))
    return lower @ upper.mT / lower.shape[2]


@register_method("fsp", FspOptions, "FSP")
class Fsp(SingleLoss):
    """Mean squared differences of student and teacher FSP matrices, per transition between adjacent maps, from the stem
    to the deepest stage. Maps are paired from the deepest up. The stage "fsp" trains the student's maps, not its
    classifier. ConfigError for maps of different channels, whose matrices cannot be compared."""

    def __init__(self, context: Context, options: FspOptions) -> None:
        super().__init__(context, options)
        check_alike("fsp", "map", pair_stages(*map(_maps, context.shapes)), first=0)

    def transitions(self, batch: Batch) -> Tensor:
        """Return the mean squared difference of each of the T transitions, (T,)."""
        pairs = pair_stages(_maps(batch.student), _maps(batch.teacher))
        with no_autocast(batch.student.logits):
            return torch.stack([
                F.mse_loss(fsp_matrix(upcast(s0), upcast(s1)), fsp_matrix(upcast(t0), upcast(t1)))
                for (s0, t0), (s1, t1) in pairwise(pairs)
            ])  # fmt: skip

    def stage_losses(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        return {"fsp": self.transitions(batch).sum()}

    def loss(self, batch: Batch) -> Tensor:
        each = self.transitions(batch)
        return each.mean() / len(each)


def _maps(taps: Taps | TapShapes) -> tuple[Any, ...]:
    return (taps.stem, *taps.stages)
