"""HCL, the hierarchical context loss (ReviewKD section 3.3; [Re] Tables 4 and 5)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from rkd.review.fused import PyramidMSE
from rkd.review.options import ReviewOptions, level_weights


def hcl(student: Tensor, teacher: Tensor, options: ReviewOptions) -> Tensor:
    """Return the weighted mean squared error of two maps, compared at several pooled sizes, or unpooled for `loss` "l2"
    ([Re] Table 3, rows 1-4).

    Args:
        student, teacher: (B, C, H, W), equal shapes. The sums are taken in single precision or better.
        options: levels, weights and their rules.

    Returns:
        scalar: sum over sizes of weight x MSE(pool(student), pool(teacher)), divided by the normaliser. A map on
        which no listed size can be used (such as sizes [4, 2] on a 1x1 map) contributes 0.

    For maps of 8x8 and more the authors' rule compares at 8x8, 4x4, 2x2, 1x1 with weights 1, 1/2, 1/4, 1/8.
    """
    used, normaliser = level_weights(student.shape[2], options)
    wide = torch.promote_types(student.dtype, torch.float32)
    if not used or normaliser == 0:
        return student.sum(dtype=wide) * 0.0
    sizes = [size for size, _ in used]
    height, width = student.shape[2:]
    # Where each size divides the one before, each map can be pooled from the previous one.
    chain = height == width and all(a % b == 0 for a, b in pairwise([height, *sizes]))
    if chain and (options.hcl_pooling == "average" or sizes == [height]):
        return PyramidMSE.apply(student, teacher, sizes, [weight / normaliser for _, weight in used])
    student, teacher = student.to(wide), teacher.to(wide)
    difference = student - teacher
    total = difference.new_zeros(())
    for size, weight in used:
        if size == student.shape[2]:
            pooled = difference
        elif options.hcl_pooling == "average":  # pooling is linear: pool the difference once
            pooled = F.adaptive_avg_pool2d(difference, size)
        else:
            pooled = F.adaptive_max_pool2d(student, size) - F.adaptive_max_pool2d(teacher, size)
        total = total + weight * pooled.square().mean()
    return total / normaliser
