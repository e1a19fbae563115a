"""Which runs the chapters of a profile need."""

from typing import Any

from rkd.errors import ConfigError
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import Settings
from rkd.training.config import RunConfig


def chosen_chapters(text: str | None) -> list[str]:
    """Names in a comma-separated list; None means all. ConfigError for an unknown one."""
    return [get_chapter(name.strip()).name for name in text.split(",")] if text else chapter_names()


def plan(
    profile: str, chapters: list[str], given: dict[str, Any]
) -> tuple[Settings, dict[str, list[RunConfig]]]:
    """The runs of each chapter, settled (see `rkd.experiments.settle`): as they are recorded, or would be trained on
    the device of the settings, be it here or not. And the settings of the first (where records and data lie)."""
    if not chapters:
        raise ConfigError("no chapter was named")
    return plan_of(Selectors(profile, given, settled=True), chapters)


def plan_of(selectors: Selectors, chapters: list[str]) -> tuple[Settings, dict[str, list[RunConfig]]]:
    """The same, of lines that may have been built already."""
    found = {name: selectors.chapter(name) for name in chapters}
    runs = {name: [run for line in lines.values() for run in line.runs] for name, (_, lines) in found.items()}
    return found[chapters[0]][0], runs
