"""The review path, drawn in HTML: which student map meets which teacher map, level by level, and what happens there.

Everything is read off `ReviewKD.describe()`. Nothing here needs a script: boxes are styled, details unfold.
"""

from collections.abc import Mapping, Sequence

from rkd import models
from rkd.experiments.chapters import get_chapter
from rkd.models import canonical, display_name
from rkd.report.interactive.markup import Html, table, tag
from rkd.report.interactive.stack import Stack
from rkd.review import ReviewKD, ReviewOptions, level_weights

# Here and not in a file: the live page, which has no files beside it, shows the path too.
STYLE = Html("""<style>
.rkd-path { max-width: 46rem; font-size: clamp(0.72rem, 2.4vw, 0.9rem); line-height: 1.35; }
.rkd-level {
  display: grid; grid-template-columns: 1fr 1.2rem 1.15fr 4rem 1fr; gap: 0.15rem 0.3rem; align-items: center;
  text-align: center;
}
.rkd-level b { display: block; font-weight: 600; }
.rkd-map i { display: block; aspect-ratio: 1; min-width: 5px; margin: 0 auto 0.2rem; border: 1.5px solid; }
.rkd-student i { background: #56b4e940; border-color: #56b4e9; }
.rkd-teacher i { background: #e69f0040; border-color: #e69f00; }
.rkd-block { padding: 0.35rem 0.2rem; border: 1.5px solid #009e73; border-radius: 7px; background: #009e7338; }
.rkd-passed { grid-column: 3; font-weight: 600; }
.rkd-level details { grid-column: 1 / -1; text-align: left; overflow-x: auto; }
.rkd-level summary { width: fit-content; color: var(--rkd-info, inherit); }
</style>""")

Level = Mapping[str, object]  # one row of ReviewKD.describe()
Levels = Sequence[Level]


def review_paths(
    teacher: str, student: str, options: ReviewOptions | None = None, image_size: int = 32
) -> Stack:
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
        levels = ReviewKD(models.build(s), models.build(t), options, image_size).describe()
        pairs[f"{display_name(s)} ← {display_name(t)}"] = review_path(levels, options)
    return Stack(pairs, "Pair (student ← teacher)", above=STYLE)


def review_path(levels: Levels, options: ReviewOptions) -> Html:
    """The path of one pair: maps in proportion to their height, blocks, residuals, losses; details to unfold.

    Args:
        levels: rows of `ReviewKD.describe()`, deep to shallow.
        options: of the method.
    """
    unit = 4.2 / max(int(level[f"{side}_size"]) for level in levels for side in ("student", "teacher"))
    heads = (tag("b", name) for name in ("student", "", "fusion", "", "teacher"))
    rows = (_level(i, levels, options, unit) for i in range(len(levels)))
    return tag("div", tag("div", *heads, class_="rkd-level"), *rows, class_="rkd-path")


def _level(i: int, levels: Levels, options: ReviewOptions, unit: float) -> Html:
    level = levels[i]
    used = [] if options.loss == "l2" else level_weights(int(level["teacher_size"]), options)[0]
    sizes = tag("div", ", ".join(str(size) for size, _ in used))
    parts = [
        _map(level, "student", unit),
        tag("div", "→"),
        tag("div", tag("b", level["level"]), _block(i, level, options), class_="rkd-block"),
        tag("div", tag("b", options.loss.upper()), "⟷", sizes, class_="rkd-loss"),
        _map(level, "teacher", unit),
        tag(
            "details", tag("summary", f"Level “{level['level']}”, step by step"), _details(i, levels, options)
        ),
    ]
    if i + 1 < len(levels) and options.connector != "none":
        parts.append(tag("div", f"↓ {_passed(i, level, options)}", class_="rkd-passed"))
    return tag("div", *parts, class_="rkd-level")


def _map(level: Level, side: str, unit: float) -> Html:
    """A box as high as the map, in proportion, over its shape."""
    box = tag("i", style=f"width:{unit * int(level[f'{side}_size']):.2f}rem", aria_hidden="true")
    return tag("div", box, _shape(level, side), class_=f"rkd-map rkd-{side}")


def _block(i: int, level: Level, options: ReviewOptions) -> str:
    if options.connector == "none":
        return "1×1 conv" if level["parameters"] else "as it is"
    first = "conv" if options.connector == "residual" else "1×1 conv"
    fused = f"sum of {i + 1}" if options.connector == "mechanism" else "ABF" if options.attention else "add"
    return fused if i else first


def _passed(i: int, level: Level, options: ReviewOptions) -> str:
    """What the next level gets from deeper ones."""
    if options.connector == "mechanism":
        return f"{i + 1} student map{'s' * (i > 0)}"
    channels, size = _residual(level, options)
    return f"{channels} × {size} × {size}"


def _shape(level: Level, side: str) -> str:
    return f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"


def _residual(level: Level, options: ReviewOptions) -> tuple[int, int]:
    """Channels and size of what a level passes on: all blocks resize to the teacher's size first."""
    channels = level["mid_channels"] if options.residual == "mid" else level["teacher_channels"]
    return int(channels), int(level["teacher_size"])


# --- the details -------------------------------------------------------------------------------------------------


def _details(i: int, levels: Levels, options: ReviewOptions) -> Html:
    """What happens at a level, step by step with shapes."""
    level = levels[i]
    steps = {"residual": _residual_steps, "mechanism": _sum_steps, "none": _same_level_steps}[
        options.connector
    ]
    rows = [("student map", _shape(level, "student")), *steps(i, levels, options)]
    rows.append(("teacher map", _shape(level, "teacher")))
    if options.loss == "l2":
        rows.append(("compared", "mean squared error of the full maps"))
    else:
        used, normaliser = level_weights(int(level["teacher_size"]), options)
        rows += [(f"HCL at {size} × {size}", f"weight {weight:g} of {normaliser:g}") for size, weight in used]
    return table([*rows, ("trainable parameters", f"{level['parameters']:,}")], class_="rkd-table")


def _residual_steps(i: int, levels: Levels, options: ReviewOptions) -> list[tuple[str, str]]:
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
        weighed = ("attention", f"2 maps of {size} × {size} weigh the two at each position; they are added")
        rows.append(weighed if options.attention else ("fusion", "the two are added"))
    if size != full:
        rows.append(("resized to the teacher's size", f"{width} × {full} × {full}"))
    if not direct:
        rows.append(("3×3 convolution, BN: output", f"{level['teacher_channels']} × {full} × {full}"))
    if i + 1 < len(levels):
        channels, full = _residual(level, options)
        what = "the fused map" if options.residual == "mid" else "the output"
        rows.append(("passed on", f"{what}, {channels} × {full} × {full}, to “{levels[i + 1]['level']}”"))
    return rows


def _sum_steps(i: int, levels: Levels, options: ReviewOptions) -> list[tuple[str, str]]:
    names = ", ".join(f"“{level['level']}”" for level in levels[: i + 1])
    shape = _shape(levels[i], "teacher")
    return [("1×1 convolution, BN, resized, added", f"student maps of {names}, each to {shape}")]


def _same_level_steps(i: int, levels: Levels, options: ReviewOptions) -> list[tuple[str, str]]:
    level = levels[i]
    what = "1×1 convolution, BN" if level["parameters"] else "unchanged"
    resized = ", resized" * (level["student_size"] != level["teacher_size"])
    return [(f"{what}{resized}", _shape(level, "teacher"))]
