"""The review path, drawn in HTML: which student map meets which teacher map, level by level, and what happens there.

Everything is read off `ReviewKD.describe()`. Nothing here needs a script: boxes are styled, details unfold.
"""

from collections.abc import Iterator, Mapping, Sequence

from rkd.report.interactive.markup import Html, tag
from rkd.review import ReviewOptions, level_weights

Level = Mapping[str, object]  # one row of ReviewKD.describe()


def review_path(levels: Sequence[Level], options: ReviewOptions) -> Html:
    """Draw the path of one pair, deep to shallow: maps scaled to their height, blocks, residuals, losses, and details
    to unfold."""
    unit = 4.2 / max(level[f"{side}_size"] for level in levels for side in ("student", "teacher"))
    heads = (tag("b", name) for name in ("student", "", "fusion", "", "teacher"))
    rows = (_level(i, levels, options, unit) for i in range(len(levels)))
    return tag("div", tag("div", *heads, class_="rkd-level"), *rows, class_="rkd-path")


def _level(i: int, levels: Sequence[Level], options: ReviewOptions, unit: float) -> Html:
    level = levels[i]
    name = level["level"]
    used, total = ([], 1) if options.loss == "l2" else level_weights(level["teacher_size"], options)
    maps = {}
    for side in ("student", "teacher"):
        width = f"width:{unit * level[f'{side}_size']:.2f}rem"  # the box is as high as the map, in proportion
        box = tag("i", style=width, aria_hidden="true")
        maps[side] = tag("div", box, _shape(level, side), class_=f"rkd-{side}")
    steps = [("student map", _shape(level, "student")), *_steps(i, levels, options)]
    steps += [("teacher map", _shape(level, "teacher"))]
    if options.loss == "l2":
        steps.append(("compared", "mean squared error of the full maps"))
    steps += [(f"HCL at {size} × {size}", f"weight {weight:g} of {total:g}") for size, weight in used]
    steps.append(("trainable parameters", f"{level['parameters']:,}"))
    rows = (tag("tr", tag("th", step, scope="row"), tag("td", said)) for step, said in steps)
    table = tag("table", tag("tbody", *rows), class_="rkd-table")
    details = tag("summary", f"Level “{name}”, step by step"), table
    sizes = tag("div", ", ".join(str(size) for size, _ in used))
    passed = ""
    if i + 1 < len(levels) and options.connector != "none":
        what = f"{i + 1} student map{'s' * (i > 0)}"
        what = what if options.connector == "mechanism" else _residual(level, options)
        passed = tag("div", f"↓ {what}", class_="rkd-passed")
    block = tag("div", tag("b", name), _block(i, level, options), class_="rkd-block")
    loss = tag("div", tag("b", options.loss.upper()), "⟷", sizes, class_="rkd-loss")
    row = maps["student"], tag("div", "→"), block, loss, maps["teacher"], tag("details", *details), passed
    return tag("div", *row, class_="rkd-level")


def _block(i: int, level: Level, options: ReviewOptions) -> str:
    """Return what a level's block does, in a word or two."""
    if options.connector == "none":
        return "1×1 conv" if level["parameters"] else "as it is"
    if options.connector == "mechanism":
        return f"sum of {i + 1}" if i else "1×1 conv"
    return ("ABF" if options.attention else "add") if i else "conv"


def _shape(level: Level, side: str) -> str:
    return f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"


def _residual(level: Level, options: ReviewOptions) -> str:
    """Return the shape of what a level passes on: all blocks resize to the teacher's size first."""
    channels = level["mid_channels" if options.residual == "mid" else "teacher_channels"]
    return f"{channels} × {level['teacher_size']} × {level['teacher_size']}"


def _steps(i: int, levels: Sequence[Level], options: ReviewOptions) -> Iterator[tuple[str, str]]:
    """Yield what happens between the student's map and the loss, step by step with shapes."""
    level = levels[i]
    size, full = level["student_size"], level["teacher_size"]
    if options.connector == "none":
        resized = ", resized" * (size != full)
        how = "1×1 convolution, BN" if level["parameters"] else "unchanged"
        yield f"{how}{resized}", _shape(level, "teacher")
        return
    if options.connector == "mechanism":
        names = ", ".join(f"“{deeper['level']}”" for deeper in levels[: i + 1])
        shape = _shape(level, "teacher")
        yield "1×1 convolution, BN, resized, added", f"student maps of {names}, each to {shape}"
        return
    direct = options.residual == "output_direct"
    width, kernel = (level["teacher_channels"], "3×3") if direct else (level["mid_channels"], "1×1")
    yield f"{kernel} convolution, BN", f"{width} × {size} × {size}"
    if i:
        deep, arrives = levels[i - 1]["teacher_size"], _residual(levels[i - 1], options)
        if options.residual != "mid":
            arrives += f", by a {kernel} convolution and BN {width} × {deep} × {deep}"
        if deep != size:
            arrives += f", resized to {size} × {size} (nearest neighbour)"
        yield f"residual from “{levels[i - 1]['level']}”", arrives
        weighed = f"2 maps of {size} × {size} weigh the two at each position; they are added"
        yield ("attention", weighed) if options.attention else ("fusion", "the two are added")
    if size != full:
        yield "resized to the teacher's size", f"{width} × {full} × {full}"
    if not direct:
        yield "3×3 convolution, BN: output", _shape(level, "teacher")
    if i + 1 < len(levels):
        what = "the fused map" if options.residual == "mid" else "the output"
        yield "passed on", f"{what}, {_residual(level, options)}, to “{levels[i + 1]['level']}”"
