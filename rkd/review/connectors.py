"""From student maps to maps that can be compared with the teacher's: three connectors, one interface.

Each takes the student's maps, shallow to deep, with the sizes of the teacher's, and returns one map per level with the
teacher's shape, shallow to deep.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rkd.review.abf import ABF, DirectABF, resize
from rkd.review.levels import LevelShape
from rkd.review.options import ReviewOptions


def _project(channels_in: int, channels_out: int) -> nn.Sequential:
    """1x1 convolution with bias, then BN, in PyTorch's default initialisation ([Re] Table 3 rows 1 and 2)."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))


class SameLevel(nn.Module):
    """connector "none": level i of the student against level i of the teacher ([Re] Table 3 row 1)."""

    def __init__(self, levels: Sequence[LevelShape], options: ReviewOptions) -> None:
        super().__init__()
        always = options.projection == "always"
        self.projections = nn.ModuleList(
            _project(s[0], t[0]) if always or s[0] != t[0] else nn.Identity()
            for s, t in ((level.student, level.teacher) for level in levels)
        )

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        return [resize(p(x), size) for p, x, size in zip(self.projections, maps, sizes, strict=True)]


class ReviewMechanism(nn.Module):
    """connector "mechanism": level i compares the sum of the projections of all student maps j >= i
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
    the student's map with what the deeper block passed on. `abfs[0]` is the deepest (pooled) level."""

    def __init__(self, levels: Sequence[LevelShape], options: ReviewOptions) -> None:
        super().__init__()
        mid = mid_channels(levels, options)
        attention = {"attention": options.attention, "attention_init": options.attention_init}
        blocks: list[nn.Module] = []
        passed_on: int | None = None
        for level in reversed(levels):
            channels_in, channels_out = level.student[0], level.teacher[0]
            if options.residual == "output_direct":
                blocks.append(DirectABF(channels_in, channels_out, passed_on, **attention))
            else:
                pass_output = options.residual == "output"
                blocks.append(
                    ABF(channels_in, mid, channels_out, passed_on, pass_output=pass_output, **attention)
                )
            passed_on = mid if options.residual == "mid" else channels_out
        self.abfs = nn.ModuleList(blocks)

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        outputs: list[Tensor] = []
        passed_on = None
        for block, x, size in zip(self.abfs, reversed(maps), reversed(sizes), strict=True):
            output, passed_on = block(x, passed_on, size)
            outputs.insert(0, output)
        return outputs


def mid_channels(levels: Sequence[LevelShape], options: ReviewOptions) -> int:
    """Width of the fused maps: as set, else min(512, channels of the student's deepest map)."""
    return options.mid_channels or min(512, levels[-1].student[0])


CONNECTORS = {"none": SameLevel, "mechanism": ReviewMechanism, "residual": ResidualFramework}
