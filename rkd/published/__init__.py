"""Every published figure the book is about, as one table: what the sources say, disagreements side by side, and what
answers each figure here."""

import difflib
import functools
from importlib import resources
from typing import Any

import pandas as pd

from rkd.errors import ConfigError

SOURCES = {
    "re_paper": "the [Re] paper (arXiv 2205.11246)",
    "re_readme": "README of the [Re] code",
    "modreduce": "README of ModReduce",
    "knowledge_distillation": "README of KnowledgeDistillation",
    "kdrefine": "README of KDrefine",
}
COLUMNS = (
    "id", "source", "table", "teacher", "student", "method", "variant", "dataset", "metric", "value", "note",
    "answer", "lines", "also", "parts", "setting", "how",
)  # fmt: skip


@functools.cache
def _table() -> pd.DataFrame:
    with resources.files(__package__).joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise ConfigError(f"published.csv has columns {list(table.columns)}; expected {list(COLUMNS)}")
    repeated = table["id"][table["id"].duplicated()].tolist()
    if repeated:
        raise ConfigError(f"published.csv has the id {repeated[0]!r} twice")
    table["number"] = pd.to_numeric(table["value"].str.lstrip("+~"), errors="coerce")
    return table


def load(**equal: str) -> pd.DataFrame:
    """The table of published figures, optionally only the rows whose columns equal the given values.

    Columns: id (unique and stable: source, table, teacher, student, method, the variant where a table has several of
    one method, data set, and the metric where it is not accuracy, joined by "-"), source (a key of SOURCES), table,
    teacher, student, method, variant, dataset, metric, value (as printed, empty where the source says "not
    reported"), note, and number (the value as a float, NaN where it is not one number, such as "5-6"; "~1.5" is 1.5).
    What answers the figure: answer (a key of `rkd.experiments.answers.KINDS`), lines ("chapter/line" whose runs do,
    separated by blanks), also (further lines beside which it is shown), parts (ids of the figures it is derived
    from), setting (where its value stands here) and how (the derivation, a remark on the setting, or why
    nothing answers it).

    Raises:
        ConfigError: a column that does not exist.

    Example:
        >>> load(source="re_paper", table="Table 6")[["variant", "value"]].values.tolist()[0]
        ['No change', '71.79']
    """
    for column in equal:
        if column not in COLUMNS:
            raise ConfigError(f"unknown column {column!r}; allowed: {', '.join(COLUMNS)}")
    return _rows(frozenset(equal.items())).copy()


@functools.lru_cache(maxsize=4096)
def _rows(equal: frozenset[tuple[str, str]]) -> pd.DataFrame:
    """Rows that match: chapters ask for the same ones again and again."""
    table = _table()
    fits = pd.Series(True, index=table.index)
    for column, value in equal:
        fits &= table[column] == value
    return table[fits].reset_index(drop=True)


@functools.cache
def rows() -> dict[str, Any]:
    """Every figure by its id, as a named tuple of `load`'s columns, in the order of the table; `Index` is its place."""
    return {row.id: row for row in _table().itertuples()}


def of_line(selector: str) -> tuple[Any, ...]:
    """The rows of one line "chapter/line": of figures that its runs answer, and of those shown beside it."""
    return _of_lines().get(selector, ())


@functools.cache
def _of_lines() -> dict[str, tuple[Any, ...]]:
    found: dict[str, list[Any]] = {}
    for row in rows().values():
        for selector in [*(row.lines.split() if row.answer == "run" else []), *row.also.split()]:
            found.setdefault(selector, []).append(row)
    return {selector: tuple(of_line) for selector, of_line in found.items()}


def number(**equal: str) -> float:
    """The one number that matches, in the metric's unit (accuracies in percent).

    Raises:
        ConfigError: no row matches, or rows with different numbers do.
    """
    values = load(**equal)["number"].unique()
    if len(values) != 1:
        raise ConfigError(f"{len(values)} different published values match {equal}; name more columns")
    return float(values[0])


def get(figure: str) -> Any:
    """The row with this id, as of `rows`.

    Raises:
        ConfigError: no such id; names the nearest one.
    """
    if figure not in rows():
        near = difflib.get_close_matches(figure, rows(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown published figure {figure!r}; {hint}`rkd claims` prints all {len(rows())} ids"
        )
    return rows()[figure]
