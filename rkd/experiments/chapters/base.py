"""What a chapter is: a claim, and lines of a table, each answered by runs."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from rkd import claims
from rkd.errors import ConfigError, unknown
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import Settings
from rkd.models import canonical
from rkd.training.config import RunConfig

SHORT_SOURCE = {
    "re_paper": "[Re] paper",
    "re_readme": "[Re] README",
    "modreduce": "ModReduce README",
    "knowledge_distillation": "KnowledgeDistillation README",
    "kdrefine": "KDrefine README",
}


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
        group: lines of one group belong together (a teacher-student pair).
        runs: one per seed.
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
    """One chapter of the book.

    Attributes:
        name: of the notebook, without suffix.
        title: of the page.
        claim: what the sources say, in our words (Markdown).
        reading: what to look at in the table.
        recipe: taken unless another is asked for.
        make_lines: builds the lines under given settings.
        one_pair: whether all lines are about the settings' pair (not the pairs of a table).
        datasets: that the claim is about.
    """

    name: str
    title: str
    claim: str
    reading: str
    recipe: str
    make_lines: Callable[[Builder], list[Line]]
    one_pair: bool = True
    datasets: tuple[str, ...] = ("cifar100",)

    def lines(self, settings: Settings) -> list[Line]:
        """All lines of the table.

        Raises:
            ConfigError: settings that contradict each other or name what does not exist.
        """
        return self.make_lines(Builder(settings, self.recipe))


_CHAPTERS: dict[str, Chapter] = {}


def chapter(**values: object) -> Callable[[Callable[[Builder], list[Line]]], Chapter]:
    """Decorator: a chapter named after the function that makes its lines."""

    def add(make_lines: Callable[[Builder], list[Line]]) -> Chapter:
        made = Chapter(name=make_lines.__name__, make_lines=make_lines, **values)
        _CHAPTERS[made.name] = made
        return made

    return add


def chapter_names() -> list[str]:
    """Names of all chapters, in the order of the book."""
    return list(_CHAPTERS)


def get_chapter(name: str) -> Chapter:
    """A chapter by name; ConfigError for an unknown one."""
    if name not in _CHAPTERS:
        raise unknown("chapter", name, _CHAPTERS)
    return _CHAPTERS[name]


def published(**equal: str) -> tuple[Published, ...]:
    """Published accuracies that match, in the sources' order; the same value from the same source once."""
    rows = claims.load(metric="top1_acc_percent", **equal)
    return distinct(rows[rows["number"].notna()])


@functools.cache
def published_network(name: str, method: str, dataset: str = "CIFAR-100") -> tuple[Published, ...]:
    """What all sources say of one undistilled network ("teacher" or "student baseline") on CIFAR-100."""
    rows = claims.load(metric="top1_acc_percent", method=method, dataset=dataset)
    column = "teacher" if method == "teacher" else "student"
    same = rows[column].map(lambda printed: same_network(printed, name))
    return distinct(rows[rows["number"].notna() & same])


def same_network(printed: str, name: str) -> bool:
    """Whether a source's spelling means the network `name`; a source may print networks this package does not build."""
    try:
        return canonical(printed) == canonical(name)
    except ConfigError:
        return False


def distinct(rows: pd.DataFrame) -> tuple[Published, ...]:
    """Published accuracies of rows of the table of claims; the same value from the same source once."""
    found: dict[tuple[str, float], Published] = {}
    for row in rows.itertuples():
        who = SHORT_SOURCE[row.source]
        if row.method == "ReviewKD" and row.variant == "paper":
            who = "ReviewKD paper"
        found.setdefault((who, row.number), Published(who, row.number, row.note))
    return tuple(found.values())


def context_lines(
    builder: Builder, teacher: str, student: str, group: str = "", prefix: str = ""
) -> list[Line]:
    """The teacher, and the student trained without it: what every other line is to be held against."""
    from rkd.models import display_name

    lines = [
        Line(
            f"{prefix}teacher",
            f"teacher {display_name(teacher)}",
            (builder.teacher(teacher),),
            group,
            published_network(teacher, "teacher"),
            "one teacher, shared by all seeds",
            role="teacher",
        ),
        Line(
            f"{prefix}student",
            f"{display_name(student)} alone",
            tuple(builder.plain(student, seed) for seed in builder.settings.seeds),
            group,
            published_network(student, "student baseline"),
            "trained on labels only",
            role="student",
        ),
    ]
    return lines if builder.settings.teacher_checkpoint is None else lines[1:]  # a file has no run to show
