"""Chapters: what the notebook of a table or figure declares, and the table lines, with their runs, that result.

A chapter is a notebook of the book that has a cell tagged "rows". Everything assigned there is a literal, so it can be
read here without executing the notebook; a running notebook passes the same names with the values a reader gave them.
What may be assigned:

    ROWS     key -> row, or a list of keys. A row maps options of its method, and names in `ROW_NAMES`, to values. The
             keys "teacher" and "student" are the networks trained on labels alone.
    RECIPE   a recipe of params/recipes/, unless a reader names another.
    METHOD   the method of every row; without it a row's method is its key.
    PAIRS    [teacher, student] lists: every row is repeated for each; without it the pair is the profile's.
    DATASETS, RECIPES  likewise.
    SWEEP    {option: values}: a row for each value; the parameter of that name with an "s" replaces the values.
    FIXED    options for which a row's own values win over a reader's.
    LABEL    the label of rows that have none, see `label`.
    NOTES    key of a line -> note, in place of the row's.
    TRAINED_AS  student -> the network that is trained in its place in rows with `trained_as`.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BeforeValidator

from rkd import paths, published
from rkd.config import from_values, frozen
from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import assigned_values, notebook_names, read_notebook, tagged_cells, title_of
from rkd.experiments.recipes import OF_RUNS, Builder
from rkd.experiments.runner import settle
from rkd.experiments.settings import Pair, Settings
from rkd.files import is_file
from rkd.methods import get_method
from rkd.methods.modreduce import cutoff_of, growth_steps_of
from rkd.models import canonical, display_name
from rkd.published import SHORT_SOURCE
from rkd.records import Store
from rkd.training.config import RunConfig

SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
ROW_NAMES = {
    "method": "registered, or a sum such as at+kd",
    "recipe": "in place of the chapter's",
    "label": "as printed; {teacher}, {student}, {recipe}, {epochs} and options are filled in",
    "note": "what a reader has to know; filled in likewise",
    "note_of_published": "shown only where something is published",
    "ce_weight": "of cross-entropy",
    "teacher_weights": "last, best or random",
    "teacher_batch_norm": "batch or running",
    "trained_as": "True: the network that TRAINED_AS names is trained in the student's place",
    "only": "[teacher, student]: on this pair alone, or the first one where it is not among the pairs",
    "if_given": "parameters: only where a reader gives one of them",
}
NETWORKS = {  # key -> label and note
    "teacher": ("teacher {teacher}", "one teacher, shared by all seeds"),
    "student": ("{student} alone", "trained on labels only"),
}
_SOURCES = list(SHORT_SOURCE)
_COMPUTED = {"growth_steps": growth_steps_of, "cutoff_epochs": cutoff_of}  # where a row says "auto"


class Published(NamedTuple):
    """One published accuracy, in percent, with its source and a note by the source or by us."""

    source: str
    value: float
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a chapter's table.

    Attributes:
        group: heading under which lines belong together (a teacher-student pair).
        published: the sources' figures for this line; empty if they have none.
        note: what a reader has to know about the line.
        x: position on the axis of a chapter that sweeps a number.
        role: "teacher", "student" (undistilled) or "distilled".
        recipe: name of the recipe of these runs.
        read: names of the settings that this line's existence or its runs depend on.
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
    read: frozenset[str] = field(default=frozenset(), compare=False)

    def settled(self, store: Store, device: torch.device) -> "Line":
        """Return the line with its runs as recorded, or as to be trained (see `rkd.experiments.runner.settle`)."""
        return replace(self, runs=tuple(settle(run, store, device) for run in self.runs))


def _mapping(rows: Any) -> Any:
    return {key: {} for key in rows} if isinstance(rows, list) else rows


@frozen
class Chapter:
    """What a notebook declares; the module's docstring explains the names.

    Attributes:
        name: the notebook's name, without suffix.
        title: its first heading.
    """

    name: str
    title: str
    rows: Annotated[dict[str, dict[str, Any]], BeforeValidator(_mapping)]
    recipe: str = "authors"
    method: str = ""
    pairs: tuple[Pair, ...] = ()
    datasets: tuple[str, ...] = ("cifar100",)
    recipes: tuple[str, ...] = ()
    sweep: dict[str, tuple[float, ...]] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    label: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    trained_as: dict[str, str] = field(default_factory=dict)

    @property
    def one_pair(self) -> bool:
        """Whether all lines are about the settings' pair (not the pairs of a table)."""
        return not self.pairs

    @classmethod
    def declared(cls, name: str, title: str, values: Mapping[str, Any]) -> "Chapter":
        """Return a chapter from a cell's assignments, ignoring other names; ConfigError for values of another form."""
        own = {f.name.upper(): f.name for f in fields(cls) if f.name not in ("name", "title")}
        found = {own[key]: value for key, value in values.items() if key in own}
        return from_values(cls, {"name": name, "title": title, **found})

    def lines(self, settings: Settings) -> list[Line]:
        """Return the chapter's lines under given settings.

        Raises:
            ConfigError: an unknown name in a row, one checkpoint file for several teachers, or what a run's config
                refuses.
        """
        pairs = self._pairs(settings)
        recipes = ((settings.recipe,) if settings.recipe else self.recipes) if self.recipes else ("",)
        read = {"seeds", "dataset", "recipe"} | ({"teacher", "student"} if self.one_pair else {"pairs"})
        read |= {f"{name}s" for name in self.sweep} | (set() if self.method else {"methods"})
        read |= {"datasets"} if len(self.datasets) > 1 else set()
        found = []
        for dataset in self.sets(settings):
            s = replace(settings, dataset=dataset)
            builder = functools.cache(functools.partial(self._builder, s))  # reading a recipe takes its time
            for recipe, pair in itertools.product(recipes, pairs):
                prefix = self._prefix(dataset, recipe, pair)
                for key, row in self._rows(s).items():
                    figures = published.figures_of_line(f"{self.name}/{prefix}{key}")
                    # Where the source's table leaves this cell empty, there is no line.
                    empty = figures and not any(figure.value for figure in figures)
                    if _applies(key, row, s, pair, pairs) and not empty:
                        here = builder(recipe or s.recipe or row.get("recipe", ""))
                        line = self._line(prefix, key, row, here, pair, recipe, figures)
                        found.append(replace(line, read=frozenset(read | here.read)))
        return found

    def _builder(self, s: Settings, recipe: str) -> Builder:
        return Builder(replace(s, recipe=recipe or s.recipe), self.recipe)

    def sets(self, s: Settings) -> tuple[str, ...]:
        """Return the settings' `datasets`, else their `dataset` if not the default, else the chapter's data sets."""
        if len(self.datasets) > 1 and s.datasets is not None:
            return s.datasets
        return self.datasets if s.dataset == "cifar100" else (s.dataset,)

    def _pairs(self, s: Settings) -> tuple[tuple[str, str], ...]:
        if self.one_pair:
            return ((s.teacher, s.student),)
        pairs = s.pairs or self.pairs
        if len({tuple(map(canonical, pair)) for pair in pairs}) < len(pairs):
            raise ConfigError(f"pairs names one pair twice: {', '.join(f'{t}/{s}' for t, s in pairs)}")
        teachers = {canonical(teacher) for teacher, _ in pairs}
        if s.teacher_checkpoint is not None and len(teachers) > 1:
            raise ConfigError(
                f"teacher_checkpoint is one file, but the pairs name {len(teachers)} teachers; give pairs of one"
            )
        return tuple(pairs)

    def _rows(self, s: Settings) -> dict[str, Mapping[str, Any]]:
        """Return the declared and the swept rows, or those of the methods that a reader chose."""
        rows = dict(self.rows)
        for name, values in self.sweep.items():
            for value in getattr(s, f"{name}s", None) or values:
                if f"{value:g}" in rows:
                    raise ConfigError(f"{name}s holds two values that are both shown as {value:g}")
                rows[f"{value:g}"] = {name: value, "label": f"{name.replace('_', ' ')} {value:g}"}
        if s.methods is None or self.method:
            return rows
        chosen = {key: row for key, row in rows.items() if key in NETWORKS}
        for method in s.methods:
            of_method = {key: row for key, row in rows.items() if key.split("-")[0] == method}
            chosen |= of_method or {method: {}}
        return chosen

    def _line(
        self,
        prefix: str,
        key: str,
        row: Mapping[str, Any],
        builder: Builder,
        pair: tuple[str, str],
        recipe: str,
        figures: tuple[published.Figure, ...],
    ) -> Line:
        builder.read.clear()
        (teacher, student), s, given = pair, builder.settings, {}
        if key in NETWORKS:
            label, note = NETWORKS[key]
            if key == "teacher":
                runs: tuple[RunConfig, ...] = (builder.teacher(teacher),)
            else:
                runs = tuple(builder.plain(student, seed) for seed in s.seeds)
            dataset = SETS.get(s.dataset, "CIFAR-100") if len(self.datasets) > 1 else "CIFAR-100"
            said = _as_published(_of_network(runs[0].network, key, dataset), figures)
        else:
            method, note = row.get("method") or self.method or key, ""
            label, said = self.label or get_method(method).display, _as_published(figures)
            runs = self._distilled(key, row, method, builder, pair)
            given = {} if self.method else builder.given(method)
        if said:
            note = row.get("note_of_published", note)
        note = self.notes.get(prefix + key, row.get("note", note))
        shown = {
            **(vars(runs[0].options) if runs[0].options else {}),
            "teacher": display_name(teacher),
            "student": display_name(student),
            "network": display_name(runs[0].network),
            "epochs": builder.epochs,
            "recipe": builder.recipe_name,
            "description": builder.recipe.description,
        }
        told = "here with " + ", ".join(f"{name} {value}" for name, value in given.items()) if given else ""
        return Line(
            prefix + key,
            _filled(row.get("label", label), shown),
            runs,
            group=_filled(self._group(s.dataset, recipe, pair), shown),
            published=said,
            note="; ".join(filter(None, (_filled(note, shown), told))),
            x=next((row.get(option) for option in self.sweep), None),
            role=key if key in NETWORKS else "distilled",
            recipe=builder.recipe_name,
        )

    def _distilled(
        self, key: str, row: Mapping[str, Any], method: str, builder: Builder, pair: tuple[str, str]
    ) -> tuple[RunConfig, ...]:
        teacher, student = pair
        network = self.trained_as.get(canonical(student), student) if row.get("trained_as") else student
        options = {name: value for name, value in row.items() if name not in ROW_NAMES}
        parts = method.split("+")
        known = parts if len(parts) > 1 else [f.name for f in fields(get_method(method).options)]
        for name in options:
            if name not in known:
                raise unknown(f"name in row {key!r} of {self.name}:", name, [*known, *ROW_NAMES])
            if name in _COMPUTED and options[name] == "auto":
                options[name] = _COMPUTED[name](builder.epochs, builder.recipe.epochs)
        own = options | {name: row[name] for name in OF_RUNS if name in row}
        seeds = builder.settings.seeds
        return tuple(builder.distilled(teacher, network, seed, method, own, self.fixed) for seed in seeds)

    def _prefix(self, dataset: str, recipe: str, pair: tuple[str, str]) -> str:
        parts = [Path(dataset).stem if len(self.datasets) > 1 else "", recipe]
        parts += [] if self.one_pair else [canonical(pair[1]), canonical(pair[0])]
        return "".join(f"{part}-" for part in parts if part)

    def _group(self, dataset: str, recipe: str, pair: tuple[str, str]) -> str:
        if recipe:
            return "recipe {recipe}: {description}"
        if self.one_pair:
            return ""
        several = len(self.datasets) > 1
        itself = several and canonical(pair[0]) == canonical(pair[1])
        words = "{student}" if itself else "{student} ← {teacher}"
        return f"{words} on {SETS.get(dataset, dataset)}" if several else words


def _applies(
    key: str, row: Mapping[str, Any], s: Settings, pair: tuple[str, str], pairs: Sequence[tuple[str, str]]
) -> bool:
    if s.teacher_checkpoint is not None and key == "teacher":  # a file has no run to show
        return False
    if "if_given" in row and all(getattr(s, name) is None for name in row["if_given"]):
        return False
    asked = s.teacher_batch_norm
    if asked is not None and row.get("teacher_batch_norm", asked) != asked:
        return False
    if "only" not in row:
        return True
    here, wanted, *all_pairs = (tuple(map(canonical, names)) for names in (pair, row["only"], *pairs))
    return here == (wanted if wanted in all_pairs else all_pairs[0])


def _filled(text: str, shown: Mapping[str, Any]) -> str:
    try:
        return text.format(**{name: _written(value) for name, value in shown.items()})
    except (KeyError, ValueError, IndexError) as error:
        allowed = ", ".join(shown)
        raise ConfigError(f"{text!r} cannot be filled in ({error}); it may name {allowed}") from error


def _written(value: Any) -> str:
    """Return a value as text: lists as "h, 4, 1", numbers without needless digits."""
    if isinstance(value, tuple):
        return ", ".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- which chapters there are ---------------------------------------------------------------------------------


def chapter_names() -> list[str]:
    """Return the names of the notebooks that declare rows, in the order of the book."""
    book = paths.home() / "book"
    return [name for name in notebook_names(book) if _read(book / f"{name}.ipynb") is not None]


def get_chapter(name: str) -> Chapter:
    """Return a chapter by name.

    Raises:
        ConfigError: no notebook of that name declares rows.
    """
    path = paths.home() / "book" / f"{name}.ipynb"
    found = _read(path) if is_file(path) else None
    if found is None:
        raise unknown("chapter", name, chapter_names())
    return found


def chapter_in(name: str, namespace: Mapping[str, Any]) -> Chapter:
    """Return a chapter as a running notebook has it, with the rows that a reader changed or added there.

    Raises:
        ConfigError: no such chapter, or rows of another form.
    """
    declared = get_chapter(name)
    return Chapter.declared(name, declared.title, namespace) if "ROWS" in namespace else declared


def _read(path: Path) -> Chapter | None:
    """Return a notebook's declaration, reading it again if the file has changed; None if it declares no rows."""
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed: int) -> Chapter | None:
    notebook = read_notebook(path)
    cells = tagged_cells(notebook, "rows")
    try:
        values = {name: value for cell in cells for name, value in assigned_values(cell["source"]).items()}
    except (ValueError, SyntaxError) as error:
        raise ConfigError(f"{path}: the cell tagged rows must assign literals alone ({error})") from error
    return Chapter.declared(path.stem, title_of(notebook, path.stem), values) if cells else None


# --- what is published of a line ------------------------------------------------------------------------------


@functools.cache
def same_network(printed: str, name: str) -> bool:
    """Whether a source's spelling means the network `name`; False for networks that this package does not build."""
    try:
        return canonical(printed) == canonical(name)
    except ConfigError:
        return False


@functools.cache
def _of_network(name: str, role: str, dataset: str) -> tuple[published.Figure, ...]:
    """Return all sources' figures for one undistilled network, whose role is "teacher" or "student"."""
    method = {"teacher": "teacher", "student": "student baseline"}[role]
    of_kind = "top1_acc_percent", method, dataset
    rows = (row for row in published.rows().values() if (row.metric, row.method, row.dataset) == of_kind)
    return tuple(row for row in rows if same_network(getattr(row, role), name))


def _as_published(*parts: Iterable[published.Figure]) -> tuple[Published, ...]:
    """Return each part's figures in the order of `SHORT_SOURCE`, a value once per source, without values of the [Re]
    README that its paper prints too."""
    once: dict[tuple[str, float], Published] = {}
    for row in (row for part in parts for row in sorted(part, key=lambda row: _SOURCES.index(row.source))):
        of_paper = row.method == "ReviewKD" and row.variant == "paper"
        source = "ReviewKD paper" if of_paper else SHORT_SOURCE[row.source]
        if not math.isnan(row.number):
            once.setdefault((source, row.number), Published(source, row.number, row.note))
    paper, readme = SHORT_SOURCE["re_paper"], SHORT_SOURCE["re_readme"]
    return tuple(p for p in once.values() if p.source != readme or (paper, p.value) not in once)
