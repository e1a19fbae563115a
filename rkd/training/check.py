"""Check, on any machine, whether a method's steps can be captured as a CUDA graph and replayed."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from rkd.data import ImageSet
from rkd.methods import Method, Options, make_options
from rkd.methods.base import temporarily_registered
from rkd.training.arithmetic import arithmetic
from rkd.training.build import build_method, build_network
from rkd.training.config import RunConfig, TeacherConfig
from rkd.training.standin import GPU, standing_in
from rkd.training.step import GroupStep, TrainState
from rkd.training.teacher import FrozenTeacher
from rkd.trust import call_foreign, import_trusted, is_foreign

BATCH, IMAGES, CLASSES, SIZE = 16, 24, 100, 32  # one whole batch an epoch, and a short one
SEEN = 4  # number of classes with images

CHANGING = (
    "a step of the last epoch is not the operations of the first one ({}), but one recording serves all; let "
    "begin_epoch change tensors in place, and nothing that a step's Python code reads"
)


@dataclass(frozen=True)
class CaptureReport:
    """The result of checking a method: the number of steps inspected, and a sentence for each problem; without
    problems, the run can be captured."""

    name: str
    steps: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        if self.problems:
            return "\n".join(self.problems)
        return f"{self.name} can be captured: {self.steps} steps hold nothing that a replay could not do"

    __repr__ = __str__  # the last value of a notebook's cell


def check_method(
    method: str | Callable[..., Method],
    options: Options | Mapping[str, Any] | None = None,
    *,
    teacher: str = "resnet56",
    student: str = "resnet20",
) -> CaptureReport:
    """Follow a method's steps on stand-ins for GPU tensors, in a GPU's arithmetic: batches, teacher, student, losses,
    backward pass, optimiser, memories; in every stage, in the first epoch with a whole batch and a short one, and in
    the last epoch with a whole one.

    Args:
        method: a registered method, a sum such as "at+kd", `package.module:function` naming a builder (registered or
            not), which has to be trusted (see `rkd.models.trust`); or such a builder itself.
        options: its options, or their values by name (for a sum, by method); None: the defaults.
        teacher, student: names of networks.

    Raises:
        ConfigError: an unknown name or option, or a pair that the method refuses.

    Example:
        >>> check_method("kd", {"temperature": 2.0}, teacher="resnet14", student="resnet8")
        kd can be captured: 3 steps hold nothing that a replay could not do
    """
    form = "function of (context, options)"
    parts = [method] if callable(method) else [
        import_trusted("method", part, form) if is_foreign(part) else part for part in method.split("+")
    ]  # fmt: skip
    with ExitStack() as names:
        name = "+".join(
            part if isinstance(part, str) else names.enter_context(temporarily_registered(part))
            for part in parts
        )
        taught = TeacherConfig(run=RunConfig(teacher), weights="random")
        own = {"method": name, "options": make_options(name, {} if options is None else options)}
        config = RunConfig(student, **own, teacher=taught, precision="auto", batch_size=BATCH)
        steps, problems = _followed(config)
    return CaptureReport(method if isinstance(method, str) else name, steps, problems)


def _followed(config: RunConfig) -> tuple[int, tuple[str, ...]]:
    """Return the number of steps taken, and their problems."""
    network, student = build_network(config.teacher.run, CLASSES), build_network(config, CLASSES)
    labels, steps = torch.arange(IMAGES) % SEEN, 0
    making = config, student, network, SIZE, CLASSES, labels
    method = call_foreign(f"method {config.method!r}", build_method, *making)
    teacher = FrozenTeacher(network, config.teacher.batch_norm, arithmetic("auto", GPU))
    firsts = [sum(s.epochs for s in config.stages[:i]) for i in range(len(config.stages) + 1)]
    main: list[list[str]] = []  # operations of each step with a whole batch in the main training
    with standing_in({"student": student, "method": method}) as recorder:
        for module in (method, student):
            module.to(device=GPU, memory_format=torch.channels_last)
        state = TrainState(config, student, method)
        pixels, y = torch.zeros(IMAGES, SIZE, SIZE, 3, dtype=torch.uint8, device=GPU), labels.to(GPU)
        images = ImageSet(
            "stand-in", CLASSES, pixels, y, pixels, y, pixels[:0], y[:0], (0.5,) * 3, (0.5,) * 3, "", ("",) * CLASSES
        )  # fmt: skip
        teacher.to(GPU)
        for epoch in dict.fromkeys((*firsts, config.total_epochs - 1)):
            state.epoch, state.position = epoch, 0
            state.begin_epoch()
            step = GroupStep([state], images, teacher)
            for size in step.begin(epoch)[: 2 if epoch in firsts else 1]:
                with recorder.recording():
                    step(size)
                steps += 1
                if size == BATCH and state.stage is None:
                    main.append(recorder.operations)
        if not recorder.problems and main[0] != main[-1]:
            pairs = zip(*main, strict=False)
            differing = (f"{one} has become {other}" for one, other in pairs if one != other)
            fewer = f"{len(main[0])} have become {len(main[-1])}"
            recorder.note(CHANGING.format(next(differing, fewer)), "between epochs")
    return steps, recorder.sentences()
