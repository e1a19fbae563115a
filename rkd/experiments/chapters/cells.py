"""What the chapters of many methods share: one line per teacher-student pair and method, and what is printed of it."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rkd import claims
from rkd.errors import ConfigError
from rkd.experiments.chapters.base import Line, Published, context_lines, distinct
from rkd.experiments.recipes import Builder
from rkd.methods import get_method
from rkd.models import canonical, display_name

Pairs = Sequence[tuple[str, str]]


def pair_group(teacher: str, student: str) -> str:
    """Heading of a pair."""
    return f"{display_name(student)} ← {display_name(teacher)}"


def pair_key(teacher: str, student: str) -> str:
    """How the keys of a pair's lines begin."""
    return f"{canonical(student)}-{canonical(teacher)}-"


def method_label(method: str) -> str:
    """A method, or a sum "at+kd", as written in tables."""
    return get_method(method).display


def chosen_pairs(builder: Builder, default: Pairs) -> Pairs:
    """The settings' pairs, else those of the table.

    Raises:
        ConfigError: one checkpoint file for several teachers.
    """
    pairs = builder.settings.pairs or tuple(default)
    teachers = {canonical(teacher) for teacher, _ in pairs}
    if builder.settings.teacher_checkpoint is not None and len(teachers) > 1:
        raise ConfigError(
            f"teacher_checkpoint is one file, but the pairs name {len(teachers)} teachers; give pairs of one teacher"
        )
    return pairs


def pair_context(builder: Builder, teacher: str, student: str) -> list[Line]:
    """Teacher, and student alone, of a pair; called the same in every pair."""
    lines = context_lines(builder, teacher, student, pair_group(teacher, student), pair_key(teacher, student))
    labels = {"teacher": "teacher", "student": "student alone"}
    return [dataclasses.replace(line, label=labels[line.role]) for line in lines]


def method_line(
    builder: Builder,
    teacher: str,
    student: str,
    method: str,
    said: tuple[Published, ...] = (),
    note: str = "",
    *,
    network: str | None = None,
    options: Mapping[str, Any] | None = None,
    suffix: str = "",
    label: str | None = None,
    recipe: str = "",
) -> Line:
    """One method on one pair, a run per seed.

    Args:
        builder: of the recipe.
        teacher, student: of the pair.
        method: registered name, or a sum.
        said, note, recipe: of the line.
        network: trained in the student's place (a reparameterised one); None: the student.
        options: of this line, over the recipe's.
        suffix: behind the method in the line's key.
        label: None: the method's.
    """
    runs = tuple(
        builder.distilled(teacher, network or student, seed, method, options)
        for seed in builder.settings.seeds
    )
    return Line(
        f"{pair_key(teacher, student)}{method}{suffix}",
        label or method_label(method),
        runs,
        pair_group(teacher, student),
        said,
        note,
        recipe=recipe,
    )


def printed(
    method: str, teacher: str, student: str, sources: Iterable[str], dataset: str = "CIFAR-100"
) -> tuple[Published, ...]:
    """What these sources print of one method (its display name) on one pair, the paper's own and empty cells aside."""
    places = _places().get((method, dataset, canonical(teacher), canonical(student)), ())
    if not places:
        return ()
    rows = claims.load().iloc[list(places)]
    return distinct(rows[rows["source"].isin(list(sources)) & rows["number"].notna()])


def left_empty(method: str, teacher: str, student: str, source: str) -> bool:
    """Whether a source's table has this cell and prints nothing in it."""
    places = _places().get((method, "CIFAR-100", canonical(teacher), canonical(student)), ())
    rows = claims.load(source=source, method=method)
    return bool(set(rows["id"][rows["number"].isna()]) & set(claims.load().iloc[list(places)]["id"]))


@functools.cache
def _places() -> dict[tuple[str, str, str, str], tuple[int, ...]]:
    """(method, data set, teacher, student) -> positions in the table of claims."""
    rows = claims.load()
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for position, row in enumerate(rows.itertuples()):
        if row.metric != "top1_acc_percent" or row.variant == "paper":
            continue
        try:
            pair = canonical(row.teacher), canonical(row.student)
        except ConfigError:  # "-" and "all" are no networks
            continue
        found.setdefault((row.method, row.dataset, *pair), []).append(position)
    return {key: tuple(places) for key, places in found.items()}
