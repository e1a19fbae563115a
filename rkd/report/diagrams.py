"""Drawings with their alternative text.

Each is a matplotlib figure in colours that stay apart for colour-blind readers (Okabe and Ito's set). On a dark page,
drawings without pictures in them swap light and dark; the others remain on a light card.
"""

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.report.interactive.markup import picture

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
        kind = None if any(ax.images for ax in self.figure.axes) else "rkd-chart"
        return picture(buffer.getvalue(), self.alt, width=self.width, class_=kind)


show = Drawing  # for the last expression of a cell


def canvas(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    """Return axes without a frame that fill a card of this size in inches; `x` and `y` are their limits."""
    ax = Figure(figsize=(width, height), facecolor=CARD).add_axes((0.01, 0.01, 0.98, 0.98))
    ax.set_axis_off()
    ax.set(xlim=x, ylim=y)
    return ax
