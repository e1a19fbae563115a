"""What a measurement found, and what follows from it by arithmetic."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rkd.bench.ceilings import Ceilings
from rkd.bench.counting import Counts
from rkd.bench.gradients import Agreement
from rkd.bench.variants import ALL, EPOCH_IMAGES, NOTHING, TEACHER, Variant
from rkd.errors import RecordError
from rkd.files import replacing

FORMAT = 1
KIND = "rkd bench"
EVALUATION_IMAGES = 10_000  # of CIFAR-100
EPOCHS = 240
COMPILED = {NOTHING: [], TEACHER: ["compiled teacher"], ALL: ["compiled"]}


@dataclass(frozen=True)
class Row:
    """One variant, measured.

    Attributes:
        variant: which.
        arithmetic: what its precision means on this device.
        images: of a step, per student.
        times_ms: of one step of one student, one value per round: a gang's step divided by its students.
        cold_seconds: from networks to the end of the first step: folding, compiling, capturing.
        counts: of one step of the whole gang; None where the step is compiled, which cannot be counted.
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
        v = self.variant
        if v.conventional:
            return "conventional"
        parts = [self.arithmetic, *COMPILED[v.compile], *["CUDA graph"] * v.graph]
        return ", ".join([*parts, *[f"gang of {v.gang}"] * (v.gang > 1)])

    @property
    def median_ms(self) -> float:
        """Of one step of one student."""
        return statistics.median(self.times_ms)

    @property
    def best_ms(self) -> float:
        """The quickest round."""
        return min(self.times_ms)

    @property
    def images_per_second(self) -> float:
        """Training images, summed over students, at the median."""
        return 1000 * self.images / self.median_ms


@dataclass(frozen=True)
class Ratio:
    """How many times as quick as the conventional loop.

    Attributes:
        median, low, high: median and quartiles of the rounds' ratios; both times of a ratio are of the same round.
        best: of the two quickest times.
    """

    median: float
    low: float
    high: float
    best: float


def ratio(times_ms: Sequence[float], reference_ms: Sequence[float]) -> Ratio:
    """Of two variants measured in the same rounds."""
    ratios = sorted(theirs / ours for ours, theirs in zip(times_ms, reference_ms, strict=True))
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    return Ratio(median, low, high, min(reference_ms) / min(times_ms))


@dataclass(frozen=True)
class Floors:
    """What a step of one student would take at the rates this machine reaches elsewhere, in ms.

    Attributes:
        arithmetic: all floating-point operations at the highest rate seen.
        convolutions: those of 3x3 convolutions at the rate of such a convolution of their width, the others at the
            highest.
        bytes: what convolutions and matrix products read and write, at the speed of copying. A cache that holds maps
            may beat it.
    """

    arithmetic: float
    convolutions: float
    bytes: float

    @property
    def highest(self) -> float:
        """The one that binds."""
        return max(self.arithmetic, self.convolutions, self.bytes)


def floors(counts: Counts, ceilings: Ceilings, arithmetic: str, students: int = 1) -> Floors:
    """Of a step with these counts, divided by its students."""
    peak = ceilings.peak(arithmetic)
    rest = counts.flops - sum(counts.convolution_flops.values())
    by_width = sum(n / ceilings.of_width(arithmetic, width) for width, n in counts.convolution_flops.items())
    scale = 1000 / students
    return Floors(
        scale * counts.flops / peak,
        scale * (by_width + rest / peak),
        scale * counts.product_bytes / ceilings.copy,
    )


@dataclass(frozen=True)
class Evaluation:
    """Test images/s, networks on the device: the conventional loader through the fusion modules, and ours."""

    images: int
    conventional: float
    ours: float


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        header: machine, versions, times, load, and what was asked for: all that is needed to repeat it.
        rows: variants, each teacher mode's conventional loop among them.
        ceilings: of the machine.
        evaluation: of the student.
        gradients: agreement with float64.
        notes: what a reader has to know: a budget exceeded, a variant that could not run.
    """

    header: dict[str, Any]
    rows: tuple[Row, ...]
    ceilings: Ceilings
    evaluation: Evaluation
    gradients: tuple[Agreement, ...]
    notes: tuple[str, ...] = ()

    def reference(self, row: Row) -> Row:
        """The conventional loop of the same teacher mode."""
        return next(
            r for r in self.rows if r.variant.conventional and r.variant.batch_norm == row.variant.batch_norm
        )

    def ratio(self, row: Row) -> Ratio:
        """Against the conventional loop of the same teacher mode."""
        return ratio(row.times_ms, self.reference(row).times_ms)

    def counts(self, row: Row) -> Counts | None:
        """Of a row; a compiled one has the floating-point operations and bytes of convolutions of its eager twin, but
        not its operations."""
        if row.counts is not None:
            return row.counts
        v = row.variant
        for other in self.rows:
            o = other.variant
            same = (o.conventional, o.batch_norm, o.gang) == (v.conventional, v.batch_norm, v.gang)
            if same and other.arithmetic == row.arithmetic and other.counts is not None:
                return other.counts
        return None

    def floors(self, row: Row) -> Floors | None:
        """Of a row; None where nothing was counted."""
        counts = self.counts(row)
        if counts is None:
            return None
        return floors(counts, self.ceilings, row.arithmetic, row.variant.gang)

    def epoch_seconds(self, row: Row) -> float:
        """50,000 training images at the median rate and 10,000 test images at the measured one, for one student."""
        test = self.evaluation.conventional if row.variant.conventional else self.evaluation.ours
        return EPOCH_IMAGES / row.images_per_second + EVALUATION_IMAGES / test

    def run_seconds(self, row: Row) -> float:
        """240 such epochs."""
        return EPOCHS * self.epoch_seconds(row)

    def derived(self, row: Row) -> dict[str, Any]:
        """What follows from a row, as files show it."""
        found = self.floors(row)
        return {
            "name": row.name,
            "median_ms": row.median_ms,
            "best_ms": row.best_ms,
            "images_per_second": row.images_per_second,
            "ratio": asdict(self.ratio(row)),
            "floors_ms": None if found is None else asdict(found),
            "epoch_seconds": self.epoch_seconds(row),
            "run_seconds": self.run_seconds(row),
        }

    def to_json(self) -> str:
        """Everything, with what follows from it; sorted keys."""
        body = {
            "format": FORMAT,
            "kind": KIND,
            "header": self.header,
            "rows": [{**asdict(row), "derived": self.derived(row)} for row in self.rows],
            "ceilings": asdict(self.ceilings),
            "evaluation": asdict(self.evaluation),
            "gradients": [asdict(g) for g in self.gradients],
            "notes": list(self.notes),
        }
        return json.dumps(_rounded(body), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """What `save` wrote.

        Raises:
            RecordError: no such file, or not one of these.
        """
        body = read_json(path, KIND)
        try:
            return cls(
                body["header"],
                tuple(_row(row) for row in body["rows"]),
                _ceilings(body["ceilings"]),
                Evaluation(**body["evaluation"]),
                tuple(Agreement(**g) for g in body["gradients"]),
                tuple(body["notes"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__} {error}") from error


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


def _row(values: dict[str, Any]) -> Row:
    counts = values["counts"]
    if counts is not None:
        widths = {int(width): n for width, n in counts["convolution_flops"].items()}
        counts = Counts(**{**counts, "convolution_flops": widths})
    return Row(
        Variant(**values["variant"]),
        values["arithmetic"],
        values["images"],
        tuple(values["times_ms"]),
        values["cold_seconds"],
        counts,
    )


def _ceilings(values: dict[str, Any]) -> Ceilings:
    convolution = {
        name: {int(width): rate for width, rate in rates.items()}
        for name, rates in values["convolution"].items()
    }
    return Ceilings(values["matmul"], convolution, values["copy"])


def _rounded(value: Any) -> Any:
    """Six significant digits; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
