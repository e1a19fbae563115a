"""What answers each published figure: a line of a chapter, several lines, a value of a recipe, or one sentence.

The table of published figures says this in its columns from `answer` on; this module looks up the values of settings.
"""

import functools
from dataclasses import asdict
from operator import getitem
from typing import Any, NamedTuple

from rkd import published
from rkd.experiments.estimate import KNOWN_SIZES
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.settings import load_profile, resolve

KINDS = {
    "run": "the runs of one line of a chapter",
    "derived": "computed from several lines",
    "setting": "a value of a recipe, a profile, a data set or a network",
    "explained": "no run or value can answer it; one sentence says why",
}


class Answer(NamedTuple):
    """What answers one published figure.

    Attributes:
        figure: the figure's id.
        kind: a key of KINDS.
        lines: "chapter/line" under the paper profile: one for a run, several for a derived figure.
        parts: ids of the figures that a derived one is computed from; none if they are not printed.
        how: the computation, the place where a setting stands, or the sentence that explains.
        ours: for a setting, its value here, written as the source writes it.
        agrees: for a setting, whether `ours` is the printed value.
    """

    figure: str
    kind: str
    lines: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    how: str = ""
    ours: str = ""
    agrees: bool = True


def answer_of(figure: str) -> Answer:
    """Return what answers the published figure with this id; ConfigError for an unknown one."""
    row = published.get(figure)
    if row.answer == "setting":
        where, ours = _setting(row)
        how = f"{where}; {row.how}" if row.how else where
        return Answer(figure, "setting", how=how, ours=ours, agrees=_figures(ours) == _figures(row.value))
    parts = tuple(row.parts.split())
    lines = [line for one in (row, *map(published.get, parts)) for line in one.lines.split()]
    return Answer(figure, row.answer, tuple(dict.fromkeys(lines)), parts, row.how)


def _setting(row: published.Figure) -> tuple[str, str]:
    """Return where a setting stands here, in words, and its value as a source would write it. The row's column
    `setting` reads "kind name key"."""
    kind, name, key = [*row.setting.split(" ", 2), "", ""][:3]
    match kind:
        case "recipe" if key == "loss_weight":  # for the row's pair
            builder = Builder(resolve("table1", {"profile": "paper"}), name)
            where = f"recipe {name}, and params/pairs.yaml: loss_weight"
            value: Any = builder.loss_weight(row.teacher, row.student)
        case "recipe":
            where = f"recipe {name}: {key}"
            value = functools.reduce(getitem, key.split("."), asdict(load_recipe(name)))
        case "profile":
            where, value = f"params/{name}.yaml: {key}", len(load_profile(name)[key])
        case "data":
            where, value = f"the data set (`rkd show data {name}`)", getattr(KNOWN_SIZES[name], key)
        case "shapes":
            from rkd.models import build, tap_shapes  # imported only here, where a network has to be built

            where = f"network {name}"
            value = [f"{height}x{width}" for _, height, width in tap_shapes(build(name), 32).stages]
        case _:  # "text": as printed
            where, value = row.setting.partition(" ")[2], row.value
    values = value if isinstance(value, list | tuple) else [value]
    return where, ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _figures(text: str) -> list[float] | list[str]:
    """Return the entries of a comma-separated list as numbers, so that 5e-4 equals 0.0005, or else as words."""
    parts = [part.strip() for part in text.split(",")]
    try:
        return [float(part) for part in parts]
    except ValueError:
        return parts
