"""From "chapter/line" to the runs of that line under a profile."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rkd.errors import ConfigError, unknown
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.runner import pick_device, required
from rkd.experiments.settings import Settings, resolve
from rkd.experiments.settle import settle_lines
from rkd.experiments.workspace import store_of
from rkd.training.config import RunConfig


def split(selector: str) -> tuple[str, str]:
    """Chapter and line of a selector.

    >>> split("table3/rm_rlf")
    ('table3', 'rm_rlf')

    Raises:
        ConfigError: not of the form chapter/line, or an unknown chapter.
    """
    chapter, slash, key = selector.partition("/")
    if not slash or not chapter or not key:
        raise ConfigError(f"selector {selector!r} is not of the form chapter/line, for example table3/rm")
    get_chapter(chapter)
    return chapter, key


class Selectors:
    """The lines of all chapters under one profile; what was asked for once is kept.

    Args:
        profile: "paper", or any other profile's name or path.
        given: parameters that win over the profile's, by name.
        settled: the runs are those that are recorded, or would be trained on the device of the settings, be it here or
            not (see `rkd.experiments.settle`); else, where the arithmetic is "auto", requests for them.
    """

    def __init__(
        self, profile: str = "paper", given: Mapping[str, Any] | None = None, settled: bool = False
    ) -> None:
        self.profile, self._settled = profile, settled
        self._given = {**(given or {}), "profile": profile}
        self._chapters: dict[str, tuple[Settings, dict[str, Line]]] = {}
        self._runs: dict[str, dict[str, RunConfig]] = {}
        self._needed: dict[str, dict[str, RunConfig]] = {}

    def line(self, selector: str) -> Line:
        """The line a selector names; ConfigError if there is none."""
        chapter, key = split(selector)
        _, lines = self.chapter(chapter)
        if key not in lines:
            raise unknown(f"line of {chapter}", key, lines)
        return lines[key]

    def chapter(self, name: str) -> tuple[Settings, dict[str, Line]]:
        """A chapter's settings, and its lines by key."""
        if name not in self._chapters:
            settings = resolve(name, self._given)
            lines = get_chapter(name).lines(settings)
            if self._settled:
                lines = settle_lines(lines, store_of(settings), _device(settings.device))
            self._chapters[name] = settings, {line.key: line for line in lines}
        return self._chapters[name]

    def recipe(self, selector: str) -> str:
        """The recipe of a line's runs."""
        chapter, _ = split(selector)
        settings, _ = self.chapter(chapter)
        return self.line(selector).recipe or settings.recipe or get_chapter(chapter).recipe

    def runs(self, selectors: Iterable[str]) -> dict[str, RunConfig]:
        """The runs of several lines by id, in their order."""
        found = {}
        for selector in selectors:
            if selector not in self._runs:
                self._runs[selector] = {run.id: run for run in self.line(selector).runs}
            found |= self._runs[selector]
        return found

    def needed(self, selectors: Iterable[str]) -> dict[str, RunConfig]:
        """The same with the runs of their teachers, those first."""
        found = {}
        for selector in selectors:
            if selector not in self._needed:
                self._needed[selector] = {run.id: run for run in required(self.line(selector).runs)}
            found |= self._needed[selector]
        return found


def _device(name: str) -> torch.device:
    try:
        return pick_device(name)
    except ConfigError:  # what is recorded can be listed on a machine without it
        return torch.device("cuda" if name.startswith("cuda") else "cpu")
