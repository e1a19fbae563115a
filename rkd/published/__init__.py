"""Every published figure that the book is about, as one table: what the sources say, with disagreements side by side,
and what answers each figure here."""

import csv
import difflib
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rkd.errors import ConfigError, RkdError, unknown

if TYPE_CHECKING:
    import pandas as pd

SHORT_SOURCE = {
    "re_paper": "[Re] paper",  # arXiv 2205.11246
    "re_readme": "[Re] README",  # of its code
    "modreduce": "ModReduce README",
    "knowledge_distillation": "KnowledgeDistillation README",
    "kdrefine": "KDrefine README",
}


class Figure(NamedTuple):
    """A row of the table.

    Attributes:
        Index: its place in the table.
        id: unique and stable: source, table, teacher, student, method, the variant if a table has several of one
            method, data set, and the metric if it is not accuracy, joined by "-".
        source: a key of SHORT_SOURCE.
        value: as printed; empty where the source says "not reported".
        answer: a key of `rkd.experiments.answers.KINDS`.
        lines: "chapter/line" of the lines whose runs answer it, separated by blanks.
        also: further lines beside which it is shown.
        parts: ids of the figures it is derived from.
        setting: where to find its value here.
        how: the derivation, a remark on the setting, or why nothing answers it.
        number: the value as a float, NaN where it is not one number, such as "5-6"; "~1.5" is 1.5.
    """

    Index: int
    id: str
    source: str
    table: str
    teacher: str
    student: str
    method: str
    variant: str
    dataset: str
    metric: str
    value: str
    note: str
    answer: str
    lines: str
    also: str
    parts: str
    setting: str
    how: str
    number: float


COLUMNS = Figure._fields[1:-1]


@functools.cache
def rows() -> dict[str, Figure]:
    """Return every figure by its id, in the order of the table."""
    table = read_table(Path(__file__).parent / "published.csv", "figures", ConfigError)
    found = (Figure(i, **row, number=_number(row["value"])) for i, row in enumerate(table))
    return {figure.id: figure for figure in found}


def read_table(path: Path, what: str, kind: type[RkdError]) -> list[dict[str, str]]:
    """Return the rows of a CSV file below its header; raise an error of this kind if it is no valid table of `what`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise kind(f"{path} is no table of {what}: {' '.join(str(error).split())}") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise kind(f"{path.name}, line {number}: it needs {len({*row} - {None})} cells")
    return rows


def _number(printed: str) -> float:
    try:
        return float(printed.lstrip("+~"))
    except ValueError:
        return math.nan


def first_number(printed: str) -> float:
    """Return the number that a printed text begins with: "0.6 +- 0.1" gives 0.6; NaN if it begins with none."""
    return _number(printed.partition(" ")[0])


def load(**equal: str) -> "pd.DataFrame":
    """Return the figures as a table, with their fields as columns except `Index`, which is the table's index if nothing
    is left out; optionally only the rows whose columns equal the given values.

    Raises:
        ConfigError: a column does not exist.

    Example:
        >>> load(source="re_paper", table="Table 6")[["variant", "value"]].values.tolist()[0]
        ['No change', '71.79']
    """
    import pandas as pd  # slow to import, and most callers want single figures only

    for column in equal.keys() - {*COLUMNS}:
        raise unknown("column", column, COLUMNS)
    found = [f for f in rows().values() if all(getattr(f, column) == v for column, v in equal.items())]
    return pd.DataFrame(found, columns=Figure._fields).drop(columns="Index")


@functools.cache
def figures_of_line(selector: str) -> tuple[Figure, ...]:
    """Return the figures of one line "chapter/line": those that its runs answer, and those shown beside it."""
    lines = ((row, f"{row.lines} {row.also}" if row.answer == "run" else row.also) for row in rows().values())
    return tuple(row for row, named in lines if selector in named.split())


def find_number(**equal: str) -> float:
    """Return the one number that matches, in the metric's unit (accuracies in percent).

    Raises:
        ConfigError: no row matches, or rows with different numbers do.
    """
    values = load(**equal)["number"].unique()
    if len(values) != 1:
        raise ConfigError(f"{len(values)} different published values match {equal}; name more columns")
    return float(values[0])


def get(figure: str) -> Figure:
    """Return the row with this id.

    Raises:
        ConfigError: there is no such id; the message names the nearest one.
    """
    if figure not in rows():
        near = difflib.get_close_matches(figure, rows(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown published figure {figure!r}; {hint}`rkd show figures` prints all ids")
    return rows()[figure]
