"""Which maps meet which, and through what: taps, levels, connectors."""

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd import models
from rkd.audit.subject import Subject
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions

CHANNELS = (16, 16, 32, 64, 64)  # of the five maps of a plain CIFAR ResNet: stem, stages 1 to 3, pooled


@torch.no_grad()
def negative_shares(subject: Subject) -> pd.DataFrame:
    """Share of values below zero in each stage's map, in percent, before and after the stage's last ReLU."""
    taps = subject.network.taps(subject.test()[0][0])
    return pd.DataFrame(
        {
            "map": f"stage {i + 1}",
            "before ReLU (teacher's tap)": 100 * (before < 0).double().mean().item(),
            "after ReLU (student's tap)": 100 * (after < 0).double().mean().item(),
        }
        for i, (before, after) in enumerate(zip(taps.stages_pre, taps.stages, strict=True))
    )


def projection(channels_in: int, channels_out: int) -> nn.Sequential:
    """1x1 convolution with bias, and BN: what rows 1 and 2 of Table 3 put between student and teacher."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))


class ListedConnectors(nn.Module):
    """Projections kept in a plain Python list, as the [Re] code keeps them: PyTorch does not see them.

    Args:
        pairs: (student's channels, teacher's channels) of each projection.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.connectors = [projection(a, b) for a, b in pairs]


ROW_1 = tuple((c, c) for c in CHANNELS)
ROW_2 = tuple((deeper, c) for i, c in enumerate(CHANNELS) for deeper in CHANNELS[i:])


def registration() -> pd.DataFrame:
    """Parameters of the connectors of Table 3's rows 1 and 2, and how many of them an optimiser would be given.

    Columns: connectors, parameters, "in the optimiser", "in the checkpoint" (tensors), "after eval()" (mode in which
    their BatchNorm is left).
    """
    made = {
        "row 1, plain list": ListedConnectors(ROW_1),
        "row 1, this package": _package("none", projection="always"),
        "row 2, plain list": ListedConnectors(ROW_2),
        "row 2, this package": _package("mechanism"),
    }
    return pd.DataFrame({"connectors": name, **_reach(module)} for name, module in made.items())


def _package(connector: str, **options: object) -> nn.Module:
    """The package's connectors of resnet20 <- resnet56 on five levels."""
    nets = (models.build(name) for name in ("resnet20", "resnet56"))
    return ReviewKD(*nets, ReviewOptions(connector=connector, stem=True, loss="l2", **options)).connector


def _reach(module: nn.Module) -> dict[str, object]:
    listed = getattr(module, "connectors", None)
    parts = listed if listed is not None else [module]
    module.train().eval()
    norm = next(m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d))
    return {
        "parameters": sum(p.numel() for part in parts for p in part.parameters()),
        "in the optimiser": sum(p.numel() for p in module.parameters()),
        "in the checkpoint": len(module.state_dict()),
        "after eval()": "train" if norm.training else "eval",
    }


def perfect_student(seed: int = 0, batch: int = 16) -> pd.DataFrame:
    """The loss of a student whose maps equal the teacher's already, under the text's and the code's same-level
    comparison.

    The text compares the maps as they are. The code first sends the student's maps through its connectors, random
    and never trained: equal maps are then at a distance, and a student has to fit a random projection instead.

    Columns: comparison, then the mean squared error per level, stem to pooled; maps are standard normal.
    """
    random = torch.Generator().manual_seed(seed)
    sizes = (32, 32, 16, 8, 1)
    maps = [torch.randn(batch, c, h, h, generator=random) for c, h in zip(CHANNELS, sizes, strict=True)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        connectors = ListedConnectors(ROW_1).connectors
        projected = [connector(x) for connector, x in zip(connectors, maps, strict=True)]
    rows = {"maps as they are (text)": maps, "through random connectors (code)": projected}
    names = ("stem", "stage 1", "stage 2", "stage 3", "pooled")
    return pd.DataFrame(
        {
            "comparison": how,
            **{n: F.mse_loss(a, b).item() for n, a, b in zip(names, given, maps, strict=True)},
        }
        for how, given in rows.items()
    )


def separate_or_summed(seed: int = 0, batch: int = 16) -> pd.DataFrame:
    """Row 2 of Table 3 both ways: each student map j >= i compared with teacher map i on its own (the [Re] text, which
    names its Figure 1), or all their projections summed before one comparison (the [Re] code).

    On random standard normal maps and projections. Columns: reading, comparisons, and the loss at the first step.
    """
    random = torch.Generator().manual_seed(seed)
    sizes = (32, 32, 16, 8, 1)

    def draw() -> list[Tensor]:
        return [torch.randn(batch, c, h, h, generator=random) for c, h in zip(CHANNELS, sizes, strict=True)]

    student, teacher = draw(), draw()
    separate, summed, comparisons = 0.0, 0.0, 0
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for i, target in enumerate(teacher):
            reviewed = [_resized(projection(x.shape[1], target.shape[1])(x), target) for x in student[i:]]
            comparisons += len(reviewed)
            separate += sum(F.mse_loss(x, target).item() for x in reviewed)
            summed += F.mse_loss(torch.stack(reviewed).sum(0), target).item()
    return pd.DataFrame(
        [
            ("each map on its own (text)", comparisons, separate),
            ("summed, then compared (code)", len(teacher), summed),
        ],
        columns=["reading", "comparisons", "loss at the first step"],
    )


def _resized(x: Tensor, target: Tensor) -> Tensor:
    return (
        x if x.shape[-2:] == target.shape[-2:] else F.interpolate(x, size=target.shape[-2:], mode="nearest")
    )


@torch.no_grad()
def level_terms(subject: Subject, seed: int = 0) -> pd.DataFrame:
    """The loss terms of Table 3's row 1 (five levels) and row 3 (four), at the first step of a new student.

    The student is the teacher's kind of network, untrained. Columns: level, "five levels (rows 1, 2)" and "four levels
    (rows 3 to 6)": the level's mean squared error, NaN where the row does not compare it.
    """
    x, y = subject.test()[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = models.build(subject.name, 100)
        five = ReviewKD(student, subject.network, ReviewOptions(connector="none", stem=True, loss="l2"))
        four = ReviewKD(student, subject.network, ReviewOptions(attention=False, loss="l2"))
    batch = Batch(student.train().taps(x), subject.network.taps(x), y, torch.arange(len(y)))
    a = [term.item() for term in five.level_losses(batch)]
    b = [float("nan"), *(term.item() for term in four.level_losses(batch))]
    names = ["stem", *(f"stage {i}" for i in range(1, len(a) - 1)), "pooled"]
    return pd.DataFrame({"level": names, "five levels (rows 1, 2)": a, "four levels (rows 3 to 6)": b})
