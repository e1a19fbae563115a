"""Table 5: how HCL weighs its sizes."""

from rkd.experiments.chapters.ablation import pair_context
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.chapters.table4 import injected_line, level_line
from rkd.experiments.recipes import Builder

LEVELS = ("h", 4, 2, 1)
# (key, weights, the [Re] paper's name of the column, note)
COLUMNS = (
    (
        "small_first",
        (0.125, 0.25, 0.5, 1),
        "levels [h, 4, 2, 1] weights [0.125, 0.25, 0.5, 1]",
        "small sizes weigh most",
    ),
    ("equal", (1, 1, 1, 1), "levels [h, 4, 2, 1] weights [1, 1, 1, 1]", ""),
    (
        "large_first",
        (1, 0.5, 0.25, 0.125),
        "levels [h, 4, 2, 1] weights [1, 0.5, 0.25, 0.125]",
        "the method's own",
    ),
)


@chapter(
    title="Table 5: how HCL weighs its sizes",
    claim="""With the sizes fixed at h, 4, 2 and 1, weights that fall with the size do best (71.79 %), equal weights
almost as well (71.75 %), rising ones worst (71.46 %), says the [Re] report.""",
    reading="""Whether the three differ by more than the spread over seeds: the first two are 0.04 points apart.""",
    recipe="reproduction",
)
def table5(builder: Builder) -> list[Line]:
    rows = [level_line(builder, "Table 5", key, LEVELS, *rest) for key, *rest in COLUMNS]
    return [*pair_context(builder), *rows, *injected_line(builder)]
