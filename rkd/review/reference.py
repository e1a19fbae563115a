"""Knowledge review as in the paper (Chen et al., CVPR 2021), in plain PyTorch, to be read beside its Figures 3 and 4.

Nothing is reordered or optimised for speed. The tests compare the form used for training (`rkd.review.framework`) with
this one in float64, loss and gradients. Parameters have the same names in both, `abfs.0.conv1.0.weight` and so on, as
in the authors' released code.

Shapes: B images; on each level the student's map has C channels and h x h positions, the teacher's C' and H x H; fused
maps have M channels on every level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ABF(nn.Module):
    """Attention-based fusion (Figure 4a); the deepest block has nothing to fuse."""

    def __init__(self, channels: int, mid: int, teacher_channels: int, deepest: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, mid, 1, bias=False), nn.BatchNorm2d(mid))
        conv2 = nn.Conv2d(mid, teacher_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Sequential(conv2, nn.BatchNorm2d(teacher_channels))
        self.att_conv = None if deepest else nn.Sequential(nn.Conv2d(2 * mid, 2, 1), nn.Sigmoid())
        for conv in (self.conv1[0], self.conv2[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, x: Tensor, residual: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: the student's map, (B, C, h, h).
            residual: what the deeper block passed on, (B, M, any size); None for the deepest.
            size: height H of the teacher's map.

        Returns:
            the map to compare with the teacher's, (B, C', H, H), and the residual for the next block, (B, M, H, H).
        """
        x = self.conv1(x)  # (B, M, h, h)
        if self.att_conv is not None:
            residual = F.interpolate(residual, x.shape[-2:], mode="nearest")  # (B, M, h, h)
            z = self.att_conv(torch.cat([x, residual], dim=1))  # (B, 2, h, h): two maps, each in (0, 1)
            x = z[:, :1] * x + z[:, 1:] * residual  # (B, M, h, h)
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="nearest")  # (B, M, H, H)
        return self.conv2(x), x


def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the hierarchical context loss (Figure 4b) of two maps (B, C', H, H), a scalar.

    The whole maps are compared with weight 1, then pooled to those of the sizes 4, 2 and 1 that are below H, each with
    half the weight of the one before. The sum is divided by the sum of the weights used.
    """
    loss, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[-1]:
            weight /= 2
            pooled = (F.adaptive_avg_pool2d(m, size) for m in (student, teacher))  # (B, C', size, size)
            loss = loss + weight * F.mse_loss(*pooled)
            weights += weight
    return loss / weights


class Review(nn.Module):
    """The review path (Figure 3) and its loss: from the deepest level up, each block fuses the student's map with what
    the deeper block passed on.

    Args:
        student, teacher: channels of the maps, shallow to deep; last, those of the pooled vectors.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        mid = min(512, student[-1])
        levels = list(zip(student, teacher, strict=True))
        self.abfs = nn.ModuleList(  # deepest first
            ABF(ours, mid, theirs, deepest=i == 0) for i, (ours, theirs) in enumerate(reversed(levels))
        )

    def reviewed(self, student: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Turn the student's maps (B, C, h, h) into maps of the teacher's shapes (B, C', H, H), shallow to deep."""
        outputs, residual = [], None
        for abf, x, size in zip(self.abfs, reversed(student), reversed(sizes), strict=True):
            output, residual = abf(x, residual, size)
            outputs.insert(0, output)
        return outputs

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the review loss, the sum of HCL over the levels; it is later weighted and added to cross-entropy."""
        ours = self.reviewed(student, [t.shape[-1] for t in teacher])
        return sum(hcl(s, t) for s, t in zip(ours, teacher, strict=True))
