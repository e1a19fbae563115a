"""ReviewKD: compare the student's maps, reviewed from deep to shallow, with the teacher's (Figure 3, Equation 8)."""

from dataclasses import dataclass
from itertools import starmap, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from rkd.methods.base import Batch, Context, Method, register_method
from rkd.methods.numeric import no_autocast, pair_stages
from rkd.models.taps import Taps, TapShapes, evaluating, tap_shapes
from rkd.review.connectors import CONNECTORS, LevelShape
from rkd.review.hcl import hcl
from rkd.review.options import ReviewOptions, check_levels


def _levels(taps: Taps | TapShapes, tap: str, stem: bool) -> list[Any]:
    """Return a network's maps (or shapes) that are compared, shallow to deep; last, the pooled vector as a 1x1 map."""
    pooled = (taps.pooled, 1, 1) if isinstance(taps, TapShapes) else taps.pooled[:, :, None, None]
    stages = taps.stages_pre if tap == "pre" else taps.stages
    return [*([taps.stem] if stem else []), *stages, pooled]


class ReviewKD(Method):
    """The review loss of one student-teacher pair of networks with `taps` (see rkd.models.taps).

    Channels and sizes are read off one dry forward pass of each network with images of `image_size` x `image_size`
    pixels; nothing is typed by hand. Networks with different numbers of stages are paired from the deepest map up.

    Example:
        >>> from rkd import models
        >>> review = ReviewKD(models.build("resnet20"), models.build("resnet56"), ReviewOptions())
        >>> sum(p.numel() for p in review.parameters())  # extra trainable parameters of the pair
        114278
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        options: ReviewOptions | None = None,
        image_size: int = 32,
    ) -> None:
        options = ReviewOptions() if options is None else options
        super().__init__(options=options)
        shapes = self.maps(*(tap_shapes(network, image_size) for network in (student, teacher)))
        self.levels = [LevelShape(*pair) for pair in zip(*shapes, strict=True)]
        check_levels((level.teacher[1] for level in self.levels), options)
        self.connector = CONNECTORS[options.connector](self.levels, options)
        if not options.train_connectors:
            self.connector.requires_grad_(False)

    def maps(self, student: Taps | TapShapes, teacher: Taps | TapShapes) -> tuple[list[Any], list[Any]]:
        """Return the maps of both networks that are compared (or, given shapes, their shapes), shallow to deep."""
        o = self.options
        pairs = pair_stages(_levels(student, o.student_tap, o.stem), _levels(teacher, o.teacher_tap, o.stem))
        return [s for s, _ in pairs], [t for _, t in pairs]

    def level_losses(self, batch: Batch) -> list[Tensor]:
        """Return one scalar loss per level, shallow to deep."""
        ours, theirs = self.maps(batch.student, batch.teacher)
        reviewed = self.connector(ours, [t.shape[-2:] for t in theirs])
        with no_autocast(batch.labels):  # the loss widens its inputs itself
            return [hcl(s, t, self.options) for s, t in zip(reviewed, theirs, strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"review": torch.stack(self.level_losses(batch)).sum()}

    def weights(self, epoch: int) -> dict[str, float]:
        """Return loss_weight x min(1, epoch / warmup_epochs), which is zero in the very first epoch of a warm-up."""
        warmup = self.options.warmup_epochs
        return {"review": self.options.loss_weight * (min(1.0, epoch / warmup) if warmup else 1.0)}

    def describe(self) -> list[dict[str, object]]:
        """Return one row per level, deep to shallow: channels, sizes and connector parameters."""
        stem, fuses = self.options.stem, self.options.connector == "residual"
        stages = range(len(self.levels) - 1 - stem, 0, -1)
        names = ["pooled", *(f"stage {n}" for n in stages), *(["stem"] if stem else [])]
        parts = self.connector.abfs if fuses else reversed(self.connector.projections)
        return [
            {
                "level": name,
                "student_channels": student[0],
                "student_size": student[1],
                "teacher_channels": teacher[0],
                "teacher_size": teacher[1],
                "mid_channels": self.connector.mid if fuses else None,
                "parameters": sum(p.numel() for p in part.parameters()),
            }
            for name, (student, teacher), part in zip(names, reversed(self.levels), parts, strict=True)
        ]


@register_method("reviewkd", ReviewOptions, "ReviewKD")
def build_reviewkd(context: Context, options: ReviewOptions) -> ReviewKD:
    """Return ReviewKD for the pair in `context`."""
    return ReviewKD(context.student, context.teacher, options, context.image_size)


@dataclass(frozen=True)
class LevelMaps:
    """What happens inside the method at one level, in one forward pass of B images.

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
