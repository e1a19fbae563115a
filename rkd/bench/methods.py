"""What a step of each method takes, in units of the student's step without one; measured in turn, in one process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import torch

from rkd import data, models
from rkd.bench.clock import seconds
from rkd.bench.steps import Steps, Variant
from rkd.training import RunConfig
from rkd.training.build import build_network


@dataclass(frozen=True)
class MethodCost:
    """One method's cost."""

    ms: float  # of a step of the main training, median, teacher included
    relative: float  # to the undistilled student's step of the same round, median
    extra_parameters: int  # trained ones of the method's own, which only training needs


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
    """
    few = {"train_images": 2 * plain.batch_size, "test_images": 100, "holdout": 0, "sha256": None}
    images = data.load(replace(plain.data, name="embedded", normalisation="embedded", **few)).to(device)
    taught = next(iter(runs.values())).teacher
    own = taught.run is not None
    teacher = build_network(taught.run, images.classes) if own else models.build(taught.name, images.classes)
    variant = Variant("batch", graph=device.type == "cuda")
    steps = {key: Steps([run], images, teacher, variant) for key, run in {"": plain, **runs}.items()}
    rows = []
    for _ in range(rounds + 1):
        rows.append({})
        for key, one in steps.items():
            with one.context():
                one.ready()
                rows[-1][key] = seconds(one.step, 1, device)
    times = pd.DataFrame(rows[1:])
    ms, relative = 1000 * times.median(), times.div(times[""], axis=0).median()
    methods = {key: steps[key].states[0].method for key in runs}
    extra = {k: sum(p.numel() for p in m.parameters() if p.requires_grad) for k, m in methods.items()}
    return {key: MethodCost(ms[key], relative[key], extra[key]) for key in runs}
