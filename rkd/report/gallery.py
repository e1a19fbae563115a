"""The gallery of methods: a card for each."""

import html
from collections.abc import Mapping
from importlib import resources
from typing import Literal

import yaml
from IPython.display import HTML

from rkd.bench.methods import MethodCost
from rkd.config import build, frozen
from rkd.experiments.chapters import Line
from rkd.methods import get_method, method_names
from rkd.report.comparison import comparison

Family = Literal["outputs", "vectors", "relations", "maps", "layers"]
Kind = Literal["direct", "relation", "contrast", "transition", "cross", "review", "group"]
Tap = Literal["stem", "1", "2", "3", "pooled", "logits"]
Side = Literal["none", "student", "teacher", "both"]


@frozen
class Card:
    """What the gallery says of one method; the fields are described in gallery.yaml."""

    name: str
    family: Family
    paper: str
    reads: str
    weight: float
    kind: Kind
    taps: tuple[Tap, ...]
    text: str
    formula: tuple[str, ...]
    learns: Side = "none"

    @property
    def display(self) -> str:
        """The method's name as printed."""
        return get_method(self.name).display


def load_cards() -> dict[str, Card]:
    """All cards by method.

    Raises:
        ConfigError: an entry with a key too few or too many, or an unknown value.
    """
    text = resources.files(__package__).joinpath("gallery.yaml").read_text(encoding="utf-8")
    return {name: build(Card, {"name": name, **entry}) for name, entry in yaml.safe_load(text).items()}


def family(name: Family, lines: Mapping[str, Line], costs: Mapping[str, MethodCost]) -> HTML:
    """The cards of one family.

    Args:
        name: of the family.
        lines: of the chapter by method, for the length of stages in this execution.
        costs: of a step, by method.
    """
    shown = [card for card in load_cards().values() if card.family == name and card.name in method_names()]
    cards = (_card(card, lines.get(card.name), costs.get(card.name)) for card in shown)
    return HTML(f'<div class="rkd-cards">{"".join(cards)}</div>')


def _card(card: Card, line: Line | None, cost: MethodCost | None) -> str:
    facts = {"reads": html.escape(card.reads), "default weight": f"{card.weight:g}"}
    if cost is not None:
        facts["extra parameters"] = f"{cost.extra_parameters:,}" if cost.extra_parameters else "none"
        facts["step"] = f"{cost.relative:.2f} × the student's ({cost.ms:.0f} ms)"
    facts["stages before training"] = _stages(card.name, line)
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    formula = html.escape(r" \\ ".join(card.formula))
    return (
        f'<section class="rkd-card" id="method-{card.name}"><h3>{html.escape(card.display)}</h3>'
        f'<p class="rkd-note">{html.escape(card.paper)}</p>'
        f'<div class="rkd-drawing">{comparison(card)._repr_html_()}</div>'
        f"<p>{html.escape(card.text)}</p>"
        rf'<div class="math notranslate nohighlight" tabindex="0">\[\begin{{gathered}}{formula}\end{{gathered}}\]</div>'
        f'<dl class="rkd-facts">{listed}</dl></section>'
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
