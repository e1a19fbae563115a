"""Rows 1 to 3 of Table 3, taught by a trained and by an untrained teacher."""

from collections.abc import Mapping
from typing import Any

from rkd.experiments.chapters.ablation import pair_context, said_in
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.chapters.table3 import ROWS
from rkd.experiments.recipes import Builder

QUESTIONED = ("none", "rm", "rm_rlf")


def teacher_line(
    builder: Builder, key: str, label: str, options: Mapping[str, Any], weights: str | None, **more: Any
) -> Line:
    """One row under a teacher with given weights (None: the recipe's)."""
    s = builder.settings
    values = {} if weights is None else {"weights": weights}
    runs = tuple(
        builder.review(s.teacher, s.student, seed, options, teacher_values=values) for seed in s.seeds
    )
    return Line(key, label, runs, **more)


@chapter(
    title="Could rows 1 to 3 of Table 3 come from an untrained teacher?",
    claim="""The script that is published for rows 1 to 3 of the [Re] report's Table 3 builds its teacher, but the
lines that load its weights are commented out. The three rows, 69.50, 69.58 and 69.92 %, lie within 0.9 points of the
student trained alone, 69.06 %; the rows below them lie 2.2 points and more above it. A student that learns from a
random network might look like that. This is our reading of the code; whether the published numbers were made by
that very script is not known.""",
    reading="""For each row, the trained against the untrained teacher, and which of the two the published value is
nearer to. The lines *as committed* also leave the projections of rows 1 and 2 untrained, as that script does. It trains
one student on through all three rows besides, and has 10 classes; neither is imitated here.""",
    recipe="reproduction",
)
def random_teacher(builder: Builder) -> list[Line]:
    lines = pair_context(builder)
    for key, label, variant, options, _ in ROWS:
        if key not in QUESTIONED:
            continue
        said = said_in("Table 3", variant, readme=True)
        lines.append(
            teacher_line(
                builder, f"{key}-trained", f"{label}, trained teacher", options, None, published=said
            )
        )
        lines.append(
            teacher_line(
                builder, f"{key}-untrained", f"{label}, untrained teacher", options, "random", published=said
            )
        )
        if key != "rm_rlf":  # its blocks are registered in the committed code as well
            frozen = {**options, "train_connectors": False}
            lines.append(
                teacher_line(
                    builder,
                    f"{key}-committed",
                    f"{label}, as committed",
                    frozen,
                    "random",
                    published=said,
                    note="untrained teacher, untrained projections",
                )
            )
    return lines
