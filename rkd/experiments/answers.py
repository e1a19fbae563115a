"""What answers each published figure: a line of a chapter, several lines, a value of a recipe, or one sentence.

The table of published figures says it, in its columns from `answer` on; here the values of settings are looked up.
"""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

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
    name, _, key = rest.partition(" ")
    match kind:
        case "recipe" if key == "loss_weight":  # of the row's pair
            builder = Builder(resolve("table1", {"profile": "paper"}), name)
            value: Any = builder.loss_weight(row.teacher, row.student)
            return f"recipe {name}, and params/pairs.yaml: loss_weight", _written(value)
        case "recipe":
            value = asdict(load_recipe(name))
            for part in key.split("."):
                value = value[part]
            return f"recipe {name}: {key}", _written(value)
        case "profile":
            return f"params/{name}.yaml: {key}", str(len(load_profile(name)[key]))
        case "data":
            return f"the data set (`rkd show data {name}`)", _written(getattr(KNOWN_SIZES[name], key))
        case "shapes":
            from rkd.models import build, tap_shapes  # builds a network: only where it is asked for

            sizes = [f"{height}x{width}" for _, height, width in tap_shapes(build(name), 32).stages]
            return f"network {name}", _written(sizes)
    return rest, row.value  # "text": as printed


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
