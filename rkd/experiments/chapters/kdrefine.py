"""The benchmark of KDrefine's README: fourteen methods on nine pairs."""

import dataclasses

from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.chapters.baselines import quoted_line
from rkd.experiments.chapters.cells import (
    chosen_pairs,
    left_empty,
    method_label,
    method_line,
    pair_context,
    printed,
)
from rkd.experiments.recipes import Builder
from rkd.models import canonical, display_name

METHODS = (
    "kd", "fitnet", "at", "sp", "cc", "vid", "rkd", "pkt", "ab", "ft", "fsp", "nst", "crd", "kdrefine",
)  # fmt: skip
PAIRS = (
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("vgg13", "vgg8"),
    ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"),
    ("resnet50", "vgg8"),
)
# student -> the reparameterised network that is trained in its place and fuses to it
TRAINED_AS = {
    "resnet20": "represnet20",
    "resnet32": "represnet32",
    "resnet8x4": "represnet8x4",
    "wrn_16_2": "repwrn_16_2",
    "wrn_40_1": "repwrn_40_1",
    "vgg8": "repvgg8",
    "mobilenetv2": "repmobilenetv2",
    "shufflenetv1": "repshufflenetv1",
}
OUR_OWN = {"repwrn_16_2", "repwrn_40_1"}  # KDrefine reports them and publishes no code for them
# (behind the key, label, options, note); the first probably gave the published values.
VERSIONS = (
    ("", "KDrefine", {"statistics": "layer_norm"},
     "as the code of December 2022, three months before the table was published: biased variance, times 4"),
    ("-unbiased", "KDrefine, code of 2024", {"statistics": "unbiased"},
     "as the code of September 2024, the first that was complete: unbiased deviation, times 2"),
)  # fmt: skip


@chapter(
    title="KDrefine's benchmark: fourteen methods, nine pairs",
    claim="""The README of KDrefine lists fourteen methods on nine pairs. Thirteen rows are those of RepDistiller's
README, to the digit; the last is its own: a student whose convolutions are sums of five branches while it trains, fused
to one convolution for use, and KD between standardised logits. It comes first on eight pairs, and second to CRD on
MobileNetV2 ← vgg13.""",
    reading="""Each method's gain over the student alone, and whether KDrefine's lead over CRD exceeds the spread over
seeds. Its two WRNs are published without code, so ours are a construction of our own. Two versions of its loss are
public; the first line has the one that probably gave the table. Where the source prints nothing for FSP, which needs
equal widths, there is no line.""",
    recipe="crd",
    one_pair=False,
)
def kdrefine(builder: Builder) -> list[Line]:
    s = builder.settings
    own = builder if s.recipe else Builder(dataclasses.replace(s, recipe="kdrefine"))
    lines: list[Line] = []
    for teacher, student in chosen_pairs(builder, PAIRS):
        lines += pair_context(builder, teacher, student)
        for method in s.methods or METHODS:
            if method == "kdrefine":
                lines += _own_lines(own, teacher, student)
            elif not left_empty(method_label(method), teacher, student, "kdrefine"):
                lines.append(quoted_line(builder, teacher, student, method))
    return lines


def _own_lines(builder: Builder, teacher: str, student: str) -> list[Line]:
    said = printed("KDrefine", teacher, student, ("kdrefine",))
    network = TRAINED_AS.get(canonical(student))
    if network is None:
        trained = "no reparameterised form of this student: the plain one is trained"
    else:
        trained = (
            f"trained as {display_name(network)}{', our own construction' if network in OUR_OWN else ''}"
        )
    return [
        method_line(
            builder, teacher, student, "kdrefine", said, f"{trained}; {note}",
            network=network, options=options, suffix=suffix, label=label, recipe=builder.recipe_name,
        )
        for suffix, label, options, note in VERSIONS
    ]  # fmt: skip
