"""Table 3: what each component adds."""

from rkd.experiments.chapters.ablation import pair_context, said_in, variant_line
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.recipes import Builder

# (key, label, the sources' name of the row, options, note)
ROWS = (
    ("none", "none", "none (same-level L2)", {"connector": "none", "loss": "l2", "stem": True},
     "five levels, the stem included; the [Re] code left the projections untrained, here they are trained"),
    ("rm", "RM", "RM", {"connector": "mechanism", "loss": "l2", "stem": True},
     "five levels, the stem included; the [Re] code left the projections untrained, here they are trained"),
    ("rm_rlf", "RM + RLF", "RM+RLF", {"connector": "residual", "attention": False, "loss": "l2"}, ""),
    ("rm_rlf_abf", "RM + RLF + ABF", "RM+RLF+ABF", {"connector": "residual", "attention": True, "loss": "l2"}, ""),
    ("rm_rlf_hcl", "RM + RLF + HCL", "RM+RLF+HCL", {"connector": "residual", "attention": False, "loss": "hcl"},
     "the same variant as 'fusing without attention' in Table 6"),
    ("full", "RM + RLF + ABF + HCL", "RM+RLF+ABF+HCL", {"connector": "residual", "attention": True, "loss": "hcl"},
     "the full method"),
)  # fmt: skip


@chapter(
    title="Table 3: what each component adds",
    claim="""The [Re] report adds ReviewKD's parts one by one to a same-level comparison: the review mechanism (RM),
the residual learning framework (RLF), attention-based fusion (ABF) and the hierarchical context loss (HCL). Accuracy
rises at every step, from 69.50 to 71.79 %; ABF is said to be worth 1.36 points under L2 but 0.28 under HCL.""",
    reading="""The order of the rows, and the two large steps. The published rows 1 to 3 come from a script that
never loaded its teacher's weights, so they may describe an untrained teacher; here every row learns from the trained
one.""",
    recipe="reproduction",
)
def table3(builder: Builder) -> list[Line]:
    lines = pair_context(builder)
    for key, label, variant, options, note in ROWS:
        lines.append(
            variant_line(builder, key, label, options, said_in("Table 3", variant, readme=True), note)
        )
    return lines
