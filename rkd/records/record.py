"""One finished run as one small JSON file."""

import json
import math
from collections.abc import Iterator
from typing import Any, Literal

from rkd.config import CONTROL, from_values, frozen
from rkd.errors import RecordError, RkdError, one_line
from rkd.records.fields import Curve, check_parts
from rkd.training.config import RunConfig

FORMAT = 1
MOST_BYTES = 2**26
REMEDY = "`rkd records check --quarantine` names such files and sets them aside"


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
        """Parse a record and check all its values (see `rkd.records.fields`).

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
            finished = record.status == "finished"
            check_parts(record.config, finished, record.curves, record.result, record.cost, record.provenance)
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
