"""What a distillation method is: one module that reads taps and returns named losses.

The training loop knows no method by name. It builds the method a config names, optimises the method's own
parameters together with the student's, and adds `weight x loss` for every loss the method returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from rkd.errors import unknown
from rkd.models.taps import Taps


@dataclass(frozen=True)
class Context:
    """What a method may look at while it is built.

    Attributes:
        student, teacher: the two networks, on the CPU.
        image_size: height and width of the input images.
        classes: number of classes.
        train_images: number of training images (for memories indexed by image).
    """

    student: nn.Module
    teacher: nn.Module
    image_size: int = 32
    classes: int = 100
    train_images: int = 0


@dataclass(frozen=True)
class Batch:
    """What a method may read in one step. B images.

    Attributes:
        student: taps of the student, with gradient.
        teacher: taps of the frozen teacher, without.
        labels: (B,) int64.
        indices: (B,) int64, positions of the images in the training set.
    """

    student: Taps
    teacher: Taps
    labels: Tensor
    indices: Tensor


class Method(nn.Module, ABC):
    """Base class. Whatever a method owns (projections, memories) is an ordinary submodule or buffer of it, and so
    is trained, moved between devices, saved and resumed with the run."""

    @abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalar losses of one batch, unweighted."""

    @abstractmethod
    def weights(self, epoch: int) -> Mapping[str, float]:
        """Weight of each loss in `epoch` (0-based); same keys as `losses`."""


@dataclass(frozen=True)
class Entry:
    """One registered method: its options (a frozen dataclass) and its builder."""

    options: type
    build: Callable[[Context, Any], Method]


_METHODS: dict[str, Entry] = {}
B = TypeVar("B", bound=Callable[..., Method])


def register_method(name: str, options: type) -> Callable[[B], B]:
    """Decorator: make `builder(context, options) -> Method` usable as `method: name` in a run's config."""

    def add(builder: B) -> B:
        _METHODS[name] = Entry(options, builder)
        return builder

    return add


def method_names() -> list[str]:
    """All registered method names, sorted."""
    return sorted(_METHODS)


def get_method(name: str) -> Entry:
    """The entry of a registered method; ConfigError for an unknown name."""
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]
