"""What every method's options have in common, and what a stage before the main training is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from rkd.errors import ConfigError, unknown


@dataclass(frozen=True)
class Stage:
    """Epochs of training before the main training, with losses of their own (see `Method.stage_losses`).

    Parameters that its losses do not reach are left alone, and the main training begins with fresh momentum.

    Attributes:
        name: unique within a method.
        epochs: length.
        losses: names of its losses.
        lr: constant learning rate; None: that of the first epoch of the main training.
        trains_student: whether the student is trained; else it is not even run.
    """

    name: str
    epochs: int
    losses: tuple[str, ...]
    lr: float | None = None
    trains_student: bool = True


@dataclass(frozen=True)
class Options:
    """Base class of the options of methods.

    Attributes:
        loss_weight: weight of the method's loss against cross-entropy.

    Raises:
        ConfigError: a negative or non-finite weight.
    """

    loss_weight: float = 1.0

    def __post_init__(self) -> None:
        not_negative("loss_weight", self.loss_weight)

    def stages(self) -> tuple[Stage, ...]:
        """Stages before the main training."""
        return ()

    def unread(self) -> set[str]:
        """Names of options that the others leave without effect: two runs that differ in these alone are the same."""
        return set()

    def in_epochs(self) -> tuple[str, ...]:
        """Names of options that are numbers of epochs, and are scaled when a run is shorter than its recipe's."""
        return tuple(f.name for f in fields(self) if f.name.endswith("_epochs"))


def not_negative(name: str, value: float) -> None:
    """ConfigError unless `value` is a finite number >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} is {value}; it must be a finite number >= 0")


def positive(name: str, value: float) -> None:
    """ConfigError unless `value` is a finite number > 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}; it must be a finite number > 0")


def at_least(name: str, value: int, least: int) -> None:
    """ConfigError unless `value` is >= `least`."""
    if value < least:
        raise ConfigError(f"{name} is {value}; it must be >= {least}")


def one_of(name: str, value: object, allowed: Iterable[object]) -> None:
    """ConfigError unless `value` is among `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise unknown(name, value, allowed)
