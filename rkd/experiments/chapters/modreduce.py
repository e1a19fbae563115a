"""The fifteen experiments of ModReduce's README, and its aggregations side by side."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from rkd.experiments.chapters.base import Line, chapter
from rkd.experiments.chapters.cells import chosen_pairs, pair_context, pair_group, pair_key, printed
from rkd.experiments.recipes import Builder
from rkd.methods.modreduce import AGGREGATIONS, STUDENTS, ModReduceOptions
from rkd.models import canonical
from rkd.records import Record

PAIRS = (
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("vgg13", "mobilenetv2"),
    ("resnet32x4", "shufflenetv1"),
    ("wrn_40_2", "shufflenetv1"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
    ("resnet32x4", "shufflenetv2"),
    ("resnet32x4", "vgg8"),
    ("resnet32x4", "vgg13"),
    ("vgg13", "shufflenetv2"),
    ("wrn_40_2", "mobilenetv2"),
)
AGGREGATED_PAIR = ("resnet56", "resnet20")  # where it is among the pairs, else the first of them
CUTOFF = 220  # of 240 epochs: the released scripts' asynchronous runs
# (behind the key, label, method, as the source spells it, note)
RIVALS = (
    ("kd", "KD", "kd", "KD (Hinton)", ""),
    ("semckd", "SemCKD", "semckd+kd", "SemCKD", "beside KD, as the source ran it"),
    ("crd", "CRD", "crd+kd", "CRD", "beside KD, as the source ran it"),
)
SYNCHRONOUS = (
    "students teach each other from the start; the response student's accuracy, for the others see below"
)
AGGREGATED = {
    "wavg": (
        "W_Avg",
        "one weight per student, replaced by its softmax at every step (the published setting)",
    ),
    "wavg_fixed": ("W_Avg without replacement", "the softmax of one free weight per student; ours"),
    "one": ("ONE", "weights for each image, from the image"),
    "fc": ("FC", "a linear layer on the logits of all three"),
    "pcl": ("PCL", "no group: each student learns from running means of its peers"),
}


def cutoff(builder: Builder) -> int:
    """The cutoff in epochs of the recipe; in runs of so few epochs that none would be left after it, the latest that
    leaves one."""
    whole, epochs = builder.recipe["epochs"], builder.epochs
    return CUTOFF if round(CUTOFF * epochs / whole) < epochs else (epochs - 1) * whole // epochs


def growth_steps(builder: Builder) -> int:
    """How often the online share grows in these runs: 24 times in 240 epochs, every 10; in shorter ones as often as
    their scaled interval fits, so that it ends at the same share, by the released code's own rule."""
    every = max(1, round(ModReduceOptions.growth_epochs * builder.epochs / builder.recipe["epochs"]))
    return max(1, builder.epochs // every)


def _line(
    builder: Builder,
    pair: tuple[str, str],
    key: str,
    label: str,
    method: str,
    options: Mapping[str, Any] | None = None,
    own: bool = False,
    **more: Any,
) -> Line:
    teacher, student = pair
    if method == "modreduce":
        options = {"growth_steps": growth_steps(builder), **(options or {})}
    runs = tuple(
        builder.distilled(teacher, student, seed, method, options, own=own) for seed in builder.settings.seeds
    )
    return Line(f"{pair_key(teacher, student)}{key}", label, runs, pair_group(teacher, student), **more)


def _experiment(builder: Builder, pair: tuple[str, str]) -> list[Line]:
    """One pair of the README's table."""
    lines = pair_context(builder, *pair)
    wanted = builder.settings.methods or ("kd", "semckd", "crd", "modreduce")
    for key, label, method, spelling, note in RIVALS:
        if key in wanted:
            said = printed(spelling, *pair, ("modreduce",))
            lines.append(_line(builder, pair, key, label, method, published=said, note=note))
    if "modreduce" in wanted:
        said = printed("ModReduce", *pair, ("modreduce",))
        lines.append(
            _line(builder, pair, "modreduce", "ModReduce", "modreduce", published=said, note=SYNCHRONOUS)
        )
        late = _line(
            builder, pair, "modreduce-asynchronous", "ModReduce, asynchronous", "modreduce",
            {"cutoff_epochs": cutoff(builder)}, published=said,
        )  # fmt: skip
        run = late.runs[0]
        note = f"students teach each other in the last {run.epochs - run.options.cutoff_epochs} of {run.epochs} epochs"
        lines.append(dataclasses.replace(late, note=note))
    return lines


def student_accuracies(record: Record, which: str = "last") -> dict[str, float]:
    """Test accuracies in percent of a run's three students at the "last" epoch, or at the "best" one of each on the
    test set; NaN for a diverged run. The run's own network is the response student."""
    further = {name: record.result[f"{which}_accuracy_{name}"] for name in STUDENTS[1:]}
    alive = record.status == "finished"
    return {STUDENTS[0]: record.accuracy(which)} | {n: v if alive else math.nan for n, v in further.items()}


def is_aggregation(line: Line) -> bool:
    """Whether a line is one of `aggregation_lines`."""
    return line.key.rpartition("-modreduce-")[2] in AGGREGATIONS


def aggregation_lines(builder: Builder, pair: tuple[str, str]) -> list[Line]:
    """The ways to make one group of three students, on one pair; synchronous."""
    return [
        _line(
            builder, pair, f"modreduce-{name}", f"ModReduce, {AGGREGATED[name][0]}", "modreduce",
            {"aggregation": name}, own=True, note=AGGREGATED[name][1],
        )
        for name in AGGREGATIONS
    ]  # fmt: skip


@chapter(
    title="ModReduce: three students, three kinds of knowledge",
    claim="""ModReduce trains three students of one teacher at once: one by its logits (KD), one by relations between
images (CRD), one by its maps (SemCKD). Each also learns from the group the three make together. Its README gives one
accuracy for each of fifteen pairs, above KD, SemCKD and CRD on ten of them. All of these are the best epoch on the test
set; the README says neither which of the three students it reports nor whether they taught each other from the start
or late. The paper's abstract says that the best of the three is used.""",
    reading="""Whether ModReduce's lead over CRD and SemCKD survives the spread over seeds, and how much of it is
choice: the best of three students at its best epoch on the test set is the largest of hundreds of numbers, where
CRD's is the largest of one student's. The second table shows every student and the group, with and without that
choice. In the released W_Avg the weights are replaced by their softmax at every step, which pulls them together;
the last figure shows what is left of them.""",
    recipe="modreduce",
    one_pair=False,
)
def modreduce(builder: Builder) -> list[Line]:
    pairs = [(canonical(teacher), canonical(student)) for teacher, student in chosen_pairs(builder, PAIRS)]
    aggregated = AGGREGATED_PAIR if AGGREGATED_PAIR in pairs else pairs[0]
    lines: list[Line] = []
    for pair in pairs:
        lines += _experiment(builder, pair)
        if pair == aggregated and "modreduce" in (builder.settings.methods or ("modreduce",)):
            lines += aggregation_lines(builder, pair)
    return lines
