"""Single runs that others measured, as their logs and documents tell them: rows of CSV files in results/others/.

Such a file is read as text and numbers; nothing in it is executed.
"""

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rkd import paths, published
from rkd.config import Count, from_values, frozen
from rkd.errors import ConfigError, RecordError

Accuracy = Annotated[float, Field(ge=0, le=100)]
Told = Annotated[Accuracy | None, BeforeValidator(lambda text: None if text == "" else text)]
Words = BeforeValidator(lambda text: tuple(text.split()) if isinstance(text, str) else text)


def _number(text: Any) -> Any:
    with suppress(ValueError):
        return float(text) if isinstance(text, str) else text
    return text


Whole = Annotated[Count, BeforeValidator(_number)]


@frozen
class OtherRun:
    """One training run that someone else measured. Accuracies are test accuracies in percent.

    Attributes:
        repository, commit, file: where the run is told.
        dataset, teacher, student, method: by this package's names where it has them; teacher is empty without one.
        run: its number among the runs of one file that are alike.
        epochs: length of its schedule.
        last, best: accuracy after the last epoch, and after the best one on the test set; None if not told.
        note: what else is told.
        lines: "chapter/line" of the lines that have the run's setting; without any, the run only tells of spread.
        behind: the source whose printed mean it is part of, a key of SHORT_SOURCE; empty: it is independent of all.
        curve: accuracy after each epoch; empty if not told.

    Raises:
        ConfigError: neither accuracy is given, the best one is below the last, or the curve contradicts them.
    """

    repository: str
    dataset: str
    student: str
    method: str
    epochs: Whole
    commit: str = ""
    file: str = ""
    teacher: str = ""
    run: Whole = 1
    last: Told = None
    best: Told = None
    note: str = ""
    lines: Annotated[tuple[str, ...], Words] = ()
    behind: Literal[("", *published.SHORT_SOURCE)] = ""
    curve: Annotated[tuple[Accuracy, ...], Words] = ()

    def __post_init__(self) -> None:
        if self.last is None and self.best is None:
            raise ConfigError("neither last nor best is given; a run needs one of the two")
        if None not in (self.last, self.best) and self.best < self.last:
            raise ConfigError(f"best is {self.best:g}, below the last epoch's {self.last:g}")
        if self.curve and len(self.curve) != self.epochs:
            raise ConfigError(f"the curve has {len(self.curve)} accuracies for {self.epochs} epochs")
        for name, shown in (("last", self.curve[-1:]), ("best", (max(self.curve, default=0.0),))):
            told = getattr(self, name)
            if self.curve and told is not None and abs(told - shown[0]) > 0.01:
                raise ConfigError(f"{name} is {told:g}, but {shown[0]:g} by its curve")


COLUMNS = tuple(field.name for field in fields(OtherRun))


def others_folder() -> Path:
    """Return the folder of these files."""
    return paths.home() / "results" / "others"


def read_runs(path: Path) -> list[OtherRun]:
    """Return the runs of one file, in its order.

    Raises:
        RecordError: one sentence that names the file and the line.
    """
    found = []
    for number, row in enumerate(published.read_table(path, "runs", RecordError), 2):
        try:
            found.append(from_values(OtherRun, row))
        except ConfigError as error:
            raise RecordError(f"{path.name}, line {number}: {error}") from error
    return found


def other_runs(at: Path | None = None) -> list[OtherRun]:
    """Return all runs in the CSV files of a folder (None: results/others), file by file."""
    return [run for path in sorted((at or others_folder()).glob("*.csv")) for run in read_runs(path)]


def as_csv(runs: Sequence[OtherRun]) -> str:
    """Return the text of such a file with these runs."""
    text = StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for run in runs:
        row = {name: "" if value is None else _plain(value) for name, value in asdict(run).items()}
        table.writerow(row | {name: " ".join(map(_plain, getattr(run, name))) for name in ("lines", "curve")})
    return text.getvalue()


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value - round(value, 3)) < 1e-9 else str(value)
