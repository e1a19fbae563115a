"""What a measurement found, what follows from it by arithmetic, and the files of results/bench."""

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
    """What is written to a file of its own: `KIND` and `FORMAT` say there what it is."""

    KIND: ClassVar[str]
    FORMAT: ClassVar[int]


T = TypeVar("T", bound=SavedResult)


@dataclass(frozen=True)
class Row:
    """One variant, measured."""

    variant: Variant
    arithmetic: str  # what the variant's precision means on this device
    images: int  # of a step, per student
    times_ms: tuple[float, ...]  # by round, of one step of one student: a group's step over its students
    cold_seconds: float  # from networks to the end of the first step: folding, compiling, capturing
    # Of one step of the whole group, see `clock.count`; None: compiled, which cannot be counted.
    counts: dict[str, Any] | None

    @property
    def name(self) -> str:
        """As tables show it, without the teacher's mode."""
        return replace(self.variant, precision=self.arithmetic).name

    @property
    def median_ms(self) -> float:
        """Of one step of one student."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True)
class BenchResult:
    """One measurement."""

    KIND: ClassVar[str] = "rkd bench"
    FORMAT: ClassVar[int] = 2
    # Machine, versions, times, load, and what was asked for: all that is needed to repeat it.
    header: dict[str, Any]
    rows: tuple[Row, ...]  # each teacher mode's conventional loop among them
    # Test images/s: "conventional", by the loader and through the fusion modules, and "ours"; of how many "images".
    evaluation: dict[str, Any]
    notes: tuple[str, ...] = ()  # what a reader has to know: a budget exceeded, a variant that could not run

    def ratio(self, row: Row) -> list[float]:
        """Lower quartile, median and upper quartile of how many times as quick a variant is as the conventional loop of
        its teacher mode; both times of a ratio are of the same round."""
        mode = row.variant.batch_norm
        usual = next(r for r in self.rows if r.variant.conventional and r.variant.batch_norm == mode)
        ratios = [theirs / ours for ours, theirs in zip(row.times_ms, usual.times_ms, strict=True)]
        return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3

    def epoch_seconds(self, row: Row) -> float:
        """50,000 training images at the median rate and 10,000 test images at the measured one, for one student."""
        test = self.evaluation["conventional" if row.variant.conventional else "ours"]
        return EPOCH_IMAGES / row.images * row.median_ms / 1000 + EVALUATION_IMAGES / test


def save(path: Path, found: Any) -> None:
    """Write a `BenchResult` or a `Gate` as JSON, atomically: numbers with six significant digits, null for what is not
    finite."""
    body = json.loads(
        json.dumps(asdict(found)),
        parse_float=lambda text: float(f"{float(text):.6g}"),
        parse_constant=lambda text: None,
    )
    text = json.dumps({"format": found.FORMAT, "kind": found.KIND, **body}, indent=1, sort_keys=True)
    write_atomic(path, f"{text}\n".encode())


def load(path: Path, kind: type[T]) -> T:
    """What `save` wrote, now or in an earlier version: fields that are no longer used are passed over.

    Raises:
        RecordError: no such file, or not one of these.
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
    """What results/bench holds of a kind, by name of the file; RecordError where one is damaged."""
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
