"""What every method's options have in common, and what a stage before the main training is."""

from dataclasses import dataclass, fields

from rkd.config import Weight, frozen


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
