"""Chapters: what the notebook of a table or figure declares, and the lines of runs that it comes to.

A chapter is a notebook of the book that has a cell tagged "rows". Everything assigned there is a literal, so that
it is read here without being executed; a notebook that is being executed passes the same names with what a reader made
of them. What may be assigned:

    ROWS     key -> row, or a list of keys. A row is a mapping of an option of its method to a value, and of the names
             in `ROW_NAMES`. Keys "teacher" and "student" are the networks trained on labels alone.
    RECIPE   of params/recipes/, unless a reader names another.
    METHOD   of every row; without it a row's method is its key.
    PAIRS    [teacher, student] lists: every row is repeated for each; without it the pair is the profile's.
    DATASETS, RECIPES  likewise.
    SWEEP    {option: values}: a row for each; the parameter of that name with an "s" replaces the values.
    FIXED    options of which a row's own values win over a reader's.
    LABEL    of rows that have none, see `label`.
    NOTES    key of a line -> note, in place of the row's.
    TRAINED_AS  student -> the network that is trained in its place in rows with `trained_as`.
"""

import dataclasses
import functools
import math
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rkd import paths, published
from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import assigned_values, notebook_names, read_notebook, tagged, title_of
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import Settings
from rkd.methods import get_method
from rkd.methods.modreduce import cutoff_of, growth_steps_of
from rkd.models import canonical, display_name
from rkd.published import SHORT_SOURCE
from rkd.training.config import RunConfig

SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
ROW_NAMES = {
    "role": "teacher or student, of the networks trained on labels alone; else the key says it",
    "method": "registered, or a sum such as at+kd",
    "recipe": "in place of the chapter's",
    "label": "as printed; {teacher}, {student}, {recipe}, {epochs} and options are filled in",
    "note": "what a reader has to know; filled in likewise",
    "note_of_published": "shown only where something is published",
    "group": "heading; lines of one group belong together",
    "ce_weight": "of cross-entropy",
    "teacher_weights": "last, best or random",
    "teacher_batch_norm": "batch or running",
    "trained_as": "True: the network that TRAINED_AS names is trained in the student's place",
    "only": "[teacher, student]: on this pair alone, or the first one where it is not among the pairs",
    "if_given": "parameters: only where a reader gives one of them",
}
NETWORKS = {
    "teacher": {"label": "teacher {teacher}", "note": "one teacher, shared by all seeds"},
    "student": {"label": "{student} alone", "note": "trained on labels only"},
}
_COMPUTED = {"growth_steps": growth_steps_of, "cutoff_epochs": cutoff_of}  # where a row says "auto"


@dataclass(frozen=True)
class Published:
    """One published accuracy, in percent, with where it stands and what the source or we note about it."""

    source: str
    value: float
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a chapter's table.

    Attributes:
        key: short, unique within the chapter.
        label: as printed.
        runs: one per seed.
        group: lines of one group belong together (a teacher-student pair).
        published: what the sources say of this line; empty where they are silent.
        note: what a reader has to know about it.
        x: position on the axis of a chapter that sweeps a number.
        role: "teacher", "student" (undistilled) or "distilled".
        recipe: of these runs, where it is not the chapter's.
    """

    key: str
    label: str
    runs: tuple[RunConfig, ...]
    group: str = ""
    published: tuple[Published, ...] = ()
    note: str = ""
    x: float | None = None
    role: str = "distilled"
    recipe: str = ""


@dataclass(frozen=True)
class Chapter:
    """What a notebook declares; see above for each of the names.

    Attributes:
        name: of the notebook, without suffix.
        title: its first heading.
    """

    name: str
    title: str
    rows: Mapping[str, Mapping[str, Any]]
    recipe: str = "authors"
    method: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    datasets: tuple[str, ...] = ("cifar100",)
    recipes: tuple[str, ...] = ()
    sweep: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    label: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    trained_as: Mapping[str, str] = field(default_factory=dict)

    @property
    def one_pair(self) -> bool:
        """Whether all lines are about the settings' pair (not the pairs of a table)."""
        return not self.pairs

    @classmethod
    def declared(cls, name: str, title: str, values: Mapping[str, Any]) -> "Chapter":
        """From the names that a cell assigns.

        Raises:
            ConfigError: rows that are no mapping of mappings, or an unknown name in one of them.
        """
        own = {f.name.upper(): f.name for f in fields(cls) if f.name not in ("name", "title")}
        found = {own[key]: value for key, value in values.items() if key in own}
        rows = found.get("rows")
        if isinstance(rows, list):
            rows = {key: {} for key in rows}
        if not isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in rows.values()):
            raise ConfigError(f"ROWS of {name} is {rows!r}; it must map keys to rows, or be a list of keys")
        for key in ("pairs", "datasets", "recipes", "fixed"):
            if key in found:
                found[key] = tuple(tuple(v) if isinstance(v, list) else v for v in found[key])
        return cls(name, title, **{**found, "rows": rows})

    def lines(self, settings: Settings) -> list[Line]:
        """The lines under given settings.

        Raises:
            ConfigError: an unknown name in a row, one checkpoint file for several teachers, or what a run's config
                refuses.
        """
        return [line for line in self._lines(settings) if not self._left_empty(line.key)]

    def _lines(self, s: Settings) -> Iterator[Line]:
        for dataset in self.sets(s):
            on = dataclasses.replace(s, dataset=dataset)
            builders: dict[str, Builder] = {}
            for recipe in ((s.recipe,) if s.recipe else self.recipes) if self.recipes else ("",):
                pairs = self._pairs(s)
                for pair in pairs:
                    for key, row in self._rows(s).items():
                        if _applies(key, row, s, pair, pairs):
                            yield self._line(_Place(on, dataset, recipe, pair, builders), key, row)

    def sets(self, s: Settings) -> tuple[str, ...]:
        """The data sets: the settings' `datasets`, else the chapter's, unless `dataset` names another than its
        default."""
        several = len(self.datasets) > 1
        if several and s.datasets is not None:
            return s.datasets
        return self.datasets if several and s.dataset == "cifar100" else (s.dataset,)

    def _pairs(self, s: Settings) -> tuple[tuple[str, str], ...]:
        if self.one_pair:
            return ((s.teacher, s.student),)
        pairs = s.pairs or self.pairs
        teachers = {canonical(teacher) for teacher, _ in pairs}
        if s.teacher_checkpoint is not None and len(teachers) > 1:
            raise ConfigError(
                f"teacher_checkpoint is one file, but the pairs name {len(teachers)} teachers; give pairs of one"
            )
        return tuple(pairs)

    def _rows(self, s: Settings) -> dict[str, Mapping[str, Any]]:
        """Rows that are declared, swept, or of methods that a reader chose."""
        rows = dict(self.rows)
        for name, values in self.sweep.items():
            for value in getattr(s, f"{name}s", None) or values:
                words = name.replace("_", " ")
                rows[f"{value:g}"] = {name: value, "label": f"{words} {value:g}"}
        if s.methods is None or self.method:
            return rows
        chosen = {key: row for key, row in rows.items() if _role(key, row)}
        for method in s.methods:
            of_method = {key: row for key, row in rows.items() if key.split("-")[0] == method}
            chosen |= of_method or {method: {}}
        return chosen

    def _line(self, place: "_Place", key: str, row: Mapping[str, Any]) -> Line:
        s, (teacher, student) = place.settings, place.pair
        role = _role(key, row)
        recipe = place.recipe or (s.recipe or row.get("recipe", ""))
        builder = place.builder(recipe, self.recipe)
        shown = {"teacher": display_name(teacher), "student": display_name(student), "epochs": builder.epochs}
        shown |= {"recipe": builder.recipe_name, "description": builder.recipe.description}
        if role:
            defaults = NETWORKS[role]
            runs = (
                (builder.teacher(teacher),)
                if role == "teacher"
                else tuple(builder.plain(student, seed) for seed in s.seeds)
            )
        else:
            method = row.get("method") or self.method or key
            runs, shown = self._distilled(builder, place.pair, key, row, method, shown)
            defaults = {"label": self.label or get_method(method).display}
        whole = f"{self._prefix(place)}{key}"
        said = _as_published(published.of_line(f"{self.name}/{whole}"))
        if role:
            on = SETS.get(place.dataset, "CIFAR-100") if len(self.datasets) > 1 else "CIFAR-100"
            said = distinct([*published_network(teacher if role == "teacher" else student, role, on), *said])
        fallback = (
            row["note_of_published"] if said and "note_of_published" in row else defaults.get("note", "")
        )
        note = _filled(self.notes.get(whole, row.get("note", fallback)), shown)
        if not role and not self.method and (given := builder.given(method)):
            with_these = f"here with {', '.join(f'{name} {value}' for name, value in given.items())}"
            note = f"{note}; {with_these}" if note else with_these
        sweeps = next(iter(self.sweep), None)
        return Line(
            whole,
            _filled(row.get("label", defaults["label"]), shown),
            runs,
            _filled(row.get("group", self._group(place)), shown),
            said,
            note,
            row.get(sweeps) if sweeps else None,
            role or "distilled",
            (recipe or builder.recipe_name) if place.recipe or row.get("recipe") else "",
        )

    def _distilled(
        self,
        builder: Builder,
        pair: tuple[str, str],
        key: str,
        row: Mapping[str, Any],
        method: str,
        shown: Mapping[str, Any],
    ) -> tuple[tuple[RunConfig, ...], dict[str, Any]]:
        """A row's runs, and what its texts may name."""
        teacher, student = pair
        options = {name: value for name, value in row.items() if name not in ROW_NAMES}
        known = (
            [f.name for f in fields(get_method(method).options)] if "+" not in method else method.split("+")
        )
        for name in options:
            if name not in known:
                raise unknown(f"name in row {key!r} of {self.name}:", name, [*known, *ROW_NAMES])
        for name, made in _COMPUTED.items():
            if options.get(name) == "auto":
                options[name] = made(builder.epochs, builder.recipe.epochs)
        network = self.trained_as.get(canonical(student), student) if row.get("trained_as") else student
        named = {"weights": row.get("teacher_weights"), "batch_norm": row.get("teacher_batch_norm")}
        runs = tuple(
            builder.distilled(
                teacher,
                network,
                seed,
                method,
                options,
                row.get("ce_weight"),
                self.fixed,
                {name: value for name, value in named.items() if value is not None},
            )
            for seed in builder.settings.seeds
        )
        used = vars(runs[0].options) if runs else {}
        return runs, {**used, **shown, "network": display_name(network)}

    def _prefix(self, place: "_Place") -> str:
        parts = [Path(place.dataset).stem] if len(self.datasets) > 1 else []
        parts += [place.recipe] if place.recipe else []
        parts += [] if self.one_pair else [canonical(place.pair[1]), canonical(place.pair[0])]
        return "".join(f"{part}-" for part in parts)

    def _group(self, place: "_Place") -> str:
        if place.recipe:
            return "recipe {recipe}: {description}"
        if self.one_pair:
            return ""
        several = len(self.datasets) > 1
        itself = several and canonical(place.pair[0]) == canonical(place.pair[1])
        pair = "{student}" if itself else "{student} ← {teacher}"
        return f"{pair} on {SETS.get(place.dataset, place.dataset)}" if several else pair

    def _left_empty(self, key: str) -> bool:
        """Whether the source's table has this cell and prints nothing in it."""
        rows = published.of_line(f"{self.name}/{key}")
        return bool(rows) and not any(row.value for row in rows)


@dataclass(frozen=True)
class _Place:
    """Where in a chapter a row is repeated."""

    settings: Settings
    dataset: str
    recipe: str
    pair: tuple[str, str]
    builders: dict[str, Builder]

    def builder(self, recipe: str, default: str) -> Builder:
        """That of a recipe; "": the settings', else the default. Kept, since reading a recipe takes its time."""
        if recipe not in self.builders:
            own = dataclasses.replace(self.settings, recipe=recipe or self.settings.recipe)
            self.builders[recipe] = Builder(own, default)
        return self.builders[recipe]


def _role(key: str, row: Mapping[str, Any]) -> str:
    return row.get("role", key if key in NETWORKS else "")


def _applies(
    key: str, row: Mapping[str, Any], s: Settings, pair: tuple[str, str], pairs: Sequence[tuple[str, str]]
) -> bool:
    if s.teacher_checkpoint is not None and _role(key, row) == "teacher":  # a file has no run to show
        return False
    if "if_given" in row and all(getattr(s, name) is None for name in row["if_given"]):
        return False
    asked = s.teacher_batch_norm
    if asked is not None and row.get("teacher_batch_norm", asked) != asked:
        return False
    if "only" not in row:
        return True
    same = [(canonical(teacher), canonical(student)) for teacher, student in pairs]
    wanted = (canonical(row["only"][0]), canonical(row["only"][1]))
    return (canonical(pair[0]), canonical(pair[1])) == (wanted if wanted in same else same[0])


class _Filler(string.Formatter):
    """Lists as "h, 4, 1", numbers without needless digits."""

    def format_field(self, value: Any, spec: str) -> str:
        if isinstance(value, tuple):
            return ", ".join(self.format_field(v, spec) for v in value)
        return f"{value:g}" if isinstance(value, float) else format(value, spec)


def _filled(text: str, shown: Mapping[str, Any]) -> str:
    try:
        return _Filler().vformat(text, (), shown) if "{" in text else text
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{text!r} cannot be filled in ({error}); it may name {', '.join(shown)}"
        ) from error


# --- which chapters there are ---------------------------------------------------------------------------------


def chapter_names() -> list[str]:
    """Names of the notebooks that declare rows, in the order of the book."""
    book = paths.home() / "book"
    return [name for name in notebook_names(book) if _read(book / f"{name}.ipynb") is not None]


def get_chapter(name: str) -> Chapter:
    """A chapter by name.

    Raises:
        ConfigError: no notebook of that name declares rows.
    """
    path = paths.home() / "book" / f"{name}.ipynb"
    found = _read(path) if path.is_file() else None
    if found is None:
        raise unknown("chapter", name, chapter_names())
    return found


def chapter_in(name: str, namespace: Mapping[str, Any]) -> Chapter:
    """A chapter as the notebook that is being executed has it: with the rows that a reader changed or added there.

    Raises:
        ConfigError: no such chapter, or rows that are none.
    """
    declared = get_chapter(name)
    return Chapter.declared(name, declared.title, namespace) if "ROWS" in namespace else declared


def _read(path: Path) -> Chapter | None:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed: int) -> Chapter | None:
    """A notebook's declaration, read again once the file has changed; None where it has none."""
    notebook = read_notebook(path)
    cells = tagged(notebook, "rows")
    if not cells:
        return None
    try:
        values = {name: value for cell in cells for name, value in assigned_values(cell["source"]).items()}
    except (ValueError, SyntaxError) as error:
        raise ConfigError(f"{path}: the cell tagged rows must assign literals alone ({error})") from error
    return Chapter.declared(path.stem, title_of(notebook, path.stem), values)


# --- what is published of a line ------------------------------------------------------------------------------


@functools.cache
def published_network(name: str, role: str, dataset: str = "CIFAR-100") -> tuple[Published, ...]:
    """What all sources say of one undistilled network ("teacher" or "student") on CIFAR-100."""
    method = {"teacher": "teacher", "student": "student baseline"}[role]
    return _as_published(
        row
        for row in published.rows().values()
        if (row.metric, row.method, row.dataset) == ("top1_acc_percent", method, dataset)
        and same_network(getattr(row, role), name)
    )


@functools.cache
def same_network(printed: str, name: str) -> bool:
    """Whether a source's spelling means the network `name`; a source may print networks this package does not build."""
    try:
        return canonical(printed) == canonical(name)
    except ConfigError:
        return False


def _as_published(rows: Iterable[Any]) -> tuple[Published, ...]:
    """In the order of `SHORT_SOURCE`."""
    found = []
    for row in sorted(rows, key=lambda row: list(SHORT_SOURCE).index(row.source)):
        of_paper = row.method == "ReviewKD" and row.variant == "paper"
        if not math.isnan(row.number):
            found.append(
                Published("ReviewKD paper" if of_paper else SHORT_SOURCE[row.source], row.number, row.note)
            )
    return distinct(found)


def distinct(found: Sequence[Published]) -> tuple[Published, ...]:
    """The same value from the same source once; of the [Re] README, only what its paper does not print too."""
    in_paper = {p.value for p in found if p.source == SHORT_SOURCE["re_paper"]}
    once: dict[tuple[str, float], Published] = {}
    for p in found:
        if p.source != SHORT_SOURCE["re_readme"] or p.value not in in_paper:
            once.setdefault((p.source, p.value), p)
    return tuple(once.values())
