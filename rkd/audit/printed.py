"""Figures in print: where tables, texts and README give different values for one thing."""

import pandas as pd

from rkd import published
from rkd.errors import ConfigError
from rkd.experiments.chapters import get_chapter, same_network
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import resolve
from rkd.models import canonical, display_name

ROWS = {  # of Table 3, as the sources name them
    "none": "none (same-level L2)",
    "RM": "RM",
    "RM + RLF": "RM+RLF",
    "RM + RLF + ABF": "RM+RLF+ABF",
    "RM + RLF + HCL": "RM+RLF+HCL",
    "RM + RLF + ABF + HCL": "RM+RLF+ABF+HCL",
}
# (what changes, row before, row after): every single change that Table 3 allows to read off
STEPS = (
    ("review mechanism (RM)", "none", "RM"),
    ("learning framework (RLF)", "RM", "RM + RLF"),
    ("attention (ABF), under L2", "RM + RLF", "RM + RLF + ABF"),
    ("attention (ABF), under HCL", "RM + RLF + HCL", "RM + RLF + ABF + HCL"),
    ("HCL, without attention", "RM + RLF", "RM + RLF + HCL"),
    ("HCL, with attention", "RM + RLF + ABF", "RM + RLF + ABF + HCL"),
)
SAID_DROP = (0.6, 0.1)  # points lost with L2 in place of HCL, section 4.2.2 of the [Re] paper: 0.6 +- 0.1


def paper_and_readme() -> pd.DataFrame:
    """Every accuracy that both the [Re] paper and its README print, in percent, and their difference in points."""
    keys = ["teacher", "student", "method", "variant", "metric"]
    paper = published.load(source="re_paper", metric="top1_acc_percent")
    paper = paper[paper["table"].isin(("Table 1", "Table 2", "Table 3")) & (paper["method"] == "ReviewKD")]
    readme = published.load(source="re_readme", metric="top1_acc_percent")
    both = paper.merge(readme, on=keys, suffixes=("_paper", "_readme"), validate="one_to_one")
    return pd.DataFrame(
        {
            "table": both["table_paper"],
            "row": both["student"] + " ← " + both["teacher"] + ", " + both["variant"],
            "[Re] paper": both["number_paper"],
            "[Re] README": both["number_readme"],
            "difference": (both["number_paper"] - both["number_readme"]).round(2),
        }
    )


def loss_weights() -> pd.DataFrame:
    """The review loss's weight per pair: as Tables 1 and 2 print it, and as each recipe trains it."""
    rows = []
    printed = published.load(source="re_paper", metric="review_loss_weight")
    for teacher, student in (*get_chapter("table1").pairs, *get_chapter("table2").pairs):
        row = {"pair": f"{display_name(student)} ← {display_name(teacher)}"}
        for figure in printed.itertuples():
            if same_network(figure.teacher, teacher) and same_network(figure.student, student):
                row["printed"] = figure.number
        for recipe in ("text", "authors", "reproduction"):
            settings = resolve("table1", {"profile": "paper", "recipe": recipe})
            row[f"recipe {recipe}"] = Builder(settings).loss_weight(teacher, student)
        rows.append(row)
    return pd.DataFrame(rows)


def table3() -> pd.DataFrame:
    """Table 3: accuracy of each row in percent, and its distance from the undistilled student in points."""
    alone = published.number(
        source="re_paper", table="Table 1", student="ResNet20", method="student baseline"
    )
    rows = [(name, value, round(value - alone, 2)) for name, value in _table3().items()]
    return pd.DataFrame(rows, columns=["row", "accuracy", "above the student alone"])


def steps() -> pd.DataFrame:
    """What each single change of Table 3 is worth, in points, by the table's own figures."""
    value = _table3()
    rows = [(what, value[a], value[b], round(value[b] - value[a], 2)) for what, a, b in STEPS]
    return pd.DataFrame(rows, columns=["change", "from", "to", "points"])


def _table3() -> dict[str, float]:
    return {
        name: published.number(source="re_paper", table="Table 3", variant=variant)
        for name, variant in ROWS.items()
    }


def gaps() -> pd.DataFrame:
    """ReviewKD's accuracy in the ReviewKD paper and in the [Re] paper, in percent, and their difference in points."""
    table = published.load(source="re_paper", method="ReviewKD", metric="top1_acc_percent")
    table = table[table["table"].isin(("Table 1", "Table 2"))]
    wide = table.pivot(index=["student", "teacher"], columns="variant", values="number").reset_index()
    return pd.DataFrame(
        {
            "pair": wide["student"] + " ← " + wide["teacher"],
            "ReviewKD paper": wide["paper"],
            "[Re] paper": wide["reproduction"],
            "difference": (wide["reproduction"] - wide["paper"]).round(2),
        }
    ).sort_values("difference", key=abs, ascending=False, ignore_index=True)


COSTS = {  # what the table of published figures calls them -> (where, of what)
    ("gpu_hours_resnet20_32_wrn16_1", "3.7"): ("section 3.5", "ResNet-20, ResNet-32, WRN-16-1"),
    ("gpu_hours_shufflenets", "5-6"): ("section 3.5", "ShuffleNets"),
    ("hours_each_run", "4-5"): ("summary", "each run"),
    ("hours_each_run", ">3.5"): ("section 3.3", "each run"),
}


def costs() -> pd.DataFrame:
    """What the [Re] paper says one run costs, in hours on one GPU, and where."""
    said = published.load(source="re_paper", method="cost")
    rows = [(*COSTS[row.metric, row.value], row.value.replace("-", " to ")) for row in said.itertuples()]
    return pd.DataFrame(rows, columns=["where", "of what", "hours"])


def rows_about(network: str) -> int:
    """How many published accuracies of the [Re] paper are of a student or teacher of that name."""
    table = published.load(source="re_paper", metric="top1_acc_percent")
    pairs = zip(table["teacher"], table["student"], strict=True)
    return sum(any(same_network(name, network) for name in pair) for pair in pairs)


def spelling(printed: str) -> str:
    """What this package says of a network's name as printed: its registered name, or the error's sentence."""
    try:
        return canonical(printed)
    except ConfigError as error:
        return str(error)
