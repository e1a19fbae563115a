"""Table 6: what ABF fuses and passes on."""

from rkd.experiments.chapters.ablation import pair_context, said_in, variant_line
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.recipes import Builder

# (key, label, the [Re] paper's name of the row, options, note)
ROWS = (
    ("full", "no change", "No change", {}, "the full method"),
    ("add", "fusing without attention", "Fusing without attention maps", {"attention": False}, "maps are added"),
    ("output", "residual = output of the block", "With residual output same as ABF output", {"residual": "output"},
     "as the text describes it; the committed code stops at a channel mismatch"),
    ("output_direct", "residual = output, the code's block", "", {"residual": "output_direct"},
     "the committed block with its channels mended: no mid width, no final convolution"),
)  # fmt: skip


@chapter(
    title="Table 6: what ABF fuses and passes on",
    claim="""Replacing attention by addition costs 0.28 points, passing on the block's output instead of the
mid-channel map costs 0.17, says the [Re] report.""",
    reading="""Whether either change costs more than the spread over seeds.""",
    recipe="reproduction",
)
def table6(builder: Builder) -> list[Line]:
    rows = [
        variant_line(builder, key, label, options, said_in("Table 6", variant) if variant else (), note)
        for key, label, variant, options, note in ROWS
    ]
    return [*pair_context(builder), *rows]
