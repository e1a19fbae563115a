"""ABF and the connectors against formulas written out here."""

import pytest
import torch
import torch.nn.functional as F
from naive import batch_norm, conv1x1, drawn, nearest
from torch import nn

from rkd.review.abf import ABF, DirectABF
from rkd.review.connectors import CONNECTORS, LevelShape
from rkd.review.options import ReviewOptions


def randomised(module):
    """Values away from the neutral initialisation, so that no factor of one or zero hides a mistake."""
    torch.manual_seed(7)
    for p in module.double().parameters():
        nn.init.normal_(p, 0.1, 0.3)
    return module.train()


def by_hand(block, x, residual, size, direct=False, pass_output=False):
    def unit(layers, x):
        conv, norm = layers
        return batch_norm(norm, F.conv2d(x, conv.weight, padding=conv.weight.shape[-1] // 2))

    fused = unit(block.conv1, x)
    if residual is not None:
        up = residual if block.residual_conv is None else unit(block.residual_conv, residual)
        up = nearest(up, fused.shape[2])
        z = torch.ones(1, 2, 1, 1)
        if block.att_conv is not None:
            z = 1 / (1 + torch.exp(-conv1x1(block.att_conv[0], torch.cat([fused, up], 1))))
        fused = fused * z[:, :1] + up * z[:, 1:]
    fused = nearest(fused, size)
    if direct:
        return fused, fused
    output = unit(block.conv2, fused)
    return output, output if pass_output else fused


@pytest.mark.parametrize(
    ("make", "residual", "size", "how"),
    [
        (lambda: ABF(5, 8, 7, 8), (8, 2), 8, {}),
        (lambda: ABF(5, 8, 7, 8, attention=False), (8, 4), 4, {}),
        (lambda: ABF(5, 8, 7, None), None, 4, {}),  # the deepest fuses nothing
        (lambda: ABF(5, 8, 7, 6, pass_output=True), (6, 2), 4, {"pass_output": True}),
        (lambda: DirectABF(5, 6, 7), (7, 2), 4, {"direct": True}),
        (lambda: DirectABF(5, 6, None), None, 8, {"direct": True}),
    ],
    ids=["abf", "added", "deepest", "output passed on", "direct", "direct, deepest"],
)
def test_blocks_equal_their_formulas(make, residual, size, how):
    """Of a 4x4 map, a residual of (channels, size), and the teacher's size."""
    block, x = randomised(make()), drawn(3, 5, 4, 4)
    passed_on = None if residual is None else drawn(3, residual[0], residual[1], residual[1], seed=1)
    found = block(x, passed_on, torch.Size((size, size)))
    torch.testing.assert_close(found, by_hand(block, x, passed_on, size, **how), rtol=0, atol=1e-12)
    assert block.att_conv is None or passed_on is not None


LEVELS = [
    LevelShape((4, 8, 8), (3, 8, 8)),
    LevelShape((6, 4, 4), (6, 8, 8)),
    LevelShape((8, 1, 1), (9, 1, 1)),
]


@pytest.mark.parametrize(
    "options",
    [
        {"connector": "none"},
        {"connector": "none", "projection": "always"},
        {"connector": "mechanism"},
        {},
        {"attention": False},
        {"residual": "output"},
        {"residual": "output_direct"},
    ],
    ids=str,
)
def test_connectors(options):
    """Each gives the teacher's shapes; without blocks to fuse, the sum of projections of the level's own map, or of all
    deeper ones too."""
    options = ReviewOptions(**options)
    connector = randomised(CONNECTORS[options.connector](LEVELS, options))
    maps = [drawn(2, *level.student, seed=i) for i, level in enumerate(LEVELS)]
    found = connector(maps, [torch.Size(level.teacher[1:]) for level in LEVELS])
    assert [tuple(m.shape[1:]) for m in found] == [level.teacher for level in LEVELS]
    if options.connector == "residual":
        return
    rows = connector.projections
    if options.connector == "none":
        needed = [options.projection == "always" or level.student[0] != level.teacher[0] for level in LEVELS]
        assert [not isinstance(p, nn.Identity) for p in rows] == needed
        rows = [[p] for p in rows]
    for i, (level, row) in enumerate(zip(LEVELS, rows, strict=True)):
        assert len(row) == (1 if options.connector == "none" else len(LEVELS) - i)
        parts = [
            x if isinstance(p, nn.Identity) else batch_norm(p[1], conv1x1(p[0], x))
            for p, x in zip(row, maps[i:], strict=False)
        ]
        expected = sum(nearest(part, level.teacher[1]) for part in parts)
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-12)
