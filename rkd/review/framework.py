"""ReviewKD: the student's maps, reviewed from deep to shallow, against the teacher's (paper Figure 3, Equation 8)."""

import torch
from torch import Tensor, nn

from rkd.methods.base import Batch, Context, Method, register_method
from rkd.models.taps import Taps, tap_shapes
from rkd.review.connectors import CONNECTORS, mid_channels
from rkd.review.hcl import LEVEL_LOSSES
from rkd.review.levels import level_maps, match_levels
from rkd.review.options import ReviewOptions


class ReviewKD(Method):
    """The review loss of one student-teacher pair.

    Channels and sizes are read off one dry forward pass of each network; nothing is typed by hand. Networks with a
    different number of stages are paired from the deepest map up.

    Args:
        student, teacher: networks with `taps` (see rkd.models.taps).
        options: the switches of the method.
        image_size: height and width of the images, in pixels.

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
        super().__init__()
        self.options = options = options or ReviewOptions()
        self.levels = match_levels(
            tap_shapes(student, image_size),
            tap_shapes(teacher, image_size),
            options.student_tap,
            options.teacher_tap,
            options.stem,
        )
        self.connector = CONNECTORS[options.connector](self.levels, options)
        if not options.train_connectors:
            self.connector.requires_grad_(False)

    def maps(self, student: Taps, teacher: Taps) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of both networks that take part, shallow to deep."""
        options, count = self.options, len(self.levels)
        return (
            level_maps(student, options.student_tap, options.stem)[-count:],
            level_maps(teacher, options.teacher_tap, options.stem)[-count:],
        )

    def level_losses(self, batch: Batch) -> list[Tensor]:
        """One scalar per level, shallow to deep."""
        ours, theirs = self.maps(batch.student, batch.teacher)
        reviewed = self.connector(ours, [t.shape[-2:] for t in theirs])
        options, loss = self.options, LEVEL_LOSSES[self.options.loss]
        with torch.autocast(batch.labels.device.type, enabled=False):  # the loss widens its inputs itself
            return [loss(s, t, options) for s, t in zip(reviewed, theirs, strict=True)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"review": torch.stack(self.level_losses(batch)).sum()}

    def weights(self, epoch: int) -> dict[str, float]:
        """loss_weight x min(1, epoch / warmup_epochs): zero in the very first epoch of a warm-up."""
        warmup = self.options.warmup_epochs
        return {"review": self.options.loss_weight * (min(1.0, epoch / warmup) if warmup else 1.0)}

    def describe(self) -> list[dict[str, object]]:
        """One row per level, deep to shallow: channels, sizes and connector parameters."""
        mid = mid_channels(self.levels, self.options)
        rows = []
        for i, level in enumerate(reversed(self.levels)):
            rows.append(
                {
                    "level": "pooled" if i == 0 else f"stage {len(self.levels) - i - self.options.stem}",
                    "student_channels": level.student[0],
                    "student_size": level.student[1],
                    "teacher_channels": level.teacher[0],
                    "teacher_size": level.teacher[1],
                    "mid_channels": mid if self.options.connector == "residual" else None,
                    "parameters": sum(p.numel() for p in self._level_module(i).parameters()),
                }
            )
        if self.options.stem:
            rows[-1]["level"] = "stem"
        return rows

    def _level_module(self, depth: int) -> nn.Module:
        if self.options.connector == "residual":
            return self.connector.abfs[depth]
        return self.connector.projections[len(self.levels) - 1 - depth]


@register_method("reviewkd", ReviewOptions, "ReviewKD")
def build_reviewkd(context: Context, options: ReviewOptions) -> ReviewKD:
    """ReviewKD for the pair in `context`."""
    return ReviewKD(context.student, context.teacher, options, context.image_size)
