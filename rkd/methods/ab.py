"""Knowledge Transfer via Distillation of Activation Boundaries (Heo et al. 2019, Equation 5).

A separate stage before the main training teaches the student on which side of its ReLUs each response lies.
"""

import torch
from torch import Tensor, nn

from rkd.config import Count, Flag, Positive, frozen
from rkd.methods.base import Batch, Context, Options, SingleLoss, Stage, register_method
from rkd.methods.fitnet import regressor
from rkd.methods.numeric import halving_sum, match, pair_stages, upcast


@frozen
class AbOptions(Options):
    """RepDistiller's values (`-b 1`, which has no effect there).

    Attributes:
        loss_weight: weight against cross-entropy in the main training, with `keep` alone.
        init_epochs: length of the stage "ab", in which this is the only loss.
        margin: how far beyond the boundary a response is pushed.
        keep: whether the loss goes on in the main training; False, as in the paper and RepDistiller: plain
            cross-entropy there, at no cost.
    """

    init_epochs: Count = 30
    margin: Positive = 1.0
    keep: Flag = False

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("ab", self.init_epochs, ("ab",)),)

    def unread(self) -> set[str]:
        return set() if self.keep else {"loss_weight"}


def boundary_distance(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Return the squared distance of two maps before ReLU, of one shape, summed over elements: a response should be
    above the margin where the teacher's is positive, and below minus the margin elsewhere."""
    side = torch.where(teacher > 0, 1.0, -1.0).to(student.dtype)
    return (margin - side * student).clamp_min(0).square().sum()


@register_method("ab", AbOptions, "AB")
class Ab(SingleLoss):
    """Distances of the maps before ReLU, summed over elements, averaged over images and multiplied by 3/1000; each
    stage counts half as much as the next deeper one.

    Student maps whose shape differs from the teacher's pass through a trained convolution and BatchNorm (FitNet's
    regressor without its ReLU). Stages are paired from the deepest up. The stage "ab" trains the student's maps, not
    its classifier.
    """

    def __init__(self, context: Context, options: AbOptions) -> None:
        super().__init__(context, options)
        pairs = pair_stages(*(shapes.stages_pre for shapes in context.shapes))
        connectors = (nn.Identity() if s == t else regressor(s, t, relu=False) for s, t in pairs)
        self.connectors = nn.ModuleList(connectors)

    def stage_losses(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        pairs = pair_stages(batch.student.stages_pre, batch.teacher.stages_pre)
        distances = [
            boundary_distance(*match(upcast(connector(student)), upcast(teacher)), self.options.margin)
            for connector, (student, teacher) in zip(self.connectors, pairs, strict=True)
        ]
        return {"ab": halving_sum(distances) * (3 / 1000 / len(batch.labels))}

    def loss(self, batch: Batch) -> Tensor:
        return self.stage_losses("ab", batch)["ab"]
