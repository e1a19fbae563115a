"""Runs and published figures as frames, what a notebook of a table makes of them, and records of any arithmetic."""

import dataclasses
import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from cells import execute
from conftest import tiny_plain
from evidence import PAPER, put, record, told
from scipy import stats

from rkd.cli import main
from rkd.experiments import frames
from rkd.experiments.chapters import Line, Published, chapter_in, get_chapter
from rkd.experiments.estimate import recorded_work
from rkd.experiments.frames import mean_sd, on_record, others_frame, runs_frame
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import load_profile, namespace_parameters, resolve
from rkd.records import Store, transfer
from rkd.records.transfer import ExportResult
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
FULL = "RM + RLF + ABF + HCL"


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([record(*pair, pair[1] + 1) for pair in zip(RUNS, LASTS, strict=True)], "72.00 ± 1.83 (n = 4)"),
        ([record(RUNS[0], 70.0), record(RUNS[1], 1.0, status="diverged")], "70.00 (n = 1), 1 diverged, 2 missing"),
        ([record(dataclasses.replace(run, precision=name), 70.0)
          for run, name in zip(RUNS, ("fp16", "fp32", "fp16", "fp16"), strict=True)],
         "70.00 ± 0.00 (n = 4), 3 in fp16 and 1 in fp32"),
        ([], "missing"),
    ],
)  # fmt: skip
def test_means_with_sample_standard_deviation_and_what_lacks(runs, said):
    found = {RUNS[r.config.seed].id: r for r in runs}
    frame = runs_frame([LINE], found, "here")
    assert (mean_sd(frame), mean_sd(frame, "best")) == (said, said.replace("72.00", "73.00"))


def test_published_figures_with_their_sources():
    published = frames.published_frame([LINE, Line("other", "another", RUNS[:1])])
    said = published.groupby("name").apply(frames.printed)
    assert said["the full method"] == "71.79 ([Re] paper, [Re] README), 71.89 (ReviewKD paper)"
    assert said["another"] == "not published"


def test_lines_of_one_label_are_told_apart_and_same_runs_are_named():
    twins = [Line("a", "alone", RUNS, group="one"), Line("b", "alone", RUNS, group="two")]
    assert frames.names_of(twins) == {("one", "alone"): "one: alone", ("two", "alone"): "two: alone"}
    assert frames.same_runs([*twins, Line("c", "c", RUNS[:2])]) == {"b": "alone"}


def test_runs_of_others_are_independent_ones_where_there_are_some():
    own = told("table3/full", best=[72.0, 73.0], behind="re_paper")
    found = others_frame([LINE], [*own, *told("table3/rm", [1.0])], "table3").assign(grade="B")
    assert on_record(found) == "B: 72.50 ± 0.71 (n = 2), best epoch"
    assert on_record(found, "best")[-7:] == "(n = 2)"
    found = others_frame([LINE], [*own, *told("table3/full", [70.0], [71.0])], "table3").assign(grade="B")
    assert on_record(found) == "B: 70.00 (n = 1)" and found["source"].tolist() == ["a/b"]


@pytest.fixture
def stores(tmp_path, monkeypatch):
    made = {name: Store(tmp_path / name, tmp_path / "work") for name in ("paper", "mini", "short", "smoke")}
    monkeypatch.setattr(module, "store_for", lambda profile: made[profile])
    monkeypatch.setattr(module, "store_of", lambda settings: made["smoke"])
    monkeypatch.setattr(module, "other_runs", list)
    return made


def experiment(chapter="table3", **given):
    namespace = {"profile": "smoke", "on_missing": "skip", **given}
    return Experiment(chapter_in(chapter, namespace), namespace_parameters(namespace))


def cells(of, *words, chapter="table3"):
    """The names of a notebook after the cells of its table, and others."""
    more = {"experiment": of, "runs": of.run(), "display": lambda *objects: None}
    return execute(chapter, "best evidence on record", *words, **more)


def shown(of):
    return of.show(pd.DataFrame(cells(of)["table"])).data


def test_what_is_given_is_told_from_the_profiles_own(stores):
    injected = load_profile("smoke")
    assert experiment(**injected).is_self_test, "papermill injects what the profile's file says"
    whole = experiment(In=["# Parameters\ntrain_images = None\n"], train_images=None)
    assert not whole.is_self_test and whole.lines[0].runs[0].data.train_images is None
    of = experiment(pairs=[["resnet14", "resnet8"]], loss_weight=0.9)
    assert of.unread == ["pairs"] and "Given without effect on this page: pairs." in of.banner()


def test_the_best_grade_of_each_row_stands_beside_the_published_value(stores, monkeypatch):
    short = Selectors("short")
    put(stores["paper"], "table3/full", [71.0, 72.0])
    for line in ("student", "rm", "full"):
        put(stores["short"], f"table3/{line}", [60.0, 61.0, 62.0], selectors=short)
    others = told("table3/rm", best=[70.5]) + told("table3/full", [9.0])
    monkeypatch.setattr(module, "other_runs", lambda: others)
    for line in experiment().lines:
        for run in line.runs:
            stores["smoke"].save(record(run, 1.23))
    of = experiment()
    assert of.is_self_test
    found = cells(of, "stripplot")
    texts = found["table"]["best evidence on record"]
    assert texts[FULL] == "A: 71.50 ± 0.71 (n = 2)" and texts["RM"] == "B: 70.50 (n = 1), best epoch"
    assert texts["ResNet-20 alone"] == "C: 61.00 ± 1.00 (n = 3)" and texts["RM + RLF"] == "none"
    assert list(found["table"]) == ["published", "best evidence on record"]
    assert list(found["panels"]) == ["published, and grades A and B", "short runs"]
    table = shown(of)
    assert "1.23" not in table, "a self-test stands nowhere near published values"
    short_runs = "ResNet-20 ← ResNet-56, 16 epochs on all training images of CIFAR-100"
    assert all(words in table for words in ("ResNet-20 alone", "C, short runs", short_runs))

    here = cells(experiment(loss_weight=0.5), "stripplot")
    assert list(here["table"])[2:] == ["last epoch, here", "best epoch, here"]
    assert here["panels"]["here, profile smoke"]["accuracy"].max() == 1.23, "teacher and student alone"


def test_a_page_without_evidence_says_what_would_decide_and_what_that_takes(stores):
    of = experiment()
    found = cells(of, "stripplot", "gaps(made")
    assert set(found["table"]["best evidence on record"]) == {"none"} and found["found"] == []
    said = "These rows need 36 runs in the published setting; none is on record"
    assert of.lacking() == f"{said}."
    put(stores["short"], "table3/student", [60.0], selectors=Selectors("short"))
    for odd in (tiny_plain(), dataclasses.replace(PAPER.line("table3/student").runs[0], network="os:_exit")):
        stores["short"].save(record(odd, 60.0))  # they tell no rate
    took = recorded_work(stores["short"], "data", modules=False)["alone"].max()
    assert took == pytest.approx(16 * 50_000 * 3 * 40.8e6, rel=0.02)
    wanted = [record(run, 60.0) for line in of.under("paper")[0] for run in line.runs]
    seconds = recorded_work(wanted, "data", modules=False)["alone"].sum() / took  # 16 epochs took one
    hours = float(f"{seconds / 3600:.2g}")
    rate = f"{hours:,.0f} hours at the rate of runs recorded on none in 1 thread, in fp32"
    assert of.lacking() == f"{said}. Training them would take one process about {rate}."
    put(stores["paper"], "table3/student", [60.0] * 5)
    assert "31 are not on record" in experiment().lacking()


def test_short_runs_are_compared_seed_by_seed_within_one_arithmetic(stores):
    fp32 = {"student": [58.0, 59.0, 60.0], "rm": [58.6, 59.4, 60.5], "full": [61.0, 62.1, 63.0]}
    fp32["rm_rlf"] = [61.4]
    for line, values in fp32.items():
        put(stores["short"], f"table3/{line}", values, selectors=Selectors("short"))
    bf16 = {"none": [55.0], "rm_rlf_hcl": [63.0]}
    for line, values in bf16.items():
        put(stores["short"], f"table3/{line}", values, selectors=Selectors("short"), arithmetic="bf16")
    to_full, to_student = cells(experiment(), "gaps(made")["found"]
    row = to_full.loc["RM"]
    gap = stats.ttest_rel(fp32["rm"], fp32["full"]).confidence_interval(0.9)
    expected = [69.58 - 71.79, np.subtract(fp32["rm"], fp32["full"]).mean(), gap.low, gap.high]
    assert row[["published", "gap", "low", "high"]].tolist() == pytest.approx(expected)
    assert to_full["seeds"].to_dict() == {"RM": 3, "RM + RLF": 1}, "no pair of two arithmetics"
    assert list(to_student.index) == ["RM", "RM + RLF", FULL]


def test_text_is_escaped(stores):
    row = {"label": "<b>", "note": "a & b", "connector": "none", "loss": "l2"}
    found = shown(experiment(METHOD="reviewkd", RECIPE="reproduction", ROWS={"student": {}, "none": row}))
    assert "<b>" not in found and "&lt;b&gt;" in found and "a &amp; b" in found


@pytest.mark.parametrize(
    ("seeds", "accuracies", "test", "of"),
    [
        ([0, 1], [71.5, 72.75], stats.ttest_rel, "2 pairs"),
        ([1, 0, 7], [72.75, 71.0, 99.0], stats.ttest_rel, "2 pairs"),
        ([7, 1, 8], [71.5, 72.5, 73.0], partial(stats.ttest_ind, equal_var=False), "3 against 2 runs"),
        ([7], [71.5], None, "1 against 2 runs"),
    ],
)
def test_differences_in_pairs_of_seeds_or_after_welch(seeds, accuracies, test, of, stores):
    given, base, own = experiment(loss_weight=0.123, seeds=seeds), experiment(), [70.0, 71.5]
    for page, values in ((base, own), (given, accuracies)):
        full = next(line for line in page.lines if line.key == "full")
        for run, value in zip(full.runs, values, strict=True):
            stores["smoke"].save(record(run, value))
    assert base.differences() is None
    given.run()
    row, said = given.differences().loc[FULL], dict(zip(seeds, accuracies, strict=True))
    ours = [said[0], said[1]] if of == "2 pairs" else accuracies
    ends = test(ours, own).confidence_interval(0.9) if test else (math.nan, math.nan)
    means = [sum(own) / 2, sum(ours) / len(ours)]
    expected = [*means, means[1] - means[0], *ends]
    assert row.tolist() == [*(pytest.approx(x, abs=0.0051, nan_ok=True) for x in expected), of]


def test_parameters_know_where_they_come_from(stores):
    found = experiment(parameters={"epochs": 7}, loss_weight=0.5).parameters()["from"]
    assert found["loss_weight"] == "given" and found["epochs"] == "given"
    assert found["batch_size"] == found["train_images"] == "profile smoke, every chapter"
    assert found["lr"] == "recipe reproduction"
    pair = {"teacher": "resnet56", "student": "resnet20", "batch_size": None}
    assert experiment(**pair).parameters().loc["loss_weight"].tolist() == ["0.6", "params/pairs.yaml"]
    assert experiment("figure6").parameters().loc["loss_weight"].tolist() == ["2.0", "row"]


def test_a_page_shows_records_of_any_arithmetic_and_names_them(stores, capsys):
    """And the command line counts them, on a machine without the device too."""
    given = {"train_images": 100, "test_images": 100, "seeds": [0]}
    for place, line in enumerate(get_chapter("table5").lines(resolve("table5", given))):
        for run in line.runs:
            arithmetic = "bf16" if place == 1 else "fp16"
            stores["smoke"].save(record(run, 40.0 + place, arithmetic=arithmetic, teachers="fp16"))
    of = experiment("table5", **given, on_missing="error")
    runs = of.run()
    assert "recorded before, 0 trained now, 0 missing" in capsys.readouterr().out
    assert sorted(runs["accuracy"].unique()) == [40.0 + place for place in range(len(of.lines))]
    table = of.show(runs.groupby("name").apply(mean_sd).to_frame()).data
    assert "Not all of these runs were computed in one arithmetic (bf16, fp16)" in table
    assert not any(run.open[0] for line in of.lines for run in line.runs)
    given["results"] = stores["smoke"].records
    more = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    assert main(["status", "--chapters", "table5", "--device", "cuda", *more]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("table5"))
    assert row.split()[1:5] == [str(len(stores["smoke"].ids())), "0", "0", "0"]


def test_an_export_of_a_chapter_takes_every_arithmetic_along(tmp_path, monkeypatch):
    run, asked = PAPER.line("table3/rm").runs[0], set()
    monkeypatch.setattr(
        transfer, "export", lambda store, folder, runs, **more: asked.update(runs) or ExportResult()
    )
    main(["export", "--out", str(tmp_path), "--profile", "paper", "--chapters", "table3"])
    for own, teachers in itertools.product(("fp32", "fp16", "bf16"), repeat=2):
        assert run.settled(own, teachers).id in asked
    assert dataclasses.replace(run, seed=99).settled("fp16", "fp16").id not in asked
