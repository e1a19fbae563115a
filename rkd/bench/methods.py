"""What a step of each method takes, in units of the student's step without one; measured in turn, in one process."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from rkd import data, models
from rkd.bench.clock import seconds
from rkd.bench.steps import Steps, Variant
from rkd.training import RunConfig
from rkd.training.build import build_network


@dataclass(frozen=True)
class MethodCost:
    """One method's cost.

    Attributes:
        ms: of a step of the main training, median, teacher included.
        relative: to the undistilled student's step of the same round, median.
        extra_parameters: trained ones of the method's own, which only training needs.
    """

    ms: float
    relative: float
    extra_parameters: int


def method_costs(
    runs: Mapping[str, RunConfig], plain: RunConfig, device: torch.device, rounds: int = 5
) -> dict[str, MethodCost]:
    """Costs by key of `runs`.

    A round makes one step of the plain run and one of each other, what begins an epoch left out; each state's first
    step, which may set things up, comes before the rounds. Images are of the embedded set, and the teacher is
    untrained: neither changes how long a step takes.

    Args:
        runs: distilled ones, all of one student, teacher and batch size.
        plain: the student's, without a method.
        device: where.
        rounds: number of steps of each.
    """
    few = {"train_images": 2 * plain.batch_size, "test_images": 100, "holdout": 0, "sha256": None}
    images = data.load(replace(plain.data, name="embedded", normalisation="embedded", **few)).to(device)
    taught = next(iter(runs.values())).teacher
    own = taught.run is not None
    teacher = build_network(taught.run, images.classes) if own else models.build(taught.name, images.classes)
    variant = Variant("batch", graph=device.type == "cuda")
    student, *others = (Steps([run], images, teacher, variant) for run in (plain, *runs.values()))
    times = []
    for _ in range(rounds + 1):
        times.append([])
        for one in (student, *others):
            with one.context():
                one.ready()
                times[-1].append(seconds(one.step, 1, device))
    alone, *each = zip(*times[1:], strict=True)
    found = {}
    for key, one, took in zip(runs, others, each, strict=True):
        extra = sum(p.numel() for p in one.states[0].method.parameters() if p.requires_grad)
        relative = statistics.median(a / b for a, b in zip(took, alone, strict=True))
        found[key] = MethodCost(1000 * statistics.median(took), relative, extra)
    return found
