"""The fields of a record's parts: names, types and ranges, checked when a file is read. Fields that only some versions
write have a default."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from rkd.config import LARGEST, STRICT, Count, Flag, Natural, Percent, Weight, from_values, frozen, validate
from rkd.errors import ConfigError
from rkd.training.config import RunConfig


def _curve(found: Any) -> list[float]:
    """Check a curve, and turn null into NaN: it stands for non-finite values, which JSON cannot hold."""
    if not isinstance(found, list) or not 0 < len(found) < 10**6:
        raise ValueError("it must be a list of numbers, one for each epoch")
    for value in found:
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"it holds {value!r}, which is neither a number nor null")
    return [math.nan if value is None else value for value in found]


Curve = Annotated[list[float], BeforeValidator(_curve)]
Text = Annotated[str, StringConstraints(max_length=1000)]
Names = Annotated[dict[Text, Text], Field(max_length=100)]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Twelve = Annotated[str, StringConstraints(pattern="^[0-9a-f]{12}$")]
Commit = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@frozen
class Result:
    """The student's results; those of a method's further networks have names of their own (see OF_A_NETWORK)."""

    last_accuracy: Percent
    best_accuracy: Percent
    best_epoch: Natural
    epochs: Count


OF_A_NETWORK = r"(last|best)_accuracy_\w{1,100}"


@frozen
class Cost:
    """See `Record`."""

    train_seconds: Weight
    images_per_second: Weight
    peak_memory_mb: Weight | None
    parameters: Natural
    extra_parameters: Natural
    gang: Count
    arithmetic: Text
    compiled: Flag
    graph: Flag
    energy_kj: Weight | None = None
    threads: dict[Text, Natural] | None = None
    teacher_form: Text | None = None


@frozen
class TeacherFacts:
    """Which weights a student learned from."""

    network: Text
    weights: Text | None
    run: Twelve | None = None
    sha256: Sha256 | None = None
    stored: Text | None = None
    accuracy: Percent | None = None


@frozen
class Provenance:
    """See `Record`."""

    rkd: Text
    commit: Commit | None
    changed: Twelve | None
    device: Text
    device_name: Text
    threads: Count
    cpus: Count | None
    python: Text
    torch: Text
    torchvision: Text
    numpy: Text
    cuda: Text | None
    cudnn: Natural | None
    system: Text
    labels: Names
    data_sha256: Sha256
    train_images: Count
    test_images: Count
    teacher: TeacherFacts | None
    started: Time
    ended: Time
    scored: Names | None = None


def check_parts(
    config: RunConfig,
    finished: bool,
    curves: Mapping[str, Sequence[float]],
    result: Mapping[str, Any],
    cost: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Raise ConfigError, which names the field, for anything that no run of this config records: unknown or missing
    fields, values of a wrong type or out of range, curves whose length does not fit the run."""
    further = {name: value for name, value in result.items() if re.fullmatch(OF_A_NETWORK, name)}
    parts = {"cost": (Cost, cost), "provenance": (Provenance, provenance)}
    parts["result"] = Result, {name: result[name] for name in result.keys() - further.keys()}
    for part, (kind, values) in parts.items():
        try:
            from_values(kind, values, STRICT)
        except ConfigError as error:
            raise ConfigError(f"in its {part}: {error}") from None
    for name, value in further.items():
        validate(Percent, f"in its result: {name}", value, STRICT)
    _check_curves(config, finished, curves, result["epochs"])
    if result["best_epoch"] >= result["epochs"]:
        raise ConfigError(f"best_epoch is {result['best_epoch']}, of {result['epochs']} epochs from 0 on")


def _check_curves(
    config: RunConfig, finished: bool, curves: Mapping[str, Sequence[float]], epochs: int
) -> None:
    """Check that a stage's curves have its length (at most, if the run diverged) and all others one value for each of
    the `epochs`, which are fewer than the config's only if the run diverged."""
    if lacking := {"test_accuracy", *(("lr", "train_accuracy") if finished else ())} - curves.keys():
        raise ConfigError(f"curve {min(lacking)} is missing")
    if epochs > config.epochs or (finished and epochs < config.epochs):
        raise ConfigError(f"epochs is {epochs} in its result, and {config.epochs} in its config")
    for name, values in curves.items():
        stage = next((s for s in config.stages if name.startswith(f"{s.name}_")), None)
        length = epochs if stage is None else stage.epochs
        if len(values) != length and (finished or stage is None or len(values) > length):
            raise ConfigError(f"curve {name!r} has {len(values)} values for {length} epochs")
        for value in values:
            if abs(value) > LARGEST:
                raise ConfigError(f"curve {name!r} holds {value}, which is not finite")
            if "accuracy" in name:
                unknown = math.isnan(value) and name == "train_accuracy"  # in an epoch without a counted step
                if not unknown:
                    validate(Percent, f"curve {name}", value)
