"""One frozen RunConfig describes a run completely; its content hash is the run's id."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from rkd.config import (
    SETTLED,
    Count,
    Flag,
    Natural,
    Positive,
    Precision,
    Weight,
    from_values,
    frozen,
    rebuild,
)
from rkd.data.sources import DataConfig
from rkd.errors import ConfigError, RecordError
from rkd.methods import Stage, make_options
from rkd.models import canonical, display_name
from rkd.review.options import ReviewOptions  # noqa: F401  (registers "reviewkd")


@frozen
class SGDConfig:
    """Stochastic gradient descent with step decay.

    Attributes:
        lr: learning rate of the first epochs.
        momentum, nesterov, weight_decay: as torch.optim.SGD; decay acts on every parameter, BN and fusion
            modules included.
        decay_epochs: 0-based epochs at which the rate is multiplied by decay_rate.
        decay_when: "before" that epoch begins (150, 30, 30, 30 epochs for 150, 180, 210), or "after" it has ended
            (151, 30, 30, 29: what the released ReviewKD code does).
    """

    lr: Positive = 0.1
    momentum: Weight = 0.9
    nesterov: Flag = True
    weight_decay: Weight = 5e-4
    decay_epochs: tuple[Natural, ...] = (150, 180, 210)
    decay_rate: Positive = 0.1
    decay_when: Literal["before", "after"] = "after"

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov is on but momentum is 0; set momentum > 0 or nesterov: false")

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of a 0-based epoch."""
        after = self.decay_when == "after"
        return self.lr * self.decay_rate ** sum(epoch > e if after else epoch >= e for e in self.decay_epochs)


@frozen
class Pretrained:
    """Weights that a network starts from instead of random ones, except for its classifier if the file's has another
    number of classes: the file `checkpoint` and its `sha256`, which identifies it."""

    checkpoint: str = field(metadata={"identity": False})
    sha256: str


@frozen
class TeacherConfig:
    """Where the frozen teacher comes from, and how it behaves.

    Attributes:
        run: config of the run that trains it; trained first, once, if it is not recorded yet.
        checkpoint, sha256, network: instead of `run`, a checkpoint file, its hash and its network's name.
        record: id of the recorded run whose weights that file holds; for people, since the hash names them.
        weights: "best" (on the test set, as the released code), "last" epoch, or "random": an untrained network.
        batch_norm: "batch": BN uses each batch's own statistics while distilling (train mode, as the ReviewKD and
            [Re] codes leave it); "running": eval mode, as RepDistiller and mdistiller.
    """

    run: RunConfig | None = None
    checkpoint: str | None = field(default=None, metadata={"identity": False})  # the hash names it
    sha256: str | None = None
    network: str | None = None
    record: str | None = field(default=None, metadata={"identity": False})
    weights: Literal["best", "last", "random"] = "best"
    batch_norm: Literal["batch", "running"] = "batch"

    def __post_init__(self) -> None:
        if (self.run is None) == (self.checkpoint is None):
            raise ConfigError("a teacher needs either a run or a checkpoint file, not both and not neither")
        if self.checkpoint is not None and not (self.sha256 and self.network):
            raise ConfigError(
                f"teacher checkpoint {self.checkpoint!r} needs its sha256 and the network's name"
            )
        if self.run is not None and self.run.teacher is not None:
            raise ConfigError(
                f"the teacher {self.run.network} would itself be distilled; name an undistilled run"
            )

    @property
    def name(self) -> str:
        """The network's registered name."""
        return self.run.network if self.run else str(self.network)


@frozen
class RunConfig:
    """Everything that decides a run's result; where the data are and which device it runs on are not part of it.

    Attributes:
        network: name of the network that is trained.
        data: data set, normalisation, subset, holdout.
        seed: steers initialisation, data order and augmentation through separate streams.
        epochs, batch_size: length, without the stages a method has before (see `total_epochs`). A step takes two
            images at least, for BatchNorm's statistics and for what methods compare: an epoch's last batch is left out
            where it is a single image, another one in every epoch.
        drop_last: leave out an epoch's last batch wherever it is smaller than the others.
        optimiser: see SGDConfig.
        precision: "fp32", "bf16" or "fp16" autocast with fp32 weights, "fp64" (tests), or "auto": a request for the
            run in whatever arithmetic. What is trained and recorded never says "auto" (see `settled`).
        ce_weight: weight of cross-entropy; 0 trains on the method's losses alone.
        method, options: the distillation method's name ("at+kd" for a sum) and its options, or their values by name;
            None trains without a teacher.
        teacher: needed by a method.
        pretrained: what the network starts from; None: weights that its seed draws.

    Raises:
        ConfigError: a value that is not allowed, or two that contradict each other.
    """

    network: Annotated[str, AfterValidator(canonical)]
    data: DataConfig = field(default_factory=DataConfig)
    seed: Natural = 0
    epochs: Count = 240
    batch_size: Count = 128
    optimiser: SGDConfig = field(default_factory=SGDConfig)
    precision: Precision = "fp32"
    ce_weight: Weight = 1.0
    method: str | None = None
    options: Any = None
    teacher: TeacherConfig | None = None
    drop_last: Flag = False
    pretrained: Pretrained | None = None

    def __post_init__(self) -> None:
        if self.method is None:
            if self.options is not None or self.teacher is not None:
                raise ConfigError("a run without a method takes neither options nor a teacher")
            if self.ce_weight == 0:
                raise ConfigError("ce_weight is 0 and there is no method: nothing would be trained")
            return
        object.__setattr__(self, "options", make_options(self.method, self.options))
        if self.teacher is None:
            raise ConfigError(f"method {self.method!r} needs a teacher")
        if self.teacher.run and self.teacher.run.data.name != self.data.name:
            raise ConfigError(
                f"the teacher was trained on {self.teacher.run.data.name!r} but the student is to be trained on "
                f"{self.data.name!r}"
            )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The method's stages before the main training."""
        return () if self.options is None else self.options.stages()

    @property
    def total_epochs(self) -> int:
        """Epochs of the stages and of the main training."""
        return self.epochs + sum(stage.epochs for stage in self.stages)

    def describe(self) -> str:
        """ "ResNet-20 <- ResNet-56, kd, seed 0, 240 epochs of cifar100"."""
        words = display_name(self.network)
        if self.teacher is not None:
            words += f" <- {display_name(self.teacher.name)}, {self.method}"
            if self.method == "reviewkd":
                o = self.options
                fused = f"attention {'on' if o.attention else 'off'}"
                words += f" ({o.connector}, {o.loss}, {fused}, weight {o.loss_weight:g})"
        return f"{words}, seed {self.seed}, {self.epochs} epochs of {self.data.name}"

    @property
    def schedule(self) -> str:
        """ "240 epochs in batches of 128, lr 0.1 (falls at 150, 180, 210)"."""
        stages = "".join(f" after {s.epochs} of stage {s.name}" for s in self.stages)
        falls = ", ".join(map(str, self.optimiser.decay_epochs))
        plural = "s" * (self.epochs != 1)
        return (
            f"{self.epochs} epoch{plural}{stages} in batches of {self.batch_size}, lr {self.optimiser.lr:g}"
            + (f" (falls at {falls})" if falls else "")
            + (f", from {Path(self.pretrained.checkpoint).name}" if self.pretrained else "")
        )

    def stage_at(self, epoch: int) -> tuple[Stage | None, int]:
        """Return the stage that a 0-based epoch of the whole run belongs to (None: the main training), and the 0-based
        epoch within it."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage, epoch
            epoch -= stage.epochs
        return None, epoch

    @functools.cached_property
    def id(self) -> str:
        """The run's id, twelve hexadecimal digits: a hash of every value that differs from its default, so that an
        option added later, with the old behaviour as its default, changes no id."""
        return _hashed(self._identified)

    @functools.cached_property
    def _identified(self) -> dict[str, Any]:
        return _identity(self)

    @property
    def open(self) -> tuple[bool, bool]:
        """Whether the precision is "auto" for this run, and for its teacher's run."""
        taught = self.teacher.run if self.teacher else None
        return self.precision == "auto", taught is not None and taught.precision == "auto"

    @property
    def request(self) -> RunConfig:
        """This run and its teacher's, in any arithmetic: what chapters request when their precision is "auto"."""
        return self._in("auto", "auto")

    def choices(self, first: str = SETTLED[0]) -> list[tuple[str, str]]:
        """Return the precisions that `settled` may put in place of "auto" here and in the teacher's run, in the order
        `first`, fp32, fp16, bf16. An untrained teacher is the same in all of them, and counts as fp32."""
        order, (own, teachers) = tuple(dict.fromkeys((first, *SETTLED))), self.open
        untrained = self.teacher is not None and self.teacher.weights == "random"
        taught = SETTLED[:1] if untrained else order
        return [*product(order if own else ("",), taught if teachers else ("",))]

    def settled(self, own: str, teachers: str) -> RunConfig:
        """Return this run with `own` in place of its precision "auto", and `teachers` in place of its teacher's."""
        return self._in(own if self.open[0] else self.precision, teachers if self.open[1] else None)

    def settled_id(self, own: str, teachers: str) -> str:
        """Return `settled(own, teachers).id`, much faster: stores look up every run that a request may stand for."""
        values = _named(self._identified, own) if self.open[0] else self._identified
        if self.open[1]:
            run = _named(values["teacher"]["run"], teachers)
            values = {**values, "teacher": {**values["teacher"], "run": run}}
        return _hashed(values)

    def _in(self, own: str, teachers: str | None) -> RunConfig:
        teacher = self.teacher
        if teachers and teacher and teacher.run:
            teacher = replace(teacher, run=replace(teacher.run, precision=teachers))
        return replace(self, precision=own, teacher=teacher)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, nested, as plain JSON types."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Return the run that `to_dict` gave these values for; raise ConfigError for unknown keys."""
        return from_values(cls, values)


rebuild(TeacherConfig)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecordError(f"{value!r} cannot be written to a record: it is no plain JSON value")


def _identity(value: Any) -> Any:
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [_identity(v) for v in value]
    if not is_dataclass(value):
        return _plain(value)
    kept, unread = {}, value.unread() if hasattr(value, "unread") else ()
    for f in fields(value):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        this = getattr(value, f.name)
        if this != default and f.metadata.get("identity", True) and f.name not in unread:
            kept[f.name] = _identity(this)
    return kept


def _named(identity: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Return a run's identity with another precision, left out where it is the default, as everywhere."""
    values = {name: value for name, value in identity.items() if name != "precision"}
    return values if precision == RunConfig.precision else {**values, "precision": precision}


def _hashed(identity: Mapping[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
