"""What a distillation method is: one module that reads taps and returns named losses.

The training loop knows no method by name. It builds the method a config names, optimises the method's own
parameters together with the student's, and adds `weight x loss` for every loss the method returns.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from rkd.config import Weight, frozen
from rkd.config import from_values as build_options
from rkd.errors import ConfigError, unknown
from rkd.models.registry import build as build_network
from rkd.models.taps import Taps, TapShapes, check_network, tap_shapes


@dataclass(frozen=True)
class Stage:
    """Epochs of training before the main training, with losses of their own (see `Method.stage_losses`).

    Parameters that its losses do not reach are left alone, and the main training begins with fresh momentum.

    Attributes:
        name: unique within a method.
        lr: constant learning rate; None: that of the first epoch of the main training.
        trains_student: whether the student is trained; else it is not even run.
    """

    name: str
    epochs: int
    losses: tuple[str, ...]
    lr: float | None = None
    trains_student: bool = True


@frozen
class Options:
    """Base class of the options of methods, whose values are checked against their types (see `rkd.config`).

    Attributes:
        loss_weight: weight of the method's loss against cross-entropy.
    """

    loss_weight: Weight = 1.0

    def stages(self) -> tuple[Stage, ...]:
        """Stages before the main training."""
        return ()

    def unread(self) -> set[str]:
        """Names of options that the others leave without effect: two runs that differ in these alone are the same."""
        return set()

    def in_epochs(self) -> tuple[str, ...]:
        """Names of options that are numbers of epochs, and are scaled when a run is shorter than its recipe's."""
        return tuple(f.name for f in fields(self) if f.name.endswith("_epochs"))


@dataclass(frozen=True)
class Context:
    """What a method may look at while it is built.

    Attributes:
        student, teacher: the two networks, on the CPU.
        image_size: height and width of the input images.
        labels: (train_images,) int64, classes of the training images, on the CPU.
        batch_size: images of a step; an epoch's last batch may be smaller, but is never a single image.
        seed: of the run; random draws after construction come from `rkd.data.stream_seed(seed, name, epoch)`.
        network: name of the student's network; "" where the student was not built by name.
    """

    student: nn.Module
    teacher: nn.Module
    image_size: int = 32
    classes: int = 100
    labels: Tensor | None = None
    batch_size: int = 128
    seed: int = 0
    network: str = ""

    @property
    def shapes(self) -> tuple[TapShapes, TapShapes]:
        """Shapes of the taps of student and teacher, from a dry forward pass of each."""
        return tap_shapes(self.student, self.image_size), tap_shapes(self.teacher, self.image_size)

    @property
    def train_images(self) -> int:
        """Their number, for memories indexed by image; 0 without labels."""
        return 0 if self.labels is None else len(self.labels)

    def build(self, name: str) -> nn.Module:
        """A freshly initialised network with this run's number of classes."""
        return build_network(name, self.classes)


@dataclass(frozen=True)
class Batch:
    """What a method may read in one step of B images."""

    student: Taps  # with gradient
    teacher: Taps  # without
    labels: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, positions in the training set
    images: Tensor | None = None  # (B, 3, H, W), normalised


class Method(nn.Module, ABC):
    """Base class. Whatever a method owns (projections, memories, further students) is an ordinary submodule or buffer
    of it, and so is trained, moved between devices, saved and resumed with the run.

    `losses` and `weights` are all that a method must have; the rest has defaults. A step is captured as a CUDA graph
    and replayed, so `losses` reads nothing back to the host, and what changes between steps is a tensor changed in
    place; `rkd.training.check_method`, or `rkd show method`, says where a method does otherwise, on any machine.
    Parameters without `requires_grad` are not trained.
    """

    options: Any

    def __init__(self, context: Context | None = None, options: Options | None = None) -> None:
        super().__init__()
        if options is not None and not isinstance(options, Options):
            raise ConfigError(
                f"options of {type(self).__name__} are a {type(options).__name__}; rkd.methods.make_options makes "
                "them of values by name"
            )
        self.options = options

    @abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalar losses of one batch, unweighted."""

    @abstractmethod
    def weights(self, epoch: int) -> Mapping[str, float]:
        """Weight of each loss in `epoch` (0-based, without stages); same keys as `losses` in every epoch."""

    def stage_losses(self, stage: str, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalar losses of one batch in a stage before the main training, each of weight 1 (see
        `Options.stages`). `batch.student` is None where the stage does not train the student."""
        raise ConfigError(f"{type(self).__name__} has no stage_losses for the stage {stage!r} of its options")

    def classified(self, taps: Taps) -> Tensor:
        """The logits (B, classes) that cross-entropy sees, from the student's taps."""
        return taps.logits

    def begin_epoch(self, epoch: int) -> None:
        """Before each epoch of the main training, also one that is resumed: renew what is drawn per epoch, in place, as
        a function of seed and epoch alone."""

    def after_step(self, made: Tensor) -> None:
        """After each step of the optimiser, without gradient, as part of the step: update memories in place. `made`, a
        scalar, is False where fp16 left the step out: then what is kept stays as it is (`torch.where`)."""

    def end_epoch(self, student: nn.Module) -> None:
        """After each epoch of the main training, before it is scored."""

    def networks(self, student: nn.Module) -> Mapping[str, nn.Module]:
        """Further networks of the run (images -> logits), scored after each epoch under these names."""
        return {}

    def report(self) -> Mapping[str, float]:
        """Further values of the epoch that has ended, for the record's curves; same keys in every epoch."""
        return {}

    def rates(self, epoch: int, lr: float) -> Mapping[str, float]:
        """Learning rates in `epoch` of own parameters whose names start with these prefixes, where it is not the
        run's `lr`; same keys in every epoch."""
        return {}


class SingleLoss(Method):
    """A method with one loss of constant weight, which records name as the method is registered: write `loss`. Where
    its options leave `loss_weight` unread, it rests in the main training, at no cost."""

    name = "loss"

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The scalar loss of one batch, unweighted."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {self.name: batch.student.logits.new_zeros(()) if self._rests() else self.loss(batch)}

    def weights(self, epoch: int) -> dict[str, float]:
        return {self.name: 0.0 if self._rests() else self.options.loss_weight}

    def _rests(self) -> bool:
        return "loss_weight" in self.options.unread()


@dataclass(frozen=True)
class MethodEntry:
    """One registered method (see `register_method`)."""

    options: type[Any]
    builder: Callable[[Context, Any], Method]
    display: str = ""

    def checked(self, given: Any) -> Any:
        """Its options, from values by name too; ConfigError for any others. A dataclass of a user's own may hold
        whatever it was given, and is checked again."""
        if isinstance(given, self.options):
            given = {f.name: getattr(given, f.name) for f in fields(self.options)}
        if not isinstance(given, Mapping):
            name = self.display or "the method"
            raise ConfigError(f"{name} takes {self.options.__name__}, not {type(given).__name__}")
        return build_options(self.options, given)

    def build(self, context: Context, options: Options | Mapping[str, Any] | None = None) -> Method:
        """The method; options also as values by name, or None for the defaults. ConfigError for options that are none
        of its own, networks without taps, what the method itself refuses, or a builder that returns no method."""
        options = self.checked({} if options is None else options)
        check_network("the student", context.student)
        check_network("the teacher", context.teacher)
        method = self.builder(context, options)
        if not isinstance(method, Method):
            raise ConfigError(
                f"a method's builder returns a {type(method).__name__}, not a rkd.methods.Method"
            )
        return method


_METHODS: dict[str, MethodEntry] = {}
B = TypeVar("B", bound=Callable[..., Method])


def register_method(name: str, options: type = Options, display: str = "") -> Callable[[B], B]:
    """Decorator: make `builder(context, options) -> Method` usable as `method: name` in a run's config.

    Args:
        name: as written in configurations and records; without "+", which joins methods.
        options: frozen dataclass derived from `Options`.
        display: as written in tables and figures; default `name`.

    Raises:
        ConfigError: a name with "+", or options that are no frozen dataclass derived from `Options`.
    """
    if "+" in name:
        raise ConfigError(f"method name {name!r} must not hold '+', which joins methods")
    if not (isinstance(options, type) and issubclass(options, Options) and is_dataclass(options)):
        raise ConfigError(f"options of method {name!r} must be a dataclass derived from rkd.methods.Options")

    def add(builder: B) -> B:
        if isinstance(builder, type) and issubclass(builder, SingleLoss):
            builder.name = name
        _METHODS[name] = MethodEntry(options, builder, display or name)
        return builder

    return add


@contextmanager
def temporarily_registered(builder: Callable[..., Method]) -> Iterator[str]:
    """A `with` block in which a builder has a name: its own, or, where it is not registered, one for the time being,
    with the options that its second parameter is annotated with. ConfigError for what is no function of two."""
    if known := [name for name, entry in _METHODS.items() if entry.builder is builder]:
        yield known[0]
        return
    called = getattr(builder, "__qualname__", type(builder).__name__)
    name = f"{builder.__module__}:{called}".replace(".", "_")
    try:
        parameters = list(inspect.signature(builder, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"{name} does not say what it takes: {error}") from error
    if len(parameters) != 2:
        raise ConfigError(f"{name} takes {len(parameters)} arguments, not two, (context, options)")
    kind = parameters[1].annotation
    register_method(name, kind if isinstance(kind, type) and issubclass(kind, Options) else Options)(builder)
    try:
        yield name
    finally:
        del _METHODS[name]


def method_names() -> list[str]:
    """All registered method names, sorted."""
    return sorted(_METHODS)


def get_single(name: str) -> MethodEntry:
    """The entry of a registered method; ConfigError for an unknown name."""
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]
