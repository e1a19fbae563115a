"""The published setting: how long a run has to be, and on what data, to count as evidence."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkd.training.config import RunConfig


def is_published_setting(config: "RunConfig", chapter: str, recipe: str = "") -> bool:
    """Whether a run, and the run of its teacher, is of the published setting of a chapter's lines: as long as their
    recipe, or longer, on the whole of one of the data sets that the claim of the chapter is about.

    Args:
        config: of the run.
        chapter: its name.
        recipe: of the line or the profile; "": the chapter's.

    Raises:
        ConfigError: unknown chapter or recipe.
    """
    epochs, datasets = _setting(chapter, recipe)
    data, teacher = config.data, config.teacher.run if config.teacher else None
    whole = data.train_images is None and data.test_images is None and not data.holdout
    if not (whole and data.name in datasets and config.epochs >= epochs):
        return False
    return teacher is None or is_published_setting(teacher, chapter, recipe)


@functools.cache
def _setting(chapter: str, recipe: str) -> tuple[int, tuple[str, ...]]:
    from rkd.experiments.chapters import get_chapter
    from rkd.experiments.recipes import load_recipe

    found = get_chapter(chapter)
    return load_recipe(recipe or found.recipe).epochs, found.datasets
