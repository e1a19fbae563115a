"""Two sums of the method with their derivatives written out, so that a step touches its large maps less often.

Each computes the formula in its docstring, as the tests confirm by `torch.autograd.gradcheck`. Large intermediate
results share memory where they can: allocating new memory costs a CPU as much as the arithmetic.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class WeightedSum(torch.autograd.Function):
    """x * z[:, :1] + y * z[:, 1:] for x, y (B, C, h, w) and z (B, 2, h, w)."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, z)
        product = x * z[:, :1]
        return torch.addcmul(product, y, z[:, 1:], out=_reused(product))

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z = ctx.saved_tensors
        product = g * x
        dz = [product.sum(1, keepdim=True)]
        dz.append(torch.mul(g, y, out=_reused(product)).sum(1, keepdim=True))
        dx = torch.mul(g, z[:, :1], out=_reused(product))
        return dx, g * z[:, 1:], torch.cat(dz, dim=1)


def _reused(product: Tensor) -> Tensor | None:
    """Return where to write the next result: over `product`, or None (new memory) while torch.compile, which plans
    memory itself, traces. In torch 2.11 a channels-last `out` breaks the graph, and an in-place `forward` gets wrong
    gradients."""
    return None if torch.compiler.is_compiling() else product


class PyramidMSE(torch.autograd.Function):
    """sum_k weights[k] * MSE(pool_k(student), pool_k(teacher)) with average pooling to sizes[k] x sizes[k].

    Pooling is linear, so the difference is pooled, each size from the one before: `sizes` decrease, and each divides
    the one before it; the first divides (or equals) the map's own size. The derivative is one map: that of the smallest
    size, spread over the pixels it was pooled from, plus that of the next larger size, and so on up.

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
