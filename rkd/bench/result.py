"""The result of a measurement, the figures derived from it, and the files of results/bench."""

import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from rkd import paths
from rkd.bench.steps import EPOCH_IMAGES, Variant
from rkd.errors import RecordError
from rkd.files import write_atomic

EVALUATION_IMAGES = 10_000  # of CIFAR-100
EPOCHS = 240


class SavedResult(Protocol):
    """A result with a file of its own, in which `KIND` and `FORMAT` say what it is."""

    KIND: ClassVar[str]
    FORMAT: ClassVar[int]


T = TypeVar("T", bound=SavedResult)


@dataclass(frozen=True)
class Row:
    """One variant, measured."""

    variant: Variant
    arithmetic: str  # what the variant's precision means on this device
    images: int  # per step and student
    times_ms: tuple[float, ...]  # per round, of one student's step: a group's step divided by its students
    cold_seconds: float  # from building networks to the end of the first step: folding, compiling, capturing
    # For one step of the whole group (see `clock.count`); None: the variant is compiled and cannot be counted.
    counts: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The name shown in tables, without the teacher's mode."""
        return replace(self.variant, precision=self.arithmetic).name

    @property
    def median_ms(self) -> float:
        """Median milliseconds of one student's step."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True)
class BenchResult:
    """One measurement."""

    KIND: ClassVar[str] = "rkd bench"
    FORMAT: ClassVar[int] = 2
    # Machine, versions, times, load and the request: all that is needed to repeat the measurement.
    header: dict[str, Any]
    rows: tuple[Row, ...]  # including each teacher mode's conventional loop
    # Test images/s: "conventional", with the loader and the fusion modules, and "ours"; "images": how many were used.
    evaluation: dict[str, Any]
    notes: tuple[str, ...] = ()  # what a reader must know: a budget exceeded, a variant that could not run

    def ratio(self, row: Row) -> list[float]:
        """Return lower quartile, median and upper quartile of a variant's speed-up over the conventional loop of its
        teacher mode; the two times of each ratio are from the same round."""
        mode = row.variant.batch_norm
        usual = next(r for r in self.rows if r.variant.conventional and r.variant.batch_norm == mode)
        ratios = [theirs / ours for ours, theirs in zip(row.times_ms, usual.times_ms, strict=True)]
        return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3

    def epoch_seconds(self, row: Row) -> float:
        """Return one student's seconds for 50,000 training images (median rate) and 10,000 test images (measured)."""
        test = self.evaluation["conventional" if row.variant.conventional else "ours"]
        return EPOCH_IMAGES / row.images * row.median_ms / 1000 + EVALUATION_IMAGES / test


def save(path: Path, found: Any) -> None:
    """Write a `BenchResult` or a `Gate` as JSON, atomically; numbers have six significant digits, and those that are
    not finite become null."""
    body = json.loads(
        json.dumps(asdict(found)),
        parse_float=lambda text: float(f"{float(text):.6g}"),
        parse_constant=lambda text: None,
    )
    text = json.dumps({"format": found.FORMAT, "kind": found.KIND, **body}, indent=1, sort_keys=True)
    write_atomic(path, f"{text}\n".encode())


def load(path: Path, kind: type[T]) -> T:
    """Load what `save` wrote, in this or an earlier version; fields that are no longer used are ignored.

    Raises:
        RecordError: the file does not exist, is damaged, or is of another kind or format.
    """
    body = _parsed(path)
    if (body.get("kind"), body.get("format")) != (kind.KIND, kind.FORMAT):
        raise RecordError(f"{path} is not what `{kind.KIND}` of this version writes")
    try:
        return TypeAdapter(kind).validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def committed(kind: type[T]) -> dict[str, T]:
    """Return the results of a kind in results/bench, by file name; raise RecordError if a file is damaged."""
    files = sorted((paths.home() / "results" / "bench").glob("*.json"))
    return {path.name: load(path, kind) for path in files if _parsed(path).get("kind") == kind.KIND}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(body, dict):
        raise RecordError(f"{path} is damaged: not a JSON object")
    return body
