"""RKD, relational knowledge distillation (Park et al. 2019, Equations 4-9): distances between the images of a batch,
and angles in their triplets."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rkd.config import Weight, frozen
from rkd.methods.base import Batch, Method, Options, register_method
from rkd.methods.numeric import no_autocast, upcast


@frozen
class RkdOptions(Options):
    """
    Attributes:
        loss_weight: multiplies both terms.
        distance_weight, angle_weight: of the two terms.
        on: "pooled" as in RepDistiller's table; "logits" as in ModReduce.
    """

    distance_weight: Weight = 25.0
    angle_weight: Weight = 50.0
    on: Literal["pooled", "logits"] = "pooled"


@register_method("rkd", RkdOptions, "RKD")
class Rkd(Method):
    """Two losses, smooth L1 each: "rkd_distance" of all pair distances, each divided by the batch's mean over pairs of
    different images; "rkd_angle" of the cosines at the first image of all triplets. Pairs of an image with itself add 0
    but are counted: means are over B^2 and B^3 entries.

    B images of C channels need memory for B^2 C + B^3 numbers. Identical images have distance 0 and cosine 0, and
    finite gradients.
    """

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = (getattr(taps, self.options.on) for taps in (batch.student, batch.teacher))
        with no_autocast(student):
            ours, theirs = (_relations(upcast(vectors)) for vectors in (student, teacher))
            return {
                "rkd_distance": F.smooth_l1_loss(ours[0], theirs[0]),
                "rkd_angle": F.smooth_l1_loss(ours[1], theirs[1]),
            }

    def weights(self, epoch: int) -> dict[str, float]:
        options = self.options
        return {
            "rkd_distance": options.loss_weight * options.distance_weight,
            "rkd_angle": options.loss_weight * options.angle_weight,
        }


def _relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) -> distances (B, B) divided by their mean, cosines (B, B, B) with the vertex first."""
    differences = x[None] - x[:, None]
    distances = torch.linalg.vector_norm(differences, dim=2)  # its gradient at 0 is 0
    pairs = max(len(x) * (len(x) - 1), 1)
    mean = (distances.sum() / pairs).clamp_min(torch.finfo(x.dtype).tiny)
    # A distance of 0 has no direction; dividing by 1 there keeps the gradient bounded.
    directions = differences / torch.where(distances > 0, distances, 1.0)[..., None]
    return distances / mean, directions @ directions.transpose(1, 2)
