"""The table of KnowledgeDistillation's README: networks that teach themselves, on CIFAR-10 and CIFAR-100."""

import dataclasses
from pathlib import Path

from rkd import claims
from rkd.experiments.chapters.base import Line, Published, chapter, distinct
from rkd.experiments.chapters.cells import chosen_pairs, method_label, method_line, pair_context
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import Settings
from rkd.models import canonical, display_name

DATASETS = ("cifar10", "cifar100")
PAIRS = (("resnet20_7x7", "resnet20_7x7"), ("resnet110_7x7", "resnet110_7x7"))
# method -> the source's name of the row; KD between softened probabilities is its "ST"
ROWS = {"logits": "Logits", "kd": "ST", "at": "AT", "at+kd": "ST + AT", "fsp": "FSP"}
SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_PRINTED_AS = {"resnet20_7x7": "ResNet20", "resnet110_7x7": "ResNet110"}
# (data set, network, row) -> accuracies of the source's single runs, in percent, where its pages list them
SINGLE_RUNS = {
    ("cifar10", "resnet110_7x7", "baseline"): (91.83, 93.07, 92.65),
    ("cifar100", "resnet20_7x7", "baseline"): (67.53, 67.73, 67.60),
    ("cifar100", "resnet110_7x7", "baseline"): (71.26, 71.73, 71.76),
    ("cifar100", "resnet110_7x7", "Logits"): (72.50, 71.40, 71.42),
    ("cifar100", "resnet20_7x7", "ST"): (69.78, 69.72, 70.10),
    ("cifar100", "resnet110_7x7", "ST"): (74.16, 74.11),
    ("cifar100", "resnet110_7x7", "AT"): (72.67, 73.00, 72.28),
    ("cifar100", "resnet110_7x7", "ST + AT"): (73.60, 74.14, 73.32),
    ("cifar100", "resnet110_7x7", "FSP"): (73.28, 73.37, 71.91),
}


def datasets(settings: Settings) -> tuple[str, ...]:
    """`datasets` where given; else both of the table, unless `dataset` names another than its default."""
    if settings.datasets is not None:
        return settings.datasets
    return DATASETS if settings.dataset == "cifar100" else (settings.dataset,)


def set_key(dataset: str) -> str:
    """How the keys of a data set's lines begin."""
    return f"{Path(dataset).stem}-"


@chapter(
    title="Soft targets and attention: networks that teach themselves",
    claim="""The README of KnowledgeDistillation trains ResNet-20 and ResNet-110 on CIFAR-10 and CIFAR-100, takes the
best run of each as teacher of a fresh network of the same kind, and finds soft targets (ST) best: 1.8 points above the
baseline on average. ST and attention transfer (AT) together gain less than ST alone. Its averages are printed with
their gains; one gain, 1.5 for ST + AT, does not follow from its own averages, which are 1.3 apart.""",
    reading="""The gain of each row over the baseline, in all columns, against the baseline's spread. Accuracies are
those of the best epoch on the test set, as in the source. The row *Logits* compares pooled features: that is what the
source's code does. The networks have a 7x7 stem, the teacher stays in training mode, and an epoch's last, smaller batch
is left out, as there.""",
    recipe="knowledge_distillation",
    one_pair=False,
    datasets=DATASETS,
)
def soft_targets_and_attention(builder: Builder) -> list[Line]:
    lines: list[Line] = []
    for dataset in datasets(builder.settings):
        own = Builder(dataclasses.replace(builder.settings, dataset=dataset), builder.recipe_name)
        for teacher, student in chosen_pairs(own, PAIRS):
            lines += _block(own, dataset, teacher, student)
    return lines


def _block(builder: Builder, dataset: str, teacher: str, student: str) -> list[Line]:
    """Baseline and methods of one pair on one data set."""
    group = f"{display_name(student)} on {SETS.get(dataset, dataset)}"
    if canonical(teacher) != canonical(student):
        group = f"{display_name(student)} ← {display_name(teacher)} on {SETS.get(dataset, dataset)}"
    found = []
    for line in pair_context(builder, teacher, student):
        said, note = (), "the run that teaches"
        if line.role == "student":
            said, note = _said(dataset, student, "baseline"), _single(dataset, student, "baseline")
        found.append(dataclasses.replace(line, published=said, note=note))
    for method in builder.settings.methods or tuple(ROWS):
        row = ROWS.get(method, method_label(method))
        itself = canonical(teacher) == canonical(student)
        said = _said(dataset, student, row) if itself else ()
        note = _single(dataset, student, row) if itself else ""
        found.append(method_line(builder, teacher, student, method, said, note, label=row))
    return [dataclasses.replace(line, key=f"{set_key(dataset)}{line.key}", group=group) for line in found]


def _said(dataset: str, student: str, row: str) -> tuple[Published, ...]:
    rows = claims.load(
        source="knowledge_distillation",
        dataset=SETS.get(dataset, ""),
        student=_PRINTED_AS.get(canonical(student), ""),
        method=row,
        metric="top1_acc_percent",
    )
    return distinct(rows)


def _single(dataset: str, student: str, row: str) -> str:
    values = SINGLE_RUNS.get((dataset, canonical(student), row), ())
    return f"single runs of the source: {', '.join(f'{v:.2f}' for v in values)}" if values else ""
