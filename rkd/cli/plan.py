"""Which runs the chapters of a profile need."""

from typing import Any

from rkd.errors import ConfigError
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.settings import Settings, resolve
from rkd.training.config import RunConfig


def chosen_chapters(text: str | None) -> list[str]:
    """Names in a comma-separated list; None means all. ConfigError for an unknown one."""
    return [get_chapter(name.strip()).name for name in text.split(",")] if text else chapter_names()


def plan(
    profile: str, chapters: list[str], given: dict[str, Any]
) -> tuple[Settings, dict[str, list[RunConfig]]]:
    """The runs of each chapter, and the settings of the first (where records and data lie)."""
    if not chapters:
        raise ConfigError("no chapter was named")
    settings = {name: resolve(name, {**given, "profile": profile}) for name in chapters}
    runs = {
        name: [run for line in get_chapter(name).lines(settings[name]) for run in line.runs]
        for name in chapters
    }
    return settings[chapters[0]], runs
