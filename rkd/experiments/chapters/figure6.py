"""Figure 6: accuracy against the loss weight."""

from rkd.experiments.chapters.ablation import pair_context, variant_line
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.recipes import Builder

WEIGHTS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)


@chapter(
    title="Figure 6: accuracy against the loss weight",
    claim="""The [Re] report sweeps the weight of the review loss for ResNet-20 ← ResNet-56 and finds the best
accuracy between 0.5 and 1.0. The figure's values are not printed anywhere, so only its shape can be compared.""",
    reading="""Whether the curve's maximum lies within the shaded range, and whether the spread over seeds leaves the
maximum any meaning.""",
    recipe="reproduction",
)
def figure6(builder: Builder) -> list[Line]:
    lines = pair_context(builder)
    for weight in builder.settings.loss_weights or WEIGHTS:
        options = {"loss_weight": weight}
        lines.append(
            variant_line(builder, f"{weight:g}", f"loss weight {weight:g}", options, own=True, x=weight)
        )
    return lines
