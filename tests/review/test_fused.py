"""The written-out derivatives: of the pyramid against numerical ones, and compiled. Of the whole, `test_reference`."""

import pytest
import torch
import torch.nn.functional as F
from naive import drawn

from rkd.review.abf import WeightedSum
from rkd.review.hcl import PyramidMSE


@pytest.mark.parametrize("sizes", [[8, 4, 2, 1], [4, 1], [2, 2]])
def test_pyramid(sizes):
    weights = [1.0, 0.5, 0.25, 0.125][: len(sizes)]
    s, t = drawn(2, 3, 8, 8).requires_grad_(), drawn(2, 3, 8, 8, seed=1)
    literal = sum(
        w * F.mse_loss(F.adaptive_avg_pool2d(s, k), F.adaptive_avg_pool2d(t, k))
        for w, k in zip(weights, sizes, strict=True)
    )
    value = PyramidMSE.apply(s, t, sizes, weights)
    torch.testing.assert_close(value, literal)
    (expected,) = torch.autograd.grad(literal, s)
    (3 * value).backward()
    torch.testing.assert_close(s.grad, 3 * expected)
    assert torch.autograd.gradcheck(lambda x: PyramidMSE.apply(x, t, sizes, weights), s)


def test_pyramid_sums_low_precision_maps_in_float32():
    s, t = drawn(2, 3, 8, 8).bfloat16().requires_grad_(), drawn(2, 3, 8, 8, seed=1).bfloat16()
    value = PyramidMSE.apply(s, t, [8, 4], [1.0, 0.5])
    wide = s.detach().float(), t.float()
    literal = F.mse_loss(*wide) + 0.5 * F.mse_loss(*(F.avg_pool2d(m, 2) for m in wide))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, literal)
    value.backward()
    assert s.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_compiled_derivatives_are_the_written_ones(memory):
    """As one graph, from maps that are results themselves: a compiler must take over forward and backward both."""

    def loss(x, y, z):
        fused = WeightedSum.apply(2 * x, 2 * y, z.sigmoid())
        return PyramidMSE.apply(fused, y.detach(), [8, 4, 1], [1.0, 0.5, 0.25])

    wanted = [drawn(2, c, 8, 8, seed=c).float().to(memory_format=memory).requires_grad_() for c in (4, 4, 2)]
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(*wanted), loss(*wanted))
    ours, theirs = (torch.autograd.grad(f(*wanted), wanted) for f in (compiled, loss))
    torch.testing.assert_close(ours, theirs)
