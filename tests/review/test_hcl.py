"""HCL against a naive loop, in float64, under every rule; the written-out derivatives, of the pyramid against numerical
ones, and compiled. Of the whole, `test_reference`."""

import pytest
import torch
import torch.nn.functional as F
from naive import drawn, pool

from rkd.errors import ConfigError
from rkd.review import ReviewOptions, hcl
from rkd.review.fused import PyramidMSE, WeightedSum

REPRODUCTION = {"hcl_assign": "position", "hcl_duplicates": "count", "hcl_normaliser": "all"}


@pytest.mark.parametrize(
    ("h", "options", "sizes", "weights", "normaliser"),
    [
        (8, {}, [8, 4, 2, 1], [1, 0.5, 0.25, 0.125], 1.875),
        (4, {}, [4, 2, 1], [1, 0.5, 0.25], 1.75),
        (1, {}, [1], [1], 1),
        (8, REPRODUCTION, [8, 4, 2, 1], [1, 0.5, 0.25, 0.125], 1.875),
        (1, REPRODUCTION, [1, 1], [1, 0.125], 1.875),  # 0.6 of the squared error: a finding of the report
        (8, {"hcl_levels": ("h", "h-1", "h-2", "h-3")}, [8, 7, 6, 5], [1, 0.5, 0.25, 0.125], 1.875),
        (8, {"hcl_levels": ("h/3", 9, "h-9"), "hcl_weights": (1, 1, 1)}, [2], [1], 1),
        (1, {"hcl_levels": ("h", "h/2", "h/4"), "hcl_weights": (1, 0.5, 0.25)}, [1], [1], 1),
        (1, {**REPRODUCTION, "hcl_levels": (4, 1), "hcl_weights": (1, 0.5)}, [1], [0.5], 1.5),
        (4, {"hcl_assign": "position"}, [4, 2, 1], [1, 0.25, 0.125], 1.375),
        (4, {"hcl_pooling": "max"}, [4, 2, 1], [1, 0.5, 0.25], 1.75),
        (8, {"hcl_weights": (0.125, 0.25, 0.5, 1)}, [8, 4, 2, 1], [0.125, 0.25, 0.5, 1], 1.875),
        (1, {"hcl_levels": (4, 2), "hcl_weights": (1, 0.5)}, [], [], 1),  # no usable size: 0, with a gradient
    ],
)
def test_hcl_equals_naive_loop(h, options, sizes, weights, normaliser):
    options = ReviewOptions(**options)
    s, t = drawn(2, 2, 3, h, h).requires_grad_()
    expected = 0.0
    for size, weight in zip(sizes, weights, strict=True):
        a, b = (pool(x, size, options.hcl_pooling) for x in (s, t))
        expected += weight * ((a - b) ** 2).mean().item() / normaliser
    loss = hcl(s, t, options)
    assert loss.item() == pytest.approx(expected, rel=1e-12) and loss.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"hcl_levels": (bad,), "hcl_weights": (1.0,)}, "is not a size")
            for bad in ("h+1", "h/0", "", 0, 2.5, True)
        ),
        ({"hcl_levels": ("h", 4, 2, 1), "hcl_weights": (1, 1, 1)}, "4 sizes.*3 values"),
        ({"hcl_weights": (1, -0.5, 0.25, 0.1)}, "hcl_weights"),
        ({"hcl_weights": (0, 0, 0, 0)}, "must not all be zero"),
        ({"hcl_levels": (), "hcl_weights": ()}, "empty"),
        ({"residual": "outptu"}, "did you mean 'output'"),
    ],
)
def test_bad_options_get_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        ReviewOptions(**options)


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
