"""The gallery of methods: a card for each, and the chapter that trains all of them on one pair."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from IPython.display import HTML, display

from rkd.bench.methods import MethodCost, method_costs
from rkd.errors import ConfigError, unknown
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Chapter, Line, chapter_in
from rkd.experiments.runner import Runner, pick_device
from rkd.experiments.workspace import data_root
from rkd.methods import Options, get_method, method_names
from rkd.methods.sum import SumOptions
from rkd.report import tables
from rkd.report.comparison import Comparison, comparison
from rkd.report.features import CLASSES, PERPLEXITY, Answers, answers, feature_figure, gap_figure
from rkd.report.page import Page
from rkd.report.summary import Measured
from rkd.training import Engine, RunConfig

CHAPTER = "methods"
FAMILIES = ("outputs", "vectors", "relations", "maps", "layers")
LOOKED_INTO = ("student", "kd", "reviewkd")  # lines whose logits and features are drawn
ROUNDS, FEW_ROUNDS = 9, 3  # steps of each method that are timed; in the smoke profile


@dataclass(frozen=True)
class Card:
    """What the gallery says of one method; the fields are described in gallery.yaml.

    Raises:
        ConfigError: an unknown family.
    """

    name: str
    family: str
    paper: str
    reads: str
    weight: float
    compares: Comparison
    text: str
    formula: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown(f"family of {self.name}:", self.family, FAMILIES)

    @property
    def display(self) -> str:
        """The method's name as printed."""
        return get_method(self.name).display


def load_cards() -> dict[str, Card]:
    """All cards by method.

    Raises:
        ConfigError: an entry with a key too few or too many.
    """
    text = resources.files(__package__).joinpath("gallery.yaml").read_text(encoding="utf-8")
    return {name: _card(name, entry) for name, entry in yaml.safe_load(text).items()}


def _card(name: str, entry: Mapping[str, Any]) -> Card:
    needed = {f.name for f in fields(Card)} - {"name", "compares"} | {"kind", "student"}
    if not needed <= set(entry) <= needed | {"teacher", "learns"}:
        odd = sorted(needed ^ set(entry) - {"teacher", "learns"})
        raise ConfigError(f"gallery.yaml: the entry of {name} lacks or does not know {', '.join(odd)}")
    compares = Comparison(
        entry["kind"],
        tuple(entry["student"]),
        tuple(entry.get("teacher", ())),
        entry.get("learns", "none"),
    )
    rest = {key: value for key, value in entry.items() if key not in {f.name for f in fields(Comparison)}}
    return Card(name, compares=compares, **{**rest, "formula": tuple(rest["formula"])})


def open_gallery(namespace: Mapping[str, Any]) -> "GalleryPage":
    """Open the chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return GalleryPage(chapter_in(CHAPTER, namespace), parameters.given_in(namespace))


class GalleryPage(Page):
    """The executed chapter. Call `run` first."""

    def __init__(self, chapter: Chapter, given: Mapping[str, Any]) -> None:
        super().__init__(chapter, given)
        self.cards = load_cards()
        self.rounds = FEW_ROUNDS if Path(self.settings.profile).stem == "smoke" else ROUNDS
        self._costs: dict[str, MethodCost] = {}

    @property
    def costs(self) -> dict[str, MethodCost]:
        """Cost of each method by name; measured when first asked for."""
        if not self._costs:
            # In the arithmetic of this machine, whatever that of the records.
            runs = {line.key: self._timed(line) for line in self._of_methods()}
            student = next(self._timed(line) for line in self.lines if line.role == "student")
            device = pick_device(self.settings.device)
            self._costs = method_costs(runs, student, device, self.rounds) if runs else {}
        return self._costs

    def _timed(self, line: Line) -> RunConfig:
        return replace(line.runs[0], precision=self.settings.precision)

    def overview(self) -> HTML:
        """All methods in a table: what they read, weigh, add, cost and reach."""
        measured = self._done()
        rows = []
        for line in self._of_methods():
            cost = self.costs[line.key]
            cells = [
                _linked(line, self.cards),
                html.escape(_reads(line.key, self.cards)),
                _weight(line.runs[0].options),
                f"{cost.extra_parameters:,}",
                f"{cost.relative:.2f}",
                tables.numbers(measured[line.key], "last"),
            ]
            row = "".join(f"<td>{cell}</td>" for cell in cells[1:])
            rows.append(f'<tr><th scope="row">{cells[0]}</th>{row}</tr>')
        heads = ["method", "reads", "default weight", "extra parameters", "× student's step", "last epoch, %"]
        device = pick_device(self.settings.device)
        note = (
            '<p class="rkd-note">× student\'s step: time of a training step, teacher included, over that of the '
            f"student alone; one run on this machine ({device.type}), steps of all methods in turn, median of "
            f"{self.rounds}. Extra parameters are trained along and thrown away. A weight in brackets is this "
            "recipe's, where it has another.</p>"
        )
        return HTML(tables.table_of(heads, rows, "rkd-results rkd-gallery") + note)

    def results(self) -> None:
        """Published against measured, with what ended below the student alone marked; and the figure."""
        marked = mark_losers(self.lines, self._done())
        lines, self.lines = self.lines, marked
        try:
            table = self.table()
        finally:
            self.lines = lines
        display(table, HTML(losers_sentence(lines, self._done())), self.figure())

    def family(self, name: str) -> HTML:
        """The cards of one family."""
        if name not in FAMILIES:
            raise unknown("family", name, FAMILIES)
        shown = [card for card in self.cards.values() if card.family == name and card.name in method_names()]
        lines = {line.key: line for line in self._of_methods()}
        cards = "".join(_card_html(card, lines.get(card.name), self.costs) for card in shown)
        return HTML(f'<div class="rkd-cards">{cards}</div>')

    def features(self) -> None:
        """Logits of classes and pooled features of the student alone and of two methods, where weights are here."""
        s = self.settings
        runner = Runner(self.store, data_root(s), s.device, engine=Engine(threads=s.threads))
        found: dict[str, Answers] = {}
        missing, names = [], ()
        for line in (line for line in self.lines if line.role == "teacher" or line.key in LOOKED_INTO):
            run = line.runs[0]
            if not self.store.has(run.id) or runner.weights_file(run.id, "last") is None:
                missing.append(f"{line.label} (<code>{run.id}</code>)")
                continue
            network, images = runner.network(run)
            found[line.label] = answers(network, images)
            names = images.class_names
        if missing:
            listed = ", ".join(missing)
            display(
                HTML(
                    f'<p class="rkd-note">Not drawn, because their weights are not on this machine: {listed}. Records '
                    "hold accuracies and curves; weights stay where a run was trained.</p>"
                )
            )
        teacher = next((line.label for line in self.lines if line.role == "teacher"), "")
        students = {label: answer for label, answer in found.items() if label != teacher}
        if teacher in found and students:
            display(gap_figure(found[teacher], students), HTML(_GAPS_SAID))
        if found:
            display(feature_figure(found, names), HTML(_FEATURES_SAID))

    def _of_methods(self) -> list[Line]:
        return [line for line in self.lines if line.role == "distilled"]


_GAPS_SAID = (
    '<p class="rkd-note">Row: class of the test images, over which logits are averaged; column: logit. The brighter, '
    "the further the student's mean is from the teacher's. The diagonal is left out, since a trained network's logit "
    "of the right class is far larger than the others; its mean stands above. All panels share one scale, which ends "
    "at the 99.5th percentile.</p>"
)
_FEATURES_SAID = (
    f'<p class="rkd-note">Pooled vectors of the test images of {CLASSES} classes in two dimensions, by t-SNE '
    f"(perplexity {PERPLEXITY:g}, or a third of the images where they are fewer; fixed seed, PCA start). Distances "
    "between groups, and directions, mean nothing; whether a class holds together does.</p>"
)


def losers(lines: Sequence[Line], measured: Mapping[str, Measured]) -> list[Line]:
    """Distilled lines whose mean at the last epoch is below the undistilled student's."""
    alone = next((measured[line.key].mean() for line in lines if line.role == "student"), float("nan"))
    return [line for line in lines if line.role == "distilled" and measured[line.key].mean() < alone]


def mark_losers(lines: Sequence[Line], measured: Mapping[str, Measured]) -> list[Line]:
    """The lines, those below the student alone with a note that says so."""
    below = {line.key for line in losers(lines, measured)}
    said = "below the student alone in this execution"
    return [
        replace(line, note="; ".join(filter(None, (line.note, said)))) if line.key in below else line
        for line in lines
    ]


def losers_sentence(lines: Sequence[Line], measured: Mapping[str, Measured]) -> str:
    """Which methods end below the student alone, as a paragraph; empty where the student has no accuracy."""
    if not any(measured[line.key].last for line in lines if line.role == "student"):
        return ""
    ran = [line for line in lines if line.role == "distilled" and measured[line.key].last]
    below = losers(lines, measured)
    if not below:
        text = f"None of the {len(ran)} methods measured here ends below the student trained alone."
    else:
        named = ", ".join(html.escape(line.label) for line in below)
        text = (
            f"{len(below)} of the {len(ran)} methods measured here end{'s' if len(below) == 1 else ''} below the "
            f"student trained alone, by their means at the last epoch: {named}."
        )
    return f"<p>{text}</p>"


def _card_html(card: Card, line: Line | None, costs: Mapping[str, MethodCost]) -> str:
    drawing = comparison(card.compares, card.display)
    formula = html.escape(r" \\ ".join(card.formula))
    formula = rf"\[\begin{{gathered}}{formula}\end{{gathered}}\]"
    facts = {"reads": html.escape(card.reads), "default weight": f"{card.weight:g}"}
    if card.name in costs:
        cost = costs[card.name]
        facts["extra parameters"] = f"{cost.extra_parameters:,}" if cost.extra_parameters else "none"
        facts["step"] = f"{cost.relative:.2f} × the student's ({cost.ms:.0f} ms)"
    facts["stages before training"] = _stages(card.name, line)
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return (
        f'<section class="rkd-card" id="method-{card.name}"><h3>{html.escape(card.display)}</h3>'
        f'<p class="rkd-note">{html.escape(card.paper)}</p>'
        f'<div class="rkd-drawing">{drawing._repr_html_()}</div>'
        f"<p>{html.escape(card.text)}</p>"
        f'<div class="math notranslate nohighlight" tabindex="0">{formula}</div>'
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


def _linked(line: Line, cards: Mapping[str, Card]) -> str:
    label = html.escape(line.label)
    return f'<a href="#method-{line.key}">{label}</a>' if line.key in cards else label


def _reads(method: str, cards: Mapping[str, Card]) -> str:
    return "; ".join(cards[part].reads for part in method.split("+") if part in cards)


def _weight(options: Options) -> str:
    """The default weight, and in brackets the run's, where it is another."""
    parts = [p.options for p in options.parts] if isinstance(options, SumOptions) else [options]
    said = []
    for part in parts:
        default = type(part)().loss_weight
        own = "" if part.loss_weight == default else f" ({part.loss_weight:g})"
        said.append(f"{default:g}{own}")
    return " + ".join(said)
