"""One drawing for all methods: student above, teacher below, and which parts of them a method compares, and how."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rkd.errors import unknown
from rkd.report.diagrams import CARD, FUSION, INK, LOSS, QUIET, STUDENT, TEACHER, Drawing, _arrow

# Tap -> (centre, width, height) of its box: maps shrink with depth, vectors are bars.
TAPS = {
    "stem": (0.55, 0.62, 0.86), "1": (1.5, 0.62, 0.86), "2": (2.45, 0.52, 0.64), "3": (3.3, 0.42, 0.44),
    "pooled": (4.15, 0.16, 0.6), "logits": (4.85, 0.16, 0.86),
}  # fmt: skip
NAMES = {
    "stem": "stem",
    "1": "stage 1",
    "2": "stage 2",
    "3": "stage 3",
    "pooled": "pooled",
    "logits": "logits",
}
SIDES = ("none", "student", "teacher", "both")
UP, DOWN = 3.3, 0.62  # of the two rows
UNREAD = "#dfe4ea"


@dataclass(frozen=True)
class Comparison:
    """What a method compares.

    Attributes:
        kind: "direct" (part by part), "relation" (between the images of a batch), "contrast" (against remembered
            vectors), "transition" (between neighbouring maps of one network), "cross" (every map with every other),
            "review" (fused from deep to shallow) or "group" (several students).
        student, teacher: names of the taps compared, see `TAPS`; a teacher's that are not named are the student's.
        learns: which side passes a trained layer before it is compared.

    Raises:
        ConfigError: an unknown kind, tap or side.
    """

    kind: str
    student: tuple[str, ...]
    teacher: tuple[str, ...] = field(default=())
    learns: str = "none"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise unknown("kind of comparison", self.kind, _KINDS)
        if self.learns not in SIDES:
            raise unknown("learns", self.learns, SIDES)
        for tap in (*self.student, *self.teacher):
            if tap not in TAPS:
                raise unknown("tap", tap, TAPS)
        if not self.teacher:
            object.__setattr__(self, "teacher", self.student)

    @property
    def said(self) -> str:
        """The drawing in words."""
        parts = _listed(self.student)
        theirs = "" if self.teacher == self.student else f"; of the teacher, {_listed(self.teacher)}"
        passes = {
            "none": "",
            "student": " The student's pass a trained layer first.",
            "teacher": " The teacher's pass a trained layer first.",
            "both": " Both sides pass a trained layer first.",
        }[self.learns]
        return f"{_SAID[self.kind]}: {parts}{theirs}.{passes}"


def comparison(what: Comparison, name: str) -> Drawing:
    """The drawing of one method.

    Args:
        what: it compares.
        name: of the method, for the alternative text.
    """
    figure = Figure(figsize=(4.6, 2.75), facecolor=CARD)
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set_axis_off()
    ax.set_xlim(-0.72, 5.2)
    ax.set_ylim(-0.35, 4.0 if what.kind != "group" else 4.35)
    for copy in range(2 if what.kind == "group" else 0, 0, -1):
        _row(ax, UP, 0.1 * copy, STUDENT, what.student)
    _row(ax, UP, 0.0, STUDENT, what.student)
    _row(ax, DOWN, 0.0, TEACHER, what.teacher)
    ax.text(-0.65, UP, "students" if what.kind == "group" else "student", rotation=90, **_text(9, INK))
    ax.text(-0.65, DOWN, "teacher", rotation=90, **_text(9, INK))
    for tap in dict.fromkeys((*what.student, *what.teacher)):
        ax.text(TAPS[tap][0], -0.12, NAMES[tap], **_text(8, QUIET))
    _KINDS[what.kind](ax, what)
    return Drawing(figure, f"{name}, drawn. {what.said}", width=330)


def _row(ax: Axes, y: float, shift: float, colour: str, read: Sequence[str]) -> None:
    """The taps of one network, those that are read in its colour, on the line its data pass along."""
    left, right = TAPS["stem"][0], TAPS["logits"][0]
    ax.plot((left + shift, right + shift), (y + shift, y + shift), color=QUIET, linewidth=1, zorder=1)
    for tap, (x, width, height) in TAPS.items():
        ax.add_patch(
            Rectangle(
                (x - width / 2 + shift, y - height / 2 + shift), width, height, zorder=2, linewidth=1.2,
                facecolor=colour if tap in read else UNREAD, edgecolor=INK if tap in read else QUIET,
            )
        )  # fmt: skip


def _direct(ax: Axes, what: Comparison) -> None:
    for ours, theirs in zip(what.student, what.teacher, strict=True):
        top, bottom = _edge(ours, UP), _edge(theirs, DOWN)
        _compare(ax, top, bottom)
        _trained(ax, what, top, bottom)


def _relation(ax: Axes, what: Comparison) -> None:
    """A matrix of the batch for each network, compared with each other."""
    for ours, theirs in zip(what.student, what.teacher, strict=True):
        top, bottom = _edge(ours, UP), _edge(theirs, DOWN)
        _arrow(ax, top, (top[0], 2.5), scale=8, width=1.2)
        _arrow(ax, bottom, (bottom[0], 1.42), scale=8, width=1.2)
        _matrix(ax, top[0], 2.3, STUDENT)
        _matrix(ax, bottom[0], 1.62, TEACHER)
        _compare(ax, (top[0], 2.11), (bottom[0], 1.81))
        ax.text(top[0] - 0.36, 1.96, "images × images", ha="right", va="center", fontsize=8.5, color=QUIET)
        _trained(ax, what, (top[0], 3.41), (bottom[0], 0.54))


def _contrast(ax: Axes, what: Comparison) -> None:
    """The embedding against one that belongs to it and several that do not."""
    top, bottom = _edge(what.student[0], UP), _edge(what.teacher[0], DOWN)
    own = (bottom[0], 1.62)
    _arrow(ax, bottom, (own[0], own[1] - 0.14), scale=8, width=1.2)
    start = (top[0], 2.5)
    ax.plot(*zip(top, start, strict=True), color=INK, linewidth=1.2)
    for i in range(5):
        place = (own[0] - 0.55 * (i + 1), own[1])
        ax.plot(
            *zip(start, (place[0] + 0.05, place[1] + 0.13), strict=True),
            color=QUIET,
            linewidth=0.9,
            linestyle=":",
        )
        _dot(ax, place, UNREAD, QUIET)
    _compare(ax, start, (own[0], own[1] + 0.14))
    _dot(ax, own, TEACHER)
    ax.text(own[0] - 1.65, own[1] - 0.36, "remembered, other images", **_text(8.5, QUIET))
    _trained(ax, what, (top[0], 2.98), (bottom[0], 0.78))


def _transition(ax: Axes, what: Comparison) -> None:
    """Brackets between neighbours of one network, compared with those of the other."""
    for first, second in itertools.pairwise(what.student):
        x = (TAPS[first][0] + TAPS[second][0]) / 2
        for y, inner, colour in ((UP, 2.42, STUDENT), (DOWN, 1.5, TEACHER)):
            for tap in (first, second):
                lean = 0.1 if tap == first else -0.1
                start = _edge(tap, y)
                ax.plot((start[0] + lean, x), (start[1], inner), color=INK, linewidth=1.1, zorder=1)
            _dot(ax, (x, inner), colour)
        _compare(ax, (x, 2.29), (x, 1.63))


def _cross(ax: Axes, what: Comparison) -> None:
    for i, ours in enumerate(what.student):
        for j, theirs in enumerate(what.teacher):
            top, bottom = _edge(ours, UP), _edge(theirs, DOWN)
            _arrow(ax, top, bottom, color=LOSS, style="<|-|>", scale=8, width=2.2 if i == j else 0.8)
        _trained(ax, what, _edge(ours, UP), _edge(ours, DOWN))


def _review(ax: Axes, what: Comparison) -> None:
    """Fusion blocks under the student's taps, each passing on to the shallower one."""
    places = [TAPS[tap][0] for tap in what.student]
    for tap, x in zip(what.student, places, strict=True):
        _arrow(ax, _edge(tap, UP), (x, 2.46), scale=8, width=1.2)
        ax.add_patch(Rectangle((x - 0.17, 2.12), 0.34, 0.34, facecolor=FUSION, edgecolor=INK, linewidth=1.1))
        _compare(ax, (x, 2.12), _edge(tap, DOWN))
    for shallow, deep in itertools.pairwise(places):
        _arrow(ax, (deep - 0.17, 2.29), (shallow + 0.17, 2.29), color=FUSION, scale=9, width=1.8)


def _group(ax: Axes, what: Comparison) -> None:
    """As direct, and the students' logits merged and given back."""
    for tap in what.student[:-1]:
        _compare(ax, _edge(tap, UP), _edge(tap, DOWN))
    x = TAPS["logits"][0]
    _compare(ax, _edge("logits", UP), (x, 2.36))
    ax.add_patch(Rectangle((x - 0.2, 2.0), 0.4, 0.36, facecolor=FUSION, edgecolor=INK, linewidth=1.1))
    ax.text(x, 2.17, "Σ", **_text(10, "white"))
    _compare(ax, (x, 2.0), _edge("logits", DOWN))


def _trained(ax: Axes, what: Comparison, top: tuple[float, float], bottom: tuple[float, float]) -> None:
    """Green squares for trained layers, near the side that passes them."""
    along = {"student": (0.22,), "teacher": (0.78,), "both": (0.22, 0.78), "none": ()}[what.learns]
    for part in along:
        x, y = (a + (b - a) * part for a, b in zip(top, bottom, strict=True))
        ax.add_patch(
            Rectangle(
                (x - 0.12, y - 0.12), 0.24, 0.24, facecolor=FUSION, edgecolor=INK, linewidth=1.1, zorder=4
            )
        )


def _dot(ax: Axes, place: tuple[float, float], colour: str, edge: str = INK) -> None:
    ax.plot(*place, "o", markersize=10, markerfacecolor=colour, markeredgecolor=edge, zorder=3)


def _compare(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    _arrow(ax, start, end, color=LOSS, style="<|-|>", scale=10, width=2)


def _matrix(ax: Axes, x: float, y: float, colour: str, cells: int = 4, size: float = 0.38) -> None:
    step = size / cells
    for i in range(cells):
        for j in range(cells):
            shade = ("ff", "88", "44", "22")[abs(i - j)]
            place = (x - size / 2 + j * step, y + size / 2 - (i + 1) * step)
            ax.add_patch(
                Rectangle(place, step, step, facecolor=f"{colour}{shade}", edgecolor=INK, linewidth=0.5)
            )


def _edge(tap: str, y: float) -> tuple[float, float]:
    """Where a tap's box ends towards the other network."""
    x, _, height = TAPS[tap]
    return x, y + (-height / 2 if y == UP else height / 2)


def _text(size: float, colour: str) -> dict[str, object]:
    return {"ha": "center", "va": "center", "fontsize": size, "color": colour}


def _listed(taps: Sequence[str]) -> str:
    return ", ".join(NAMES[tap] for tap in taps)


_KINDS: dict[str, Callable[[Axes, Comparison], None]] = {
    "direct": _direct, "relation": _relation, "contrast": _contrast, "transition": _transition, "cross": _cross,
    "review": _review, "group": _group,
}  # fmt: skip
_SAID = {
    "direct": "Compared with the teacher's, part by part",
    "relation": "Compared are the relations that the images of a batch have to each other, in",
    "contrast": "Of many remembered vectors, the one of the same image has to be told from the others, by",
    "transition": "Compared is how neighbouring maps of one network relate to each other, among",
    "cross": "Each part of the student is compared with each of the teacher, by learned weights",
    "review": "The student's maps are fused from deep to shallow, and each result is compared with the teacher's",
    "group": "Several students are compared with the teacher, and their merged logits are taught back to each",
}
