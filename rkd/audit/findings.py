"""The disagreements between the sources, one Finding each; the texts are in findings.yaml."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from typing import Any

import yaml

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


@dataclass(frozen=True)
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
    sets: Mapping[str, Any] = field(default_factory=dict)
    row: str | None = None


@dataclass(frozen=True)
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
    group: str
    title: str
    text_says: str
    code_does: str
    matters: str
    how_much: str
    reproduce: tuple[Side, ...] = ()
    nothing_to_train: str = ""
    reading: str = ""
    chapters: tuple[str, ...] = ()
    demos: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise unknown(f"group of finding {self.number}:", self.group, GROUPS)
        if self.matters not in MATTERS:
            raise unknown(f"matters of finding {self.number}:", self.matters, MATTERS)
        for name in ("title", "text_says", "code_does", "how_much"):
            if not getattr(self, name).strip():
                raise ConfigError(f"finding {self.number} has an empty {name}")
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
    return tuple(sorted(map(_finding, yaml.safe_load(text)), key=lambda finding: finding.number))


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


def _finding(entry: Mapping[str, Any]) -> Finding:
    values = dict(entry)
    values["reproduce"] = tuple(_made(Side, side) for side in values.get("reproduce", ()))
    for name in ("chapters", "demos"):
        values[name] = tuple(values.get(name, ()))
    return _made(Finding, values)


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in fields(kind)}
    for name in values:
        if name not in known:
            raise unknown(f"field of a {kind.__name__.lower()}", name, known)
    missing = [
        n
        for n, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and n not in values
    ]
    if missing:
        raise ConfigError(
            f"a {kind.__name__.lower()} in findings.yaml lacks {', '.join(missing)}: {dict(values)}"
        )
    return kind(**values)
