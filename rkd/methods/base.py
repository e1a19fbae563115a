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
        """Return the stages before the main training."""
        return ()

    def unread(self) -> set[str]:
        """Return the options that the others leave without effect: two runs that differ in these alone are the same."""
        return set()

    def in_epochs(self) -> tuple[str, ...]:
        """Return the names of options that count epochs, which are scaled when a run is shorter than its recipe's."""
        return tuple(f.name for f in fields(self) if f.name.endswith("_epochs"))


@dataclass(frozen=True)
class Context:
    """What a method may read while it is built.

    Attributes:
        student, teacher: the two networks, on the CPU.
        image_size: height and width of the input images.
        labels: (train_images,) int64, classes of the training images, on the CPU.
        batch_size: images per step; an epoch's last batch may be smaller, but is never a single image.
        seed: the run's; random draws after construction come from `rkd.data.stream_seed(seed, name, epoch)`.
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
        """Number of training images, for memories indexed by image; 0 without labels."""
        return 0 if self.labels is None else len(self.labels)

    def build(self, name: str) -> nn.Module:
        """Return a freshly initialised network with this run's number of classes."""
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
    """Base class. Whatever a method owns (projections, memories, further students) is an ordinary submodule or buffer,
    and so is trained, moved between devices, saved and resumed with the run.

    `losses` and `weights` are all that a method must define; the rest has defaults. A step is captured as a CUDA graph
    and replayed, so `losses` must read nothing back to the host, and what changes between steps must be a tensor
    changed in place; `rkd.training.check_method`, or `rkd show method`, reports violations, on any machine. Parameters
    without `requires_grad` are not trained.
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
        """Return the named scalar losses of one batch, unweighted."""

    @abstractmethod
    def weights(self, epoch: int) -> Mapping[str, float]:
        """Return each loss's weight in `epoch` (0-based, stages not counted); same keys as `losses` in every epoch."""

    def stage_losses(self, stage: str, batch: Batch) -> Mapping[str, Tensor]:
        """Return the named scalar losses of one batch in a stage before the main training, each of weight 1 (see
        `Options.stages`). `batch.student` is None where the stage does not train the student."""
        raise ConfigError(f"{type(self).__name__} has no stage_losses for the stage {stage!r} of its options")

    def classified(self, taps: Taps) -> Tensor:
        """Return the logits (B, classes) that cross-entropy sees, from the student's taps."""
        return taps.logits

    def begin_epoch(self, epoch: int) -> None:
        """Renew in place what is drawn per epoch, as a function of seed and epoch alone; called before each epoch of
        the main training, resumed ones included."""

    def after_step(self, made: Tensor) -> None:
        """Update memories in place; called after the optimiser's update, without gradient, as part of the step. `made`,
        a scalar, is False where fp16 skipped the update: then memories must stay as they are (`torch.where`)."""

    def end_epoch(self, student: nn.Module) -> None:
        """Update what changes once an epoch; called after each epoch of the main training, before it is scored."""

    def networks(self, student: nn.Module) -> Mapping[str, nn.Module]:
        """Return further networks of the run (images -> logits), scored after each epoch under these names."""
        return {}

    def report(self) -> Mapping[str, float]:
        """Return further values of the epoch that has ended, for the record's curves; same keys in every epoch."""
        return {}

    def rates(self, epoch: int, lr: float) -> Mapping[str, float]:
        """Return the learning rates in `epoch` of the method's parameters whose names start with these prefixes, where
        they are not the run's `lr`; same keys in every epoch."""
        return {}


class SingleLoss(Method):
    """A method with one loss of constant weight, recorded under the method's registered name; subclasses define `loss`.
    Where the options leave `loss_weight` unread, the loss is not computed in the main training and costs nothing."""

    name = "loss"

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar loss of one batch, unweighted."""

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
        """Return the method's options, made from values by name if need be; ConfigError for any others. Options already
        made are checked again, since a user's own dataclass may hold whatever it was given."""
        if isinstance(given, self.options):
            given = {f.name: getattr(given, f.name) for f in fields(self.options)}
        if not isinstance(given, Mapping):
            name = self.display or "the method"
            raise ConfigError(f"{name} takes {self.options.__name__}, not {type(given).__name__}")
        return build_options(self.options, given)

    def build(self, context: Context, options: Options | Mapping[str, Any] | None = None) -> Method:
        """Build the method; options may be values by name, or None for the defaults. ConfigError for options of another
        method, networks without taps, what the method itself refuses, or a builder that returns no method."""
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
    """Yield a name that a builder has within the `with` block: its own or, if it is not registered, a temporary one
    with the options that its second parameter is annotated with. ConfigError if it does not take two arguments."""
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
    """Return all registered method names, sorted."""
    return sorted(_METHODS)


def get_single(name: str) -> MethodEntry:
    """Return the entry of a registered method; raise ConfigError for an unknown name."""
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]
