"""The declared claims, one per row of params/claims.csv (params/claims.md explains its columns).

Published figures come from the table of published figures: a claim names their ids. Everything is checked on loading,
so that a claim about a figure that does not exist, or about runs that no chapter makes, raises one sentence here
instead of leaving a gap in the book.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rkd import paths, published
from rkd.config import Count, ErrorRate, Positive, frozen
from rkd.config import validate as checked
from rkd.errors import ConfigError, unknown
from rkd.experiments.selectors import Selectors, split
from rkd.published import SHORT_SOURCE, Figure


@dataclass(frozen=True)
class Kind:
    """What the claims of one kind have in common.

    Attributes:
        name: as readers see it.
        estimate: what is measured.
        columns: those that this kind fills in beyond the ones of all kinds; one with a question mark may be empty.
    """

    name: str
    estimate: str
    columns: tuple[str, ...]


KINDS = {
    "value": Kind("accuracy", "ours minus published", ("margin", "published_n", "also?", "a")),
    "order": Kind("comparison", "P(A > B)", ("family", "minus?", "a", "b?")),
    "effect": Kind("gain", "difference of means", ("margin", "family", "minus?", "also?", "a", "b")),
    "trend": Kind("trend", "contrast", ("margin", "family", "groups", "contrast", "best?")),
    "bound": Kind("bound", "widest gap", ("margin", "over", "groups")),
    "chance": Kind("chance", "ours minus chance", ("margin", "chance", "a")),
}
_OF_ALL = (
    "id", "kind", "about", "statement", "figures", "alpha", "min_seeds", "published?", "reports?", "which_student?",
    "asked_by?",
)  # fmt: skip
COLUMNS = dict.fromkeys(c.rstrip("?") for c in (*_OF_ALL, *(c for k in KINDS.values() for c in k.columns)))
BEST = "best"  # the best of the students that one run trains


@frozen
class Claim:
    """One claim, and how it is judged. params/claims.md explains the other fields, under the columns of their names.

    Attributes:
        kind: a key of KINDS.
        published: the figure in percent (value, chance, order against one figure), the gain in percentage points
            (effect), both sides (order of two lines) or all rows (trend, bound); None where none is printed.
        printed: the same as text for a table.
        published_n: runs the published mean stands on; None where the source does not say.
        margin: percentage points; None for order.
        contrast: one coefficient per group, scaled so that those above zero sum to 1: a difference of two weighted
            means, in percentage points.
        best: indices of the groups among which the best one is claimed to be.
        family: claims corrected together for their number; "" for none.
        runs: side -> selectors "chapter/line": "a" and "b", or "groups" with one selector per group.
        chapter: where it is shown first; `chapters` are all that hold runs of it.
        source, table, row: where the figure stands: key of SHORT_SOURCE, its table, and the row in words.
        who: says it first: "ReviewKD paper", "[Re] paper" (with the baselines it quotes), "[Re] README", a README of
            another system, or "this report" where the question is its own.
        also_by: further sources that print the same figure of the same runs.
        notes: what the table of claims remarks on the rows.
        references: indices of the rows in `rkd.published.load()`.
        which_student: one of rkd.methods.modreduce.STUDENTS, or BEST of them; "": the run's own network.
    """

    kind: str
    published: float | tuple[float, ...] | None = None
    printed: str = ""
    published_n: Count | None = None
    margin: Positive | None = None
    alpha: ErrorRate = 0.05
    min_seeds: Count = 5
    contrast: tuple[float, ...] = ()
    best: tuple[int, ...] = ()
    chance: Positive | None = None
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "made-up"
    about: str = ""
    statement: str = ""
    family: str = ""
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    chapter: str = ""
    source: str = ""
    table: str = ""
    row: str = ""
    who: str = ""
    also_by: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    references: tuple[int, ...] = ()
    reports: Literal["", "the last epoch", "the best epoch on the test set"] = ""
    which_student: str = ""

    @property
    def selectors(self) -> tuple[str, ...]:
        """The lines whose runs answer the claim, each once."""
        return tuple(dict.fromkeys(s for side in self.runs.values() for s in side))

    @property
    def chapters(self) -> tuple[str, ...]:
        """The claim's own chapter, then every other chapter whose lines answer it."""
        return tuple(dict.fromkeys([self.chapter, *(split(s)[0] for s in self.selectors)]))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The selectors of each group of runs to average: one group per side, or one per selector of "groups"."""
        if "groups" in self.runs:
            return tuple((selector,) for selector in self.runs["groups"])
        return tuple(self.runs[side] for side in ("a", "b") if side in self.runs)

    @property
    def direction(self) -> tuple[float, ...]:
        """A weight for each of `groups`, so that the claimed direction is up; empty if none answers the claim."""
        if self.kind == "trend":
            return self.contrast
        if self.kind in ("order", "effect") and len(self.groups) == 2:
            sign = math.copysign(1.0, self.published) if self.kind == "effect" else 1.0
            return sign, -sign
        return ()


def load_claims(
    path: Path | None = None, selectors: Selectors | None = None, check: bool = True
) -> tuple[Claim, ...]:
    """Return all declared claims, in the order of the file.

    Args:
        path: the file of claims; None: params/claims.csv.
        selectors: the lines that the claims' runs must be among; None: those of the paper profile.
        check: whether to look up every line now; otherwise each is looked up when its claim is evaluated.

    Raises:
        ConfigError: one sentence that names the file, the claim and what is wrong with it.
    """
    path = path or paths.params() / "claims.csv"
    selectors = (selectors or Selectors()) if check else None
    found: dict[str, Claim] = {}
    families: dict[str, Claim] = {}  # the first claim of each
    for number, row in enumerate(_read(path), 1):
        try:
            claim = _claim(row)
            if claim.id in found:
                raise ConfigError(f"id {claim.id!r} is taken by an earlier claim")
            for selector in claim.selectors if selectors else ():
                selectors.ids(selector)
            first = families.setdefault(claim.family, claim) if claim.family else claim
            for name in ("kind", "alpha"):  # Holm's correction divides alpha among the family
                if (one := getattr(claim, name)) != (other := getattr(first, name)):
                    raise ConfigError(f"{name} is {one}, but {other} for {first.id!r} of the same family")
        except ConfigError as error:
            raise ConfigError(f"{path.name}, claim {row['id'] or f'number {number}'!r}: {error}") from error
        found[claim.id] = claim
    return tuple(found.values())


def _read(path: Path) -> list[dict[str, str]]:
    rows = published.read_table(path, "claims", ConfigError)
    for column in rows[0] if rows else ():
        if column not in COLUMNS:
            raise unknown(f"column in {path.name}:", column, COLUMNS)
    if not rows:
        raise ConfigError(f"{path} is no table of claims: it needs rows")
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows]


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
    for line in row["best"].split():
        if line not in groups:
            raise unknown("line in `best`:", line, groups)
    return Claim(
        **{c: row[c] for c in ("id", "kind", "about", "statement", "family", "reports", "which_student")},
        **{c: _number(row[c]) for c in ("published_n", "margin", "alpha", "min_seeds", "chance")},
        published=value,
        printed=printed,
        contrast=_contrast(row["contrast"], len(groups)) if row["contrast"] else (),
        best=tuple(groups.index(line) for line in row["best"].split()),
        runs=runs,
        chapter=split(next(iter(runs.values()))[0])[0],
        source=first.source,
        table=", ".join(dict.fromkeys(r.table for r in [*figures, *also] if r.source == first.source)),
        row=_row_in_words(figures, minus),
        who=row["asked_by"] or who(first),
        also_by=tuple(dict.fromkeys(who(r) for r in figures if r.source != first.source)),
        notes=tuple(dict.fromkeys(r.note for r in everything if r.note)),
        references=tuple(dict.fromkeys(r.Index for r in everything)),
    )


def _number(text: str) -> float | str | None:
    """Return a cell's number; None if it is empty or the source does not say, the text itself if it is no number."""
    try:
        return None if text in ("", "unknown") else float(text)
    except ValueError:
        return text


def _check_columns(row: Mapping[str, str]) -> None:
    if row["kind"] not in KINDS:
        raise unknown("kind", row["kind"], KINDS)
    takes = (*_OF_ALL, *KINDS[row["kind"]].columns)
    for column, text in row.items():
        if column in takes and not text.strip():
            raise ConfigError(f"column {column!r} is empty; a claim of kind {row['kind']} needs it")
        if text and column not in takes and f"{column}?" not in takes:
            raise ConfigError(f"column {column!r} is {text!r}; a claim of kind {row['kind']} has none")
    if row["which_student"] not in ("", BEST):
        from rkd.methods.modreduce import STUDENTS

        if row["which_student"] not in STUDENTS:
            raise unknown("which_student", row["which_student"], (BEST, *STUDENTS))


def _published(
    row: Mapping[str, str], figures: Sequence[Figure], minus: Sequence[Figure], over: Sequence[Figure]
) -> tuple[float | tuple[float, ...] | None, str]:
    """Return the published figure, and the text that shows it."""
    kind, first, printed = row["kind"], figures[0], ", ".join(r.value for r in figures)
    numbers = tuple(r.number for r in figures)
    known = not any(map(math.isnan, numbers))
    if row["published"]:
        if minus or known:
            raise ConfigError(f"`published` is given; the table of published figures has it: {first.value}")
        return checked(Positive, "published", _number(row["published"])), first.value
    if kind == "bound":
        return tuple(r.number for r in over), f"{len(over)} accuracies within {float(row['margin']):g}"
    if kind == "trend":
        return (numbers if known else None), printed
    if not known:
        raise ConfigError(f"its figure is printed as {first.value!r}, no single number; give `published`")
    if len(set(numbers)) != 1:
        raise ConfigError(f"it names {len(figures)} figures that differ: {printed}")
    if minus:
        other, both = minus[0].number, f"{first.value} against {minus[0].value}"
        if kind == "effect":
            return round(first.number - other, 6), f"{first.number - other:+.2f} ({both})"
        if not row["b"]:
            raise ConfigError("`minus` needs runs on side b")
        return (first.number, other), both
    if kind == "effect":
        raise ConfigError("column 'minus' is empty: a gain is a difference of two figures, or `published`")
    return (None, "") if kind == "order" and row["b"] else (first.number, first.value)


def _contrast(text: str, groups: int) -> tuple[float, ...]:
    try:
        values = [float(value) for value in text.split()]
    except ValueError:
        values = []
    above = sum(v for v in values if v > 0)
    if len(values) != groups or not above > 0 or not math.isclose(sum(values), 0.0, abs_tol=1e-9):
        raise ConfigError(
            f"contrast is {text!r}; it must be {groups} numbers, one for each line, that sum to 0 and are not all 0"
        )
    return tuple(v / above for v in values)


def who(figure: Figure) -> str:
    """Return whose figure it is: the [Re] sources print the paper's figures beside their own."""
    return "ReviewKD paper" if figure.variant == "paper" else SHORT_SOURCE[figure.source]


def _row_in_words(figures: Sequence[Figure], minus: Sequence[Figure]) -> str:
    first = figures[0]
    pair = f"{first.student} ← {first.teacher}" if first.teacher not in ("-", "all pairs") else ""
    numbers = {r.number for r in figures if not math.isnan(r.number)}
    what = ", ".join(dict.fromkeys(text for text in (first.method, first.variant) if text))
    if len({r.variant for r in figures}) > 1 and len(numbers) != 1:
        what = f"{len(figures)} rows"
    words = f"{pair}: {what}" if pair else what
    if minus:
        words += f" − {minus[0].variant if minus[0].method == first.method else minus[0].method}"
    return words
