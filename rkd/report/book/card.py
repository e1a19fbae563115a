"""The picture that is shown with a shared link to the book: 1200 x 630 pixels, drawn again by

python -m rkd.report.book.card book/_assets/card.png
"""

import itertools
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 1200, 630  # pixels, the size link previews are cut to
# Okabe-Ito blue, orange and green on ink.
INK, PAPER, QUIET = "#14181e", "#ffffff", "#b9c3cd"
TEACHER, STUDENT, FUSED = "#56b4e9", "#e69f00", "#35b58b"
STAGES = (("stage 1", 96), ("stage 2", 76), ("stage 3", 58), ("pooled", 40))  # map sizes shrink with depth


def draw() -> Figure:
    """Teacher and student above each other, and the review path between them, from deep to shallow."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=INK)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    ax.text(70, 545, "ReviewKD: an executable report", color=PAPER, size=41, weight="bold", va="center")
    ax.text(
        70, 482, "Published accuracies of knowledge review, measured again",
        color=QUIET, size=19.5, va="center",
    )  # fmt: skip
    columns = [300, 540, 780, 1020]
    for name, y, colour in (("teacher", 372, TEACHER), ("student", 128, STUDENT)):
        ax.text(70, y, name, color=colour, size=23, weight="bold", va="center")
        for x, (_, size) in zip(columns, STAGES, strict=True):
            _map(ax, x, y, size, colour)
        for left, right in itertools.pairwise(columns):
            _arrow(ax, (left + 56, y), (right - 56, y), QUIET)
    for x, (name, size) in zip(columns, STAGES, strict=True):
        _map(ax, x, 250, 44, FUSED)
        _arrow(ax, (x, 128 + size / 2 + 4), (x, 222), STUDENT)
        _arrow(ax, (x, 278), (x, 372 - size / 2 - 4), FUSED, style="<|-|>")
        ax.text(x, 48, name, color=QUIET, size=18, ha="center", va="center")
    for left, right in itertools.pairwise(columns):
        _arrow(ax, (right - 30, 250), (left + 30, 250), FUSED, width=4.5)
    ax.text(70, 250, "review", color=FUSED, size=23, weight="bold", va="center")
    return figure


def _map(ax: Axes, x: float, y: float, size: float, colour: str) -> None:
    box = FancyBboxPatch(
        (x - size / 2, y - size / 2), size, size, boxstyle="round,pad=0,rounding_size=7",
        facecolor=INK, edgecolor=colour, linewidth=4.5,
    )  # fmt: skip
    ax.add_patch(box)


def _arrow(
    ax: Axes, start: tuple, end: tuple, colour: str, *, width: float = 2.5, style: str = "-|>"
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=17,
            color=colour,
            linewidth=width,
            shrinkA=0,
            shrinkB=0,
        )
    )


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]), dpi=100, facecolor=INK, metadata={"Software": None})
