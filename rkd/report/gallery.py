"""The gallery of methods: a card for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import yaml
from IPython.display import HTML

from rkd.experiments.chapters import Line
from rkd.methods import get_method
from rkd.report.comparison import comparison
from rkd.report.interactive.markup import Html, tag


@dataclass(frozen=True)
class Card:
    """What the gallery says of one method; the fields are described in gallery.yaml."""

    name: str
    family: str
    paper: str
    reads: str
    weight: float
    kind: str
    taps: tuple[str, ...]
    text: str
    formula: tuple[str, ...]
    learns: str = "none"

    @property
    def display(self) -> str:
        """The method's name as printed."""
        return get_method(self.name).display


def load_cards() -> dict[str, Card]:
    """All cards by method."""
    text = resources.files(__package__).joinpath("gallery.yaml").read_text(encoding="utf-8")
    return {name: Card(name, **entry) for name, entry in yaml.safe_load(text).items()}


def family(name: str, lines: Mapping[str, Line], costs: pd.DataFrame) -> HTML:
    """The cards of one family. Lines by method tell the length of stages in this execution; costs by method are ms (of
    a step), relative (to the student's step alone) and extra (parameters trained along)."""
    shown = [card for card in load_cards().values() if card.family == name]
    cards = (_card(card, lines.get(card.name), costs[costs.index == card.name]) for card in shown)
    return HTML(tag("div", *cards, class_="rkd-cards"))


def _card(card: Card, line: Line | None, costs: pd.DataFrame) -> Html:
    facts = {"reads": card.reads, "default weight": f"{card.weight:g}"}
    for cost in costs.itertuples():
        facts["extra parameters"] = f"{cost.extra:,}" if cost.extra else "none"
        facts["step"] = f"{cost.relative:.2f} × the student's ({cost.ms:.0f} ms)"
    facts["stages before training"] = _stages(card.name, line)
    formula = r"\[\begin{gathered}" + r" \\ ".join(card.formula) + r"\end{gathered}\]"
    return tag(
        "section",
        tag("h3", card.display),
        tag("p", card.paper, class_="rkd-note"),
        tag("div", comparison(card)._repr_html_(), class_="rkd-drawing"),
        tag("p", card.text),
        tag("div", formula, class_="math notranslate nohighlight", tabindex=0),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in facts.items()), class_="rkd-facts"),
        class_="rkd-card",
        id=f"method-{card.name}",
    )


def _stages(method: str, line: Line | None) -> str:
    """Stages under the default options, and how long they are in this execution, where that is something else."""
    said = []
    here = {s.name: s.epochs for s in line.runs[0].options.stages()} if line is not None else {}
    for stage in get_method(method).options().stages():
        short = here.get(stage.name, stage.epochs)
        own = "" if short == stage.epochs else f" (here {short})"
        said.append(f"{stage.name.replace('_', ' ')}, {stage.epochs} epochs{own}")
    return "; ".join(said) or "none"
