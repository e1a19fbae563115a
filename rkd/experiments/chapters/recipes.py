"""One pair under every recipe, with the teacher's BatchNorm on batch and on running statistics."""

import dataclasses

from rkd.experiments.chapters.base import Line, Published, chapter, context_lines, published
from rkd.experiments.recipes import Builder

RECIPES = ("authors", "reproduction", "text")
STATISTICS = {"batch": "statistics of the batch", "running": "running statistics"}
_SAID_OF = {"authors": "paper", "reproduction": "reproduction"}  # recipe -> variant in the table of claims


@chapter(
    title="Three recipes, and the teacher's statistics",
    claim="""The paper's released code, the [Re] code and what the texts say differ in warm-up, width of the fused maps,
weight of the pooled level, pooling, what a level passes on, loss weight and the epoch at which the learning rate falls.
Their published results for ResNet-20 ← ResNet-56 differ by 0.10 points. Both codes leave the teacher in training mode,
so that it normalises each batch by the batch's own statistics; no text mentions it, and another implementation of
ReviewKD puts the teacher in evaluation mode.""",
    reading="""Whether any recipe differs from another by more than the spread over seeds: if not, the differences
between text and code are harmless for this pair. And whether frozen statistics help or harm. `authors` and
`reproduction` share teacher and student alone; `text` has its own, since its learning rate falls one epoch earlier.""",
    recipe="authors",
)
def recipes(builder: Builder) -> list[Line]:
    s = builder.settings
    lines: list[Line] = []
    for name in (s.recipe,) if s.recipe else RECIPES:
        own = Builder(dataclasses.replace(s, recipe=name))
        group = f"recipe {name}: {own.recipe['description']}"
        for line in context_lines(own, s.teacher, s.student, group, f"{name}-"):
            lines.append(dataclasses.replace(line, recipe=name))
        for statistics, words in STATISTICS.items():
            if s.teacher_batch_norm in (None, statistics):
                lines.append(_line(own, name, statistics, words, group))
    return lines


def _line(builder: Builder, recipe: str, statistics: str, words: str, group: str) -> Line:
    s = builder.settings
    as_in_recipe = statistics == builder.recipe["teacher"]["batch_norm"]
    said: tuple[Published, ...] = ()
    if as_in_recipe and recipe in _SAID_OF:
        pair = {"teacher": "ResNet56", "student": "ResNet20", "method": "ReviewKD"}
        said = published(source="re_paper", table="Table 1", variant=_SAID_OF[recipe], **pair)
    runs = tuple(
        builder.review(s.teacher, s.student, seed, teacher_values={"batch_norm": statistics})
        for seed in s.seeds
    )
    note = "as the recipe has it" if as_in_recipe else ""
    return Line(f"{recipe}-{statistics}", f"ReviewKD, {words}", runs, group, said, note, recipe=recipe)
