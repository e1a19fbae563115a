"""HCL against a naive loop, in float64, under every rule."""

import itertools

import pytest
import torch

from rkd.errors import ConfigError
from rkd.review import ReviewOptions, hcl, level_size


def naive_pool(x, size, kind):
    """Adaptive pooling written out: bin i covers floor(i*h/size) .. ceil((i+1)*h/size)."""
    h = x.shape[2]
    out = x.new_zeros(*x.shape[:2], size, size)
    for i, j in itertools.product(range(size), range(size)):
        rows = slice(i * h // size, -(-(i + 1) * h // size))
        columns = slice(j * h // size, -(-(j + 1) * h // size))
        patch = x[:, :, rows, columns].flatten(2)
        out[:, :, i, j] = patch.mean(2) if kind == "average" else patch.amax(2)
    return out


def naive_hcl(s, t, sizes, weights, normaliser, kind="average"):
    total = 0.0
    for size, weight in zip(sizes, weights, strict=True):
        a, b = naive_pool(s, size, kind), naive_pool(t, size, kind)
        total += weight * ((a - b) ** 2).mean().item()
    return total / normaliser


def maps(h, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, 3, h, h, dtype=torch.float64, generator=generator)


REPRODUCTION = {"hcl_assign": "position", "hcl_duplicates": "count", "hcl_normaliser": "all"}


@pytest.mark.parametrize(
    ("h", "options", "sizes", "weights", "normaliser"),
    [
        (8, {}, [8, 4, 2, 1], [1, 0.5, 0.25, 0.125], 1.875),
        (4, {}, [4, 2, 1], [1, 0.5, 0.25], 1.75),
        (2, {}, [2, 1], [1, 0.5], 1.5),
        (1, {}, [1], [1], 1),
        (8, REPRODUCTION, [8, 4, 2, 1], [1, 0.5, 0.25, 0.125], 1.875),
        (1, REPRODUCTION, [1, 1], [1, 0.125], 1.875),  # 0.6 of the squared error: a finding of the report
        (8, {"hcl_levels": ("h", "h-1", "h-2", "h-3")}, [8, 7, 6, 5], [1, 0.5, 0.25, 0.125], 1.875),
        (8, {"hcl_levels": ("h", "h/2"), "hcl_weights": (1, 0.5)}, [8, 4], [1, 0.5], 1.5),
        (1, {"hcl_levels": ("h", "h/2", "h/4"), "hcl_weights": (1, 0.5, 0.25)}, [1], [1], 1),
        (1, {**REPRODUCTION, "hcl_levels": (4, 1), "hcl_weights": (1, 0.5)}, [1], [0.5], 1.5),
        (4, {"hcl_assign": "position"}, [4, 2, 1], [1, 0.25, 0.125], 1.375),
        (4, {"hcl_pooling": "max"}, [4, 2, 1], [1, 0.5, 0.25], 1.75),
        (8, {"hcl_weights": (0.125, 0.25, 0.5, 1)}, [8, 4, 2, 1], [0.125, 0.25, 0.5, 1], 1.875),
    ],
)
def test_hcl_equals_naive_loop(h, options, sizes, weights, normaliser):
    options = ReviewOptions(**options)
    s, t = maps(h)
    expected = naive_hcl(s, t, sizes, weights, normaliser, options.hcl_pooling)
    assert hcl(s, t, options).item() == pytest.approx(expected, rel=1e-12)


def test_map_without_usable_size_contributes_zero_with_gradient():
    s, t = maps(1)
    s = s.clone().requires_grad_(True)
    loss = hcl(s, t, ReviewOptions(hcl_levels=(4, 2), hcl_weights=(1, 0.5)))
    loss.backward()
    assert loss.item() == 0 and s.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("level", "size"), [("h", 8), ("h/2", 4), ("h/3", 2), ("h-3", 5), (4, 4), ("h-9", -1), ("h/16", 0)]
)
def test_level_size(level, size):
    assert level_size(level, 8) == size


@pytest.mark.parametrize("level", ["H", "h+1", "h/0", "h-", "", 0, -1, 2.5, True, None])
def test_bad_levels_are_named(level):
    with pytest.raises(ConfigError, match="is not a size"):
        ReviewOptions(hcl_levels=(level,), hcl_weights=(1.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hcl_levels": ("h", 4, 2, 1), "hcl_weights": (1, 1, 1)}, "4 sizes.*3 values"),
        ({"hcl_weights": (1, -0.5, 0.25, 0.1)}, "hcl_weights"),
        ({"hcl_weights": (0, 0, 0, 0)}, "not all zero"),
        ({"hcl_levels": (), "hcl_weights": ()}, "empty"),
        ({"residual": "outptu"}, "did you mean 'output'"),
    ],
)
def test_bad_options_get_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        ReviewOptions(**options)
