"""What a measurement found, what follows from it by arithmetic, and the files of results/bench."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rkd.bench.clock import Counts
from rkd.bench.steps import EPOCH_IMAGES, Variant
from rkd.errors import RecordError
from rkd.files import replacing

FORMAT = 1
KIND = "rkd bench"
EVALUATION_IMAGES = 10_000  # of CIFAR-100
EPOCHS = 240


@dataclass(frozen=True)
class Row:
    """One variant, measured.

    Attributes:
        variant: which.
        arithmetic: what its precision means on this device.
        images: of a step, per student.
        times_ms: of one step of one student, one value per round: a group's step divided by its students.
        cold_seconds: from networks to the end of the first step: folding, compiling, capturing.
        counts: of one step of the whole group; None where the step is compiled, which cannot be counted.
    """

    variant: Variant
    arithmetic: str
    images: int
    times_ms: tuple[float, ...]
    cold_seconds: float
    counts: Counts | None

    @property
    def name(self) -> str:
        """As tables show it, without the teacher's mode."""
        return self.variant.name(self.arithmetic)

    @property
    def median_ms(self) -> float:
        """Of one step of one student."""
        return statistics.median(self.times_ms)

    @property
    def images_per_second(self) -> float:
        """Training images, summed over students, at the median."""
        return 1000 * self.images / self.median_ms


def ratio(times_ms: Sequence[float], reference_ms: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of how many times as quick one of two variants is; both times of a
    ratio are of the same round."""
    ratios = [theirs / ours for ours, theirs in zip(times_ms, reference_ms, strict=True)]
    return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        header: machine, versions, times, load, and what was asked for: all that is needed to repeat it.
        rows: variants, each teacher mode's conventional loop among them.
        evaluation: test images/s: "conventional", by the loader and through the fusion modules, and "ours"; of how many
            "images".
        notes: what a reader has to know: a budget exceeded, a variant that could not run.
    """

    header: dict[str, Any]
    rows: tuple[Row, ...]
    evaluation: dict[str, float]
    notes: tuple[str, ...] = ()

    def ratio(self, row: Row) -> list[float]:
        """Against the conventional loop of the same teacher mode."""
        mode = row.variant.batch_norm
        usual = next(r for r in self.rows if r.variant.conventional and r.variant.batch_norm == mode)
        return ratio(row.times_ms, usual.times_ms)

    def epoch_seconds(self, row: Row) -> float:
        """50,000 training images at the median rate and 10,000 test images at the measured one, for one student."""
        test = self.evaluation["conventional" if row.variant.conventional else "ours"]
        return EPOCH_IMAGES / row.images_per_second + EVALUATION_IMAGES / test

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json(path, KIND, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Result":
        """What `save` wrote, now or in an earlier version: fields that are no longer used are passed over.

        Raises:
            RecordError: no such file, or not one of these.
        """
        body = read_json(path, KIND)
        try:
            for values in (body["header"], *(row["variant"] for row in body["rows"])):
                values["group"] = values.pop("gang", None) or values["group"]  # its name in earlier versions
            rows = tuple(_row(values) for values in body["rows"])
            return cls(body["header"], rows, body["evaluation"], tuple(body["notes"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _row(values: Mapping[str, Any]) -> Row:
    counts = values["counts"] and Counts(**_known(Counts, values["counts"]))
    times = tuple(map(float, values["times_ms"]))
    made = {"variant": Variant(**_known(Variant, values["variant"])), "times_ms": times, "counts": counts}
    return Row(**{**_known(Row, values), **made})


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}


def write_json(path: Path, kind: str, body: Mapping[str, Any]) -> None:
    """A file of `results/bench`, whole or not at all; numbers with six significant digits."""
    with replacing(path) as temporary:
        text = json.dumps({"format": FORMAT, "kind": kind, **_rounded(body)}, indent=1, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """What is not finite becomes null."""
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def files(folder: Path, kind: str) -> list[Path]:
    """The JSON files of a kind in a folder, by name.

    Raises:
        RecordError: one is damaged.
    """
    return [path for path in sorted(folder.glob("*.json")) if _parsed(path).get("kind") == kind]


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The content of a file of `results/bench`.

    Raises:
        RecordError: no such file, not JSON, of another kind or format.
    """
    body = _parsed(path)
    if (body.get("kind"), body.get("format")) != (kind, FORMAT):
        raise RecordError(f"{path} is not what `{kind}` of this version writes")
    return body


def _parsed(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(body, dict):
        raise RecordError(f"{path} is damaged: not a JSON object")
    return body
