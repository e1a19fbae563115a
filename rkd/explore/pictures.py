"""The pictures of the live page, as HTML with alternative texts: curves, review path, attention maps."""

import base64
import io
import threading
from collections.abc import Mapping, Sequence
from html import escape

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rkd.experiments.snapshots import Snapshots
from rkd.explore.choices import Plan
from rkd.report.interactive.attention import attention_levels
from rkd.report.interactive.path import review_details, review_diagram_svg
from rkd.report.interactive.strips import column, img, photos
from rkd.review import ReviewOptions

# Okabe-Ito: told apart under every common colour blindness; line styles and markers differ as well.
DISTILLED, ALONE, TEACHER = ("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#555555", ":", "")
CARD, INK, GRID = "#ffffff", "#222222", "#dddddd"
COLOURS = "viridis"  # of attention maps; ordered by lightness alone for colour-blind readers
DRAWING = (
    threading.Lock()
)  # matplotlib's fonts are shared by all figures, and a training redraws from a thread

Curves = Mapping[str, Mapping[str, Sequence[float]]]


def curve_pictures(plan: Plan, curves: Curves) -> list[str]:
    """Test accuracy, cross-entropy and review loss against epochs, with and without distillation.

    Args:
        plan: what is trained.
        curves: per-epoch values by run id, as far as there are any.
    """
    alone, distilled = curves.get(plan.alone.id, {}), curves.get(plan.distilled.id, {})
    teacher = curves.get(plan.teacher.id, {}).get("test_accuracy", [])
    both = [("with distillation", distilled, DISTILLED), ("without", alone, ALONE)]
    pictures = []
    for title, unit, name, shown in (
        ("test accuracy", "%", "test_accuracy", both),
        ("cross-entropy", "nats", "loss_ce", both),
        ("review loss", "", "loss_review", both[:1]),
    ):
        level = max(teacher) if teacher and name == "test_accuracy" else None
        lines = [(label, values.get(name, []), style) for label, values, style in shown]
        pictures.append(_curves(title, unit, plan.distilled.epochs, lines, level))
    return pictures


def _curves(
    title: str,
    unit: str,
    epochs: int,
    lines: Sequence[tuple[str, Sequence[float], tuple[str, str, str]]],
    teacher: float | None,
) -> str:
    with DRAWING:
        figure = Figure(figsize=(4.2, 3.1), facecolor=CARD, layout="constrained")
        ax = figure.subplots()
        if teacher is not None:
            colour, style, _ = TEACHER
            ax.axhline(teacher, color=colour, linestyle=style, linewidth=1.4, label="teacher, best")
        for label, values, (colour, style, marker) in lines:
            ax.plot(
                range(1, len(values) + 1),
                values,
                color=colour,
                linestyle=style,
                marker=marker if len(values) <= 40 else "",
                markersize=4.5,
                linewidth=1.8,
                label=label,
            )
        ax.set_xlim(0.7, max(epochs, 2) + 0.3)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if all(len(values) == 0 for _, values, _ in lines):
            ax.set_yticks([])
            ax.text(0.5, 0.5, "after the first epoch", transform=ax.transAxes, ha="center", color="#666666")
        elif title == "test accuracy":
            ax.set_ylim(bottom=0)
        ax.set_title(f"{title}, {unit}" if unit else title, fontsize=11, color=INK, loc="left")
        ax.set_xlabel("epoch", color=INK)
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize=9)
        said = "; ".join(
            f"{label}: {values[-1]:.3g}{' %' if unit == '%' else ''} after epoch {len(values)}"
            for label, values, _ in lines
            if len(values)
        )
        return _img(figure, f"{title} against epochs. {said or 'No epoch is finished yet'}.", 420)


def review_picture(levels: Sequence[Mapping[str, object]], options: ReviewOptions) -> str:
    """The review path of the chosen pair under the chosen options, and what happens at each level."""
    drawn = review_diagram_svg(levels, options)
    for answering, still in _STILL:
        drawn = drawn.replace(answering, still)
    details = "".join(review_details(levels, options))
    return f"{drawn}<details><summary>Level by level</summary>{details}</details>"


# In the book the drawing answers to a script; here nothing would answer.
_STILL = (
    ('tabindex="0" role="button" aria-pressed="false"', 'role="img"'),
    ("; show its details", ""),
    (' style="cursor: pointer"', ""),
)


def attention_picture(snapshots: Snapshots, epoch: int, image: int | None) -> str:
    """Attention maps after an epoch: a row per image (or one alone), two columns per level that fuses by attention;
    empty where none does.

    Args:
        snapshots: of the distilled run.
        epoch: one of `snapshots.epochs`.
        image: its place; None: all.
    """
    levels = attention_levels(snapshots)
    if not levels:
        return ""
    chosen = slice(None) if image is None else slice(image, image + 1)
    named = ", ".join(snapshots.classes[chosen])
    cells = [("<b>image</b>", img(photos(snapshots.images[chosen]), f"test images: {named}"))]
    for level in levels:
        maps = snapshots.attention(epoch, level)[chosen]
        size = f"{maps.shape[-2]} × {maps.shape[-1]}"
        for side, name in enumerate(("student map", "residual")):
            mean = maps[:, side].mean()
            alt = f"attention to the {name} at {level} after epoch {epoch}, {named}; mean {mean:.2f}"
            head = f"<b>{escape(level)}</b><br>{name}<br>{size}<br>mean {mean:.2f}"
            cells.append((head, img(column(maps[:, side], COLOURS, 0, 1), alt)))
    parts = "".join(f"<div>{head}{picture}</div>" for head, picture in cells)
    return f'<div class="rkd-maps" style="grid-template-columns: repeat({len(cells)}, minmax(0, 96px))">{parts}</div>'


def _img(figure: Figure, alt: str, width: int) -> str:
    """A figure as a picture of at most so many CSS pixels, narrower where there is less room."""
    buffer = io.BytesIO()
    inches = figure.get_size_inches()[0]
    figure.savefig(buffer, format="png", dpi=2 * width / inches, facecolor=figure.get_facecolor())
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="{escape(alt, quote=True)}" style="width:100%;max-width:{width}px;height:auto" '
        f'src="data:image/png;base64,{data}">'
    )
