"""Whether a run's steps can be captured as a CUDA graph and replayed, told on any machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rkd.data import ImageSet
from rkd.errors import RkdError
from rkd.methods import Method, Options, make_options
from rkd.methods.base import lent
from rkd.models.registry import imported
from rkd.training.arithmetic import arithmetic
from rkd.training.build import build_method, build_network
from rkd.training.config import RunConfig, TeacherConfig
from rkd.training.standin import GPU, Recorder, Stopped, standing_in
from rkd.training.step import GroupStep, TrainState
from rkd.training.teacher import FrozenTeacher

BATCH, IMAGES, CLASSES, SIZE = 16, 24, 100, 32  # one whole batch an epoch, and a short one
SEEN = 4  # classes with images

REPLACED = (
    "is replaced by another tensor in a step, but a replay goes on with the old one; change it in place"
)
COUNTED = "is a Python value that a step changes, but a replay runs no Python; keep it in a buffer, changed in place"
CHANGING = (
    "a step of the last epoch is not the operations of the first one ({}), but one recording serves all; let "
    "begin_epoch change tensors in place, and nothing that a step's Python code reads"
)


@dataclass(frozen=True)
class Captured:
    """What became of a check.

    Attributes:
        name: of the method, or of the network alone.
        steps: that were looked at.
        problems: one sentence each; none: the run can be captured.
    """

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
) -> Captured:
    """Follow steps of a method on stand-ins for a GPU's tensors (see `check_run`), in the arithmetic of a GPU.

    Args:
        method: a registered method, a sum such as "at+kd", `package.module:function` naming a builder or what a
            registered one decorates; or such a builder itself.
        options: its options, or their values by name, those of a sum by method; None: the defaults.
        teacher, student: names of networks.

    Raises:
        ConfigError: an unknown name or option, or a pair that the method refuses.

    Example:
        >>> check_method("kd", {"temperature": 2.0}, teacher="resnet14", student="resnet8")
        kd can be captured: 3 steps hold nothing that a replay could not do
    """
    with _named(method) as name:
        if not isinstance(options, Options):
            options = make_options(name, options or {})
        taught = TeacherConfig(run=RunConfig(teacher), weights="random")
        found = check_run(RunConfig(student, method=name, options=options, teacher=taught))
    return replace(found, name=method if isinstance(method, str) else name)


@contextmanager
def _named(method: str | Callable[..., Method]) -> Iterator[str]:
    """The name under which a method can be built within the block."""
    with ExitStack() as names:
        if callable(method):
            yield names.enter_context(lent(method))
            return
        form = "function of (context, options)"
        yield "+".join(
            names.enter_context(lent(imported("method", part, form))) if ":" in part else part
            for part in method.split("+")
        )


def check_run(config: RunConfig) -> Captured:
    """Follow steps of a run: batches, teacher, student, losses, backward pass, optimiser, memories; in every stage, in
    the first epoch with a whole batch and a short one, and in the last; without a method one step.

    Tensors stand in for those of a GPU and have no values. Networks and method are built as for a run, on other data
    and in the precision that a GPU has by itself.

    Raises:
        ConfigError: a pair that the method refuses.
    """
    config = replace(config, precision="auto", batch_size=BATCH, drop_last=False)
    student, teacher = build_network(config, CLASSES), None
    labels = torch.arange(IMAGES) % SEEN
    if config.teacher is not None:
        teacher = build_network(config.teacher.run, CLASSES)
    method = build_method(config, student, teacher, SIZE, CLASSES, IMAGES, labels)
    frozen = (
        None
        if teacher is None
        else FrozenTeacher(teacher, config.teacher.batch_norm, arithmetic("auto", GPU))
    )
    owners = [module for module in (method, student) if module is not None]
    with standing_in(owners) as recorder:
        placed = [m.to(device=GPU, memory_format=torch.channels_last) for m in owners]
        state = TrainState(config, placed[-1], None if method is None else placed[0])
        steps = _follow(state, _images(labels), None if frozen is None else frozen.to(GPU), recorder)
    return Captured(config.method or config.network, steps, recorder.sentences())


def _images(labels: Tensor) -> ImageSet:
    pixels, y = torch.zeros(IMAGES, SIZE, SIZE, 3, dtype=torch.uint8, device=GPU), labels.to(GPU)
    norm = ((0.5,) * 3,) * 2
    return ImageSet("stand-in", CLASSES, pixels, y, pixels, y, pixels[:0], y[:0], *norm, "", ("",) * CLASSES)


def _follow(state: TrainState, images: ImageSet, teacher: FrozenTeacher | None, recorder: Recorder) -> int:
    """Take the steps; returns their number."""
    config, steps = state.config, 0
    firsts = [sum(s.epochs for s in config.stages[:i]) for i in range(len(config.stages) + 1)]
    main: list[list[object]] = []
    # The last epoch for comparison, with a whole batch; a network alone has but one kind of step.
    for epoch in firsts if state.method is None else dict.fromkeys((*firsts, config.total_epochs - 1)):
        state.epoch, state.position = epoch, 0
        state.begin_epoch()
        step = GroupStep([state], images, teacher)
        sizes = step.begin(epoch)
        for size in sizes[:1] if state.method is None or epoch not in firsts else sizes:
            recorder.operations.clear()
            _watched(state, step, size, recorder)
            steps += 1
            if size == BATCH and state.stage is None:
                main.append(list(recorder.operations))
    if not recorder.problems and main[0] != main[-1]:
        recorder.note(CHANGING.format(_difference(*main)), "between epochs")
    return steps


def _watched(state: TrainState, step: GroupStep, size: int, recorder: Recorder) -> None:
    owners = {"student": state.student, "method": state.method}
    before = {name: _state(module) for name, module in owners.items() if module is not None}
    try:
        with recorder.recording():
            step(size)
    except Stopped:
        return
    except RkdError:
        raise
    except Exception as error:  # of code that is being checked; a device mismatch has been noted already
        if not recorder.noted:
            reason = str(error).strip().partition("\n")[0]
            recorder.note(f"cannot be followed without values: {type(error).__name__}: {reason}", "a step")
        return
    for owner, earlier in before.items():
        now = _state(owners[owner])
        for name, value in earlier.items():
            if isinstance(value, Tensor):
                if now.get(name) is not value:
                    recorder.note(REPLACED, f"{owner}, tensor {name!r}")
            elif now.get(name) != value:
                recorder.note(COUNTED, f"{owner}, attribute {name!r}")


def _state(module: nn.Module) -> dict[str, Any]:
    """Parameters, buffers and plain attributes by name."""
    plain = {
        f"{prefix}.{name}".lstrip("."): value
        for prefix, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, bool | int | float | str)
    }
    return {**plain, **dict(module.named_parameters()), **dict(module.named_buffers())}


def _difference(first: list[Any], last: list[Any]) -> str:
    """The first operation that differs."""
    for one, other in zip(first, last, strict=False):
        if one != other:
            return f"{' '.join(map(str, one))} has become {' '.join(map(str, other))}"
    return f"{len(first)} have become {len(last)}"
