"""Runs and published figures as frames, and what a notebook of a table makes of them."""

import dataclasses

import pandas as pd
import pytest
from conftest import tiny_plain
from evidence import record
from scipy import stats

from rkd.experiments.chapters import Line, Published, chapter_in, get_chapter
from rkd.experiments.frames import mean_sd, names_of, printed, published_frame, runs_frame, same_runs
from rkd.experiments.settings import given_in, resolve
from rkd.records import Store
from rkd.report import experiment as module
from rkd.report.experiment import Experiment

RUNS = tuple(tiny_plain(seed=seed) for seed in range(4))
LASTS = (70.0, 71.0, 73.0, 74.0)
SAID = (
    Published("[Re] paper", 71.79, "a note"),
    Published("ReviewKD paper", 71.89),
    Published("[Re] README", 71.79),
)
LINE = Line("full", "the full method", RUNS, published=SAID)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([record(*pair, pair[1] + 1) for pair in zip(RUNS, LASTS, strict=True)], "72.00 ± 1.83 (n = 4)"),
        (
            [record(RUNS[0], 70.0), record(RUNS[1], 1.0, status="diverged")],
            "70.00 (n = 1), 1 diverged, 2 missing",
        ),
        ([], "missing"),
    ],
)
def test_means_with_sample_standard_deviation_and_what_lacks(runs, said):
    frame = runs_frame([LINE], {r.config.id: r for r in runs}, "here")
    assert mean_sd(frame) == said
    assert mean_sd(frame, "best").startswith("73.00 ± 1.83") or len(runs) < 4


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


def experiment(chapter="table3", **given):
    namespace = {"profile": "smoke", "on_missing": "skip", **given}
    return Experiment(chapter_in(chapter, namespace), given_in(namespace))


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
    mini = of.chapter.lines(resolve("table3", {"profile": "mini"}))[-1].runs[0]
    stores["mini"].save(record(mini, 24.5))
    found = shown(of)
    assert "24.50 (n = 1)" in found.replace("\N{NO-BREAK SPACE}", " ")
    assert "Mini profile: ResNet-8 ← ResNet-20, 4 epochs on 12,000 images of CIFAR-100." in found


def test_text_is_escaped_and_groups_have_headings(stores):
    row = {"label": "<b>", "note": "a & b", "group": "of & one", "connector": "none", "loss": "l2"}
    found = shown(experiment(METHOD="reviewkd", RECIPE="reproduction", ROWS={"student": {}, "none": row}))
    assert "<b>" not in found and "&lt;b&gt;" in found and "a &amp; b" in found
    assert 'scope="rowgroup">of &amp; one</th>' in found


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
    assert experiment("figure6").parameters().loc["loss_weight"].tolist() == ["2.0", "row"]


def test_a_page_shows_records_of_any_arithmetic_and_names_them(stores, capsys):
    given = {"train_images": 100, "test_images": 100, "seeds": [0], "profile": "smoke"}
    for place, line in enumerate(get_chapter("table5").lines(resolve("table5", given))):
        for run in line.runs:
            arithmetic = "bf16" if place == 1 else "fp16"
            stores["smoke"].save(record(run, 40.0 + place, arithmetic=arithmetic, teachers="fp16"))
    of = experiment("table5", **given, on_missing="error")
    runs = of.run()
    assert "were recorded, 0 were trained now, 0 are missing" in capsys.readouterr().out
    assert sorted(runs["accuracy"].unique()) == [40.0 + place for place in range(len(of.lines))]
    table = of.show(runs.groupby("name").apply(mean_sd).to_frame()).data
    assert "Not all of these runs were computed in one arithmetic (bf16, fp16)" in table
    assert not any(run.open[0] for line in of.lines for run in line.runs)
