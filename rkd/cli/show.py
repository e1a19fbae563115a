"""`rkd show`: networks, methods, data sets, published figures, records."""

import csv
import re
from importlib import resources
from typing import Any

from rkd import paths, published
from rkd.cli.declare import File
from rkd.devices import pick_device
from rkd.errors import ConfigError, unknown
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import resolve as settings_of
from rkd.experiments.workspace import store_of
from rkd.files import write_atomic

MOST_CLASSES = 100_000  # few enough for a classifier that fits into any machine's memory


def models(name: str | None = None, *, classes: int = 100, teacher: str | None = None) -> int:
    """List the networks rkd builds, or show one: parameters, multiply-adds, taps.

    Args:
        name: a network (any WRN: wrn_DEPTH_WIDTH)
        classes: number of classes (default 100)
        teacher: show the review levels of the pair

    Examples:
        rkd show models
        rkd show models represnet20                            as trained, and with its branches merged
        rkd show models shufflenetv1 --teacher resnet32x4      what ReviewKD adds to the pair
    """
    if not 1 <= classes <= MOST_CLASSES:
        raise ConfigError(f"--classes is {classes}; it must be between 1 and {MOST_CLASSES:,}")
    if name is None and teacher is not None:
        raise ConfigError("--teacher makes a pair with a network; name that too")
    if name is None:
        return _list(classes)
    from rkd import models

    net = models.build(name, classes)
    shapes = models.tap_shapes(net)
    print(f"{models.display_name(name)}: {_cost(net)}")
    if models.is_reparameterised(net):
        print(f"  merged  {_cost(models.deploy(net))} (`rkd model export RUN`)")
    print(f"  stem    {' x '.join(map(str, shapes.stem))}")
    for i, shape in enumerate(shapes.stages, 1):
        print(f"  stage {i} {' x '.join(map(str, shape))}")
    print(f"  pooled  {shapes.pooled}")
    if teacher:
        from rkd.review import ReviewKD

        review = ReviewKD(net, models.build(teacher, classes))
        print(f"learning from {models.display_name(teacher)}, deep to shallow:")
        for row in review.describe():
            ours = f"{row['student_channels']} x {row['student_size']}²"
            theirs = f"{row['teacher_channels']} x {row['teacher_size']}²"
            print(
                f"  {row['level']:8} {ours:>11} -> {theirs:>11}   {row['parameters']:>10,} fusion parameters"
            )
        print(f"  {models.parameter_count(review):,} fusion parameters in all")
    return 0


def _list(classes: int) -> int:
    """Print all registered networks by group, from a file of their sizes, as importing torch would take longer."""
    print(f"{'name':30}{'parameters':>12}{'M multiply-adds':>17}   ({classes} classes, 32x32 images)")
    shown = None
    with resources.files("rkd").joinpath("models/sizes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["group"] != shown:
                print(shown := row["group"])
            merged = f"   merged:{_row(row, 'merged_', classes)}" if row["merged_parameters"] else ""
            print(f"  {row['name']:28}{_row(row, '', classes)}{merged}")
    print("and any wrn_DEPTH_WIDTH, any package.module:function")
    return 0


def _row(sizes: dict[str, str], form: str, classes: int) -> str:
    """Format parameters and millions of multiply-adds of the body plus a linear classifier with bias."""
    width = int(sizes["width"])
    parameters = int(sizes[f"{form}parameters"]) + (width + 1) * classes
    return f"{parameters:>12,}{(int(sizes[f'{form}multiply_adds']) + width * classes) / 1e6:>17.2f}"


def _cost(net) -> str:
    from rkd import models

    return f"{models.parameter_count(net):,} parameters, {models.macs(net):,} multiply-adds"


def method(name: str, *, teacher: str = "resnet56", student: str = "resnet20", **options: Any) -> int:
    """Say whether a method's steps can be captured as a CUDA graph, before a GPU is at hand: steps of every stage,
    of the first and the last epoch, with a whole batch and a short one, are followed on stand-ins for a GPU's
    tensors.

    Args:
        name: a method, a sum such as "at+kd", or package.module:function naming a builder
        teacher: network to learn from (default resnet56)
        student: network that learns (default resnet20)

    Examples:
        rkd show method crd
        rkd show method at+kd --teacher resnet110 --student resnet20 --set 'kd={temperature: 2}'
        rkd show method my_methods:Cosine --set loss_weight=0.5      a builder, in my_methods.py

        --set names options of the method. Exit status: 0 it can, 1 it cannot (one sentence per problem), 2 wrong
        call.
    """
    from rkd.training import check_method

    found = check_method(name, options, teacher=teacher, student=student)
    print(found)
    return 1 if found.problems else 0


def data(
    name: str, *, root: str | None = None, image_size: int | None = None, test_share: float | None = None
) -> int:
    """Fetch a data set if it is not there (CIFAR by torchvision's download, once), check it, and describe it: numbers,
    classes, size, statistics; what cannot be read, images that are in both parts, classes that one part lacks.

    Args:
        name: cifar10, cifar100, embedded, the path of an npz file or of a folder of images, or torchvision:NAME
        root: folder of the CIFAR files (default: data in the project)
        image_size: side in pixels that images of folders are brought to (default: they have one size)
        test_share: share of the images that is for tests, where a folder has no part for them

    Examples:
        rkd show data cifar100 --root data
        rkd show data my_images.npz          arrays x_train, y_train, x_test, y_test
        rkd show data my_images --image-size 64    folders train/CLASS/ and test/CLASS/, or CLASS/ with --test-share 0.2
    """
    from rkd import data

    own = {"image_size": image_size, "test_share": test_share}
    config = data.DataConfig(data.full_name(name), normalisation="measured", **own)
    facts = data.describe(config, paths.home() / (paths.from_user_folder(root) if root else "data"))
    for fact, value in facts.items():
        print(f"{fact:16} {value}")
    return 0


def records(
    *, last: int | None = None, csv: File | None = None, results: str | None = None, profile: str = "smoke"
) -> int:
    """Summarise records: one line per configuration (all but the seed equal), with n, mean and sample standard
    deviation of the test accuracy at the last and at the best epoch.

    Args:
        last: only the N runs of each configuration that ended last
        csv: write all columns to a CSV file

    Examples:
        rkd show records --profile paper --last 3 --csv summary.csv

        Exit status: 0 there are records, 1 there are none, 2 wrong call.
    """
    import pandas as pd

    from rkd.records.csv_summary import summarise

    store = store_of(settings_of("records", {"profile": profile, "results": results}))
    found = summarise(store, last)
    if found.empty:
        print(f"no runs are recorded in {store.records}")
        return 1
    taught = found["method"].where(found["method"] == "", " <- " + found["teacher"] + ", " + found["method"])
    diverged = found["diverged"].map(lambda n: f"{n} diverged " if n else "")
    figures = found[["n", "last_mean", "last_sd", "best_mean", "best_sd"]]
    figures.columns = ["n", "last", "sd", "best", "sd"]
    named = {"configuration": found["configuration"], "run": found["student"] + taught}
    named["computed in"] = found["arithmetic"]
    shown = pd.concat([pd.DataFrame(named), figures, (diverged + found["differs"]).rename("")], axis=1)
    for name in ("run", ""):  # pandas right-aligns text
        shown[name] = shown[name].str.ljust(shown[name].str.len().max())
    print(shown.to_string(index=False, na_rep="", float_format="{:.2f}".format))
    runs = found["n"].sum() + found["diverged"].sum()
    print(f"{runs} runs of {len(found)} configurations in {store.records}")
    if csv:
        write_atomic(csv, found.to_csv(index=False, float_format="%.4f").encode())
    return 0


def figures(
    *, id: str | None = None, source: str | None = None, table: str | None = None, teacher: str | None = None,
    student: str | None = None, method: str | None = None, dataset: str | None = None, metric: str | None = None,
    csv: bool = False, resolve: bool = False, profile: str = "paper", results: str | None = None,
) -> int:  # fmt: skip
    """Print the published figures, all 471 or those that match; disagreements between sources stand side by side.
    With --resolve, print what answers them: runs, several runs, a value of a recipe, or one sentence.

    Args:
        id, source, table, teacher, student, method, dataset, metric: only rows with this, however it is spelt
        csv: as CSV, all columns
        resolve: what answers each figure
        profile: of the runs, with --resolve (default paper)

    Examples:
        rkd show figures --table "Table 3"
        rkd show figures --source kdrefine --method CRD
        rkd show figures --resolve                    how many figures of each source are answered by what
        rkd show figures --resolve --source kdrefine  each of them, with its runs, and how many are recorded
        rkd run --claim kdrefine-benchmark-resnet56-resnet20-crd-cifar100
    """
    import pandas as pd

    from rkd.experiments.answers import KINDS, answer_of

    asked = {"id": id, "source": source, "table": table, "teacher": teacher, "student": student}
    asked |= {"method": method, "dataset": dataset, "metric": metric}
    equal = {column: value for column, value in asked.items() if value is not None}
    rows = published.load()
    fits = rows["id"].notna()
    for column, value in equal.items():
        if column == "id":
            published.get(value)
        # Sources write WRN40-2, WRN-40-2 and wrn_40_2.
        spelt = rows[column].map(_spoken) == _spoken(value)
        if not spelt.any():
            raise unknown(column, value, rows[column].unique())
        fits &= spelt
    rows = rows[fits]
    if not resolve:
        if results is not None or profile != "paper":
            raise ConfigError("--profile and --results say whose runs answer, and go with --resolve")
        if csv:
            print(rows.drop(columns="number").to_csv(index=False), end="")
            return 0
        print(rows[["id", "variant", "value", "note"]].to_string(index=False, max_colwidth=100))
        print(f"{len(rows)} figures")
        return 0
    settings = settings_of("records", {"profile": profile, "results": results})
    found = [answer_of(figure) for figure in rows["id"]]
    if csv or equal:
        each = _answered(rows, found, settings)
        if csv:
            print(each.to_csv(index=False), end="")
            return 0
        print(each.drop(columns=["source", "agrees"]).to_string(index=False, max_colwidth=100))
    kinds = pd.Series({answer.figure: answer.kind for answer in found})
    counts = pd.crosstab(rows["source"], rows["id"].map(kinds).fillna("unanswered"))
    counts = counts.reindex(index=rows["source"].unique(), columns=[*KINDS, "unanswered"], fill_value=0)
    counts.loc["all"] = counts.sum()
    counts.insert(len(KINDS), "all", counts.sum(axis=1))
    print(counts.rename_axis(index=None, columns="source").to_string())
    return 0


def _spoken(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _answered(rows, answers, settings):
    """Return a table with one row per figure: its answer, the runs, how many of them are recorded."""
    import pandas as pd

    from rkd.experiments.runner import settle

    lines, store, device = Selectors(settings.profile), store_of(settings), pick_device()
    found = []
    for row, answer in zip(rows.itertuples(), answers, strict=True):
        asked = (run for selector in answer.lines for run in lines.line_of_paper(selector).runs)
        runs = list(dict.fromkeys(settle(run, store, device).id for run in asked))
        found.append({
            "id": row.id, "source": row.source, "value": row.value, "kind": answer.kind,
            "answer": " ".join(answer.lines) or answer.ours,
            "recorded": f"{sum(store.has(run) for run in runs)}/{len(runs)}" if runs else "",
            "runs": " ".join(runs), "how": answer.how,
            "agrees": "" if answer.kind != "setting" else str(answer.agrees).lower(),
        })  # fmt: skip
    return pd.DataFrame(found)
