"""One finished run as one small JSON file, whose fields (names, types, ranges) are checked when it is read. Fields that
only some versions write have a default."""

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from rkd.config import (
    CONTROL,
    LARGEST,
    STRICT,
    Count,
    Flag,
    Natural,
    Percent,
    Weight,
    from_values,
    frozen,
    validate,
)
from rkd.errors import ConfigError, RecordError, RkdError, one_line
from rkd.training.config import RunConfig

FORMAT = 1
MOST_BYTES = 2**26
REMEDY = "`rkd records check --quarantine` names such files and sets them aside"


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


@frozen
class Record:
    """What one run was, and its results.

    Attributes:
        config: the complete run, with no "auto" left in it.
        status: "diverged" where a loss became NaN or infinite.
        curves: per-epoch values: lr, train_accuracy, test_accuracy (and holdout_accuracy) in percent, loss_<name>.
        result: last_accuracy, best_accuracy (test accuracies in percent), best_epoch (0-based), epochs. The best
            epoch is chosen on the held-out split where there is one, else on the test set, as the papers do.
        cost: train_seconds, images_per_second, energy_kj (of the GPU, shared evenly in a group; None if not measured),
            peak_memory_mb, parameters, extra_parameters, gang (number of runs that shared the steps), arithmetic,
            compiled, graph (whether each step was one CUDA graph), threads (number of steps made with each number of
            threads, the latter as text; rounding depends on it), teacher_form ("folded" or "unfolded", see
            `training.FrozenTeacher`; in earlier records on CUDA also "fused"; None without a teacher, or if it runs
            unchanged).
        provenance: versions, device, threads (of most steps), commit, data checksum, times, teacher's run and accuracy;
            scored: the arithmetic in which the accuracies of the curves and those of the result were measured.

    Raises:
        RecordError: the config leaves its arithmetic open ("auto").
    """

    config: RunConfig
    status: Literal["finished", "diverged"]
    curves: dict[str, Curve]
    result: dict[str, Any]
    cost: dict[str, Any]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        if any(self.config.open):
            raise RecordError(f"run {self.config.id} leaves its arithmetic open; a record names it")

    @property
    def id(self) -> str:
        """The run's id."""
        return self.config.id

    @property
    def arithmetic(self) -> str:
        """The run's arithmetic: "fp16", or "fp16 from a bf16 teacher" if its teacher was trained in another."""
        teacher = self.config.teacher
        own, theirs = self.config.precision, teacher.run.precision if teacher and teacher.run else None
        if theirs in (None, own) or teacher.weights == "random":
            return own
        return f"{own} from a {theirs} teacher"

    def accuracy(self, which: str = "last") -> float:
        """Return the test accuracy in percent at the "last" or the "best" epoch; NaN for a diverged run."""
        return self.result[f"{which}_accuracy"] if self.status == "finished" else math.nan

    def to_json(self) -> str:
        """Return the record as JSON with sorted keys, rounded numbers and one curve a line: small and easy to diff."""
        body = {
            "format": FORMAT,
            "id": self.id,
            "status": self.status,
            "config": self.config.to_dict(),
            "result": _rounded(self.result),
            "cost": _rounded(self.cost),
            "provenance": self.provenance,
        }
        head = json.dumps(body, sort_keys=True, indent=1, allow_nan=False)
        rows = [
            f"  {json.dumps(name)}: {json.dumps([_significant(v) for v in values])}"
            for name, values in sorted(self.curves.items())
        ]
        return head[:-2] + ',\n "curves": {\n' + ",\n".join(rows) + "\n }\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "Record":
        """Parse a record and check all its values.

        Args:
            name: the file's name, for messages.

        Raises:
            RecordError: it is not a record, has an unknown format, an id other than its config's, an open arithmetic,
                or a value that no run writes; the message names the file, the field and what to do.
        """
        try:
            if len(text) > MOST_BYTES:
                raise RecordError(f"it has {len(text)} bytes; no record has more than {MOST_BYTES}")
            body = json.loads(text, parse_constant=str)  # NaN is not JSON; as text it can be quoted
            if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
                raise RecordError(f"it is no run record of format {FORMAT}")
            for said in _texts({**body, "curves": list(body.get("curves") or ())}):
                if CONTROL.search(said):
                    raise RecordError(f"{said!r:.100} holds a control character")
            said = body.pop("id", None)
            record = from_values(cls, body)
            if record.id != said:
                raise RecordError(f"it says id {said} but its config has id {record.id}: it was edited")
            _check_parts(record)
        except (ValueError, TypeError, RecursionError, RkdError) as error:
            raise RecordError(
                f"record {name} is damaged, or cannot be read: {one_line(error)}; {REMEDY}"
            ) from error
        return record


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value, including field names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(inner)


def _significant(value: float) -> float | None:
    """Round to six significant digits; NaN and infinities, which JSON cannot hold, become None (null)."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _significant(v) if isinstance(v, float) else v for k, v in values.items()}


def _check_parts(record: Record) -> None:
    """Raise ConfigError, which names the field, for anything that no run of this config records: unknown or missing
    fields, values of a wrong type or out of range, curves whose length does not fit the run."""
    result = record.result
    further = {name: value for name, value in result.items() if re.fullmatch(OF_A_NETWORK, name)}
    parts = {"cost": (Cost, record.cost), "provenance": (Provenance, record.provenance)}
    parts["result"] = Result, {name: result[name] for name in result.keys() - further.keys()}
    for part, (kind, values) in parts.items():
        try:
            from_values(kind, values, STRICT)
        except ConfigError as error:
            raise ConfigError(f"in its {part}: {error}") from None
    for name, value in further.items():
        validate(Percent, f"in its result: {name}", value, STRICT)
    _check_curves(record)
    if result["best_epoch"] >= result["epochs"]:
        raise ConfigError(f"best_epoch is {result['best_epoch']}, of {result['epochs']} epochs from 0 on")


def _check_curves(record: Record) -> None:
    """Check that a stage's curves have its length (at most, if the run diverged) and all others one value for each of
    the epochs, which are fewer than the config's only if the run diverged."""
    config, finished, epochs = record.config, record.status == "finished", record.result["epochs"]
    if lacking := {"test_accuracy", *(("lr", "train_accuracy") if finished else ())} - record.curves.keys():
        raise ConfigError(f"curve {min(lacking)} is missing")
    if epochs > config.epochs or (finished and epochs < config.epochs):
        raise ConfigError(f"epochs is {epochs} in its result, and {config.epochs} in its config")
    for name, values in record.curves.items():
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
