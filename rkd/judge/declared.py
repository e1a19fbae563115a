"""The claims under judgement, as params/claims.yaml declares them.

Published figures are read from the table of claims: an entry of the file names rows of it, and many entries stand
for one claim per row. Everything is checked on loading, so that a claim about a row that does not exist, or about
runs no chapter makes, is one sentence here and not a missing line in the book.
"""

import functools
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rkd import paths, published
from rkd.errors import ConfigError, unknown
from rkd.experiments.answers import answer
from rkd.experiments.chapters import SHORT_SOURCE
from rkd.experiments.selectors import Selectors, split
from rkd.methods.modreduce import STUDENTS
from rkd.models import canonical, display_name


@dataclass(frozen=True)
class Kind:
    """What claims of one kind are.

    Attributes:
        words: for a reader, a noun phrase.
        question: what is asked of the runs.
        needs: keys an entry of this kind must have beyond those of all kinds.
        takes: keys it may have.
        sides: names of the groups of runs; those with a question mark may be left out.
    """

    words: str
    question: str
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    sides: tuple[str, ...] = ("a",)


KINDS = {
    "value": Kind(
        "accuracies", "does the mean over seeds lie within the margin of the published accuracy?",
        needs=frozenset({"margin", "published_n"}), takes=frozenset({"also"}),
    ),
    "order": Kind(
        "comparisons", "does a run of one side beat a run of the other?",
        needs=frozenset({"family"}), takes=frozenset({"minus"}), sides=("a", "b?"),
    ),
    "effect": Kind(
        "gains", "is the difference of two means the published one, within the margin?",
        needs=frozenset({"margin", "family"}), takes=frozenset({"minus", "also"}), sides=("a", "b"),
    ),
    "trend": Kind(
        "trends", "does a contrast that was declared beforehand point the claimed way?",
        needs=frozenset({"margin", "family", "contrast"}), takes=frozenset({"best"}), sides=("groups",),
    ),
    "bound": Kind(
        "a bound", "does every one of several means lie within a bound of its published value?",
        needs=frozenset({"margin", "over"}), sides=("groups",),
    ),
    "chance": Kind(
        "chance level", "does the mean lie within the margin of chance?", needs=frozenset({"margin", "chance"})
    ),
}  # fmt: skip
_COMMON_NEEDS = frozenset({"id", "about", "kind", "statement", "runs"})
_COMMON_TAKES = frozenset(
    {
        "row", "each", "keys", "words", "once", "published", "asked_by", "chapter", "alpha", "min_seeds", "reports",
        "which_student",
    }
)  # fmt: skip
_TEXTS = ("id", "about", "kind", "statement", "family", "asked_by", "chapter")
REPORTS = ("the last epoch", "the best epoch on the test set")
BEST = "best"  # of the students that one run trains
_ANSWERS = ("{line}", "{minus}")  # in `runs`: the lines that answer a row, by rkd.experiments.answers


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
        path: of the declaration; None: params/claims.yaml.
        selectors: lines the claims' runs must be among; None: those of the paper profile.
        check: whether every line is looked up now, for which all chapters are built; else only once it is judged.

    Raises:
        ConfigError: one sentence that names the file, the entry and what is wrong with it.
    """
    path = paths.params() / "claims.yaml" if path is None else path
    declared = _read(path)
    selectors = (Selectors() if selectors is None else selectors) if check else None
    found: dict[str, Claim] = {}
    for number, entry in enumerate(declared["claims"], 1):
        name = entry.get("id", f"number {number}") if isinstance(entry, Mapping) else f"number {number}"
        try:
            for claim in _expand(entry, declared["defaults"], selectors):
                if claim.id in found:
                    raise ConfigError(f"id {claim.id!r} is taken by an earlier claim")
                found[claim.id] = claim
        except ConfigError as error:
            raise ConfigError(f"{path.name}, entry {name!r}: {error}") from error
    _check_families(path, found.values())
    return tuple(found.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(declared, dict) or not isinstance(declared.get("claims"), list):
        raise ConfigError(f"{path.name} must hold `defaults`, a mapping, and `claims`, a list")
    for key in declared:
        if key not in ("defaults", "claims"):
            raise unknown(f"key in {path.name}:", key, ("defaults", "claims"))
    defaults = declared.get("defaults") or {}
    for key in defaults:
        if key not in ("alpha", "min_seeds"):
            raise unknown(f"default in {path.name}:", key, ("alpha", "min_seeds"))
    return {"defaults": defaults, "claims": declared["claims"]}


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


# --- entries to claims ----------------------------------------------------------------------------------------------


def _expand(entry: Any, defaults: Mapping[str, Any], selectors: Selectors | None) -> Iterator[Claim]:
    """One claim per row, per set of names, or just one."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"it is {entry!r}; it must be a mapping")
    entry = {**defaults, **entry}
    _check_keys(entry)
    for row, names in _instances(entry):
        yield _claim(entry, row, names, selectors)


def _check_keys(entry: Mapping[str, Any]) -> None:
    for key in ("id", "kind"):
        if key not in entry:
            raise ConfigError(f"field {key!r} is missing")
    if entry["kind"] not in KINDS:
        raise unknown("kind", entry["kind"], KINDS)
    kind = KINDS[entry["kind"]]
    needs = _COMMON_NEEDS | kind.needs | {"alpha", "min_seeds"}
    for key in sorted(needs - set(entry)):
        raise ConfigError(f"field {key!r} is missing")
    allowed = needs | _COMMON_TAKES | kind.takes
    for key in entry:
        if key not in allowed:
            raise unknown(f"field of a claim of kind {entry['kind']}:", key, allowed)
    for key, allowed in (("reports", REPORTS), ("which_student", (BEST, *STUDENTS))):
        if key in entry and entry[key] not in allowed:
            raise unknown(key, entry[key], allowed)
    for key in _TEXTS:
        if key in entry and not (isinstance(entry[key], str) and entry[key].strip()):
            raise ConfigError(f"{key} is {entry[key]!r}; it must be text")
    rows_of_each = isinstance(entry.get("each"), Mapping)
    if ("row" in entry) == rows_of_each:
        raise ConfigError(
            "it must name its rows of the table of claims either by `row` or by a mapping in `each`"
        )
    for key in ("keys", "words", "once"):
        if key in entry and not rows_of_each:
            raise ConfigError(f"`{key}` goes with a mapping in `each`")


def _instances(entry: Mapping[str, Any]) -> Iterator[tuple[pd.DataFrame, dict[str, str]]]:
    """The rows each claim of an entry is about, and the names its texts may use."""
    each = entry.get("each")
    if isinstance(each, list):
        for values in each:
            if not isinstance(values, Mapping) or not values:
                raise ConfigError(
                    f"`each` holds {values!r}; in a list each must be a mapping of names to texts"
                )
            names = {str(name): str(value) for name, value in values.items()}
            rows = _rows(_filled(entry["row"], names))
            yield rows, {**_names_of(rows), **names}
    elif each is None:
        rows = _rows(entry["row"])
        yield rows, _names_of(rows)
    elif isinstance(each, Mapping):
        yield from _rows_one_by_one(entry, _rows(each))
    else:
        raise ConfigError(f"`each` is {each!r}; it must be a mapping of columns, or a list of mappings")


def _rows_one_by_one(
    entry: Mapping[str, Any], rows: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, dict[str, str]]]:
    keys = _mapping("keys", entry.get("keys", {}))
    if keys:
        variants = list(rows["variant"])
        for variant, key in keys.items():
            if variant not in variants:
                raise unknown("variant in `keys`:", variant, variants)
            if not isinstance(key, str):
                raise ConfigError(f"the key of variant {variant!r} is {key!r}; write it in quotation marks")
        rows = rows[rows["variant"].isin(keys)]
    words = _mapping("words", entry.get("words", {}))
    once = entry.get("once", [])
    once = [once] if isinstance(once, str) else once
    for column in once:
        if column not in published.COLUMNS:
            raise unknown("column in `once`:", column, published.COLUMNS)
    same: dict[Any, list[int]] = {}
    for index, row in rows.iterrows():
        cell = (*(_registered(column, row[column]) for column in once), row["number"]) if once else index
        same.setdefault(cell, []).append(index)
    for indices in same.values():
        group = rows.loc[indices]
        names = _names_of(group)
        names |= {"key": keys[names["variant"]]} if keys else {}
        yield group, names | {"words": words.get(names["variant"], names["variant"])}


def _claim(
    entry: Mapping[str, Any], rows: pd.DataFrame, names: dict[str, str], selectors: Selectors | None
) -> Claim:
    kind = entry["kind"]
    minus = _further(rows, _filled(entry["minus"], names)) if "minus" in entry else None
    published, printed, over = _published(entry, rows, minus)
    if kind == "effect":
        names = {**names, "gain": f"{published:.2f}"}
    runs = _runs(entry, names, over, {"{line}": rows, "{minus}": minus}, selectors)
    home = split(next(iter(runs.values()))[0])[0]
    names = {**names, "home": home}
    also = [_further(rows, _filled(other, names)) for other in entry.get("also", ())]
    for other in also:
        if other["number"].iloc[0] != published:
            raise ConfigError(f"`also` names a row that prints {other['value'].iloc[0]}, not {printed}")
    first = rows.iloc[0]
    groups = len(runs["groups"]) if "groups" in runs else 0
    everything = [rows, *([minus] if minus is not None else []), *also, *([over] if over is not None else [])]
    chapter = _fill(entry["chapter"], names) if "chapter" in entry else home
    split(f"{chapter}/-")
    return Claim(
        id=_identifier(_fill(entry["id"], names)),
        about=_fill(entry["about"], names),
        kind=kind,
        chapter=chapter,
        family=_fill(entry.get("family", ""), names),
        source=first["source"],
        table=", ".join(
            dict.fromkeys(
                r["table"]
                for part in (rows, *also)
                for _, r in part.iterrows()
                if r["source"] == first["source"]
            )
        ),
        row=_row_in_words(rows, minus),
        statement=_fill(entry["statement"], names),
        who=entry["asked_by"] if "asked_by" in entry else _who(first),
        published=published,
        printed=printed,
        published_n=_count(entry["published_n"]) if "published_n" in entry else None,
        margin=_positive("margin", entry["margin"]) if "margin" in entry else None,
        alpha=_alpha(entry["alpha"]),
        min_seeds=_min_seeds(entry["min_seeds"]),
        runs=runs,
        contrast=_contrast(entry["contrast"], groups) if "contrast" in entry else (),
        best=_best(entry["best"], runs["groups"]) if "best" in entry else (),
        chance=_positive("chance", entry["chance"]) if "chance" in entry else None,
        notes=tuple(dict.fromkeys(note for part in everything for note in part["note"] if note)),
        references=tuple(dict.fromkeys(int(index) for part in everything for index in part.index)),
        also_by=tuple(
            dict.fromkeys(_who(row) for _, row in rows.iterrows() if row["source"] != first["source"])
        ),
        reports=entry.get("reports", ""),
        which_student=entry.get("which_student", ""),
    )


def _published(
    entry: Mapping[str, Any], rows: pd.DataFrame, minus: pd.DataFrame | None
) -> tuple[float | tuple[float, ...] | None, str, pd.DataFrame | None]:
    """The published figure, as it is shown, and the rows of `over`."""
    kind, numbers = entry["kind"], rows["number"]
    over = _rows(entry["over"]) if "over" in entry else None
    if "published" in entry:
        if minus is not None or not numbers.isna().all():
            raise ConfigError(
                f"`published` is given, but the table of claims has the figure: {rows['value'].iloc[0]}"
            )
        given = _positive("published", entry["published"])
        return given, rows["value"].iloc[0], over
    if kind == "bound":
        values = tuple(float(v) for v in over["number"])
        return values, f"{len(values)} accuracies within {entry['margin']}", over
    if kind == "trend":
        known = not numbers.isna().any()
        return (tuple(map(float, numbers)) if known else None), ", ".join(rows["value"]), over
    if numbers.isna().any():
        raise ConfigError(f"its row prints {rows['value'].iloc[0]!r}, no single number; give `published`")
    if len(set(numbers)) != 1:
        raise ConfigError(f"its row matches {len(rows)} rows with different figures; name more columns")
    number, value = float(numbers.iloc[0]), rows["value"].iloc[0]
    two_sided = "b" in entry["runs"]
    if minus is not None:
        other = float(minus["number"].iloc[0])
        both = f"{value} against {minus['value'].iloc[0]}"
        if kind == "effect":
            return round(number - other, 6), f"{number - other:+.2f} ({both})", over
        if not two_sided:
            raise ConfigError("`minus` needs runs on side b")
        return (number, other), both, over
    if kind == "effect":
        raise ConfigError(
            "field 'minus' is missing: a gain is a difference of two rows, or given as `published`"
        )
    if kind == "order" and two_sided:
        return None, "", over
    return number, value, over


def _runs(
    entry: Mapping[str, Any],
    names: Mapping[str, str],
    over: pd.DataFrame | None,
    answered: Mapping[str, pd.DataFrame | None],
    selectors: Selectors | None,
) -> dict[str, tuple[str, ...]]:
    runs, kind = entry["runs"], entry["kind"]
    sides = KINDS[kind].sides
    if not isinstance(runs, Mapping):
        raise ConfigError(
            f"runs is {runs!r}; it must map {' and '.join(s.rstrip('?') for s in sides)} to chapter/line"
        )
    for side in sides:
        if not side.endswith("?") and side not in runs:
            raise ConfigError(f"runs lacks side {side!r}")
    made = {}
    for side, value in runs.items():
        if side not in {s.rstrip("?") for s in sides}:
            raise unknown("side of runs", side, [s.rstrip("?") for s in sides])
        if over is not None:  # one template, filled from each row
            filled = [_fill(value, _names_of(over.loc[[index]])) for index in over.index]
        else:
            filled = []
            for text in value if isinstance(value, list) else [value]:
                lines = text in _ANSWERS and answered[text] is not None
                filled += _lines_of(answered[text]) if lines else [_fill(text, names)]
        for selector in filled:
            if selectors is None:
                split(selector)
            else:
                selectors.line(selector)
        made[side] = tuple(dict.fromkeys(filled))
    return made


# --- rows of the table of claims ------------------------------------------------------------------------------------


def _lines_of(rows: pd.DataFrame) -> list[str]:
    """The lines that answer these rows; ConfigError for a row that none answers."""
    lines: dict[str, None] = {}
    for row in rows.itertuples():
        found = answer(row).lines
        if not found:
            raise ConfigError(f"no line of a chapter answers {row.id!r}")
        lines |= dict.fromkeys(found)
    return list(lines)


def _rows(equal: Any) -> pd.DataFrame:
    """Rows of `rkd.published.load()` whose columns equal a text, or one of a list of texts; "bold*" is any text that
    begins so."""
    if not isinstance(equal, Mapping) or not equal:
        raise ConfigError(
            f"a row is {equal!r}; it must be a mapping of columns to texts, for example table: Table 3"
        )
    wanted_texts = []
    for column, wanted in equal.items():
        if column not in published.COLUMNS:
            raise unknown("column", column, published.COLUMNS)
        texts = tuple(str(w) for w in (wanted if isinstance(wanted, list) else [wanted]))
        wanted_texts.append((column, texts))
    table = _matching(tuple(wanted_texts))
    if table.empty:
        described = ", ".join(f"{column} {wanted!r}" for column, wanted in equal.items())
        raise ConfigError(f"no row of the table of claims has {described}")
    return table


@functools.cache
def _matching(equal: tuple[tuple[str, tuple[str, ...]], ...]) -> pd.DataFrame:
    """Rows by column and texts; never changed by those who ask."""
    table = published.load()
    for column, texts in equal:
        fits = table[column].isin(texts)
        for text in texts:
            if text.endswith("*"):
                fits |= table[column].str.startswith(text[:-1])
        table = table[fits]
    return table


def _registered(column: str, text: str) -> str:
    """A network's registered name, for sources differ in their spelling; any other text, or no network, as it is."""
    if column not in ("teacher", "student"):
        return text
    try:
        return canonical(text)
    except ConfigError:  # "all", "-"
        return text


def _further(rows: pd.DataFrame, equal: Mapping[str, Any]) -> pd.DataFrame:
    """The one other row of the same pair: what `equal` leaves out, but for the variant, is as in `rows`."""
    kept = ("source", "table", "teacher", "student", "method", "dataset", "metric")
    found = _rows({**{column: rows.iloc[0][column] for column in kept}, **equal})
    if len(found) != 1:
        raise ConfigError(f"{dict(equal)} matches {len(found)} rows; name more columns")
    return found


def _names_of(rows: pd.DataFrame) -> dict[str, str]:
    """What templates may say of a row: columns as printed, and forms of them that fit into an id or a selector."""
    row = rows.iloc[0]
    names = {"value": row["value"], "variant": row["variant"], "Method": row["method"], "table": row["table"]}
    names |= {"method": _slug(row["method"]), "chapter": _slug(row["table"])}
    names |= {"dataset": _slug(row["dataset"]), "Dataset": row["dataset"]}
    for column in ("teacher", "student"):
        try:
            names |= {column: canonical(row[column]), column.title(): display_name(row[column])}
        except ConfigError:  # "all", "-": no network
            names |= {column: row[column], column.title(): row[column]}
    return names


def _who(row: pd.Series) -> str:
    """Whose figure a row is: the [Re] sources print the paper's beside their own."""
    return "ReviewKD paper" if row["variant"] == "paper" else SHORT_SOURCE[row["source"]]


def _row_in_words(rows: pd.DataFrame, minus: pd.DataFrame | None) -> str:
    first = rows.iloc[0]
    pair = f"{first['student']} ← {first['teacher']}" if first["teacher"] not in ("-", "all pairs") else ""
    if len(rows) > 1 and rows["variant"].nunique() > 1 and rows["number"].nunique() != 1:
        what = f"{len(rows)} rows"
    else:
        what = ", ".join(dict.fromkeys(text for text in (first["method"], first["variant"]) if text))
    words = f"{pair}: {what}" if pair else what
    if minus is not None:
        other = minus.iloc[0]
        words += f" − {other['variant'] if other['method'] == first['method'] else other['method']}"
    return words


# --- texts and numbers ----------------------------------------------------------------------------------------------


def _fill(text: Any, names: Mapping[str, str]) -> str:
    """A template filled; ConfigError for a name it does not know."""
    if not isinstance(text, str):
        raise ConfigError(f"{text!r} must be text")
    try:
        wanted = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{text!r} has a brace without its partner") from error
    for name in wanted:
        if name not in names:
            raise unknown(f"name in {text!r}:", name, names)
    return text.format_map(names)


def _filled(equal: Any, names: Mapping[str, str]) -> Any:
    """A mapping of columns with its texts filled."""
    if not isinstance(equal, Mapping):
        return equal
    return {column: _fill(text, names) if isinstance(text, str) else text for column, text in equal.items()}


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; it must be a mapping")
    return value


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise ConfigError(f"id {text!r} must consist of lower-case letters, digits, '-', '_' and '.'")
    return text


def _positive(name: str, value: Any) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{name} is {value!r}; it must be a finite number > 0")
    return float(value)


def _alpha(value: Any) -> float:
    if not isinstance(value, float) or not 0 < value < 0.5:
        raise ConfigError(f"alpha is {value!r}; it must be a number between 0 and 0.5")
    return value


def _min_seeds(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise ConfigError(f"min_seeds is {value!r}; it must be a whole number >= 2")
    return value


def _count(value: Any) -> int | None:
    if value == "unknown":
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"published_n is {value!r}; it must be a whole number >= 1, or unknown")
    return value


def _contrast(values: Any, groups: int) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise ConfigError(f"contrast is {values!r}; it must be a list of numbers")
    if len(values) != groups:
        raise ConfigError(f"contrast has {len(values)} coefficients for {groups} groups of runs")
    above = sum(v for v in values if v > 0)
    if above <= 0 or not math.isclose(sum(values), 0.0, abs_tol=1e-9):
        raise ConfigError(f"contrast is {values}; its coefficients must sum to 0 and not all be 0")
    return tuple(v / above for v in values)


def _best(values: Any, groups: Sequence[str]) -> tuple[int, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"best is {values!r}; it must be a list of chapter/line")
    for value in values:
        if value not in groups:
            raise unknown("line in `best`:", value, groups)
    return tuple(groups.index(value) for value in values)
