"""HCL against a naive loop, in float64, under every rule."""

import pytest
from naive import drawn, pool

from rkd.errors import ConfigError
from rkd.review import ReviewOptions, hcl

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
