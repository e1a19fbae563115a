"""ABF: what is fused, how wide, from which start, and what is passed on."""

import pandas as pd
import torch
from torch import nn

from rkd import models
from rkd.experiments.chapters import get_chapter
from rkd.models import display_name, tap_shapes
from rkd.review import ABF, ReviewOptions
from rkd.review.connectors import ResidualFramework, mid_channels
from rkd.review.levels import match_levels

PAIR = ("resnet20", "resnet56")  # of the ablations: student, teacher
VARIANTS = {
    "mid-channel map (both codes)": {"residual": "mid"},
    "output, projected by 1x1 conv (text)": {"residual": "output"},
    "output at once, 3x3 convs ([Re] code)": {"residual": "output_direct"},
    "mid-channel map, added without attention": {"residual": "mid", "attention": False},
}


def _levels(student: str, teacher: str) -> list:
    shapes = (tap_shapes(models.build(name)) for name in (student, teacher))
    return match_levels(*shapes, "post", "pre", stem=False)


@torch.no_grad()
def passed_on() -> pd.DataFrame:
    """What each block of resnet20 <- resnet56 passes to the next shallower one, under each reading.

    Columns: residual; parameters of the whole framework, and how many of them are in 3x3 convolutions, in attention
    convolutions, and in projections of the residual; "passed on": channels x height of the tensors, deep to shallow.
    """
    levels = _levels(*PAIR)
    maps = [torch.zeros(2, *level.student) for level in levels]
    rows = []
    for name, values in VARIANTS.items():
        framework = ResidualFramework(levels, ReviewOptions(**values)).eval()
        passed, shapes = None, []
        for block, x, level in zip(framework.abfs, reversed(maps), reversed(levels), strict=True):
            _, passed = block(x, passed, torch.Size(level.teacher[1:]))
            shapes.append(f"{passed.shape[1]} × {passed.shape[2]}²")
        rows.append(
            {
                "residual": name,
                "parameters": _count(framework),
                "3x3 convs": sum(p.numel() for p in framework.parameters() if p.shape[2:] == (3, 3)),
                "attention": sum(
                    _count(block.att_conv) for block in framework.abfs if block.att_conv is not None
                ),
                "for the residual": sum(
                    _count(block.residual_conv) for block in framework.abfs if block.residual_conv is not None
                ),
                "passed on": ", ".join(shapes[:-1]),
            }
        )
    return pd.DataFrame(rows)


def unused_attention() -> pd.DataFrame:
    """Parameters of the fusion blocks of resnet20 <- resnet56 with the [Re] code's attention convolution in the deepest
    block, which nothing calls: how many there are, and how many get a gradient from one backward pass."""
    levels = _levels(*PAIR)
    framework = ResidualFramework(levels, ReviewOptions(mid_channels=64))
    idle = nn.Conv2d(2 * 64, 2, 1)  # the deepest block has no residual to weigh
    outputs = framework(
        [torch.randn(2, *level.student) for level in levels], [torch.Size(s.teacher[1:]) for s in levels]
    )
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    parts = {"fusion blocks (released code)": framework, "attention in the deepest block": idle}
    rows = [
        {
            "part": name,
            "parameters": _count(part),
            "with a gradient": sum(p.numel() for p in part.parameters() if p.grad is not None),
        }
        for name, part in parts.items()
    ]
    total = {key: sum(row[key] for row in rows) for key in ("parameters", "with a gradient")}
    return pd.DataFrame([*rows, {"part": "all ([Re] code)", **total}])


def mid_widths() -> pd.DataFrame:
    """Width of the fused maps and parameters of the fusion blocks, per pair of Tables 1 and 2, under both rules:
    min(512, channels of the student's pooled vector), and 64 throughout."""
    rows = []
    for teacher, student in (*get_chapter("table1").pairs, *get_chapter("table2").pairs):
        levels = _levels(student, teacher)
        rule, fixed = ReviewOptions(), ReviewOptions(mid_channels=64)
        rows.append(
            {
                "pair": f"{display_name(student)} ← {display_name(teacher)}",
                "width, rule": mid_channels(levels, rule),
                "width, fixed": mid_channels(levels, fixed),
                "parameters, rule": _count(ResidualFramework(levels, rule)),
                "parameters, fixed": _count(ResidualFramework(levels, fixed)),
            }
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def attention_start(seed: int = 0, mid: int = 64) -> pd.DataFrame:
    """Where the attention maps start under both initialisations of their convolution.

    Columns: initialisation; bound and standard deviation of its weights; standard deviation of the attention values at
    the start, and the 1st and 99th percentile of them, on standard normal maps (what BN gives).
    """
    rows = []
    for name in ("default", "kaiming"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            block = ABF(mid, mid, mid, residual_channels=mid, attention_init=name)
            x = torch.randn(16, 2 * mid, 16, 16)
        z = block.att_conv(x)
        weight = block.att_conv[0].weight
        low, high = torch.quantile(z.flatten()[::4], torch.tensor([0.01, 0.99])).tolist()
        rows.append(
            {
                "initialisation": name,
                "largest weight": weight.abs().max().item(),
                "sd of the weights": weight.std().item(),
                "sd of the attention": z.std().item(),
                "1st percentile": low,
                "99th percentile": high,
            }
        )
    return pd.DataFrame(rows)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
