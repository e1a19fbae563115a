"""Drawings with their alternative text; of the method chapter the ABF block and the table of shapes.

Each drawing is a matplotlib figure on a light card of its own, so it reads on light and dark pages, in
colours that stay apart for colour-blind readers (Okabe and Ito's set). A notebook shows it with its
alternative text.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from rkd.review import ReviewOptions, level_weights

CARD, INK, QUIET = "#f7f8fa", "#1d2733", "#5b6673"
STUDENT, TEACHER, FUSION, LOSS = "#56b4e9", "#e69f00", "#009e73", "#cc79a7"
Point = tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """A matplotlib figure, what it shows in words, and its width on the page in CSS pixels."""

    figure: Figure
    alt: str
    width: int = 760

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=200, facecolor=self.figure.get_facecolor())
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img width="{self.width}" alt="{escape(self.alt)}" src="data:image/png;base64,{data}">'


def abf_block() -> Drawing:
    """Inside one attention-based fusion block."""
    ax = canvas(10.6, 3.4, (0, 13.95), (0.35, 3.75))
    top, low, middle = 3.2, 0.9, 2.05
    _box(ax, 1.05, top, 1.8, 0.74, STUDENT, "student map", "C × h × h")
    _box(ax, 1.05, low, 1.8, 0.74, FUSION, "residual", "from deeper block")
    _box(ax, 3.4, top, 1.8, 0.74, "white", "1×1 conv, BN", "C → m")
    _box(ax, 3.4, low, 1.8, 0.74, "white", "resize", "nearest, to h × h")
    _box(ax, 5.3, middle, 1.8, 0.84, "white", "1×1 conv, σ", "2m → 2 maps")
    _operator(ax, 7.3, middle, "+")
    for y, name, sign in ((top, "$z_1$", 1), (low, "$z_2$", -1)):
        arrow(ax, (1.97, y), (2.48, y))
        arrow(ax, (4.32, y), (6.3, y))
        arrow(ax, (4.1, y - 0.39 * sign), (4.42, middle + 0.3 * sign))
        _operator(ax, 6.5, y, "×")
        arrow(ax, (5.95, middle + 0.44 * sign), (6.4, y - 0.2 * sign))
        ax.text(6.38, middle + 0.58 * sign, name, ha="left", va="center", fontsize=12, color=INK)
        arrow(ax, (6.64, y - 0.15 * sign), (7.2, middle + 0.19 * sign))
    _box(ax, 8.75, middle, 1.9, 0.74, "white", "resize", "nearest, to H × H")
    arrow(ax, (7.5, middle), (7.78, middle))
    _box(ax, 10.75, top, 1.8, 0.74, "white", "3×3 conv, BN", "m → C′")
    _box(ax, 12.0, low, 1.8, 0.74, FUSION, "residual", "to shallower block")
    _box(ax, 13.0, top, 1.6, 0.74, TEACHER, "output", "C′ × H × H")
    arrow(ax, (9.4, middle + 0.39), (9.83, top - 0.2))
    arrow(ax, (9.72, middle - 0.2), (11.08, low + 0.2))
    arrow(ax, (11.67, top), (12.18, top))
    alt = (
        "The student map passes a 1x1 convolution, the residual is resized; a 1x1 convolution and a sigmoid "
        "turn both into two attention maps, which weigh them before they are added. The sum, resized, is the "
        "residual for the shallower block, and after a 3x3 convolution the output."
    )
    return Drawing(ax.figure, alt, width=800)


def show(figure: Figure, alt: str, width: int = 760) -> Drawing:
    """Any figure, shown with its alternative text."""
    return Drawing(figure, alt, width)


def shapes_table(levels: Sequence[Mapping[str, object]], options: ReviewOptions) -> HTML:
    """An HTML table of `ReviewKD.describe()`, with the sizes HCL compares at each level and a sum."""
    rows = [
        {
            "level": level["level"],
            "student C × h × h": "{student_channels} × {student_size} × {student_size}".format_map(level),
            "fused at m": level["mid_channels"],
            "teacher C × h × h": "{teacher_channels} × {teacher_size} × {teacher_size}".format_map(level),
            "HCL compares at": ", ".join(str(k) for k, _ in level_weights(level["teacher_size"], options)[0]),
            "parameters": f"{level['parameters']:,}",
        }
        for level in levels
    ]
    total = sum(level["parameters"] for level in levels)
    rows.append({**dict.fromkeys(rows[0], ""), "level": "all", "parameters": f"{total:,}"})
    return HTML(pd.DataFrame(rows).to_html(index=False, border=0))


def canvas(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    """Axes without frame that fill a card of so many inches; x and y are their ends."""
    ax = Figure(figsize=(width, height), facecolor=CARD).add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set_axis_off()
    ax.set(xlim=x, ylim=y)
    return ax


def arrow(
    ax: Axes,
    start: Point,
    end: Point,
    colour: str = INK,
    width: float = 1.5,
    style: str = "-|>",
    scale: float = 12,
) -> None:
    """A straight arrow between two places; scale is the size of its head in points."""
    look = {"arrowstyle": style, "color": colour, "linewidth": width, "mutation_scale": scale}
    ax.annotate("", end, start, arrowprops={**look, "shrinkA": 0, "shrinkB": 0})


def _box(
    ax: Axes, x: float, y: float, width: float, height: float, colour: str, text: str, note: str = ""
) -> None:
    """A rounded box centred on (x, y), with a small note inside its lower edge."""
    face, edge = ("white", QUIET) if colour == "white" else (f"{colour}55", colour)
    corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=face, edgecolor=edge, linewidth=1.4))
    ax.text(x, y + 0.11 * bool(note), text, ha="center", va="center", fontsize=11, color=INK)
    ax.text(x, y - 0.17, note, ha="center", va="center", fontsize=8.5, color=QUIET)


def _operator(ax: Axes, x: float, y: float, sign: str) -> None:
    ax.add_patch(Circle((x, y), 0.18, facecolor="white", edgecolor=QUIET, linewidth=1.4))
    ax.text(x, y - 0.01, sign, ha="center", va="center", fontsize=13, color=INK)
