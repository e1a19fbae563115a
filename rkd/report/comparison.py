"""One drawing for all methods: student above, teacher below, and which parts of them a method compares, and how."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rkd.report.diagrams import FUSION, INK, LOSS, QUIET, STUDENT, TEACHER, Drawing, Point, arrow, canvas

if TYPE_CHECKING:
    from rkd.report.gallery import Card

# Tap -> its name, and centre, width, height of its box: maps shrink with depth, vectors are bars.
TAPS = {
    "stem": ("stem", 0.55, 0.62, 0.86), "1": ("stage 1", 1.5, 0.62, 0.86), "2": ("stage 2", 2.45, 0.52, 0.64),
    "3": ("stage 3", 3.3, 0.42, 0.44), "pooled": ("pooled", 4.15, 0.16, 0.6), "logits": ("logits", 4.85, 0.16, 0.86),
}  # fmt: skip
UP, DOWN = 3.3, 0.62  # of the two rows
UNREAD = "#dfe4ea"
SAID = {
    "direct": "Compared with the teacher's, part by part",
    "relation": "Compared are the relations that the images of a batch have to each other, in",
    "contrast": "Of many remembered vectors, the one of the same image has to be told from the others, by",
    "transition": "Compared is how neighbouring maps of one network relate to each other, among",
    "cross": "Each part of the student is compared with each of the teacher, by learned weights",
    "review": "The student's maps are fused from deep to shallow, and each result is compared with the teacher's",
    "group": "Several students are compared with the teacher, and their merged logits are taught back to each",
}
PASSES = {
    "none": "",
    "student": " The student's pass a trained layer first.",
    "teacher": " The teacher's pass a trained layer first.",
    "both": " Both sides pass a trained layer first.",
}


def comparison(card: "Card") -> Drawing:
    """The drawing of one method, and the same in words."""
    ax = canvas(4.6, 2.75, (-0.72, 5.2), (-0.35, 4.0 if card.kind != "group" else 4.35))
    for copy in (2, 1, 0) if card.kind == "group" else (0,):
        _row(ax, UP, 0.1 * copy, STUDENT, card.taps)
    _row(ax, DOWN, 0.0, TEACHER, card.taps)
    _text(ax, -0.65, UP, "students" if card.kind == "group" else "student", 9, INK, rotation=90)
    _text(ax, -0.65, DOWN, "teacher", 9, INK, rotation=90)
    for tap in card.taps:
        _text(ax, TAPS[tap][1], -0.12, TAPS[tap][0])
    DRAWN[card.kind](ax, card)
    said = f"{SAID[card.kind]}: {', '.join(TAPS[tap][0] for tap in card.taps)}.{PASSES[card.learns]}"
    return Drawing(ax.figure, f"{card.display}, drawn. {said}", width=330)


def _row(ax: Axes, y: float, shift: float, colour: str, read: tuple[str, ...]) -> None:
    """The taps of one network, those that are read in its colour, on the line its data pass along."""
    ends = (TAPS["stem"][1] + shift, TAPS["logits"][1] + shift)
    ax.plot(ends, (y + shift, y + shift), color=QUIET, linewidth=1, zorder=1)
    for tap, (_, x, width, height) in TAPS.items():
        face, edge = (colour, INK) if tap in read else (UNREAD, QUIET)
        _box(ax, x + shift, y + shift, width, height, face, edge=edge, linewidth=1.2, zorder=2)


def _pairs(card: "Card") -> list[tuple[Point, Point]]:
    """Where the compared taps end towards each other."""
    return [(_edge(tap, UP), _edge(tap, DOWN)) for tap in card.taps]


def _direct(ax: Axes, card: "Card") -> None:
    for top, bottom in _pairs(card):
        _compare(ax, top, bottom)
        _trained(ax, card, top, bottom)


def _relation(ax: Axes, card: "Card") -> None:
    """A matrix of the batch for each network, compared with each other."""
    for top, bottom in _pairs(card):
        for start, end, middle, colour in ((top, 2.5, 2.3, STUDENT), (bottom, 1.42, 1.62, TEACHER)):
            arrow(ax, start, (start[0], end), scale=8, width=1.2)
            for i, j in itertools.product(range(4), repeat=2):
                shade = colour + ("ff", "88", "44", "22")[abs(i - j)]
                x, y = start[0] + (j - 1.5) * 0.095, middle + (1.5 - i) * 0.095
                _box(ax, x, y, 0.095, 0.095, shade, linewidth=0.5)
        _compare(ax, (top[0], 2.11), (bottom[0], 1.81))
        ax.text(top[0] - 0.36, 1.96, "images × images", ha="right", va="center", fontsize=8.5, color=QUIET)
        _trained(ax, card, (top[0], 3.41), (bottom[0], 0.54))


def _contrast(ax: Axes, card: "Card") -> None:
    """The embedding against one that belongs to it and several that do not."""
    ((top, bottom),) = _pairs(card)
    x, y = bottom[0], 1.62
    start = (top[0], 2.5)
    arrow(ax, bottom, (x, y - 0.14), scale=8, width=1.2)
    ax.plot(*zip(top, start, strict=True), color=INK, linewidth=1.2)
    for i in range(1, 6):
        other = x - 0.55 * i
        ax.plot((start[0], other + 0.05), (start[1], y + 0.13), color=QUIET, linewidth=0.9, linestyle=":")
        _dot(ax, (other, y), UNREAD, QUIET)
    _compare(ax, start, (x, y + 0.14))
    _dot(ax, (x, y), TEACHER)
    _text(ax, x - 1.65, y - 0.36, "remembered, other images", 8.5)
    _trained(ax, card, (top[0], 2.98), (bottom[0], 0.78))


def _transition(ax: Axes, card: "Card") -> None:
    """Brackets between neighbours of one network, compared with those of the other."""
    for first, second in itertools.pairwise(card.taps):
        x = (TAPS[first][1] + TAPS[second][1]) / 2
        for y, inner, colour in ((UP, 2.42, STUDENT), (DOWN, 1.5, TEACHER)):
            for tap, lean in ((first, 0.1), (second, -0.1)):
                start = _edge(tap, y)
                ax.plot((start[0] + lean, x), (start[1], inner), color=INK, linewidth=1.1, zorder=1)
            _dot(ax, (x, inner), colour)
        _compare(ax, (x, 2.29), (x, 1.63))


def _cross(ax: Axes, card: "Card") -> None:
    for i, ours in enumerate(card.taps):
        for j, theirs in enumerate(card.taps):
            width = 2.2 if i == j else 0.8
            arrow(ax, _edge(ours, UP), _edge(theirs, DOWN), colour=LOSS, style="<|-|>", scale=8, width=width)
        _trained(ax, card, _edge(ours, UP), _edge(ours, DOWN))


def _review(ax: Axes, card: "Card") -> None:
    """Fusion blocks under the student's taps, each passing on to the shallower one."""
    for (x, y), end in _pairs(card):
        arrow(ax, (x, y), (x, 2.46), scale=8, width=1.2)
        _box(ax, x, 2.29, 0.34, 0.34, FUSION)
        _compare(ax, (x, 2.12), end)
    for shallow, deep in itertools.pairwise(TAPS[tap][1] for tap in card.taps):
        arrow(ax, (deep - 0.17, 2.29), (shallow + 0.17, 2.29), colour=FUSION, scale=9, width=1.8)


def _group(ax: Axes, card: "Card") -> None:
    """As direct, and the students' logits, read last, merged and given back."""
    *others, (top, bottom) = _pairs(card)
    for pair in others:
        _compare(ax, *pair)
    _compare(ax, top, (top[0], 2.36))
    _box(ax, top[0], 2.18, 0.4, 0.36, FUSION)
    _text(ax, top[0], 2.17, "Σ", 10, "white")
    _compare(ax, (top[0], 2.0), bottom)


def _trained(ax: Axes, card: "Card", top: Point, bottom: Point) -> None:
    """Green squares for trained layers, near the side that passes them."""
    for part in {"student": (0.22,), "teacher": (0.78,), "both": (0.22, 0.78), "none": ()}[card.learns]:
        x, y = (a + (b - a) * part for a, b in zip(top, bottom, strict=True))
        _box(ax, x, y, 0.24, 0.24, FUSION, zorder=4)


def _box(
    ax: Axes, x: float, y: float, width: float, height: float, colour: str, edge: str = INK, **look: float
) -> None:
    look = {"linewidth": 1.1, **look}
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(Rectangle(corner, width, height, facecolor=colour, edgecolor=edge, **look))


def _dot(ax: Axes, place: Point, colour: str, edge: str = INK) -> None:
    ax.plot(*place, "o", markersize=10, markerfacecolor=colour, markeredgecolor=edge, zorder=3)


def _compare(ax: Axes, start: Point, end: Point) -> None:
    arrow(ax, start, end, colour=LOSS, style="<|-|>", scale=10, width=2)


def _edge(tap: str, y: float) -> Point:
    """Where a tap's box ends towards the other network."""
    _, x, _, height = TAPS[tap]
    return x, y + (-height / 2 if y == UP else height / 2)


def _text(ax: Axes, x: float, y: float, text: str, size: float = 8, colour: str = QUIET, **how: int) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=colour, **how)


DRAWN: dict[str, Callable[[Axes, "Card"], None]] = {
    "direct": _direct, "relation": _relation, "contrast": _contrast, "transition": _transition, "cross": _cross,
    "review": _review, "group": _group,
}  # fmt: skip
