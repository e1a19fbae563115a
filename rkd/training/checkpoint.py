"""Atomic files for weights and for the state of an unfinished run, and how far that run has come."""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch import Tensor

from rkd.config import Flag, Natural, Weight, from_values, frozen
from rkd.errors import ConfigError, RecordError, one_line
from rkd.files import write_atomic
from rkd.models.checkpoints import not_finite, safe_unpickle
from rkd.training.config import RunConfig

REMEDY = "delete it to start that run again, or let `rkd records check --quarantine` set it aside"


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values) so that a reader sees the old file or the new, never half of one."""
    data = io.BytesIO()  # torch's own writer does not say that it failed because the disk is full
    torch.save(state, data)
    write_atomic(path, data.getbuffer())


def load(path: Path | io.BytesIO) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU, executing nothing; raise RecordError if the file is damaged (its checksums
    tell) or of another kind."""
    try:
        state = safe_unpickle(path)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:  # a damaged file can fail anywhere in the unpickler, with any type of error
        said = f"{type(error).__name__}: {one_line(error, 100)}"
        raise RecordError(f"checkpoint {path} is damaged ({said}); {REMEDY}") from error
    return state


def _numbers(found: Any) -> Any:
    if not isinstance(found, list) or not all(type(value) in (int, float) for value in found):
        raise ValueError("it must be a list of numbers")
    return found


@frozen
class CheckpointProgress:
    """How far an unfinished run has come, as its checkpoint states and its curves prove.

    Raises:
        ConfigError: values of wrong types or out of range; curves whose lengths do not match the stated epochs; more
            epochs than the config has.
    """

    epoch: Natural  # epochs finished, those of stages included
    position: Natural = 0  # images done in the next epoch
    seconds: Weight = 0.0
    joules: Weight = 0.0
    diverged: Flag = False
    curves: dict[str, Annotated[list[float], BeforeValidator(_numbers)]] = field(default_factory=dict)
    threads: dict[str, Natural] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    config: RunConfig | None = None  # None in checkpoints of early versions

    def __post_init__(self) -> None:
        main, stages = len(self.curves.get("lr", ())), dict[str, int]()
        for name, values in self.curves.items():
            stage = re.match(r"(?!loss_)(.+?)_(loss_|left_out_steps$)", name)
            if stage and (self.config is None or stage[1] in {s.name for s in self.config.stages}):
                stages[stage[1]] = max(len(values), stages.get(stage[1], 0))
            elif len(values) != main and not (self.diverged and "accuracy" in name):  # perhaps a stage's
                raise ConfigError(f"curve {name!r} has {len(values)} values after {main} epochs")
        if self.epoch != (proven := main + sum(stages.values())):
            raise ConfigError(f"epoch is {self.epoch}, but its curves are of {proven} epochs")
        if self.config is None:
            return
        begun = next((s for s in self.config.stages if stages.get(s.name, 0) != s.epochs), None)
        if self.epoch > self.config.total_epochs or (main and begun):
            most = self.config.total_epochs
            raise ConfigError(f"its curves are of {self.epoch} epochs, but the run has {most}")
        if self.position and self.epoch == self.config.total_epochs:
            raise ConfigError(f"position is {self.position}, but its last epoch is done")

    @property
    def proven(self) -> tuple[int, int]:
        """Epochs finished, and images done in the next one, in whole batches of the config's size (0 without one)."""
        return self.epoch, self.position - self.position % self.config.batch_size if self.config else 0


def check_progress(
    state: Mapping[str, Any], run: str, config: RunConfig | None = None, images: int | None = None
) -> CheckpointProgress:
    """Return how far a run has come, judged by the content of its checkpoint.

    Args:
        config: the run's config, if known; otherwise the checkpoint's, if it has one.
        images: number of images in an epoch; None: at most as many as the config asks for.

    Raises:
        RecordError: it belongs to another run, proves less than it states, or its student cannot be trained further:
            it has no tensors, or is not finite although it has not diverged. The message does not name the file.
    """
    if state.get("run") != run:
        raise RecordError(f"it belongs to run {state.get('run')!r}, not {run}")
    told = {f.name: state[f.name] for f in fields(CheckpointProgress) if f.name in state}
    try:
        found = from_values(CheckpointProgress, told | ({} if config is None else {"config": config}))
    except ConfigError as error:
        raise RecordError(str(error)) from error
    if (config := found.config) is not None:
        if config.id != run:
            raise RecordError(f"its config is that of run {config.id}")
        part, most = found.position % config.batch_size, images or config.data.train_images or math.inf
        if found.position > most or (part and images not in (None, found.position)):
            raise RecordError(f"position is {found.position}, which no batch of its epoch ends at")
    student = state.get("student")
    if not isinstance(student, Mapping) or not student:
        raise RecordError("its student has no tensors")
    if not all(isinstance(tensor, Tensor) and tensor.numel() for tensor in student.values()):
        raise RecordError("its student is no state dict, or has an empty tensor")
    best, scored = found.best or {}, len(found.curves.get("test_accuracy", ()))
    kept = best.get("student")
    whole = isinstance(kept, Mapping) and kept.keys() == student.keys()
    if scored and not (whole and type(best.get("epoch")) is int and 0 <= best["epoch"] < scored):
        raise RecordError("it lacks the weights of its best epoch")
    # Running statistics are not checked: in fp16 a skipped step can leave infinities in them.
    trained = {name: tensor for name, tensor in student.items() if "running_" not in name}
    if not found.diverged and (lost := not_finite(trained)):
        raise RecordError(f"{lost[0]} of its student holds NaN or infinities, although it has not diverged")
    return found


def load_unfinished(path: Path, run: str, **known: Any) -> tuple[dict[str, Any], CheckpointProgress] | None:
    """Return the content of an unfinished run's checkpoint and how far the run has come; None if there is no file.
    Arguments and errors as for `check_progress`, but the message names the file and a remedy."""
    if not path.exists():
        return None
    try:
        state = load(path)
    except RecordError:
        if path.exists():
            raise
        return None  # another process has just finished the run
    try:
        found = check_progress(state, run, **known)
    except RecordError as error:
        raise RecordError(f"checkpoint {path} cannot be used: {error}; {REMEDY}") from error
    return state, found
