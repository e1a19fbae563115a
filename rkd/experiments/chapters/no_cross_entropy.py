"""The run without cross-entropy ([Re] section 4.2.2)."""

from rkd.experiments.chapters.ablation import pair_context, variant_line
from rkd.experiments.chapters.base import Line, Published, chapter
from rkd.experiments.recipes import Builder


@chapter(
    title="Training on the review loss alone",
    claim="""Trained on HCL alone, without cross-entropy, the student reaches about 1.5 %, says the [Re] report: the
review loss cannot train a classifier by itself.""",
    reading="""Chance is 1 % on 100 classes. The review loss compares feature maps only, so no gradient ever reaches
the student's last linear layer: chance is what must come out, whatever the features are worth. The probe line below
refits that layer on the frozen features and says what they are worth.""",
    recipe="reproduction",
)
def no_cross_entropy(builder: Builder) -> list[Line]:
    s = builder.settings
    alone = tuple(builder.review(s.teacher, s.student, seed, ce_weight=0.0) for seed in s.seeds)
    said = (Published("[Re] paper", 1.5, "printed as ~1.5"),)
    return [
        *pair_context(builder),
        variant_line(builder, "full", "cross-entropy + review loss", {}),
        Line("alone", "review loss alone", alone, published=said, note="the classifier receives no gradient"),
    ]
