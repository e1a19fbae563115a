"""The rules: for each group of published figures, what answers them."""

from typing import Any

from rkd import claims
from rkd.errors import RkdError
from rkd.experiments.chapters import get_chapter
from rkd.experiments.chapters.soft_targets_and_attention import ROWS as SELF_ROWS
from rkd.experiments.chapters.soft_targets_and_attention import SETS, set_key
from rkd.experiments.chapters.table3 import ROWS as TABLE3
from rkd.experiments.chapters.table4 import COLUMNS as TABLE4
from rkd.experiments.chapters.table5 import COLUMNS as TABLE5
from rkd.experiments.chapters.table6 import ROWS as TABLE6
from rkd.experiments.estimate import KNOWN_SIZES
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.resolution import NOT_PRINTED, RULES, THEIR_MACHINE, TOP1, Resolution, rule
from rkd.experiments.settings import resolve as resolve_settings
from rkd.models import canonical


def answer(row: Any) -> Resolution:
    """What answers a row of `rkd.claims.load()`; RkdError where no rule fits it."""
    for found in RULES:
        if found.fits(row):
            return found.make(row)
    raise RkdError(f"no rule of rkd.experiments.answers is for claim {row.id!r}")


# --- what a rule makes of a row -------------------------------------------------------------------------------


def _run(row: Any, chapter: str, what: str) -> Resolution:
    """One line "student-teacher-what" of a chapter of pairs."""
    return Resolution(row.id, "run", (f"{chapter}/{canonical(row.student)}-{canonical(row.teacher)}-{what}",))


def _derived(row: Any, parts: list[Resolution], how: str) -> Resolution:
    lines = tuple(dict.fromkeys(line for part in parts for line in part.lines))
    return Resolution(row.id, "derived", lines, tuple(part.claim for part in parts), how)


def _setting(row: Any, place: str, value: Any, remark: str = "") -> Resolution:
    """A value here, as the source writes it."""
    ours = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in _several(value))
    same = _figures(ours) == _figures(row.value)
    return Resolution(
        row.id, "setting", how=f"{place}{'; ' + remark if remark else ''}", ours=ours, agrees=same
    )


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _figures(text: str) -> list[float | str]:
    """The numbers of a list as numbers, so that 5e-4 is 0.0005; words stay words."""

    def read(part: str) -> float | str:
        try:
            return float(part)
        except ValueError:
            return part.strip()

    return [read(part) for part in text.split(",")]


def _rows(**equal: str) -> list[Resolution]:
    """The answers of other rows, that a derived figure is made of."""
    return [answer(row) for row in claims.load(**equal).itertuples()]


# --- [Re] report, and the README of its code ------------------------------------------------------------------

_RE = ("re_paper", "re_readme")
_PAIR_TABLES = {
    "Table 1": "table1", "same-style": "table1", "Table 2": "table2", "different-style": "table2",
}  # fmt: skip
_WHAT = {"student baseline": "student", "teacher": "teacher", "ReviewKD": "reviewkd"}
_ABLATION = {
    ("table3", variant): key for key, _, variant, *_ in TABLE3
} | {
    ("table4", variant): key for key, _, _, variant, _ in TABLE4
} | {
    ("table5", variant): key for key, _, variant, _ in TABLE5
} | {
    ("table6", variant): key for key, _, variant, *_ in TABLE6 if variant
}  # fmt: skip


@rule(source=_RE, table=tuple(_PAIR_TABLES), method=tuple(_WHAT), metric=TOP1)
def _pair_table(row: Any) -> Resolution:
    return _run(row, _PAIR_TABLES[row.table], _WHAT[row.method])


@rule(source="re_paper", table=("Table 1", "Table 2"), variant="quoted from prior work", metric=TOP1)
def _quoted(row: Any) -> Resolution:
    return _run(row, "baselines", row.method.lower())


@rule(source=_RE, metric="review_loss_weight")
def _loss_weight(row: Any) -> Resolution:
    weight = Builder(resolve_settings("table1", {"profile": "paper"}), "text").loss_weight
    remark = "recipes authors and reproduction have 0.6, as the codes" if row.value == "0.7" else ""
    return _setting(
        row, "recipe text, and params/pairs.yaml: loss_weight", weight(row.teacher, row.student), remark
    )


@rule(source="re_readme", table="ablation", metric=TOP1)
@rule(source="re_paper", table=("Table 3", "Table 4", "Table 5", "Table 6"), metric=TOP1)
def _ablation(row: Any) -> Resolution:
    chapter = "table3" if row.table == "ablation" else row.table.lower().replace(" ", "")
    return Resolution(row.id, "run", (f"{chapter}/{_ABLATION[chapter, row.variant]}",))


@rule(source="re_paper", table="text 4.2.2", metric=TOP1)
def _no_cross_entropy(row: Any) -> Resolution:
    return Resolution(row.id, "run", ("no_cross_entropy/alone",))


@rule(source="re_paper", table="text 4.2.2", metric="acc_drop_percent")
def _drop(row: Any) -> Resolution:
    parts = [
        *_rows(source="re_paper", table="Table 3", variant="RM+RLF+ABF+HCL"),
        *_rows(source="re_paper", table="Table 3", variant="RM+RLF+ABF"),
    ]
    return _derived(row, parts, "the full method minus the same with L2 in place of HCL")


@rule(source="re_paper", metric="best_loss_weight_range")
def _best_weights(row: Any) -> Resolution:
    lines = get_chapter("figure6").lines(resolve_settings("figure6", {"profile": "paper"}))
    swept = tuple(f"figure6/{line.key}" for line in lines if line.x is not None)
    how = "where the mean accuracy over loss weights is largest; the figure's own values are not printed"
    return Resolution(row.id, "derived", swept, (), how)


@rule(source="re_paper", metric="max_abs_difference_percent")
def _largest(row: Any) -> Resolution:
    parts = [
        part
        for table in ("Table 1", "Table 2")
        for part in _rows(source="re_paper", table=table, method="ReviewKD", variant="paper", metric=TOP1)
    ]
    return _derived(row, parts, "largest distance of a pair's mean from the paper's value, over eight pairs")


@rule(source="re_paper", method="cost")
def _cost(row: Any) -> Resolution:
    return Resolution(row.id, "explained", how=THEIR_MACHINE)


# --- settings that the sources print --------------------------------------------------------------------------

# metric -> (key of a recipe, key within its optimiser, remark)
_OF_RECIPE = {
    "epochs": ("epochs", None, ""),
    "batch_size": ("batch_size", None, ""),
    "initial_lr": ("optimiser", "lr", "recipes authors and reproduction train ShuffleNets at 0.02, as the codes"),
    "lr": ("optimiser", "lr", ""),
    "lr_decay_epochs": ("optimiser", "decay_epochs", "recipes authors and reproduction: one epoch later, as the codes"),
    "lr_milestones": ("optimiser", "decay_epochs", ""),
    "lr_decay_factor": ("optimiser", "decay_rate", ""),
    "weight_decay": ("optimiser", "weight_decay", ""),
    "nesterov_momentum": ("optimiser", "momentum", "with nesterov: true"),
    "momentum": ("optimiser", "momentum", "with nesterov: false"),
}  # fmt: skip
_RECIPE_OF = {"re_paper": "text", "knowledge_distillation": "knowledge_distillation"}


@rule(source=tuple(_RECIPE_OF), method="training", metric=tuple(_OF_RECIPE))
def _recipe_value(row: Any) -> Resolution:
    recipe = _RECIPE_OF[row.source]
    key, within, remark = _OF_RECIPE[row.metric]
    value = load_recipe(recipe)[key]
    place = f"recipe {recipe}: {key}"
    return (
        _setting(row, f"{place}.{within}", value[within], remark)
        if within
        else _setting(row, place, value, remark)
    )


@rule(method="training", metric="runs_averaged")
def _runs_averaged(row: Any) -> Resolution:
    seeds = resolve_settings("table1", {"profile": "paper"}).seeds
    return _setting(
        row,
        "params/paper.yaml: seeds",
        len(seeds),
        "more than the source averages, so that a verdict can be reached",
    )


@rule(source="knowledge_distillation", metric="selection")
def _selection(row: Any) -> Resolution:
    place = "the best epoch on the test set, best_accuracy of every record, beside last_accuracy"
    return _setting(row, place, "best verification result", "the source's validation set is the test set")


@rule(source="knowledge_distillation", metric="feature_map_shapes")
def _map_shapes(row: Any) -> Resolution:
    from rkd.models import build, tap_shapes  # builds a network: only where it is asked for

    shapes = tap_shapes(build("resnet20_7x7"), 32).stages
    ours = [f"{height}x{width}" for _, height, width in shapes]
    return _setting(
        row,
        "network resnet20_7x7",
        ours,
        "the source's code pads its 7x7 stem by 1, which its text overlooks",
    )


@rule(method="dataset", metric=("train_samples", "test_samples"))
def _samples(row: Any) -> Resolution:
    name = {shown: name for name, shown in SETS.items()}[row.dataset]
    sizes = KNOWN_SIZES[name]
    train = row.metric == "train_samples"
    remark = "60000 is the number of all images, test images included" if row.value == "60000" else ""
    return _setting(row, f"the data set (`rkd data {name}`)", sizes.train if train else sizes.test, remark)


# --- the other sources ----------------------------------------------------------------------------------------

_MODREDUCE = {
    "teacher": "teacher", "student baseline": "student", "KD (Hinton)": "kd", "SemCKD": "semckd", "CRD": "crd",
    "ModReduce": "modreduce",
}  # fmt: skip


@rule(source="modreduce", metric=TOP1)
def _modreduce(row: Any) -> Resolution:
    return _run(row, "modreduce", _MODREDUCE[row.method])


@rule(source="kdrefine", value="")
def _empty(row: Any) -> Resolution:
    return Resolution(row.id, "explained", how=NOT_PRINTED)


@rule(source="kdrefine", metric=TOP1)
def _benchmark(row: Any) -> Resolution:
    return _run(row, "kdrefine", _WHAT.get(row.method, row.method.lower()))


_SELF = "knowledge_distillation"
_SELF_NETWORKS = {"ResNet20": "resnet20_7x7", "ResNet110": "resnet110_7x7"}


@rule(source=_SELF, dataset=tuple(SETS.values()), method=("baseline", *SELF_ROWS.values()), metric=TOP1)
def _self_taught(row: Any) -> Resolution:
    dataset = {shown: name for name, shown in SETS.items()}[row.dataset]
    network = _SELF_NETWORKS[row.student]
    what = {shown: method for method, shown in SELF_ROWS.items()}.get(row.method, "student")
    return Resolution(
        row.id, "run", (f"soft_targets_and_attention/{set_key(dataset)}{network}-{network}-{what}",)
    )


@rule(source=_SELF, dataset=tuple(SETS.values()), metric="delta_vs_baseline_percent")
def _self_gain(row: Any) -> Resolution:
    of = {"source": _SELF, "student": row.student, "dataset": row.dataset, "metric": TOP1}
    parts = [*_rows(method=row.method, **of), *_rows(method="baseline", **of)]
    return _derived(row, parts, "the method minus the baseline")


@rule(source=_SELF, dataset="avg", metric=TOP1)
def _self_average(row: Any) -> Resolution:
    return _derived(row, _four(row.method), "mean of the four columns")


@rule(source=_SELF, dataset="avg", metric="delta_vs_baseline_percent")
def _self_average_gain(row: Any) -> Resolution:
    parts = [*_four(row.method), *_four("baseline")]
    return _derived(row, parts, "mean of the method's four columns minus mean of the baseline's")


def _four(method: str) -> list[Resolution]:
    return [
        part
        for dataset in SETS.values()
        for part in _rows(source=_SELF, method=method, dataset=dataset, metric=TOP1)
    ]
