"""Table 2: teacher and student of different styles."""

from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.chapters.table1 import pair_lines
from rkd.experiments.recipes import Builder

PAIRS = (("resnet32x4", "shufflenetv1"), ("wrn_40_2", "shufflenetv1"), ("resnet32x4", "shufflenetv2"))


@chapter(
    title="Table 2: teacher and student of different styles",
    claim="""A ShuffleNet that learns from a residual teacher gains even more: the ReviewKD paper reports 77.14 to
77.78 %, the [Re] report 76.94 to 77.86 %. Feature maps differ in size and width between the two, so every fused map is
resized to the teacher's.""",
    reading="""As in Table 1. The released code silently trains ShuffleNets at a learning rate of 0.02, which the
text does not mention: compare the recipes `authors` and `text`.""",
    recipe="authors",
    one_pair=False,
)
def table2(builder: Builder) -> list[Line]:
    return pair_lines(builder, "Table 2", PAIRS)
