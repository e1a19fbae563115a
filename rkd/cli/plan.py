"""Which runs the chapters of a profile need."""

from typing import Any

import torch

from rkd.errors import ConfigError
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.execute import pick_device
from rkd.experiments.settings import Settings, resolve
from rkd.experiments.settle import settle_all
from rkd.experiments.workspace import store_of
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
    settings = {name: resolve(name, {**given, "profile": profile}) for name in chapters}
    first = settings[chapters[0]]
    store, device = store_of(first), _device(first.device)
    runs = {
        name: settle_all(
            (run for line in get_chapter(name).lines(settings[name]) for run in line.runs), store, device
        )
        for name in chapters
    }
    return first, runs


def _device(name: str) -> torch.device:
    try:
        return pick_device(name)
    except ConfigError:  # what is recorded can be listed on a machine without it
        return torch.device("cuda" if name.startswith("cuda") else "cpu")
