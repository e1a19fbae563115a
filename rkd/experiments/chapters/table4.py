"""Table 4: which sizes HCL compares."""

from rkd.experiments.chapters.ablation import pair_context, said_in, variant_line
from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.recipes import Builder

# (key, levels, weights, the [Re] paper's name of the column, note)
COLUMNS = (
    ("4_1", (4, 1), (1, 0.5), "levels [4, 1] weights [1, 0.5]", "no full-size comparison"),
    ("h_2_1", ("h", 2, 1), (1, 0.5, 0.25), "levels [h, 2, 1] weights [1, 0.5, 0.25]", ""),
    ("h_4_2_1", ("h", 4, 2, 1), (1, 0.5, 0.25, 0.125), "levels [h, 4, 2, 1] weights [1, 0.5, 0.25, 0.125]",
     "the method's own"),
    ("halves", ("h", "h/2", "h/4"), (1, 0.5, 0.25), "levels [h, floor(h/2 ), floor(h/4 )] weights [1, 0.5, 0.25]",
     "the committed code gives NaN: it pools the 1x1 map to size 0; here that size is skipped"),
    ("near", ("h", "h-1", "h-2", "h-3"), (1, 0.5, 0.25, 0.125),
     "levels [h, h-1, h-2, h-3] weights [1, 0.5, 0.25, 0.125]",
     "the committed code stops with an error at size -1 of the 1x1 map; here that size is skipped"),
)  # fmt: skip


def level_line(
    builder: Builder, table: str, key: str, levels: tuple, weights: tuple, variant: str, note: str
) -> Line:
    """One set of levels and weights."""
    options = {"hcl_levels": levels, "hcl_weights": weights}
    label = f"sizes {_list(levels)}, weights {_list(weights)}"
    return variant_line(builder, key, label, options, said_in(table, variant), note, own=True)


def injected_line(builder: Builder) -> list[Line]:
    """The reader's own set of levels, where one was given."""
    s = builder.settings
    if s.hcl_levels is None and s.hcl_weights is None:
        return []
    line = variant_line(builder, "injected", "", {}, note="injected for this execution")
    options = line.runs[0].options
    label = f"sizes {_list(options.hcl_levels)}, weights {_list(options.hcl_weights)}"
    return [Line(line.key, label, line.runs, note=line.note)]


def _list(values: tuple) -> str:
    return ", ".join(v if isinstance(v, str) else f"{v:g}" for v in values)


@chapter(
    title="Table 4: which sizes HCL compares",
    claim="""Comparing maps at several pooled sizes helps, says the [Re] report, and larger sizes matter more: leaving
out the full size costs most, and the best set of its table compares at h, h-1, h-2 and h-3 (71.91 %).""",
    reading="""The order of the sets. Two of the published columns, the best one among them, cannot come from the
committed code, which fails on them.""",
    recipe="reproduction",
)
def table4(builder: Builder) -> list[Line]:
    rows = [level_line(builder, "Table 4", *column) for column in COLUMNS]
    return [*pair_context(builder), *rows, *injected_line(builder)]
