"""The ways to make a step that are compared: the conventional loop, and ours in its arithmetics and engines."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

from rkd import data
from rkd.bench.conventional import Conventional
from rkd.data import ImageSet, evaluation_batches
from rkd.experiments.gang import place
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import Settings
from rkd.models import tap_shapes
from rkd.training import FrozenTeacher, Learner, RunConfig
from rkd.training.arithmetic import exact_kernels
from rkd.training.capture import cuda_graph
from rkd.training.learner import build_method, build_network
from rkd.training.program import Program

MOST_IMAGES = 5_000
TEST_IMAGES = 1_000
EPOCH_IMAGES = 50_000  # of CIFAR-100
CALIBRATION_IMAGES = 256
NOTHING, TEACHER, ALL = "nothing", "teacher", "all"  # compiled


@dataclass(frozen=True)
class Variant:
    """One way to make a step.

    Attributes:
        batch_norm: of the teacher, "running" or "batch" (see TeacherConfig).
        precision: as asked for; the conventional loop knows only "fp32".
        conventional: the conventional loop, not ours.
        compile: what torch.compile writes the kernels of: "nothing", "teacher" or "all".
        graph: steps are captured as a CUDA graph.
        gang: students trained on the same batches by the same teacher pass.
    """

    batch_norm: str
    precision: str = "fp32"
    conventional: bool = False
    compile: str = NOTHING
    graph: bool = False
    gang: int = 1


def variants(
    batch_norms: Sequence[str],
    precisions: Sequence[str],
    gang: int = 1,
    compiled: Sequence[str] = (NOTHING,),
    graphs: Sequence[bool] = (False,),
) -> list[Variant]:
    """All that are compared: for each teacher mode the conventional loop, then ours.

    Args:
        batch_norms, precisions: of ours; the last precision is also that of the gang.
        gang: students of the gang; 1: no gang.
        compiled: each of ours with these values of `compile`.
        graphs: each of ours with these values of `graph`.
    """
    engines = list(itertools.product(graphs, compiled))
    sizes = [(precision, 1) for precision in precisions] + ([(precisions[-1], gang)] if gang > 1 else [])
    return [
        variant
        for mode in batch_norms
        for variant in (
            Variant(mode, conventional=True),
            *(
                Variant(mode, precision, compile=what, graph=graph, gang=size)
                for precision, size in sizes
                for graph, what in engines
            ),
        )
    ]


class Workload:
    """What all variants have in common: the pair, the images, the first weights.

    The embedded set serves: its images have CIFAR's size, and none has to be fetched. The teacher is untrained, its
    running statistics those of one batch: how long a step takes does not depend on what the weights are, as long as the
    maps stay in range.

    Args:
        teacher, student: names of networks.
        batch_size: images of a step.
        device: where.
        train_images, test_images: at most so many.
    """

    def __init__(
        self,
        teacher: str,
        student: str,
        batch_size: int,
        device: torch.device,
        train_images: int = MOST_IMAGES,
        test_images: int = TEST_IMAGES,
    ) -> None:
        self.teacher, self.student, self.batch_size, self.device = teacher, student, batch_size, device
        self._train_images = train_images // batch_size * batch_size  # every batch is whole
        self._test_images = test_images

    @cached_property
    def images(self) -> ImageSet:
        """On the CPU, where the conventional loader wants them."""
        return data.load(self.config("fp32", "batch").data)

    @cached_property
    def device_images(self) -> ImageSet:
        """On the device, where ours wants them."""
        return self.images.to(self.device)

    def config(self, precision: str, batch_norm: str, seed: int = 0) -> RunConfig:
        """The run whose steps are made: the recipe `authors`, the review loss in full from the first step on."""
        settings = Settings(
            "bench",
            dataset="embedded",
            train_images=self._train_images,
            test_images=self._test_images,
            batch_size=self.batch_size,
            precision=precision,
            teacher_batch_norm=batch_norm,
        )
        return Builder(settings).review(self.teacher, self.student, seed, {"warmup_epochs": 0})

    def student_network(self) -> nn.Module:
        """On the CPU; every time the same weights."""
        return build_network(self.config("fp32", "batch"), self.images.classes)

    def teacher_network(self) -> nn.Module:
        """On the CPU, in eval mode; every time the same weights."""
        return copy.deepcopy(self._calibrated)

    @cached_property
    def _calibrated(self) -> nn.Module:
        network = build_network(self.config("fp32", "batch").teacher.run, self.images.classes)
        layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        usual = [layer.momentum for layer in layers]
        images = self.images
        count = min(CALIBRATION_IMAGES, len(images.train_y))
        x, _ = next(
            evaluation_batches(images.train_x[:count], images.train_y[:count], images.mean, images.std, count)
        )
        for layer in layers:
            layer.momentum = 1.0
        with torch.no_grad():
            network.train()(x)
        for layer, momentum in zip(layers, usual, strict=True):
            layer.momentum = momentum
        return network.eval()

    def maps(self) -> list[tuple[int, int]]:
        """(channels, height) of the maps of both networks' stages."""
        shapes = [tap_shapes(network) for network in (self.student_network(), self.teacher_network())]
        return sorted({(c, h) for found in shapes for c, h, _ in found.stages})


class Contestant(Protocol):
    """A variant at work."""

    def step(self) -> int:
        """Make one step, from images to updated weights; returns the images each student saw."""

    def eagerly(self) -> None:
        """Make one step kernel by kernel, whatever the engine, so that it can be counted."""

    def kernels(self) -> AbstractContextManager[object]:
        """How cuDNN is to behave meanwhile."""

    def close(self) -> None:
        """End what runs beside this process."""


def contestant(variant: Variant, work: Workload) -> Contestant:
    """The variant, set up for the workload."""
    return _Conventional(variant, work) if variant.conventional else Ours(variant, work)


class _Conventional:
    def __init__(self, variant: Variant, work: Workload) -> None:
        config = work.config("fp32", variant.batch_norm)
        self.loop = Conventional(
            work.student_network(),
            work.teacher_network(),
            work.images,
            variant.batch_norm,
            work.device,
            work.batch_size,
            config.options.loss_weight,
            EPOCH_IMAGES // work.batch_size * work.batch_size,
        )
        self.step = self.loop.step
        self.close = self.loop.close

    def eagerly(self) -> None:
        self.step()

    def kernels(self) -> AbstractContextManager[object]:
        # As the released code: deterministic, and TF32 where torch takes it by default.
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)


class Ours:
    """A gang of our learners, with the program that trains them.

    Attributes:
        learners: alike but for the weight of their review loss.
        program: of their steps.
    """

    def __init__(self, variant: Variant, work: Workload) -> None:
        first = work.config(variant.precision, variant.batch_norm)
        weight = first.options.loss_weight
        configs = [
            replace(first, options=replace(first.options, loss_weight=weight * (1 + 0.1 * member)))
            for member in range(variant.gang)
        ]
        images = work.device_images
        teacher = work.teacher_network()
        self.learners = []
        for config in configs:
            student = work.student_network()
            method = build_method(
                config, student, teacher, images.train_x.shape[1], images.classes, len(images.train_y)
            )
            student, method = (place(module, config, work.device) for module in (student, method))
            self.learners.append(Learner(config, student, method, variant.compile == ALL))
        frozen = FrozenTeacher(
            place(teacher, first, work.device),
            variant.batch_norm,
            self.learners[0].arithmetic,
            variant.compile != NOTHING,
        )
        self.program = Program(self.learners, images, frozen, cuda_graph if variant.graph else None)
        self._sizes = self._endless()

    def _endless(self) -> Iterator[int]:
        for epoch in itertools.count():
            for learner in self.learners:
                learner.begin_epoch()
            for size in self.program.begin(epoch):
                self.program.step(size)
                yield size
            for learner in self.learners:
                learner.end_epoch()

    def step(self) -> int:
        return next(self._sizes)

    def eagerly(self) -> None:
        capture, self.program.capture = self.program.capture, None
        try:
            self.step()
        finally:
            self.program.capture = capture

    def kernels(self) -> AbstractContextManager[object]:
        return exact_kernels()

    def close(self) -> None:
        self._sizes.close()
