"""HCL, the hierarchical context loss (ReviewKD section 3.3; [Re] Tables 4 and 5)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rkd.review.options import ReviewOptions, level_weights


class PyramidMSE(torch.autograd.Function):
    """sum_k weights[k] * MSE(pool_k(student), pool_k(teacher)) with average pooling to sizes[k] x sizes[k].

    Pooling is linear, so the difference is pooled, each size from the one before: `sizes` decrease, and each divides
    the one before it; the first divides (or equals) the map's own size. The derivative is one map: that of the smallest
    size, spread over the pixels it was pooled from, plus that of the next larger size, and so on up.

    It is written out, so that a step touches its large maps less often; the tests confirm it by
    `torch.autograd.gradcheck`.

    student, teacher: (B, C, H, W), H = W. The sums are taken in float32, or in float64 if the student's map is float64.
    """

    @staticmethod
    def forward(
        ctx, student: Tensor, teacher: Tensor, sizes: Sequence[int], weights: Sequence[float]
    ) -> Tensor:
        wide = torch.promote_types(student.dtype, torch.float32)
        pooled = torch.sub(student.to(wide), teacher)
        levels, total = [], pooled.new_zeros(())
        for size, weight in zip(sizes, weights, strict=True):
            step = pooled.shape[2] // size
            pooled = F.avg_pool2d(pooled, step) if step > 1 else pooled
            total = total + weight * pooled.square().mean()
            levels.append(pooled)
        ctx.save_for_backward(*levels)
        ctx.weights, ctx.size, ctx.dtype = weights, student.shape[2], student.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, None, None, None]:
        levels = ctx.saved_tensors
        gradient: Tensor | None = None
        for level, weight in zip(reversed(levels), reversed(ctx.weights), strict=True):
            own = g * (2 * weight / level.numel())
            if gradient is None:
                gradient = level * own
            else:
                gradient = _spread(gradient, level.shape[2]).addcmul_(level, own)
        return _spread(gradient, ctx.size).to(ctx.dtype), None, None, None


def _spread(gradient: Tensor, size: int) -> Tensor:
    """Apply the derivative of average pooling: divide each value evenly over the pixels it was pooled from."""
    step = size // gradient.shape[2]
    return gradient if step == 1 else F.interpolate(gradient / step**2, scale_factor=step, mode="nearest")


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
