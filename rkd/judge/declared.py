"""The claims under judgement, as params/claims.csv declares them: one row each (params/claims.md says how it reads).

Published figures are read from the table of published figures: a claim names their ids. Everything is checked on
loading, so that a claim about a figure that does not exist, or about runs no chapter makes, is one sentence here and
not a missing line in the book.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from rkd import paths, published
from rkd.errors import ConfigError, unknown
from rkd.experiments.chapters import SHORT_SOURCE
from rkd.experiments.selectors import Selectors, split
from rkd.methods.modreduce import STUDENTS


@dataclass(frozen=True)
class Kind:
    """What claims of one kind are.

    Attributes:
        words: for a reader, a noun phrase.
        question: what is asked of the runs.
        needs: columns a claim of this kind must fill in beyond those of all kinds.
        takes: columns it may fill in.
        sides: columns of the groups of runs; those with a question mark may be left out.
    """

    words: str
    question: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("a",)


KINDS = {
    "value": Kind(
        "accuracies", "does the mean over seeds lie within the margin of the published accuracy?",
        needs=("margin", "published_n"), takes=("also",),
    ),
    "order": Kind(
        "comparisons", "does a run of one side beat a run of the other?",
        needs=("family",), takes=("minus",), sides=("a", "b?"),
    ),
    "effect": Kind(
        "gains", "is the difference of two means the published one, within the margin?",
        needs=("margin", "family"), takes=("minus", "also"), sides=("a", "b"),
    ),
    "trend": Kind(
        "trends", "does a contrast that was declared beforehand point the claimed way?",
        needs=("margin", "family", "contrast"), takes=("best",), sides=("groups",),
    ),
    "bound": Kind(
        "a bound", "does every one of several means lie within a bound of its published value?",
        needs=("margin", "over"), sides=("groups",),
    ),
    "chance": Kind(
        "chance level", "does the mean lie within the margin of chance?", needs=("margin", "chance")
    ),
}  # fmt: skip
_NEEDS = ("id", "kind", "about", "statement", "figures", "alpha", "min_seeds")
_TAKES = ("published", "reports", "which_student", "asked_by")
COLUMNS = (
    "id", "kind", "about", "statement", "figures", "minus", "also", "over", "published", "published_n", "margin",
    "alpha", "min_seeds", "family", "a", "b", "groups", "contrast", "best", "chance", "reports", "which_student",
    "asked_by",
)  # fmt: skip
REPORTS = ("the last epoch", "the best epoch on the test set")
BEST = "best"  # of the students that one run trains


@dataclass(frozen=True)
class Claim:
    """One claim, and how it is judged.

    Attributes:
        id: stable and unique.
        about: heading of the group it belongs to.
        kind: a key of KINDS.
        chapter: where it is shown first; `chapters` are all that hold runs of it.
        family: claims corrected together for their number; "" for none.
        source, table, row: where the figure stands: key of rkd.published.SOURCES, its table, and the row in words.
        statement: what is claimed, in our words.
        who: says it first: "ReviewKD paper", "[Re] paper" (with the baselines it quotes), "[Re] README", a README of
            another system, or "this report" where the question is its own.
        published: the figure in percent (value, chance, order against one figure), the gain in percentage points
            (effect), both sides (order of two lines) or all rows (trend, bound); None where none is printed.
        printed: the same as text for a table.
        published_n: runs the published mean stands on; None where the source does not say.
        margin: percentage points; None for order.
        alpha: error rate; intervals have level 1 - 2 alpha.
        min_seeds: runs per side below which no verdict is given.
        runs: side -> selectors "chapter/line": "a" and "b", or "groups" with one selector per group.
        contrast: one coefficient per group, scaled so that those above zero sum to 1: a difference of two weighted
            means, in percentage points.
        best: indices of the groups among which the best one is claimed to be.
        chance: level in percent.
        notes: what the table of claims remarks on the rows.
        references: indices of the rows in `rkd.published.load()`.
        also_by: further sources that print the same figure of the same runs.
        reports: one of REPORTS, which the source's figures are of; "" where that is not noted.
        which_student: of runs that train several: one of rkd.methods.modreduce.STUDENTS, or BEST of them; "": the
            run's own network.
    """

    id: str
    about: str
    kind: str
    chapter: str
    family: str
    source: str
    table: str
    row: str
    statement: str
    who: str
    published: float | tuple[float, ...] | None
    printed: str
    published_n: int | None
    margin: float | None
    alpha: float
    min_seeds: int
    runs: Mapping[str, tuple[str, ...]] = field(hash=False)
    contrast: tuple[float, ...] = ()
    best: tuple[int, ...] = ()
    chance: float | None = None
    notes: tuple[str, ...] = ()
    references: tuple[int, ...] = ()
    also_by: tuple[str, ...] = ()
    reports: str = ""
    which_student: str = ""

    @property
    def selectors(self) -> tuple[str, ...]:
        """All lines whose runs answer the claim, each once."""
        return tuple(dict.fromkeys(s for side in self.runs.values() for s in side))

    @property
    def chapters(self) -> tuple[str, ...]:
        """The claim's own chapter, and every other one whose lines answer it."""
        return tuple(dict.fromkeys([self.chapter, *(split(s)[0] for s in self.selectors)]))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Selectors of each group of runs that is averaged: one group per side, or one per selector of "groups"."""
        if "groups" in self.runs:
            return tuple((selector,) for selector in self.runs["groups"])
        return tuple(self.runs[side] for side in ("a", "b") if side in self.runs)


def load_claims(
    path: Path | None = None, selectors: Selectors | None = None, check: bool = True
) -> tuple[Claim, ...]:
    """All declared claims, in the order of the file.

    Args:
        path: of the declaration; None: params/claims.csv.
        selectors: lines the claims' runs must be among; None: those of the paper profile.
        check: whether every line is looked up now, for which all chapters are built; else only once it is judged.

    Raises:
        ConfigError: one sentence that names the file, the claim and what is wrong with it.
    """
    path = paths.params() / "claims.csv" if path is None else path
    selectors = (Selectors() if selectors is None else selectors) if check else None
    found: dict[str, Claim] = {}
    for number, row in enumerate(_read(path), 1):
        try:
            claim = _claim(row)
            if claim.id in found:
                raise ConfigError(f"id {claim.id!r} is taken by an earlier claim")
            for selector in claim.selectors:
                split(selector) if selectors is None else selectors.line(selector)
        except ConfigError as error:
            raise ConfigError(
                f"{path.name}, claim {row.get('id') or f'number {number}'!r}: {error}"
            ) from error
        found[claim.id] = claim
    _check_families(path, found.values())
    return tuple(found.values())


def _read(path: Path) -> list[dict[str, str]]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no table of claims: {' '.join(str(error).split())}") from error
    for column in table.columns:
        if column not in COLUMNS:
            raise unknown(f"column in {path.name}:", column, COLUMNS)
    for column in _NEEDS:
        if column not in table.columns:
            raise ConfigError(f"{path.name} lacks the column {column!r}")
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in table.to_dict("records")]


def _check_families(path: Path, claims: Iterable[Claim]) -> None:
    """One family has one kind and one alpha: Holm's correction shares the latter out."""
    first: dict[str, Claim] = {}
    for claim in claims:
        if not claim.family:
            continue
        other = first.setdefault(claim.family, claim)
        for name in ("kind", "alpha"):
            if getattr(claim, name) != getattr(other, name):
                raise ConfigError(
                    f"{path.name}: family {claim.family!r} holds {other.id!r} with {name} {getattr(other, name)} and "
                    f"{claim.id!r} with {name} {getattr(claim, name)}; a family has one"
                )


# --- a row to a claim -----------------------------------------------------------------------------------------------


def _claim(row: Mapping[str, str]) -> Claim:
    _check_columns(row)
    rows, minus, also, over = (
        [published.get(figure) for figure in row[column].split()]
        for column in ("figures", "minus", "also", "over")
    )
    runs = {side: tuple(row[side].split()) for side in ("a", "b", "groups") if row[side]}
    value, printed = _published(row, rows, minus, over)
    for figure in also:
        if figure.number != value:
            raise ConfigError(f"`also` names a figure that prints {figure.value}, not {printed}")
    source, everything, groups = rows[0].source, [*rows, *minus, *also, *over], runs.get("groups", ())
    return Claim(
        id=_identifier(row["id"]),
        about=row["about"],
        kind=row["kind"],
        chapter=split(next(iter(runs.values()))[0])[0],
        family=row["family"],
        source=source,
        table=", ".join(dict.fromkeys(r.table for r in [*rows, *also] if r.source == source)),
        row=_row_in_words(rows, minus),
        statement=row["statement"],
        who=row["asked_by"] or _who(rows[0]),
        published=value,
        printed=printed,
        published_n=None
        if row["published_n"] in ("", "unknown")
        else _whole("published_n", row["published_n"], 1),
        margin=_positive("margin", row["margin"]) if row["margin"] else None,
        alpha=_alpha(row["alpha"]),
        min_seeds=_whole("min_seeds", row["min_seeds"], 2),
        runs=runs,
        contrast=_contrast(row["contrast"], len(groups)) if row["contrast"] else (),
        best=_best(row["best"], groups),
        chance=_positive("chance", row["chance"]) if row["chance"] else None,
        notes=tuple(dict.fromkeys(r.note for r in everything if r.note)),
        references=tuple(dict.fromkeys(r.Index for r in everything)),
        also_by=tuple(dict.fromkeys(_who(r) for r in rows if r.source != source)),
        reports=row["reports"],
        which_student=row["which_student"],
    )


def _check_columns(row: Mapping[str, str]) -> None:
    if row["kind"] not in KINDS:
        raise unknown("kind", row["kind"], KINDS)
    kind = KINDS[row["kind"]]
    sides = [side.rstrip("?") for side in kind.sides]
    needs = {*_NEEDS, *kind.needs, *(side for side in kind.sides if not side.endswith("?"))}
    for column in COLUMNS:
        if column in needs and not row[column].strip():
            raise ConfigError(f"column {column!r} is empty; a claim of kind {row['kind']} needs it")
        if row[column] and column not in {*needs, *_TAKES, *kind.takes, *sides}:
            raise ConfigError(f"column {column!r} is {row[column]!r}; a claim of kind {row['kind']} has none")
    for column, allowed in (("reports", ("", *REPORTS)), ("which_student", ("", BEST, *STUDENTS))):
        if row[column] not in allowed:
            raise unknown(column, row[column], allowed[1:])


def _published(
    row: Mapping[str, str], rows: Sequence[Any], minus: Sequence[Any], over: Sequence[Any]
) -> tuple[float | tuple[float, ...] | None, str]:
    """The published figure, and as it is shown."""
    kind, first = row["kind"], rows[0]
    known = not any(math.isnan(r.number) for r in rows)
    if row["published"]:
        if minus or known:
            raise ConfigError(
                f"`published` is given, but the table of published figures has it: {first.value}"
            )
        return _positive("published", row["published"]), first.value
    if kind == "bound":
        return tuple(r.number for r in over), f"{len(over)} accuracies within {float(row['margin']):g}"
    if kind == "trend":
        return (tuple(r.number for r in rows) if known else None), ", ".join(r.value for r in rows)
    if not known:
        raise ConfigError(f"its figure is printed as {first.value!r}, no single number; give `published`")
    if len({r.number for r in rows}) != 1:
        raise ConfigError(f"it names {len(rows)} figures that differ: {', '.join(r.value for r in rows)}")
    if minus:
        other, both = minus[0].number, f"{first.value} against {minus[0].value}"
        if kind == "effect":
            return round(first.number - other, 6), f"{first.number - other:+.2f} ({both})"
        if not row["b"]:
            raise ConfigError("`minus` needs runs on side b")
        return (first.number, other), both
    if kind == "effect":
        raise ConfigError(
            "column 'minus' is empty: a gain is a difference of two figures, or given as `published`"
        )
    return (None, "") if kind == "order" and row["b"] else (first.number, first.value)


def _who(row: Any) -> str:
    """Whose figure a row is: the [Re] sources print the paper's beside their own."""
    return "ReviewKD paper" if row.variant == "paper" else SHORT_SOURCE[row.source]


def _row_in_words(rows: Sequence[Any], minus: Sequence[Any]) -> str:
    first = rows[0]
    pair = f"{first.student} ← {first.teacher}" if first.teacher not in ("-", "all pairs") else ""
    if len({r.variant for r in rows}) > 1 and len({r.number for r in rows if not math.isnan(r.number)}) != 1:
        what = f"{len(rows)} rows"
    else:
        what = ", ".join(dict.fromkeys(text for text in (first.method, first.variant) if text))
    words = f"{pair}: {what}" if pair else what
    if minus:
        words += f" − {minus[0].variant if minus[0].method == first.method else minus[0].method}"
    return words


# --- texts and numbers ----------------------------------------------------------------------------------------------


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ConfigError(f"id {text!r} must consist of lower-case letters, digits, '-', '_' and '.'")
    return text


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} is {text!r}; it must be a finite number")
    return number


def _positive(name: str, text: str) -> float:
    if (number := _number(name, text)) <= 0:
        raise ConfigError(f"{name} is {text!r}; it must be a finite number > 0")
    return number


def _alpha(text: str) -> float:
    if not 0 < (number := _number("alpha", text)) < 0.5:
        raise ConfigError(f"alpha is {text!r}; it must be a number between 0 and 0.5")
    return number


def _whole(name: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name} is {text!r}; it must be a whole number >= {least}")
    return int(text)


def _contrast(text: str, groups: int) -> tuple[float, ...]:
    values = [_number("contrast", value) for value in text.split()]
    if len(values) != groups:
        raise ConfigError(f"contrast has {len(values)} coefficients for {groups} groups of runs")
    above = sum(v for v in values if v > 0)
    if above <= 0 or not math.isclose(sum(values), 0.0, abs_tol=1e-9):
        raise ConfigError(f"contrast is {text!r}; its coefficients must sum to 0 and not all be 0")
    return tuple(v / above for v in values)


def _best(text: str, groups: Sequence[str]) -> tuple[int, ...]:
    for value in text.split():
        if value not in groups:
            raise unknown("line in `best`:", value, groups)
    return tuple(groups.index(value) for value in text.split())
