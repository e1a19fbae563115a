"""What the ablation chapters share: one pair, several variants of ReviewKD."""

from collections.abc import Mapping
from typing import Any

from rkd.experiments.chapters.base import Line, Published, context_lines, published
from rkd.experiments.recipes import Builder


def variant_line(
    builder: Builder,
    key: str,
    label: str,
    options: Mapping[str, Any],
    said: tuple[Published, ...] = (),
    note: str = "",
    own: bool = False,
    **more: Any,
) -> Line:
    """One variant of ReviewKD on the chapter's pair. See Builder.review for `own`."""
    s = builder.settings
    runs = tuple(builder.review(s.teacher, s.student, seed, options, own=own) for seed in s.seeds)
    return Line(key, label, runs, published=said, note=note, **more)


def pair_context(builder: Builder) -> list[Line]:
    """Teacher and undistilled student of the chapter's pair."""
    return context_lines(builder, builder.settings.teacher, builder.settings.student)


def said_in(table: str, variant: str, readme: bool = False) -> tuple[Published, ...]:
    """Published accuracies of one ablation row."""
    both = published(source="re_paper", table=table, variant=variant)
    return both + (published(source="re_readme", table="ablation", variant=variant) if readme else ())
