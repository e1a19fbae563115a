"""The published setting: how long a run has to be, and on what data, to count as evidence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkd.training.config import RunConfig


@dataclass(frozen=True)
class PublishedSetting:
    """What the runs of a line must be to say something of its published figure.

    Attributes:
        epochs: of its recipe.
        datasets: that the claim of its chapter is about.
    """

    epochs: int
    datasets: tuple[str, ...]

    def holds(self, config: "RunConfig") -> bool:
        """Whether a run, and the run of its teacher, is at least that long, on the whole of one of the data sets."""
        data = config.data
        whole = data.train_images is None and data.test_images is None and not data.holdout
        if not (whole and data.name in self.datasets and config.epochs >= self.epochs):
            return False
        teacher = config.teacher.run if config.teacher else None
        return teacher is None or self.holds(teacher)


def published_setting(chapter: str, recipe: str = "") -> PublishedSetting:
    """That of a chapter's lines.

    Args:
        chapter: its name.
        recipe: of the line or the profile; "": the chapter's.

    Raises:
        ConfigError: unknown chapter or recipe.
    """
    from rkd.experiments.chapters import get_chapter
    from rkd.experiments.recipes import load_recipe

    found = get_chapter(chapter)
    return PublishedSetting(load_recipe(recipe or found.recipe).epochs, found.datasets)


def is_published_setting(config: "RunConfig", chapter: str, recipe: str = "") -> bool:
    """Whether a run is of the published setting of a chapter's lines; arguments and errors as `published_setting`."""
    return published_setting(chapter, recipe).holds(config)
