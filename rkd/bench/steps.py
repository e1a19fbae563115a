"""Steps that can be timed: those of any runs in lock-step, of our variants, and of the conventional loop."""

import copy
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from rkd import data
from rkd.bench.conventional import Conventional
from rkd.data import ImageSet, normalise
from rkd.experiments.group import to_device
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import Settings
from rkd.training import FrozenTeacher, RunConfig, TrainState
from rkd.training.arithmetic import exact_kernels
from rkd.training.build import build_method, build_network
from rkd.training.capture import cuda_graph
from rkd.training.step import GroupStep

MOST_IMAGES, TEST_IMAGES = 5_000, 1_000
EPOCH_IMAGES = 50_000  # of CIFAR-100
CALIBRATION_IMAGES = 256
NOTHING, TEACHER, ALL = "nothing", "teacher", "all"  # what is compiled
COMPILED = {NOTHING: [], TEACHER: ["compiled teacher"], ALL: ["compiled"]}


@dataclass(frozen=True)
class Variant:
    """One way to make a step; all fields but `batch_norm` and `conventional` concern our steps only."""

    batch_norm: str  # of the teacher, "running" or "batch" (see TeacherConfig)
    precision: str = "fp32"  # the conventional loop has no other
    conventional: bool = False  # the conventional loop, not ours
    compile: str = NOTHING  # what torch.compile compiles
    graph: bool = False  # steps are captured as a CUDA graph
    group: int = 1  # students trained on the same batches by the same teacher pass
    # BatchNorm kernels: "native" is always PyTorch's own, "cudnn" is cuDNN's wherever PyTorch would choose it.
    kernels: str = "cudnn"
    cudnn_benchmark: bool = False  # cuDNN times its kernels before choosing one

    @property
    def name(self) -> str:
        """The name shown in tables, without the teacher's mode."""
        if self.conventional:
            return "conventional"
        parts = [self.precision, *COMPILED[self.compile], *["CUDA graph"] * self.graph]
        parts += ["native BN"] * (self.kernels == "native")
        parts += ["cuDNN benchmark"] * self.cudnn_benchmark + [f"group of {self.group}"] * (self.group > 1)
        return ", ".join(parts)


class Steps:
    """Steps of one group's runs in lock-step, over the same images again and again, always in the first epoch of main
    training. `teacher`, used by runs with a method, is a network on the CPU and is left unchanged."""

    def __init__(
        self, runs: Sequence[RunConfig], images: ImageSet, teacher: nn.Module, variant: Variant
    ) -> None:
        self.variant, first, pixels, frozen = variant, runs[0], images.train_x.shape[1], None
        self.states = []
        for run in runs:
            student = build_network(run, images.classes)
            method = build_method(run, student, teacher, pixels, images.classes, images.train_y)
            for module in (student, *([] if method is None else [method])):
                self._place(module, run, images.train_x.device)
            self.states.append(TrainState(run, student, method, variant.compile == ALL))
        if first.method is not None:
            network, compiled = copy.deepcopy(teacher), variant.compile != NOTHING
            self._place(network, first, images.train_x.device)
            numbers = self.states[0].arithmetic
            frozen = FrozenTeacher(network, first.teacher.batch_norm, numbers, compiled, pixels)
        self._run = GroupStep(self.states, images, frozen, cuda_graph if variant.graph else None)
        self._left: list[int] = []

    def _place(self, module: nn.Module, run: RunConfig, device: torch.device) -> None:
        if self.variant.kernels == "native":
            without_cudnn(module)
        to_device(module, run, device)

    def ready(self) -> None:
        """Begin an epoch unless one is under way."""
        if self._left:
            return
        for state in self.states:
            state.epoch = state.config.total_epochs - state.config.epochs
            state.position = 0
            state.begin_epoch()
        self._left = self._run.begin(self.states[0].epoch)

    def step(self) -> None:
        """Make one step, from images to updated weights."""
        self.ready()
        self._run(self._left.pop(0))

    def eagerly(self) -> None:
        """Make one step kernel by kernel, without a CUDA graph, so that it can be counted."""
        capture, self._run.capture = self._run.capture, None
        try:
            self.step()
        finally:
            self._run.capture = capture

    def context(self) -> AbstractContextManager[object]:
        """Set up cuDNN as the variant wants it while steps are made."""
        return exact_kernels(self.variant.cudnn_benchmark)


def without_cudnn(network: nn.Module) -> None:
    """Make every BatchNorm layer run its forward pass with `torch.backends.cudnn.enabled` off, the flag by which
    `torch.nn.functional.batch_norm` chooses its kernels; the backward pass follows the forward pass's choice.
    Convolutions keep cuDNN."""

    def native(forward: Any, x: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=False):
            return forward(x)

    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.forward = functools.partial(native, layer.forward)


class Workload:
    """What all variants share: the network pair, the images and the initial weights. The images are at most MOST_IMAGES
    of the embedded set: they have CIFAR's size and need no download. The teacher is untrained, with running statistics
    from one batch: weights do not affect how long a step takes, provided the maps stay in range."""

    def __init__(self, teacher: str, student: str, batch_size: int, device: torch.device) -> None:
        self.teacher, self.student, self.batch_size, self.device = teacher, student, batch_size, device

    @cached_property
    def images(self) -> ImageSet:
        """The images on the CPU, where the conventional loader needs them."""
        return data.load(self.config().data)

    @cached_property
    def device_images(self) -> ImageSet:
        """The images on the device, where our steps need them."""
        return self.images.to(self.device)

    def config(self, precision: str = "fp32", batch_norm: str = "batch") -> RunConfig:
        """Return the run whose steps are made: recipe `authors`, with the full review loss from the first step on."""
        whole = MOST_IMAGES // self.batch_size * self.batch_size  # no batch is short
        settings = Settings(
            "bench", dataset="embedded", train_images=whole, test_images=TEST_IMAGES, batch_size=self.batch_size,
            precision=precision, teacher_batch_norm=batch_norm,
        )  # fmt: skip
        return Builder(settings).distilled(self.teacher, self.student, 0, row={"warmup_epochs": 0})

    @cached_property
    def teacher_network(self) -> nn.Module:
        """The untrained teacher, on the CPU and in eval mode."""
        network = build_network(self.config().teacher.run, self.images.classes)
        x = normalise(self.images.train_x[:CALIBRATION_IMAGES], self.images.mean, self.images.std)
        update_bn([x], network)
        return network.eval()

    def begin(self, variant: Variant) -> Steps | Conventional:
        """Return the variant set up for stepping; a group's students differ only in the weight of their review loss."""
        first, size = self.config(variant.precision, variant.batch_norm), self.batch_size
        weight = first.options.loss_weight
        if variant.conventional:
            networks = build_network(first, self.images.classes), copy.deepcopy(self.teacher_network)
            whole = EPOCH_IMAGES // size * size
            return Conventional(*networks, self.images, variant.batch_norm, self.device, size, weight, whole)
        weights = [weight * (1 + 0.1 * member) for member in range(variant.group)]
        runs = [replace(first, options=replace(first.options, loss_weight=weight)) for weight in weights]
        return Steps(runs, self.device_images, self.teacher_network, variant)
