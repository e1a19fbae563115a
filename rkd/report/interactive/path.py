"""The review path as a drawing that answers: which student map meets which teacher map, pair by pair.

Everything is read off `ReviewKD.describe()`. Colours of text and boxes are the page's own (currentColor, translucent
fills), so the drawing reads on light and dark pages without a style of its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rkd import models
from rkd.experiments.chapters import get_chapter
from rkd.models import canonical, display_name
from rkd.report import diagrams
from rkd.report.interactive.assets import attached
from rkd.report.interactive.plot import fallback_image
from rkd.review import ReviewKD, ReviewOptions, level_weights

Level = Mapping[str, object]  # one row of ReviewKD.describe()

STUDENT, TEACHER, FUSION, LOSS = diagrams.STUDENT, diagrams.TEACHER, diagrams.FUSION, diagrams.LOSS
_WIDTH, _HEAD, _GAP = 440, 36, 32
_COLUMNS = {"student": 52, "block": 203, "teacher": 378}  # centres
_BLOCK = (92, 44)  # width and height of a fusion block


@dataclass(frozen=True, repr=False)
class ReviewPath:
    """Drawings of several pairs, one shown at a time, with the details of the level that is clicked or focused.

    Attributes:
        pairs: name of a pair -> rows of `ReviewKD.describe()`; the first is shown at first.
        options: of the method.
    """

    pairs: Mapping[str, Sequence[Level]]
    options: ReviewOptions

    def _repr_html_(self) -> str:
        names = list(self.pairs)
        still = diagrams.review_path(self.pairs[names[0]])
        choices = "".join(f"<option>{escape(name)}</option>" for name in names)
        parts = [
            f'<div class="rkd-pair"{" hidden" * (i > 0)}><div class="rkd-path-drawing">'
            f'{review_diagram_svg(levels, self.options)}</div><div class="rkd-details" aria-live="polite">'
            '<p class="rkd-note">Choose a level: click on it, or reach it with the Tab and arrow keys.</p>'
            + "".join(f"<div hidden>{text}</div>" for text in review_details(levels, self.options))
            + "</div></div>"
            for i, levels in enumerate(self.pairs.values())
        ]
        # Inside a script element, so that a page which drops scripts drops all of it and shows the fallback alone.
        return (
            '<figure class="rkd-path"><script type="text/html"><div class="rkd-plot-controls">'
            f'<label class="rkd-choice"><span>Pair (student ← teacher)</span><select>{choices}</select></label></div>'
            f'<div class="rkd-plot-area">{"".join(parts)}</div></script>'
            f"{fallback_image(still.figure, still.alt, still.width)}</figure>{attached(plotly=False)}"
        )

    def __repr__(self) -> str:
        return f"<ReviewPath: {', '.join(self.pairs)}>"


def review_paths(
    teacher: str, student: str, options: ReviewOptions | None = None, image_size: int = 32
) -> ReviewPath:
    """The review path of a pair, and of the pairs of Tables 1 and 2 beside it.

    Args:
        teacher, student: the pair shown at first.
        options: of the method; None: the released code's.
        image_size: height and width of the images, in pixels.

    Raises:
        ConfigError: an unknown network.
    """
    options = options or ReviewOptions()
    wanted = [(teacher, student), *get_chapter("table1").pairs, *get_chapter("table2").pairs]
    pairs = {}
    for t, s in dict.fromkeys((canonical(t), canonical(s)) for t, s in wanted):
        review = ReviewKD(models.build(s), models.build(t), options, image_size)
        pairs[f"{display_name(s)} ← {display_name(t)}"] = review.describe()
    return ReviewPath(pairs, options)


# --- the drawing -------------------------------------------------------------------------------------------------


def review_diagram_svg(levels: Sequence[Level], options: ReviewOptions) -> str:
    """The path of one pair as a scalable drawing: maps in proportion to their height, blocks, residuals, losses.

    Each level is a group with class "rkd-level", `data-level` (0 is the deepest) and a keyboard stop.

    Args:
        levels: rows of `ReviewKD.describe()`, deep to shallow.
        options: of the method: they decide which arrows there are.
    """
    unit = 62 / max(int(level[f"{side}_size"]) for level in levels for side in ("student", "teacher"))
    heights = [
        max(_BLOCK[1], 22 + unit * max(int(level["student_size"]), int(level["teacher_size"])))
        for level in levels
    ]
    tops = [_HEAD + sum(heights[:i]) + _GAP * i for i in range(len(levels))]
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]
    total = math.ceil(tops[-1] + heights[-1] + 12)
    parts = [
        _text(x, 16, name, weight=600)
        for name, x in zip(("student", "fusion", "teacher"), _COLUMNS.values(), strict=True)
    ]
    for i, level in enumerate(levels):
        parts.append(_level(i, level, levels, options, tops[i], heights[i], unit))
    parts += _connections(levels, options, middles, heights)
    words = (
        f"{len(levels)} levels from deep to shallow; at each, a map of the student passes a fusion block, whose output "
        "is compared with a map of the teacher."
    )
    return (
        f'<svg class="rkd-path-svg" viewBox="0 0 {_WIDTH} {total}" width="{_WIDTH}" role="group" '
        f'aria-label="{words}" font-family="inherit" font-size="15" fill="currentColor" '
        f'style="max-width: 100%; height: auto">{"".join(parts)}</svg>'
    )


def _level(
    i: int,
    level: Level,
    levels: Sequence[Level],
    options: ReviewOptions,
    top: float,
    height: float,
    unit: float,
) -> str:
    middle = top + height / 2
    x = _COLUMNS["block"]
    start, end = _map_edges(level, "student", unit)[1], _map_edges(level, "teacher", unit)[0]
    name, kind = escape(str(level["level"])), _block_name(i, level, levels, options)
    loss = "L2" if options.loss == "l2" else "HCL"
    parts = [
        f'<rect class="rkd-back" x="1" y="{top - 8:g}" width="{_WIDTH - 2}" height="{height + 16:g}" rx="8" '
        'fill="currentColor" fill-opacity="0"/>',
        *(_map(level, side, _COLUMNS[side], middle, unit, colour) for side, colour in _SIDES),
        _box(x, middle, *_BLOCK, FUSION),
        _text(x, middle - 4, name, weight=600),
        _text(x, middle + 14, kind, size=14),
        _arrow((start + 3, middle), (x - _BLOCK[0] / 2 - 2, middle)),
        _arrow((x + _BLOCK[0] / 2 + 2, middle), (end - 3, middle), colour=LOSS, both=True),
        _text((x + _BLOCK[0] / 2 + end) / 2, middle - 8, loss, weight=600, size=14),
    ]
    if options.loss == "hcl":
        sizes = ", ".join(str(size) for size, _ in level_weights(int(level["teacher_size"]), options)[0])
        parts.append(_text((x + _BLOCK[0] / 2 + end) / 2, middle + 17, sizes, size=14))
    label = (
        f"{name}: student {_shape(level, 'student')}, teacher {_shape(level, 'teacher')}; show its details"
    )
    return (
        f'<g class="rkd-level" data-level="{i}" tabindex="0" role="button" aria-pressed="false" '
        f'aria-label="{label}" style="cursor: pointer">{"".join(parts)}</g>'
    )


_SIDES = (("student", STUDENT), ("teacher", TEACHER))


def _block_name(i: int, level: Level, levels: Sequence[Level], options: ReviewOptions) -> str:
    if options.connector == "none":
        return "1×1 conv" if level["parameters"] else "as it is"
    if options.connector == "mechanism":
        return f"sum of {i + 1}" if i else "1×1 conv"
    if i == 0:
        return "conv"
    return "ABF" if options.attention else "add"


def _connections(
    levels: Sequence[Level], options: ReviewOptions, middles: Sequence[float], heights: Sequence[float]
) -> list[str]:
    """What a level gets from deeper ones."""
    x = _COLUMNS["block"]
    if options.connector == "residual":
        parts = []
        for i in range(len(levels) - 1):
            ends = (middles[i] + _BLOCK[1] / 2 + 2, middles[i + 1] - _BLOCK[1] / 2 - 2)
            parts.append(_arrow((x, ends[0]), (x, ends[1]), colour=FUSION, width=2.6))
            channels, size = _residual(levels[i], options)
            parts.append(_text(x + 8, sum(ends) / 2 + 4, f"{channels} × {size} × {size}", "start", size=14))
        return parts
    if options.connector == "mechanism":
        left = x - _BLOCK[0] / 2 - 2
        return [
            _arrow((_COLUMNS["student"] + 50, middles[i]), (left, middles[j] - 9), colour=FUSION, width=1.2)
            for j in range(len(levels))
            for i in range(j)
        ]
    return []


def _map_edges(level: Level, side: str, unit: float) -> tuple[float, float]:
    half = max(3.5, unit * int(level[f"{side}_size"]) / 2)
    depth = _depth(level, side)
    return _COLUMNS[side] - half, _COLUMNS[side] + half + depth


def _depth(level: Level, side: str) -> float:
    """How far the box reaches back: it grows with the logarithm of the channels."""
    return 1.6 * math.log2(max(2, int(level[f"{side}_channels"])))


def _map(level: Level, side: str, x: float, y: float, unit: float, colour: str) -> str:
    """A box as high and wide as the map, in proportion, with its shape below."""
    half = max(3.5, unit * int(level[f"{side}_size"]) / 2)
    depth = _depth(level, side)
    left, top, right, bottom = x - half, y - half, x + half, y + half
    back_right, back_top, back_bottom = right + depth, top - 0.6 * depth, bottom - 0.6 * depth
    roof = ((left, top), (left + depth, back_top), (back_right, back_top), (right, top))
    wall = ((right, top), (back_right, back_top), (back_right, back_bottom), (right, bottom))
    front = ((left, top), (right, top), (right, bottom), (left, bottom))
    faces = "".join(
        f'<polygon points="{_corners(face)}" fill="{colour}" fill-opacity="{opacity}" stroke="{colour}" '
        'stroke-width="1.3" stroke-linejoin="round"/>'
        for face, opacity in ((roof, 0.55), (wall, 0.4), (front, 0.25))
    )
    return faces + _text(x + depth / 2, bottom + 16, _shape(level, side), size=14)


def _corners(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _shape(level: Level, side: str) -> str:
    return f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"


def _residual(level: Level, options: ReviewOptions) -> tuple[int, int]:
    """Channels and size of what a level passes on: all blocks resize to the teacher's size first."""
    channels = level["mid_channels"] if options.residual == "mid" else level["teacher_channels"]
    return int(channels), int(level["teacher_size"])


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: int = 400, size: float = 15) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size:g}" '
        f'stroke="none">{text}</text>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" rx="7" '
        f'fill="{colour}" fill-opacity="0.22" stroke="{colour}" stroke-width="1.5"/>'
    )


def _arrow(
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = "currentColor",
    width: float = 1.6,
    both: bool = False,
) -> str:
    """A line with a head at its end, or at both: drawn, since markers would need ids unique on the page."""
    (x1, y1), (x2, y2) = start, end
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    size = 5 + 1.4 * width
    heads = [_head(x2, y2, ux, uy, size, colour)]
    if both:
        heads.append(_head(x1, y1, -ux, -uy, size, colour))
    x1, y1 = (x1 + ux * size * both, y1 + uy * size * both)
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2 - ux * size:.1f}" y2="{y2 - uy * size:.1f}" '
        f'stroke="{colour}" stroke-width="{width:g}"/>{"".join(heads)}'
    )


def _head(x: float, y: float, ux: float, uy: float, size: float, colour: str) -> str:
    back, side = size, size * 0.45
    points = [
        (x, y),
        *((x - ux * back + sign * uy * side, y - uy * back - sign * ux * side) for sign in (1, -1)),
    ]
    return (
        f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" fill="{colour}" stroke="none"/>'
    )


# --- the details -------------------------------------------------------------------------------------------------


def review_details(levels: Sequence[Level], options: ReviewOptions) -> list[str]:
    """What happens at each level, step by step with shapes, as HTML; deep to shallow like `levels`."""
    return [_details(i, levels, options) for i in range(len(levels))]


def _details(i: int, levels: Sequence[Level], options: ReviewOptions) -> str:
    level = levels[i]
    rows = [("student map", _shape(level, "student")), *_steps(i, levels, options)]
    rows.append(("teacher map", _shape(level, "teacher")))
    if options.loss == "l2":
        rows.append(("compared", "mean squared error of the full maps"))
    else:
        used, normaliser = level_weights(int(level["teacher_size"]), options)
        rows += [
            (
                f"HCL at {size} × {size}",
                f"weight {weight:g} of {normaliser:g}",
            )
            for size, weight in used
        ]
    rows.append(("trainable parameters", f"{level['parameters']:,}"))
    body = "".join(f'<tr><th scope="row">{escape(a)}</th><td>{escape(b)}</td></tr>' for a, b in rows)
    caption = f"Level “{escape(str(level['level']))}”"
    return (
        f'<table class="rkd-table rkd-level-table"><caption>{caption}</caption><tbody>{body}</tbody></table>'
    )


def _steps(i: int, levels: Sequence[Level], options: ReviewOptions) -> list[tuple[str, str]]:
    """Between the student's map and the one compared, by connector."""
    return {"residual": _residual_steps, "mechanism": _sum_steps, "none": _same_level_steps}[
        options.connector
    ](i, levels, options)


def _residual_steps(i: int, levels: Sequence[Level], options: ReviewOptions) -> list[tuple[str, str]]:
    level = levels[i]
    size, full = level["student_size"], level["teacher_size"]
    direct = options.residual == "output_direct"
    width = level["teacher_channels"] if direct else level["mid_channels"]
    kernel = "3×3" if direct else "1×1"
    rows = [(f"{kernel} convolution, BN", f"{width} × {size} × {size}")]
    if i:
        channels, deep = _residual(levels[i - 1], options)
        arrives = f"{channels} × {deep} × {deep}"
        if channels != width or options.residual != "mid":
            arrives += f", by a {kernel} convolution and BN {width} × {deep} × {deep}"
        if deep != size:
            arrives += f", resized to {size} × {size} (nearest neighbour)"
        rows.append((f"residual from “{levels[i - 1]['level']}”", arrives))
        if options.attention:
            rows.append(
                ("attention", f"2 maps of {size} × {size} weigh the two at each position; they are added")
            )
        else:
            rows.append(("fusion", "the two are added"))
    if size != full:
        rows.append(("resized to the teacher's size", f"{width} × {full} × {full}"))
    if not direct:
        rows.append(("3×3 convolution, BN: output", f"{level['teacher_channels']} × {full} × {full}"))
    if i + 1 < len(levels):
        channels, full = _residual(level, options)
        what = "the fused map" if options.residual == "mid" else "the output"
        rows.append(("passed on", f"{what}, {channels} × {full} × {full}, to “{levels[i + 1]['level']}”"))
    return rows


def _sum_steps(i: int, levels: Sequence[Level], options: ReviewOptions) -> list[tuple[str, str]]:
    shape = _shape(levels[i], "teacher")
    names = ", ".join(f"“{level['level']}”" for level in levels[: i + 1])
    return [("1×1 convolution, BN, resized, added", f"student maps of {names}, each to {shape}")]


def _same_level_steps(i: int, levels: Sequence[Level], options: ReviewOptions) -> list[tuple[str, str]]:
    level = levels[i]
    what = "1×1 convolution, BN" if level["parameters"] else "unchanged"
    resized = ", resized" * (level["student_size"] != level["teacher_size"])
    return [(f"{what}{resized}", _shape(level, "teacher"))]
