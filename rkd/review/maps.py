"""What happens inside the method: for each level, the two attention maps and the pair of maps that is compared."""

from dataclasses import dataclass
from itertools import starmap, zip_longest

import torch
from torch import Tensor, nn

from rkd.models.taps import evaluating
from rkd.review.framework import ReviewKD


@dataclass(frozen=True)
class LevelMaps:
    """The maps of one level, from one forward pass of B images.

    Attributes:
        level: "pooled", "stage 3", ..., "stem".
        attention: (B, 2, h, w) in (0, 1): where the student's own map counts, and where the residual does. None at the
            deepest level, without attention, and for connectors that do not fuse.
        fused: (B, C, H, W), the student's map as it is compared.
        teacher: (B, C, H, W), the teacher's.
    """

    level: str
    attention: Tensor | None
    fused: Tensor
    teacher: Tensor


@torch.no_grad()
def level_maps_of(
    review: ReviewKD, student: nn.Module, teacher: nn.Module, images: Tensor
) -> list[LevelMaps]:
    """Return every level's maps, deep to shallow, computed in eval mode; the modules' own modes are restored. `images`
    are normalised, (B, 3, H, W); all must be on one device and in one precision.

    Example:
        >>> from rkd import models
        >>> pair = models.build("resnet8"), models.build("resnet14")
        >>> levels = level_maps_of(ReviewKD(*pair), *pair, torch.zeros(1, 3, 32, 32))
        >>> [(m.level, m.attention is not None and tuple(m.attention.shape)) for m in levels]
        [('pooled', False), ('stage 3', (1, 2, 8, 8)), ('stage 2', (1, 2, 16, 16)), ('stage 1', (1, 2, 32, 32))]
    """
    with evaluating(review, student, teacher):
        ours, theirs = review.maps(student.taps(images), teacher.taps(images))
        sizes = [t.shape[-2:] for t in theirs]
        fused = review.connector(ours, sizes)
        attention, passed_on = [], None
        blocks = getattr(review.connector, "abfs", ())
        for block, x, size in zip(blocks, reversed(ours), reversed(sizes), strict=False):
            attention.append(block.fused(x, passed_on, size)[1])
            passed_on = block(x, passed_on, size)[1]
    names = [row["level"] for row in review.describe()]
    columns = zip_longest(names, attention, reversed(fused), reversed(theirs))  # no attention: None
    return list(starmap(LevelMaps, columns))
