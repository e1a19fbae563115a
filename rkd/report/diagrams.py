"""The drawings of the method chapter: ABF block and HCL pyramid; and its table of shapes.

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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from rkd.review import ReviewOptions, level_weights

CARD, INK, QUIET = "#f7f8fa", "#1d2733", "#5b6673"
STUDENT, TEACHER, FUSION, LOSS = "#56b4e9", "#e69f00", "#009e73", "#cc79a7"


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
    figure, ax = _canvas(10.6, 3.4)
    top, low, middle = 3.2, 0.9, 2.05
    _box(ax, 1.05, top, 1.8, 0.74, STUDENT, "student map", "C × h × h")
    _box(ax, 1.05, low, 1.8, 0.74, FUSION, "residual", "from deeper block")
    _box(ax, 3.4, top, 1.8, 0.74, "white", "1×1 conv, BN", "C → m")
    _box(ax, 3.4, low, 1.8, 0.74, "white", "resize", "nearest, to h × h")
    _box(ax, 5.3, middle, 1.8, 0.84, "white", "1×1 conv, σ", "2m → 2 maps")
    _operator(ax, 7.3, middle, "+")
    for y, name, sign in ((top, "$z_1$", 1), (low, "$z_2$", -1)):
        _arrow(ax, (1.97, y), (2.48, y))
        _arrow(ax, (4.32, y), (6.3, y))
        _arrow(ax, (4.1, y - 0.39 * sign), (4.42, middle + 0.3 * sign))
        _operator(ax, 6.5, y, "×")
        _arrow(ax, (5.95, middle + 0.44 * sign), (6.4, y - 0.2 * sign))
        ax.text(6.38, middle + 0.58 * sign, name, ha="left", va="center", fontsize=12, color=INK)
        _arrow(ax, (6.64, y - 0.15 * sign), (7.2, middle + 0.19 * sign))
    _box(ax, 8.75, middle, 1.9, 0.74, "white", "resize", "nearest, to H × H")
    _arrow(ax, (7.5, middle), (7.78, middle))
    _box(ax, 10.75, top, 1.8, 0.74, "white", "3×3 conv, BN", "m → C′")
    _box(ax, 12.0, low, 1.8, 0.74, FUSION, "residual", "to shallower block")
    _box(ax, 13.0, top, 1.6, 0.74, TEACHER, "output", "C′ × H × H")
    _arrow(ax, (9.4, middle + 0.39), (9.83, top - 0.2))
    _arrow(ax, (9.72, middle - 0.2), (11.08, low + 0.2))
    _arrow(ax, (11.67, top), (12.18, top))
    ax.set_xlim(0, 13.95)
    ax.set_ylim(0.35, 3.75)
    alt = (
        "The student map passes a 1x1 convolution, the residual is resized; a 1x1 convolution and a sigmoid "
        "turn both into two attention maps, which weigh them before they are added. The sum, resized, is the "
        "residual for the shallower block, and after a 3x3 convolution the output."
    )
    return Drawing(figure, alt, width=800)


def hcl_pyramid(
    size: int = 32, levels: Sequence[tuple[int, float]] = ((32, 1), (4, 0.5), (2, 0.25), (1, 0.125))
) -> Drawing:
    """One pair of maps, compared at every size of the pyramid.

    Args:
        size: height of the full maps.
        levels: (height, weight) of each comparison.
    """
    figure, ax = _canvas(8.6, 3.5)
    x = 0.0
    widths = [2.1 if h == size else 0.55 + 0.28 * min(h, 4) for h, _ in levels]
    for (height, weight), width in zip(levels, widths, strict=True):
        for bottom, colour in ((2.35, STUDENT), (0.0 + 2.1 - width, TEACHER)):
            _grid(ax, x, bottom, width, height, colour)
        centre = x + width / 2
        ax.text(
            centre,
            2.35 + width + 0.12,
            f"{height} × {height}",
            ha="center",
            fontsize=11,
            color=INK,
            weight="bold",
        )
        _arrow(ax, (centre, 2.33), (centre, 2.12), color=LOSS, style="<|-|>", scale=9)
        ax.text(
            centre,
            -0.2,
            f"weight {weight:g}",
            ha="center",
            va="top",
            fontsize=11,
            color="#8a3a66",
            weight="bold",
        )
        x += width + 1.1
    ax.text(-0.2, 2.35 + 1.05, "student\n(after ABF)", ha="right", va="center", fontsize=11, color=INK)
    ax.text(-0.2, 1.05, "teacher", ha="right", va="center", fontsize=11, color=INK)
    ax.set_xlim(-1.75, x - 0.7)
    ax.set_ylim(-0.55, 5.0)
    ax.set_aspect("equal")
    sizes = ", ".join(f"{height}x{height} with weight {weight:g}" for height, weight in levels)
    return Drawing(figure, f"The student's fused map and the teacher's map, compared at {sizes}.")


def show(figure: Figure, alt: str, width: int = 760) -> Drawing:
    """Any figure, shown with its alternative text."""
    return Drawing(figure, alt, width)


def shapes_table(levels: Sequence[Mapping[str, object]], options: ReviewOptions) -> object:
    """An HTML table of `ReviewKD.describe()`, with the sizes HCL compares at each level and a sum."""
    from IPython.display import HTML

    rows = [
        {
            "level": level["level"],
            "student C × h × h": _shape(level, "student"),
            "fused at m": level["mid_channels"],
            "teacher C × h × h": _shape(level, "teacher"),
            "HCL compares at": ", ".join(str(k) for k, _ in level_weights(level["teacher_size"], options)[0]),
            "parameters": f"{level['parameters']:,}",
        }
        for level in levels
    ]
    total = sum(level["parameters"] for level in levels)
    rows.append({**dict.fromkeys(rows[0], ""), "level": "all", "parameters": f"{total:,}"})
    return HTML(pd.DataFrame(rows).to_html(index=False, border=0))


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), facecolor=CARD)
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set_axis_off()
    return figure, ax


def _shape(level: Mapping[str, object], side: str) -> str:
    return f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"


def _box(
    ax: Axes, x: float, y: float, width: float, height: float, colour: str, text: str, note: str = ""
) -> None:
    """A rounded box centred on (x, y), with a small note inside its lower edge."""
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=colour if colour == "white" else f"{colour}55",
            edgecolor=QUIET if colour == "white" else colour,
            linewidth=1.4,
        )
    )
    lift = 0.11 if note else 0
    ax.text(x, y + lift, text, ha="center", va="center", fontsize=11, color=INK)
    if note:
        ax.text(x, y - 0.17, note, ha="center", va="center", fontsize=8.5, color=QUIET)


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = INK,
    width: float = 1.5,
    style: str = "-|>",
    scale: float = 12,
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=scale,
            linewidth=width,
            color=color,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _operator(ax: Axes, x: float, y: float, sign: str) -> None:
    ax.add_patch(Circle((x, y), 0.18, facecolor="white", edgecolor=QUIET, linewidth=1.4))
    ax.text(x, y - 0.01, sign, ha="center", va="center", fontsize=13, color=INK)


def _grid(ax: Axes, x: float, y: float, width: float, cells: int, colour: str) -> None:
    """A square map of cells x cells; very fine grids are drawn with fewer lines."""
    lines = min(cells, 16)
    ax.add_patch(Rectangle((x, y), width, width, facecolor=f"{colour}55", edgecolor=colour, linewidth=1.6))
    for i in range(1, lines):
        step = width * i / lines
        for xs, ys in (((x + step,) * 2, (y, y + width)), ((x, x + width), (y + step,) * 2)):
            ax.plot(xs, ys, color=colour, linewidth=0.6)
