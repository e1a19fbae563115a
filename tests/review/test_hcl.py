"""HCL against a naive loop, in float64, under every rule."""

import itertools

import pytest
import torch

from rkd.errors import ConfigError
from rkd.review import ReviewOptions, hcl, level_size, level_weights


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
        squares = [
            ((a[n, c, i, j] - b[n, c, i, j]) ** 2).item()
            for n, c, i, j in itertools.product(*map(range, a.shape))
        ]
        total += weight * sum(squares) / len(squares)
    return total / normaliser


def maps(h, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, h, h, dtype=torch.float64, generator=generator), torch.randn(
        2, 3, h, h, dtype=torch.float64, generator=generator
    )


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
        (
            8,
            {"hcl_levels": ("h", "h/2", "h/4"), "hcl_weights": (1, 0.5, 0.25)},
            [8, 4, 2],
            [1, 0.5, 0.25],
            1.75,
        ),
        (1, {"hcl_levels": ("h", "h/2", "h/4"), "hcl_weights": (1, 0.5, 0.25)}, [1], [1], 1),
        (1, {**REPRODUCTION, "hcl_levels": (4, 1), "hcl_weights": (1, 0.5)}, [1], [0.5], 1.5),
        (4, {"hcl_pooling": "max"}, [4, 2, 1], [1, 0.5, 0.25], 1.75),
        (8, {"hcl_weights": (0.125, 0.25, 0.5, 1)}, [8, 4, 2, 1], [0.125, 0.25, 0.5, 1], 1.875),
    ],
)
def test_hcl_equals_naive_loop(h, options, sizes, weights, normaliser):
    options = ReviewOptions(**options)
    s, t = maps(h)
    expected = naive_hcl(s, t, sizes, weights, normaliser, options.hcl_pooling)
    assert hcl(s, t, options).item() == pytest.approx(expected, rel=1e-12)


def test_pooled_level_weighs_0_6_in_the_reproduction():
    s, t = maps(1)
    ratio = hcl(s, t, ReviewOptions(**REPRODUCTION)) / hcl(s, t, ReviewOptions())
    assert ratio.item() == pytest.approx(0.6, rel=1e-12)


def test_map_without_usable_size_contributes_zero_with_gradient():
    s, t = maps(1)
    s.requires_grad_(True)
    loss = hcl(s, t, ReviewOptions(hcl_levels=(4, 2), hcl_weights=(1, 0.5)))
    loss.backward()
    assert loss.item() == 0 and s.grad.abs().sum() == 0


def test_gradient_checks():
    s, t = maps(4)
    options = ReviewOptions()
    assert torch.autograd.gradcheck(lambda x: hcl(x, t, options), s.requires_grad_(True))


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
        ({"loss_weight": -1}, "loss_weight is -1"),
        ({"loss_weight": float("nan")}, "loss_weight"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"mid_channels": 0}, "mid_channels"),
        ({"connector": "recursive"}, "unknown connector 'recursive'"),
        ({"residual": "outptu"}, "did you mean 'output'"),
    ],
)
def test_bad_options_get_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        ReviewOptions(**options)


def test_level_weights_by_use_and_by_position():
    """On a 4x4 map the authors give 2 and 1 the weights 1/2 and 1/4; by position they keep 1/4 and 1/8."""
    used, _ = level_weights(4, ReviewOptions(hcl_assign="position"))
    assert used == [(4, 1.0), (2, 0.25), (1, 0.125)]
    used, normaliser = level_weights(4, ReviewOptions())
    assert used == [(4, 1.0), (2, 0.5), (1, 0.25)] and normaliser == 1.75
