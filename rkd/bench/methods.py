"""What a step of each method takes, in units of the student's step without one; measured in turn, in one process."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from rkd import data, models
from rkd.data import ImageSet
from rkd.experiments.gang import place
from rkd.training import FrozenTeacher, Learner, RunConfig
from rkd.training.arithmetic import exact_kernels
from rkd.training.capture import cuda_graph
from rkd.training.learner import build_method, build_network
from rkd.training.program import Program

BATCHES = 2  # of the images that are gone through again and again


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

    A round makes one step of the plain run and one of each other; each learner's first step, which may set things up,
    comes before the rounds. Images are of the embedded set, and the teacher is untrained: neither changes how long a
    step takes.

    Args:
        runs: distilled ones, all of one student, teacher and batch size.
        plain: the student's, without a method.
        device: where.
        rounds: number of steps of each.
    """
    images = _images(plain).to(device)
    first = next(iter(runs.values()))
    teacher = _teacher(first, images)
    started = {key: _Steps(run, images, teacher, device) for key, run in {"": plain, **runs}.items()}
    times: dict[str, list[float]] = {key: [] for key in started}
    with exact_kernels():
        for steps in started.values():
            steps.make()
        for _ in range(rounds):
            for key, steps in started.items():
                times[key].append(steps.make())
    return {
        key: MethodCost(
            1000 * statistics.median(times[key]),
            statistics.median(own / base for own, base in zip(times[key], times[""], strict=True)),
            started[key].extra_parameters,
        )
        for key in runs
    }


def _images(run: RunConfig) -> ImageSet:
    count = BATCHES * run.batch_size
    config = replace(
        run.data, name="embedded", normalisation="embedded", train_images=count, test_images=100, holdout=0, sha256=None
    )  # fmt: skip
    return data.load(config)


def _teacher(run: RunConfig, images: ImageSet) -> torch.nn.Module:
    if run.teacher.run is not None:
        return build_network(run.teacher.run, images.classes)
    return models.build(run.teacher.name, images.classes)


class _Steps:
    """One run's steps in the main training, again and again over the same few images."""

    def __init__(
        self, run: RunConfig, images: ImageSet, teacher: torch.nn.Module, device: torch.device
    ) -> None:
        student = build_network(run, images.classes)
        size = images.train_x.shape[1]
        method = build_method(
            run, student, teacher.cpu(), size, images.classes, len(images.train_y), images.train_y
        )
        trained = () if method is None else (p for p in method.parameters() if p.requires_grad)
        self.extra_parameters = sum(p.numel() for p in trained)
        if method is not None:
            method = place(method, run, device)
        self.learner = Learner(run, place(student, run, device), method)
        self.learner.epoch = run.total_epochs - run.epochs  # stages are not the point here
        frozen = None
        if method is not None:
            own = place(_teacher(run, images), run, device)
            frozen = FrozenTeacher(own, run.teacher.batch_norm, self.learner.arithmetic)
        self.program = Program([self.learner], images, frozen, cuda_graph if device.type == "cuda" else None)
        self.device = device
        self.left: list[int] = []

    def make(self) -> float:
        """Make a step; returns its seconds, what begins an epoch left out."""
        if not self.left:
            self.learner.position = 0
            self.learner.begin_epoch()
            self.left = list(self.program.begin(self.learner.epoch))
        self._wait()
        started = time.perf_counter()
        self.program.step(self.left.pop())
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
