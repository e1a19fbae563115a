"""The disagreements between the sources, one Finding each; the texts are in findings.yaml."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import field
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import StringConstraints

from rkd.config import build, frozen
from rkd.errors import ConfigError, unknown

GROUPS = {
    "printed": "Figures in print",
    "training": "Training recipe and data",
    "features": "The teacher and the compared features",
    "fusion": "ABF: fusing and passing on",
    "pyramid": "HCL: comparing pooled maps",
    "committed": "What the committed code cannot have produced",
    "reporting": "What is reported, and how",
    "baselines": "Quoted baselines",
}
MATTERS = {  # and what each means
    "can change a conclusion": "a statement of the report rests on it",
    "could move numbers": "accuracies may shift by more than the spread between seeds",
    "changes what a number means": "the number stands, but for something else than it is taken for",
    "hardly matters": "less than the spread between seeds is to be expected",
    "cosmetic": "no number depends on it",
    "consistent": "checked, and found to hold",
}
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@frozen
class Side:
    """How one side of a disagreement is trained with this package.

    Attributes:
        who: whose side it is.
        recipe: a recipe that is of this side...
        sets: ...because it sets these values (dotted names as in its file, ReviewKD's options without "review.", and
            "loss_weight", that of resnet20 <- resnet56); without a recipe: chapter parameters or ReviewKD options that
            are to be given.
        row: a chapter's line, "chapter/key".
    """

    who: str
    recipe: str | None = None
    sets: dict[str, Any] = field(default_factory=dict)
    row: str | None = None


@frozen
class Finding:
    """One disagreement.

    Attributes:
        number: 1 to 34.
        group: a key of GROUPS.
        title: a few words.
        text_says, code_does: the two sides, in our words; for figures in print, one print and the other.
        matters: a key of MATTERS.
        how_much: expected or shown size, and what it touches.
        reproduce: how each side is trained; empty only where `nothing_to_train` says why.
        reading: our interpretation where it goes beyond what was read and run; empty: there is none.
        chapters: pages to look at.
        demos: "module.function" of rkd.audit that measure it.
    """

    number: int
    group: Literal[tuple(GROUPS)]
    title: Text
    text_says: Text
    code_does: Text
    matters: Literal[tuple(MATTERS)]
    how_much: Text
    reproduce: tuple[Side, ...] = ()
    nothing_to_train: str = ""
    reading: str = ""
    chapters: tuple[str, ...] = ()
    demos: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.reproduce) == bool(self.nothing_to_train):
            raise ConfigError(
                f"finding {self.number} must say how its sides are trained, or why there is nothing to train"
            )


@functools.cache
def findings() -> tuple[Finding, ...]:
    """All of them, by number.

    Raises:
        ConfigError: an entry of findings.yaml with an unknown or missing field or value.
    """
    text = resources.files(__package__).joinpath("findings.yaml").read_text(encoding="utf-8")
    made = (build(Finding, entry) for entry in yaml.safe_load(text))
    return tuple(sorted(made, key=lambda finding: finding.number))


def in_group(group: str) -> tuple[Finding, ...]:
    """The findings of one group, in the order of their numbers; ConfigError for an unknown one."""
    if group not in GROUPS:
        raise unknown("group", group, GROUPS)
    return tuple(finding for finding in findings() if finding.group == group)


def demo(name: str) -> Callable[..., Any]:
    """The function a finding's `demos` names, "module.function" of rkd.audit.

    Raises:
        ConfigError: there is none.
    """
    module, _, function = name.partition(".")
    try:
        return getattr(importlib.import_module(f"{__package__}.{module}"), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"rkd.audit has no demonstration {name!r}") from error
