"""What answers each published figure: a line of a chapter, several lines, a value of a recipe, or one sentence.

Every row of `rkd.claims.load()` has exactly one answer; the rules are in answers.py.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rkd import claims
from rkd.errors import ConfigError
from rkd.experiments.answers import answer
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.chapters.soft_targets_and_attention import datasets, set_key
from rkd.experiments.resolution import KINDS, REASONS, Resolution
from rkd.experiments.selectors import split
from rkd.experiments.settings import resolve as resolve_settings


def resolve(claim: str) -> Resolution:
    """What answers the published figure with this id.

    Raises:
        ConfigError: no such id.
        RkdError: no rule fits its row (a row that was added without an answer).
    """
    return answer(claims.get(claim))


def resolve_all(rows: pd.DataFrame | None = None) -> list[Resolution]:
    """The answers of all published figures, or of these rows of `rkd.claims.load()`; raises as `resolve`."""
    rows = claims.load() if rows is None else rows
    return [answer(row) for row in rows.itertuples()]


class Lines:
    """The lines that resolutions name, under one profile; what was built once is kept.

    A short profile has other pairs and data sets in its chapters. The line of a claim is built from the claim's own
    pair all the same, with the profile's data and length.

    Args:
        given: parameters as of `rkd.experiments.settings.resolve`, the profile among them.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = dict(given)
        self._built: dict[tuple[str, Any], dict[str, Line]] = {}

    def line(self, selector: str) -> Line:
        """The line "chapter/key" of the paper profile, under this profile; ConfigError where there is none."""
        name, key = split(selector)
        chapter = get_chapter(name)
        settings = resolve_settings(name, self.given)
        dataset = ""
        if name == "soft_targets_and_attention":
            dataset, _, key = key.partition("-")
            sets = datasets(settings)
            dataset = dataset if dataset in sets else sets[0]
        pair = _pair_of(key) if not chapter.one_pair else None
        built = self._built.get((name, pair)) or self._build(name, pair)
        wanted = f"{set_key(dataset)}{key}" if dataset else key
        if wanted not in built:
            raise ConfigError(f"chapter {name} has no line {wanted!r} under profile {settings.profile!r}")
        return built[wanted]

    def _build(self, name: str, pair: tuple[str, str] | None) -> dict[str, Line]:
        chapter = get_chapter(name)
        own = {"pairs": [list(pair)]} if pair else {"teacher": "resnet56", "student": "resnet20"}
        lines = chapter.lines(resolve_settings(name, {**own, **self.given}))
        self._built[(name, pair)] = {line.key: line for line in lines}
        return self._built[(name, pair)]


def _pair_of(key: str) -> tuple[str, str]:
    """Teacher and student of "student-teacher-what"."""
    student, teacher, _ = key.split("-", 2)
    return teacher, student


__all__ = ["KINDS", "REASONS", "Lines", "Resolution", "resolve", "resolve_all"]
