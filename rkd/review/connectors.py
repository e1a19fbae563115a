"""Three connectors with one interface turn student maps into maps that can be compared with the teacher's.

Each takes the student's maps and the sizes of the teacher's maps, and returns one map of the teacher's shape per level,
all shallow to deep.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rkd.methods.numeric import Shape
from rkd.review.abf import ABF, DirectABF, resize
from rkd.review.options import ReviewOptions


class LevelShape(NamedTuple):
    """The shapes (channels, height, width) of a student's and a teacher's map."""

    student: Shape
    teacher: Shape


def _project(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a 1x1 convolution with bias, then BN, in PyTorch's default initialisation ([Re] Table 3 rows 1 and 2)."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))


class SameLevel(nn.Module):
    """connector "none": level i of the student against level i of the teacher ([Re] Table 3 row 1)."""

    def __init__(self, levels: Sequence[LevelShape], options: ReviewOptions) -> None:
        super().__init__()
        always = options.projection == "always"
        self.projections = nn.ModuleList(
            _project(s[0], t[0]) if always or s[0] != t[0] else nn.Identity() for s, t in levels
        )

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        return [resize(p(x), size) for p, x, size in zip(self.projections, maps, sizes, strict=True)]


class ReviewMechanism(nn.Module):
    """connector "mechanism": level i is compared as the sum of the projections of all student maps j >= i
    (the review mechanism alone, ReviewKD section 3.1 and [Re] Table 3 row 2)."""

    def __init__(self, levels: Sequence[LevelShape], options: ReviewOptions) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.ModuleList(_project(deeper.student[0], level.teacher[0]) for deeper in levels[i:])
            for i, level in enumerate(levels)
        )

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        return [
            sum(resize(p(x), sizes[i]) for p, x in zip(row, maps[i:], strict=True))
            for i, row in enumerate(self.projections)
        ]


class ResidualFramework(nn.Module):
    """connector "residual": the recursive framework of ReviewKD Figure 3. From the deepest level up, each block fuses
    the student's map with what the deeper block passed on. `abfs[0]` is the block of the deepest (pooled) level; `mid`
    is the width of the fused maps."""

    def __init__(self, levels: Sequence[LevelShape], options: ReviewOptions) -> None:
        super().__init__()
        self.mid = options.mid_channels or min(512, levels[-1].student[0])
        self.abfs = nn.ModuleList()
        attention = options.attention, options.attention_init
        passed_on: int | None = None
        for (ours, *_), (theirs, *_) in reversed(levels):
            if options.residual == "output_direct":
                block = DirectABF(ours, theirs, passed_on, *attention)
            else:
                block = ABF(ours, self.mid, theirs, passed_on, *attention, options.residual == "output")
            self.abfs.append(block)
            passed_on = self.mid if options.residual == "mid" else theirs

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        outputs: list[Tensor] = []
        passed_on = None
        for block, x, size in zip(self.abfs, reversed(maps), reversed(sizes), strict=True):
            output, passed_on = block(x, passed_on, size)
            outputs.insert(0, output)
        return outputs


CONNECTORS = {"none": SameLevel, "mechanism": ReviewMechanism, "residual": ResidualFramework}
