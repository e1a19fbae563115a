"""Runs and published figures as frames, and what a notebook of a table makes of them."""

import dataclasses

import pandas as pd
import pytest
from conftest import tiny_plain
from scipy import stats

from rkd.experiments.chapters import Line, Published, chapter_in
from rkd.experiments.frames import mean_sd, names_of, printed, published_frame, runs_frame, same_runs
from rkd.experiments.settings import given_in, resolve
from rkd.records import Record, Store
from rkd.report import experiment as module
from rkd.report.experiment import Experiment

RUNS = tuple(tiny_plain(seed=seed) for seed in range(4))
SAID = (
    Published("[Re] paper", 71.79, "a note"),
    Published("ReviewKD paper", 71.89),
    Published("[Re] README", 71.79),
)
LINE = Line("full", "the full method", RUNS, published=SAID)


def record(config, last, status="finished"):
    result = {"last_accuracy": last, "best_accuracy": last + 1, "best_epoch": 0, "epochs": 2}
    provenance = {
        "commit": "0123456789abcdef",
        "changed": None,
        "device_name": "a CPU",
        "threads": 1,
        "ended": "then",
    }
    cost = {"train_seconds": 1.0, "images_per_second": 200.0, "gang": 1}
    return Record(config, status, {"loss_ce": [1.0], "test_accuracy": [last]}, result, cost, provenance)


def frame(*lasts, diverged=(), line=LINE):
    made = {run.id: record(run, last) for run, last in zip(line.runs, lasts, strict=False)}
    return runs_frame([line], made | {r.id: record(r, 1.0, "diverged") for r in diverged}, "here")


def test_mean_and_sample_standard_deviation():
    assert mean_sd(frame(70.0, 71.0, 73.0, 74.0)) == "72.00 ± 1.83 (n = 4)"
    assert mean_sd(frame(70.0, 71.0, 73.0, 74.0), "best") == "73.00 ± 1.83 (n = 4)"
    assert mean_sd(frame(70.0, line=dataclasses.replace(LINE, runs=RUNS[:1]))) == "70.00 (n = 1)"


def test_what_is_missing_or_diverged_enters_no_mean_and_is_told():
    assert mean_sd(frame(70.0, diverged=RUNS[1:2])) == "70.00 (n = 1), 1 diverged, 2 missing"
    assert mean_sd(frame()) == "missing"


def test_a_mean_over_several_arithmetics_says_so():
    named = zip(RUNS, ("fp16", "fp32", "fp16", "fp16"), strict=True)
    found = {run.id: record(dataclasses.replace(run, precision=name), 70.0) for run, name in named}
    assert mean_sd(runs_frame([LINE], found, "here")).endswith("(n = 4), 3 in fp16 and 1 in fp32")


def test_published_figures_with_their_sources():
    published = published_frame([LINE, Line("other", "another", RUNS[:1])])
    said = published.groupby("name").apply(printed)
    assert said["the full method"] == "71.79 ([Re] paper, [Re] README), 71.89 (ReviewKD paper)"
    assert said["another"] == "not published"


def test_lines_of_one_label_are_told_apart_and_same_runs_are_named():
    twins = [Line("a", "alone", RUNS, group="one"), Line("b", "alone", RUNS, group="two")]
    assert names_of(twins) == {"a": "one: alone", "b": "two: alone"}
    assert same_runs([*twins, Line("c", "c", RUNS[:2])]) == {"b": "alone"}


@pytest.fixture
def stores(tmp_path, monkeypatch):
    made = {name: Store(tmp_path / name, tmp_path / "work") for name in ("paper", "mini", "short", "smoke")}
    monkeypatch.setattr(module, "store_for", lambda profile: made[profile])
    monkeypatch.setattr(module, "store_of", lambda settings: made["smoke"])
    return made


def experiment(**given):
    namespace = {"profile": "smoke", "on_missing": "skip", **given}
    return Experiment(chapter_in("table3", namespace), given_in(namespace))


def shown(of):
    """As the notebook makes its table."""
    runs, recorded = of.run(), of.recorded()
    columns = {
        "published": of.published().groupby("name").apply(printed),
        "last": runs.groupby("name").apply(mean_sd),
    }
    for profile, found in recorded.groupby("profile", sort=False):
        columns[profile] = found.groupby("name").apply(mean_sd)
    return of.show(pd.DataFrame(columns)).data


def test_recorded_columns_say_what_they_stand_on(stores):
    of = experiment()
    assert "missing" in shown(of) and "mini" not in shown(of) and "paper" in shown(of)
    mini = of.chapter.lines(resolve("table3", {"profile": "mini"}))[-1].runs[0].settled("fp32", "fp32")
    stores["mini"].save(record(mini, 24.5))
    found = shown(of)
    assert "24.50 (n = 1)" in found
    assert "Mini profile: ResNet-8 ← ResNet-20, 4 epochs on 12,000 images of CIFAR-100." in found


def test_text_is_escaped(stores):
    row = {"label": "<b>", "note": "a & b", "connector": "none", "loss": "l2"}
    found = shown(experiment(METHOD="reviewkd", RECIPE="reproduction", ROWS={"student": {}, "none": row}))
    assert "<b>" not in found and "&lt;b&gt;" in found and "a &amp; b" in found


def test_differences_after_welch(stores):
    given, base = experiment(loss_weight=0.123), experiment()
    accuracies = {"base": [70.0, 71.0], "given": [71.5, 72.5]}
    for of, values in ((base, accuracies["base"]), (given, accuracies["given"])):
        full = next(line for line in of.lines if line.key == "full")
        for run, value in zip(full.runs, values, strict=True):
            stores["smoke"].save(record(run, value))
    assert base.differences().empty
    given.run()
    row = given.differences().loc["RM + RLF + ABF + HCL"]
    low, high = stats.ttest_ind(
        accuracies["given"], accuracies["base"]
    ).confidence_interval()  # of equal variances
    assert row.tolist() == pytest.approx([70.5, 72.0, 1.5, low, high])


def test_parameters_know_where_they_come_from(stores):
    found = experiment(parameters={"epochs": 7}, loss_weight=0.5).parameters()["from"]
    assert found["loss_weight"] == "given" and found["epochs"] == "given"
    assert found["batch_size"] == "profile smoke" and found["train_images"] == "profile smoke, every chapter"
    assert found["lr"] == "recipe reproduction"
    pair = {"teacher": "resnet56", "student": "resnet20", "batch_size": None}
    assert experiment(**pair).parameters().loc["loss_weight"].tolist() == ["0.6", "params/pairs.yaml"]


def test_what_a_row_says_comes_from_the_row(stores):
    of = Experiment(chapter_in("figure6", {}), {"profile": "smoke", "on_missing": "skip"})
    assert of.parameters().loc["loss_weight"].tolist() == ["2.0", "row"]
