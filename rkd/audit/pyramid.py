"""HCL: which sizes count how much, how maps are pooled, and whom its gradient reaches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rkd import models
from rkd.experiments.chapters import get_chapter
from rkd.experiments.recipes import load_recipe
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions, hcl, level_size, level_weights
from rkd.training import DataConfig, FrozenTeacher, RunConfig, TeacherConfig, TrainState


def level_sets() -> list[tuple[tuple[int | str, ...], tuple[float, ...]]]:
    """Of Tables 4 and 5: every set of sizes and weights once."""
    rows = [row for name in ("table4", "table5") for row in get_chapter(name).rows.values()]
    found = ((tuple(row["hcl_levels"]), tuple(row["hcl_weights"])) for row in rows if "hcl_levels" in row)
    return list(dict.fromkeys(found))


def committed_hcl(
    student: Tensor, teacher: Tensor, levels: Sequence[int | str], weights: Sequence[float]
) -> Tensor:
    """HCL as the [Re] code writes it: each listed size in turn, left out only where it exceeds the map, the sum divided
    by the sum of all weights. Nothing guards against sizes below 1.

    Args:
        student, teacher: (B, C, h, h).
        levels: sizes as in `ReviewOptions.hcl_levels`.
        weights: one each.
    """
    h = student.shape[2]
    total = student.new_zeros(())
    for level, weight in zip(levels, weights, strict=True):
        size = level_size(level, h)
        if size <= h:
            a, b = (F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
            total = total + weight * F.mse_loss(a, b)
    return total / sum(weights)


@dataclass(frozen=True)
class Outcome:
    """What `committed_hcl` made of one set of sizes: a loss, or the error it stopped with."""

    loss: float
    error: str = ""


def run_committed(
    h: int, levels: Sequence[int | str], weights: Sequence[float], seed: int = 0, channels: int = 64
) -> tuple[Outcome, float]:
    """The committed rule on two random maps (16, channels, h, h), and the plain mean squared error of the same maps."""
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(16, channels, h, h, generator=random) for _ in range(2))
    try:
        outcome = Outcome(committed_hcl(a, b, levels, weights).item())
    except RuntimeError as error:
        outcome = Outcome(float("nan"), str(error))
    return outcome, F.mse_loss(a, b).item()


def pooled_weights(seed: int = 0) -> pd.DataFrame:
    """How much of the pooled (1x1) level's mean squared error each set of sizes of Tables 4 and 5 counts, by the rule
    of the [Re] code, run as it is, and by the authors' rule.

    NaN where the committed rule gives no number; `failures` says what it gives.
    """
    authors = ReviewOptions(**_recipe("authors"))
    rows = []
    for levels, weights in level_sets():
        outcome, mse = run_committed(1, levels, weights, seed)
        used, normaliser = level_weights(1, replace(authors, hcl_levels=levels, hcl_weights=weights))
        rows.append(
            {
                "sizes": ", ".join(map(str, levels)),
                "weights": ", ".join(f"{w:g}" for w in weights),
                "[Re] code": outcome.loss / mse,
                "authors' rule": sum(w for _, w in used) / normaliser,
            }
        )
    return pd.DataFrame(rows)


def failures(seed: int = 0) -> pd.DataFrame:
    """The sets of sizes at which the committed rule gives no number, what it asks of the 1x1 map, what happens, and
    what this package does with the same set there."""
    rows = []
    for levels, weights in level_sets():
        outcome, _ = run_committed(1, levels, weights, seed)
        if outcome.loss == outcome.loss:
            continue
        options = ReviewOptions(hcl_levels=levels, hcl_weights=weights)
        rows.append(
            {
                "sizes": ", ".join(map(str, levels)),
                "asked of the 1 × 1 map": ", ".join(str(level_size(level, 1)) for level in levels),
                "what happens": outcome.error or "the loss is NaN: an empty map has no mean",
                "this package compares at": ", ".join(str(size) for size, _ in level_weights(1, options)[0]),
            }
        )
    return pd.DataFrame(rows)


def normalisers(sizes: Sequence[int] = (32, 16, 8, 4, 2, 1)) -> pd.DataFrame:
    """Sum of the weights of the sizes compared, divided by each rule's normaliser, for maps of several heights: what a
    difference that is the same at every size counts for."""
    rows = []
    rules = {"authors: weights used": _recipe("authors"), "[Re] code: all weights": _recipe("reproduction")}
    for h in sizes:
        row = {"map": f"{h} × {h}"}
        for rule, values in rules.items():
            used, normaliser = level_weights(h, ReviewOptions(**values))
            row[rule] = sum(w for _, w in used) / normaliser
        rows.append(row)
    return pd.DataFrame(rows)


def _recipe(name: str) -> dict[str, object]:
    """The HCL options of a recipe."""
    review = load_recipe(name).review
    return {
        key: tuple(v) if isinstance(v, list) else v for key, v in review.items() if key.startswith("hcl_")
    }


@dataclass(frozen=True)
class Pooled:
    """One pair of maps under both kinds of pooling.

    Attributes:
        student, teacher: (8, 8) maps.
        maps: (kind, size) -> (pooled student, pooled teacher), each (size, size).
        terms: kind, then the mean squared error at 8, 4, 2 and 1, and HCL as a whole.
    """

    student: Tensor
    teacher: Tensor
    maps: dict[tuple[str, int], tuple[Tensor, Tensor]]
    terms: pd.DataFrame


@torch.no_grad()
def average_and_max(seed: int = 0) -> Pooled:
    """One student map and one teacher map, 8x8 and smooth, compared with average and with max pooling."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, 1, 4, 4, generator=random)
    smooth = F.interpolate(coarse, size=8, mode="bilinear", align_corners=False)
    student, teacher = smooth + 0.3 * torch.randn(2, 1, 8, 8, generator=random)
    student, teacher = student[None], teacher[None]  # (1, 1, 8, 8)
    pooling = {"average": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d}
    maps, rows = {}, []
    for kind, pool in pooling.items():
        row = {"pooling": kind}
        for size in (8, 4, 2, 1):
            a, b = pool(student, size), pool(teacher, size)
            maps[kind, size] = a[0, 0], b[0, 0]
            row[f"{size} × {size}"] = F.mse_loss(a, b).item()
        row["HCL"] = hcl(student, teacher, ReviewOptions(hcl_pooling=kind)).item()
        rows.append(row)
    return Pooled(student[0, 0], teacher[0, 0], maps, pd.DataFrame(rows))


@dataclass(frozen=True)
class Head:
    """The student's last linear layer when the review loss trains alone.

    Attributes:
        gradient_of_its_weights: after a backward pass of the review loss; None: it has none.
        largest_gradient_elsewhere: absolute, among all other parameters of the student.
        updates_without_cross_entropy: made with this package at a `ce_weight` of 0.
        norm_afterwards: of its weights, as a share of the norm before.
        cosine_with_the_start: between the weights before and after.
    """

    gradient_of_its_weights: Tensor | None
    largest_gradient_elsewhere: float
    updates_without_cross_entropy: int
    norm_afterwards: float
    cosine_with_the_start: float


def head_without_gradient(steps: int = 3, seed: int = 0) -> Head:
    """Backward pass of the review loss alone, and a few updates with `ce_weight: 0`, on random images."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 3, 32, 32, generator=random)
    y = torch.randint(100, (8,), generator=random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student, teacher = models.build("resnet8"), models.build("resnet8")
        review = ReviewKD(student, teacher, ReviewOptions(warmup_epochs=0))
    taps = FrozenTeacher(teacher, "running").taps(x)
    images = torch.arange(len(y))
    review.losses(Batch(student.taps(x), taps, y, images))["review"].backward()
    gradient = student.fc.weight.grad
    others = [p.grad for p in student.parameters() if p.grad is not None]
    largest = max(g.abs().max().item() for g in others)
    student.zero_grad()

    data = DataConfig(name="embedded", normalisation="embedded")
    config = RunConfig(
        "resnet8", data, ce_weight=0.0, method="reviewkd", options=review.options,
        teacher=TeacherConfig(run=RunConfig("resnet8", data), weights="random"),
    )  # fmt: skip
    before = student.fc.weight.detach().clone()
    state = TrainState(config, student, review)
    state.begin_epoch()
    for _ in range(steps):
        state.step(x, y, images, taps)
    after = student.fc.weight.detach()
    turned = F.cosine_similarity(before.flatten().double(), after.flatten().double(), dim=0).item()
    return Head(gradient, largest, steps, (after.norm() / before.norm()).item(), turned)
