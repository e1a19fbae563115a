"""ABF and the connectors against formulas written out here."""

import torch
import torch.nn.functional as F
from torch import nn

from rkd.review.abf import ABF, DirectABF
from rkd.review.connectors import CONNECTORS, LevelShape
from rkd.review.options import ReviewOptions

DOUBLE = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def nearest(x, size):
    """Nearest-neighbour resize by index arithmetic."""
    rows = torch.arange(size) * x.shape[2] // size
    return x[:, :, rows][:, :, :, rows]


def batch_norm(x, bn):
    """Batch statistics, biased variance."""
    mean = x.mean((0, 2, 3), keepdim=True)
    var = (x - mean).square().mean((0, 2, 3), keepdim=True)
    return (x - mean) / (var + bn.eps).sqrt() * bn.weight[:, None, None] + bn.bias[:, None, None]


def conv1x1(x, weight, bias=None):
    out = torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)
    return out if bias is None else out + bias[:, None, None]


def randomise(module):
    """Values away from the neutral initialisation, so that no factor of one or zero hides a mistake."""
    generator = torch.Generator().manual_seed(7)
    for p in module.parameters():
        p.data = torch.randn(p.shape, dtype=DOUBLE, generator=generator) * 0.3 + 0.1
    return module.double().train()


def test_abf_equals_formula():
    block = randomise(ABF(5, 8, 7, residual_channels=8))
    x, residual = randn(3, 5, 4, 4), randn(3, 8, 2, 2, seed=1)
    output, passed = block(x, residual, torch.Size((8, 8)))

    mid = batch_norm(conv1x1(x, block.conv1[0].weight), block.conv1[1])
    up = nearest(residual, 4)
    logits = conv1x1(torch.cat([mid, up], 1), block.att_conv[0].weight, block.att_conv[0].bias)
    z = 1 / (1 + torch.exp(-logits))
    fused = nearest(mid * z[:, 0:1] + up * z[:, 1:2], 8)
    expected = batch_norm(F.conv2d(fused, block.conv2[0].weight, padding=1), block.conv2[1])
    torch.testing.assert_close(passed, fused, rtol=0, atol=1e-12)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


def test_abf_without_attention_adds_and_the_deepest_fuses_nothing():
    block = randomise(ABF(5, 8, 7, residual_channels=8, attention=False))
    x, residual = randn(3, 5, 4, 4), randn(3, 8, 4, 4, seed=1)
    _, passed = block(x, residual, torch.Size((4, 4)))
    expected = batch_norm(conv1x1(x, block.conv1[0].weight), block.conv1[1])
    torch.testing.assert_close(passed, expected + residual, rtol=0, atol=1e-12)
    deepest = randomise(ABF(5, 8, 7, residual_channels=None))
    _, passed = deepest(x, None, torch.Size((4, 4)))
    expected = batch_norm(conv1x1(x, deepest.conv1[0].weight), deepest.conv1[1])
    torch.testing.assert_close(passed, expected, rtol=0, atol=1e-12)
    assert block.att_conv is None and deepest.att_conv is None


def test_residual_output_passes_the_output_through_a_1x1_projection():
    deep = randomise(ABF(5, 8, 7, residual_channels=None, pass_output=True))
    output, passed = deep(randn(4, 5, 2, 2), None, torch.Size((2, 2)))
    assert passed is output and output.shape[1] == 7
    block = randomise(ABF(4, 8, 6, residual_channels=7, pass_output=True))
    x = randn(4, 4, 4, 4, seed=2)
    got, passed = block(x, output.detach(), torch.Size((4, 4)))
    mid = batch_norm(conv1x1(x, block.conv1[0].weight), block.conv1[1])
    up = nearest(
        batch_norm(conv1x1(output.detach(), block.residual_conv[0].weight), block.residual_conv[1]), 4
    )
    z = torch.sigmoid(conv1x1(torch.cat([mid, up], 1), block.att_conv[0].weight, block.att_conv[0].bias))
    fused = mid * z[:, :1] + up * z[:, 1:]
    expected = batch_norm(F.conv2d(fused, block.conv2[0].weight, padding=1), block.conv2[1])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert passed is got


def test_direct_abf_equals_formula():
    block = randomise(DirectABF(5, 6, residual_channels=7))
    x, residual = randn(3, 5, 4, 4), randn(3, 7, 2, 2, seed=1)
    output, passed = block(x, residual, torch.Size((4, 4)))
    ours = batch_norm(F.conv2d(x, block.conv1[0].weight, padding=1), block.conv1[1])
    deeper = batch_norm(F.conv2d(residual, block.residual_conv[0].weight, padding=1), block.residual_conv[1])
    deeper = nearest(deeper, 4)
    z = torch.sigmoid(conv1x1(torch.cat([ours, deeper], 1), block.att_conv[0].weight, block.att_conv[0].bias))
    torch.testing.assert_close(output, ours * z[:, :1] + deeper * z[:, 1:], rtol=0, atol=1e-12)
    assert passed is output


LEVELS = [
    LevelShape((4, 8, 8), (3, 8, 8)),
    LevelShape((6, 4, 4), (5, 8, 8)),
    LevelShape((8, 1, 1), (9, 1, 1)),
]


def student_maps():
    return [randn(2, *level.student, seed=i) for i, level in enumerate(LEVELS)]


def sizes():
    return [torch.Size(level.teacher[1:]) for level in LEVELS]


def test_every_connector_gives_the_teachers_shapes():
    for options in (
        ReviewOptions(connector="none"),
        ReviewOptions(connector="none", projection="always"),
        ReviewOptions(connector="mechanism"),
        ReviewOptions(),
        ReviewOptions(attention=False),
        ReviewOptions(residual="output"),
        ReviewOptions(residual="output_direct"),
    ):
        connector = CONNECTORS[options.connector](LEVELS, options).double()
        maps = connector(student_maps(), sizes())
        assert [tuple(m.shape[1:]) for m in maps] == [level.teacher for level in LEVELS]


def test_mechanism_sums_all_deeper_projections():
    connector = CONNECTORS["mechanism"](LEVELS, ReviewOptions(connector="mechanism"))
    connector = randomise(connector)
    maps = student_maps()
    got = connector(maps, sizes())
    for i, level in enumerate(LEVELS):
        expected = 0.0
        for j in range(i, len(LEVELS)):
            projection = connector.projections[i][j - i]
            y = batch_norm(conv1x1(maps[j], projection[0].weight, projection[0].bias), projection[1])
            expected = expected + nearest(y, level.teacher[1])
        torch.testing.assert_close(got[i], expected, rtol=0, atol=1e-12)
    assert sum(len(row) for row in connector.projections) == 6


def test_same_level_projects_only_where_needed_unless_asked():
    levels = [LevelShape((4, 8, 8), (4, 8, 8)), LevelShape((8, 1, 1), (9, 1, 1))]
    needed = CONNECTORS["none"](levels, ReviewOptions(connector="none"))
    assert isinstance(needed.projections[0], nn.Identity) and not isinstance(
        needed.projections[1], nn.Identity
    )
    always = CONNECTORS["none"](levels, ReviewOptions(connector="none", projection="always"))
    assert not any(isinstance(p, nn.Identity) for p in always.projections)
