"""What answers each published figure: a line of a chapter, several lines, a value of a recipe, or one sentence.

The table of published figures says it, in its columns from `answer` on; here the values of settings are looked up.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from rkd import published
from rkd.errors import ConfigError
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.estimate import KNOWN_SIZES
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.selectors import split
from rkd.experiments.settings import load_profile
from rkd.experiments.settings import resolve as resolve_settings

KINDS = {
    "run": "the runs of one line of a chapter",
    "derived": "computed from several lines",
    "setting": "a value of a recipe, a profile, a data set or a network",
    "explained": "no run or value can answer it; one sentence says why",
}


@dataclass(frozen=True)
class Answer:
    """What answers one published figure.

    Attributes:
        figure: its id.
        kind: a key of KINDS.
        lines: "chapter/line" under the paper profile: one of a run, several of what is derived.
        parts: ids of the figures that a derived one is computed from; none where they are not printed.
        how: the computation, the place where a setting stands, or the sentence that explains.
        ours: of a setting: its value here, written as the source writes it.
        agrees: of a setting: whether that is the printed value.
    """

    figure: str
    kind: str
    lines: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    how: str = ""
    ours: str = ""
    agrees: bool = True


def answer(row: Any) -> Answer:
    """What answers a row of `rkd.published.load()`."""
    if row.answer == "setting":
        where, ours = _setting(row)
        how = f"{where}; {row.how}" if row.how else where
        return Answer(row.id, "setting", how=how, ours=ours, agrees=_figures(ours) == _figures(row.value))
    lines, parts = row.lines.split(), tuple(row.parts.split())
    for part in parts:
        lines += published.get(part).lines.split()
    return Answer(row.id, row.answer, tuple(dict.fromkeys(lines)), parts, row.how)


def answer_of(figure: str) -> Answer:
    """What answers the published figure with this id; ConfigError for an unknown one."""
    return answer(published.get(figure))


def answers(rows: pd.DataFrame | None = None) -> list[Answer]:
    """The answers of all published figures, or of these rows of `rkd.published.load()`."""
    return [answer(row) for row in (published.load() if rows is None else rows).itertuples()]


# --- settings: the column reads "kind name key" ---------------------------------------------------------------


def _setting(row: Any) -> tuple[str, str]:
    """Where a setting stands here, in words, and its value as a source would write it."""
    kind, _, rest = row.setting.partition(" ")
    return _SETTINGS[kind](rest, row)


def _of_recipe(rest: str, row: Any) -> tuple[str, str]:
    name, key = rest.split()
    if key == "loss_weight":  # of the row's pair
        builder = Builder(resolve_settings("table1", {"profile": "paper"}), name)
        return f"recipe {name}, and params/pairs.yaml: loss_weight", _written(
            builder.loss_weight(row.teacher, row.student)
        )
    value: Any = asdict(load_recipe(name))
    for part in key.split("."):
        value = value[part]
    return f"recipe {name}: {key}", _written(value)


def _of_profile(rest: str, row: Any) -> tuple[str, str]:
    name, key = rest.split()
    return f"params/{name}.yaml: {key}", str(len(load_profile(name)[key]))


def _of_data(rest: str, row: Any) -> tuple[str, str]:
    name, part = rest.split()
    return f"the data set (`rkd show data {name}`)", _written(getattr(KNOWN_SIZES[name], part))


def _of_maps(rest: str, row: Any) -> tuple[str, str]:
    from rkd.models import build, tap_shapes  # builds a network: only where it is asked for

    shapes = tap_shapes(build(rest), 32).stages
    return f"network {rest}", _written([f"{height}x{width}" for _, height, width in shapes])


def _as_printed(rest: str, row: Any) -> tuple[str, str]:
    return rest, row.value


_SETTINGS: Mapping[str, Callable[[str, Any], tuple[str, str]]] = {
    "recipe": _of_recipe,
    "profile": _of_profile,
    "data": _of_data,
    "shapes": _of_maps,
    "text": _as_printed,
}


def _written(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else (value,)
    return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _figures(text: str) -> list[float | str]:
    """The numbers of a list as numbers, so that 5e-4 is 0.0005; words stay words."""

    def read(part: str) -> float | str:
        try:
            return float(part)
        except ValueError:
            return part.strip()

    return [read(part) for part in text.split(",")]


# --- the lines of answers, under any profile ------------------------------------------------------------------


class Lines:
    """The lines that answers name, under one profile; what was built once is kept.

    A short profile has other pairs and data sets in its chapters. The line of a figure is built from the figure's own
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
        if len(chapter.datasets) > 1:
            dataset, _, key = key.partition("-")
            sets = chapter.sets(settings)
            dataset = f"{dataset if dataset in sets else sets[0]}-"
        pair = None if chapter.one_pair else tuple(key.split("-", 2)[1::-1])
        built = self._built.get((name, pair)) or self._build(name, pair)
        wanted = f"{dataset}{key}"
        if wanted not in built:
            raise ConfigError(f"chapter {name} has no line {wanted!r} under profile {settings.profile!r}")
        return built[wanted]

    def _build(self, name: str, pair: tuple[str, ...] | None) -> dict[str, Line]:
        own = {"pairs": [list(pair)]} if pair else {"teacher": "resnet56", "student": "resnet20"}
        lines = get_chapter(name).lines(resolve_settings(name, {**own, **self.given}))
        self._built[(name, pair)] = {line.key: line for line in lines}
        return self._built[(name, pair)]
