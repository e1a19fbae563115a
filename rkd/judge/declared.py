"""The declared claims, as params/claims.csv has them: one row each (params/claims.md says how it reads).

Published figures are read from the table of published figures: a claim names their ids. Everything is checked on
loading, so that a claim about a figure that does not exist, or about runs no chapter makes, is one sentence here and
not a missing line in the book.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rkd import paths, published
from rkd.errors import ConfigError, unknown
from rkd.experiments.selectors import Selectors, split
from rkd.published import SHORT_SOURCE, Figure


@dataclass(frozen=True)
class Kind:
    """What claims of one kind are.

    Attributes:
        name: for a reader, of one such claim.
        words: of several.
        question: what is asked of the runs.
        estimate: what is measured.
        needs: columns a claim of this kind must fill in beyond those of all kinds.
        takes: columns it may fill in.
        sides: columns of the groups of runs; those with a question mark may be left out.
    """

    name: str
    words: str
    question: str
    estimate: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("a",)


KINDS = {
    "value": Kind(
        "accuracy", "accuracies", "does the mean over seeds lie within the margin of the published accuracy?",
        "ours minus published", needs=("margin", "published_n"), takes=("also",),
    ),
    "order": Kind(
        "comparison", "comparisons", "does a run of one side beat a run of the other?",
        "P(A > B)", needs=("family",), takes=("minus",), sides=("a", "b?"),
    ),
    "effect": Kind(
        "gain", "gains", "is the difference of two means the published one, within the margin?",
        "difference of means", needs=("margin", "family"), takes=("minus", "also"), sides=("a", "b"),
    ),
    "trend": Kind(
        "trend", "trends", "does a contrast that was declared beforehand point the claimed way?",
        "contrast", needs=("margin", "family", "contrast"), takes=("best",), sides=("groups",),
    ),
    "bound": Kind(
        "bound", "a bound", "does every one of several means lie within a bound of its published value?",
        "widest gap", needs=("margin", "over"), sides=("groups",),
    ),
    "chance": Kind(
        "chance", "chance level", "does the mean lie within the margin of chance?",
        "ours minus chance", needs=("margin", "chance"),
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
        check: whether every line is looked up now; else only once it is evaluated.

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
            for selector in claim.selectors if selectors else ():
                selectors.ids(selector)
        except ConfigError as error:
            raise ConfigError(
                f"{path.name}, claim {row.get('id') or f'number {number}'!r}: {error}"
            ) from error
        found[claim.id] = claim
    _check_families(path, found.values())
    return tuple(found.values())


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, strict=True)
            columns, rows = table.fieldnames or (), list(table)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no table of claims: {' '.join(str(error).split())}") from error
    if not columns:
        raise ConfigError(f"{path} is no table of claims: it is empty")
    for column in columns:
        if column not in COLUMNS:
            raise unknown(f"column in {path.name}:", column, COLUMNS)
    for column in _NEEDS:
        if column not in columns:
            raise ConfigError(f"{path.name} lacks the column {column!r}")
    for row in rows:
        if None in row or None in row.values():
            raise ConfigError(f"{path} is no table of claims: row {row['id']!r} has not {len(columns)} cells")
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows]


def _check_families(path: Path, claims: Iterable[Claim]) -> None:
    """One family has one kind and one alpha: Holm's correction shares the latter out."""
    first: dict[str, Claim] = {}
    for claim in claims:
        other = first.setdefault(claim.family, claim) if claim.family else claim
        for name in ("kind", "alpha"):
            if getattr(claim, name) != getattr(other, name):
                raise ConfigError(
                    f"{path.name}: family {claim.family!r} holds {other.id!r} with {name} {getattr(other, name)} and "
                    f"{claim.id!r} with {name} {getattr(claim, name)}; a family has one"
                )


# --- a row to a claim -----------------------------------------------------------------------------------------------


def _claim(row: Mapping[str, str]) -> Claim:
    _check_columns(row)
    figures, minus, also, over = (
        [published.get(figure) for figure in row[column].split()]
        for column in ("figures", "minus", "also", "over")
    )
    runs = {side: tuple(row[side].split()) for side in ("a", "b", "groups") if row[side]}
    value, printed = _published(row, figures, minus, over)
    for figure in also:
        if figure.number != value:
            raise ConfigError(f"`also` names a figure that prints {figure.value}, not {printed}")
    first, everything, groups = figures[0], [*figures, *minus, *also, *over], runs.get("groups", ())
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", row["id"]):
        raise ConfigError(f"id {row['id']!r} must consist of lower-case letters, digits, '-', '_' and '.'")
    for line in row["best"].split():
        if line not in groups:
            raise unknown("line in `best`:", line, groups)
    known_n = row["published_n"] not in ("", "unknown")
    return Claim(
        id=row["id"],
        about=row["about"],
        kind=row["kind"],
        chapter=split(next(iter(runs.values()))[0])[0],
        family=row["family"],
        source=first.source,
        table=", ".join(dict.fromkeys(r.table for r in [*figures, *also] if r.source == first.source)),
        row=_row_in_words(figures, minus),
        statement=row["statement"],
        who=row["asked_by"] or _who(first),
        published=value,
        printed=printed,
        published_n=_whole("published_n", row["published_n"], 1) if known_n else None,
        margin=_positive("margin", row["margin"]) if row["margin"] else None,
        alpha=_number("alpha", row["alpha"], lambda x: 0 < x < 0.5, "a number between 0 and 0.5"),
        min_seeds=_whole("min_seeds", row["min_seeds"], 2),
        runs=runs,
        contrast=_contrast(row["contrast"], len(groups)) if row["contrast"] else (),
        best=tuple(groups.index(line) for line in row["best"].split()),
        chance=_positive("chance", row["chance"]) if row["chance"] else None,
        notes=tuple(dict.fromkeys(r.note for r in everything if r.note)),
        references=tuple(dict.fromkeys(r.Index for r in everything)),
        also_by=tuple(dict.fromkeys(_who(r) for r in figures if r.source != first.source)),
        reports=row["reports"],
        which_student=row["which_student"],
    )


def _check_columns(row: Mapping[str, str]) -> None:
    if row["kind"] not in KINDS:
        raise unknown("kind", row["kind"], KINDS)
    kind = KINDS[row["kind"]]
    needs = {*_NEEDS, *kind.needs, *(side for side in kind.sides if not side.endswith("?"))}
    takes = {*needs, *_TAKES, *kind.takes, *(side.rstrip("?") for side in kind.sides)}
    for column in COLUMNS:
        if column in needs and not row[column].strip():
            raise ConfigError(f"column {column!r} is empty; a claim of kind {row['kind']} needs it")
        if row[column] and column not in takes:
            raise ConfigError(f"column {column!r} is {row[column]!r}; a claim of kind {row['kind']} has none")
    if row["reports"] not in ("", *REPORTS):
        raise unknown("reports", row["reports"], REPORTS)
    if row["which_student"] not in ("", BEST):
        from rkd.methods.modreduce import STUDENTS

        if row["which_student"] not in STUDENTS:
            raise unknown("which_student", row["which_student"], (BEST, *STUDENTS))


def _published(
    row: Mapping[str, str], figures: Sequence[Figure], minus: Sequence[Figure], over: Sequence[Figure]
) -> tuple[float | tuple[float, ...] | None, str]:
    """The published figure, and as it is shown."""
    kind, first = row["kind"], figures[0]
    known = not any(math.isnan(r.number) for r in figures)
    if row["published"]:
        if minus or known:
            raise ConfigError(
                f"`published` is given, but the table of published figures has it: {first.value}"
            )
        return _positive("published", row["published"]), first.value
    if kind == "bound":
        return tuple(r.number for r in over), f"{len(over)} accuracies within {float(row['margin']):g}"
    if kind == "trend":
        return (tuple(r.number for r in figures) if known else None), ", ".join(r.value for r in figures)
    if not known:
        raise ConfigError(f"its figure is printed as {first.value!r}, no single number; give `published`")
    if len({r.number for r in figures}) != 1:
        raise ConfigError(
            f"it names {len(figures)} figures that differ: {', '.join(r.value for r in figures)}"
        )
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


def _who(figure: Figure) -> str:
    """Whose figure it is: the [Re] sources print the paper's beside their own."""
    return "ReviewKD paper" if figure.variant == "paper" else SHORT_SOURCE[figure.source]


def _row_in_words(figures: Sequence[Figure], minus: Sequence[Figure]) -> str:
    first = figures[0]
    pair = f"{first.student} ← {first.teacher}" if first.teacher not in ("-", "all pairs") else ""
    several = (
        len({r.variant for r in figures}) > 1
        and len({r.number for r in figures if not math.isnan(r.number)}) != 1
    )
    named = ", ".join(dict.fromkeys(text for text in (first.method, first.variant) if text))
    what = f"{len(figures)} rows" if several else named
    words = f"{pair}: {what}" if pair else what
    if minus:
        words += f" − {minus[0].variant if minus[0].method == first.method else minus[0].method}"
    return words


# --- numbers of cells -----------------------------------------------------------------------------------------------


def _number(
    name: str, text: str, allowed: Callable[[float], bool] = math.isfinite, words: str = "a finite number"
) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or not allowed(number):
        raise ConfigError(f"{name} is {text!r}; it must be {words}")
    return number


def _positive(name: str, text: str) -> float:
    return _number(name, text, lambda x: x > 0, "a finite number > 0")


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
