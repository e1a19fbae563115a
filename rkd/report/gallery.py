"""The gallery of methods: a card for each, with the same kind of drawing: student above, teacher below, and which parts
of them the method compares, and how."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import yaml
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rkd.experiments.chapters import Line
from rkd.methods import get_method
from rkd.report.diagrams import FUSION, INK, LOSS, QUIET, STUDENT, TEACHER, Drawing, canvas
from rkd.report.interactive.markup import Html, tag

Point = tuple[float, float]
Pairs = list[tuple[Point, Point]]  # facing ends of the compared taps of student and teacher

# Tap -> its name, and the centre (x), width and height of its box: maps shrink with depth, vectors are bars.
TAPS = {
    "stem": ("stem", 0.55, 0.62, 0.86), "1": ("stage 1", 1.5, 0.62, 0.86), "2": ("stage 2", 2.45, 0.52, 0.64),
    "3": ("stage 3", 3.3, 0.42, 0.44), "pooled": ("pooled", 4.15, 0.16, 0.6), "logits": ("logits", 4.85, 0.16, 0.86),
}  # fmt: skip
UP, DOWN = 3.3, 0.62  # y of the two rows
UNREAD = "#dfe4ea"
# Sides that pass through a trained layer -> where its green square lies from student to teacher, and words for it.
PASSES = {
    "none": ((), ""),
    "student": ((0.22,), " The student's pass a trained layer first."),
    "teacher": ((0.78,), " The teacher's pass a trained layer first."),
    "both": ((0.22, 0.78), " Both sides pass a trained layer first."),
}
# Kind of a card -> what is said about it; `DRAW` has the function that draws it.
SAID = {
    "direct": "Compared with the teacher's, part by part",
    "relation": "Compared are the relations that the images of a batch have to each other, in",
    "contrast": "Of many remembered vectors, the one of the same image has to be told from the others, by",
    "transition": "Compared is how neighbouring maps of one network relate to each other, among",
    "cross": "Each part of the student is compared with each of the teacher, by learned weights",
    "review": "The student's maps are fused from deep to shallow, and each result is compared with the teacher's",
    "group": "Several students are compared with the teacher, and their merged logits are taught back to each",
}


@dataclass(frozen=True)
class Card:
    """What the gallery says about one method; the fields are described in gallery.yaml."""

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
    """Return all cards by method."""
    text = resources.files(__package__).joinpath("gallery.yaml").read_text(encoding="utf-8")
    return {name: Card(name, **entry) for name, entry in yaml.safe_load(text).items()}


def family(name: str, lines: Mapping[str, Line], costs: pd.DataFrame) -> HTML:
    """Return the cards of one family. `lines`, by method, tell the length of stages in this execution; `costs`, by
    method, are ms (of a step), relative (to the student's step alone) and extra (parameters trained along)."""
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
    parts = (
        tag("h3", card.display),
        tag("p", card.paper, class_="rkd-note"),
        tag("div", comparison(card)._repr_html_(), class_="rkd-drawing"),
        tag("p", card.text),
        tag("div", formula, class_="math notranslate nohighlight", tabindex=0),
        tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in facts.items()), class_="rkd-facts"),
    )
    return tag("section", *parts, class_="rkd-card", id=f"method-{card.name}")


def _stages(method: str, line: Line | None) -> str:
    """Return the stages under the default options, with their length in this execution if that differs."""
    said = []
    here = {s.name: s.epochs for s in line.runs[0].options.stages()} if line is not None else {}
    for stage in get_method(method).options().stages():
        short = here.get(stage.name, stage.epochs)
        own = "" if short == stage.epochs else f" (here {short})"
        said.append(f"{stage.name.replace('_', ' ')}, {stage.epochs} epochs{own}")
    return "; ".join(said) or "none"


# --- the drawing ---------------------------------------------------------------------------------


def comparison(card: Card) -> Drawing:
    """Return the drawing of one method, and the same in words."""
    group = card.kind == "group"
    ax = canvas(3.7, 2.21, (-0.72, 5.2), (-0.35, 4.35 if group else 4.0))
    rows = [(UP, shift, STUDENT) for shift in ((0.2, 0.1, 0.0) if group else (0.0,))]
    for y, shift, colour in (*rows, (DOWN, 0.0, TEACHER)):
        ends = (TAPS["stem"][1] + shift, TAPS["logits"][1] + shift)
        ax.plot(ends, (y + shift, y + shift), color=QUIET, linewidth=1, zorder=1)
        for tap, (_, x, width, height) in TAPS.items():  # taps that are read: in the network's colour
            face, edge = (colour, INK) if tap in card.taps else (UNREAD, QUIET)
            _box(ax, (x + shift, y + shift), width, height, face, edgecolor=edge, linewidth=1.2, zorder=2)
    _text(ax, (-0.65, UP), "students" if group else "student", 9, INK, rotation=90)
    _text(ax, (-0.65, DOWN), "teacher", 9, INK, rotation=90)
    pairs, names = [], []
    for name, x, _, height in (TAPS[tap] for tap in card.taps):
        _text(ax, (x, -0.12), name)
        pairs.append(((x, UP - height / 2), (x, DOWN + height / 2)))
        names.append(name)
    DRAW[card.kind](ax, pairs, card)
    said = f"{card.display}, drawn. {SAID[card.kind]}: {', '.join(names)}.{PASSES[card.learns][1]}"
    return Drawing(ax.figure, said, width=330)


def _direct(ax: Axes, pairs: Pairs, card: Card) -> None:
    for top, bottom in pairs:
        _compare(ax, top, bottom)
        _trained(ax, card, top, bottom)


def _relation(ax: Axes, pairs: Pairs, card: Card) -> None:
    """Draw a matrix over the batch for each network, and compare the two."""
    for (x, top), (_, bottom) in pairs:
        for start, end, middle, colour in ((top, 2.5, 2.3, STUDENT), (bottom, 1.42, 1.62, TEACHER)):
            _arrow(ax, (x, start), (x, end))
            for i, j in itertools.product(range(4), repeat=2):
                shade = colour + ("ff", "88", "44", "22")[abs(i - j)]
                place = (x + (j - 1.5) * 0.095, middle + (1.5 - i) * 0.095)
                _box(ax, place, 0.095, 0.095, shade, linewidth=0.5)
        _compare(ax, (x, 2.11), (x, 1.81))
        ax.text(x - 0.36, 1.96, "images × images", ha="right", va="center", fontsize=8.5, color=QUIET)
        _trained(ax, card, (x, 3.41), (x, 0.54))


def _contrast(ax: Axes, pairs: Pairs, card: Card) -> None:
    """Draw the embedding compared with one that belongs to it and, dotted, with several that do not."""
    (((x, top), bottom),) = pairs
    _arrow(ax, bottom, (x, 1.48))
    ax.plot((x, x), (top, 2.5), color=INK, linewidth=1.2)
    for other in (x - 0.55 * i for i in range(1, 6)):
        ax.plot((x, other + 0.05), (2.5, 1.75), color=QUIET, linewidth=0.9, linestyle=":")
        _dot(ax, (other, 1.62), UNREAD, QUIET)
    _compare(ax, (x, 2.5), (x, 1.76))
    _dot(ax, (x, 1.62), TEACHER)
    _text(ax, (x - 1.65, 1.26), "remembered, other images", 8.5)
    _trained(ax, card, (x, 2.98), (x, 0.78))


def _transition(ax: Axes, pairs: Pairs, card: Card) -> None:
    """Draw brackets between neighbouring taps of one network, compared with those of the other."""
    for first, second in itertools.pairwise(pairs):
        x = (first[0][0] + second[0][0]) / 2
        for side, inner, colour in ((0, 2.42, STUDENT), (1, 1.5, TEACHER)):
            for (start, y), lean in ((first[side], 0.1), (second[side], -0.1)):
                ax.plot((start + lean, x), (y, inner), color=INK, linewidth=1.1, zorder=1)
            _dot(ax, (x, inner), colour)
        _compare(ax, (x, 2.29), (x, 1.63))


def _cross(ax: Axes, pairs: Pairs, card: Card) -> None:
    for (i, (top, _)), (j, (_, bottom)) in itertools.product(enumerate(pairs), repeat=2):
        _arrow(ax, top, bottom, LOSS, "<|-|>", 8, 2.2 if i == j else 0.8)
    for top, bottom in pairs:
        _trained(ax, card, top, bottom)


def _review(ax: Axes, pairs: Pairs, card: Card) -> None:
    """Draw fusion blocks under the student's taps, each passing on to the shallower one."""
    for (x, y), end in pairs:
        _arrow(ax, (x, y), (x, 2.46))
        _box(ax, (x, 2.29), 0.34, 0.34, FUSION)
        _compare(ax, (x, 2.12), end)
    for ((shallow, _), _), ((deep, _), _) in itertools.pairwise(pairs):
        _arrow(ax, (deep - 0.17, 2.29), (shallow + 0.17, 2.29), FUSION, scale=9, width=1.8)


def _group(ax: Axes, pairs: Pairs, card: Card) -> None:
    """Draw as `_direct` does, with the students' logits (the last tap) merged and given back."""
    *others, ((x, top), bottom) = pairs
    for pair in (*others, ((x, top), (x, 2.36)), ((x, 2.0), bottom)):
        _compare(ax, *pair)
    _box(ax, (x, 2.18), 0.4, 0.36, FUSION)
    _text(ax, (x, 2.17), "Σ", 10, "white")


def _trained(ax: Axes, card: Card, top: Point, bottom: Point) -> None:
    """Draw green squares for trained layers, near the side that passes through them."""
    for part in PASSES[card.learns][0]:
        x, y = (a + (b - a) * part for a, b in zip(top, bottom, strict=True))
        _box(ax, (x, y), 0.24, 0.24, FUSION, zorder=4)


def _box(ax: Axes, place: Point, width: float, height: float, colour: str, **look: float | str) -> None:
    corner = (place[0] - width / 2, place[1] - height / 2)
    look = {"edgecolor": INK, "linewidth": 1.1, **look}
    ax.add_patch(Rectangle(corner, width, height, facecolor=colour, **look))


def _dot(ax: Axes, place: Point, colour: str, edge: str = INK) -> None:
    ax.plot(*place, "o", markersize=10, markerfacecolor=colour, markeredgecolor=edge, zorder=3)


def _arrow(ax: Axes, start: Point, end: Point, colour=INK, style="-|>", scale=8.0, width=1.2) -> None:
    look = {"arrowstyle": style, "color": colour, "linewidth": width, "mutation_scale": scale}
    ax.annotate("", end, start, arrowprops={**look, "shrinkA": 0, "shrinkB": 0})


def _compare(ax: Axes, start: Point, end: Point) -> None:
    _arrow(ax, start, end, LOSS, "<|-|>", 10, 2)


def _text(ax: Axes, place: Point, text: str, size: float = 8, colour: str = QUIET, **how: int) -> None:
    ax.text(*place, text, ha="center", va="center", fontsize=size, color=colour, **how)


DRAW: dict[str, Callable[[Axes, Pairs, Card], None]] = {
    "direct": _direct, "relation": _relation, "contrast": _contrast, "transition": _transition, "cross": _cross,
    "review": _review, "group": _group,
}  # fmt: skip
