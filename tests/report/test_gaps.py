"""Gaps between rows against scipy's paired t test, and by what is left over of rows and seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rkd.judge.contrast import residual_variance
from rkd.report.gaps import by_seed, describe_orders, draw, gaps, orders

SHIFTS = {"student": 0.0, "plain": 5.0, "more": 5.6, "full": 5.5}
PUBLISHED = pd.Series({"name of student": 69.0, "name of plain": 69.5, "name of full": 71.8})


def made(keys=("plain", "more", "full", "student"), seeds=3, arithmetic="bf16", spread=0.2):
    """Accuracies of rows and seeds, as of `Experiment.evidence`."""
    rng = np.random.default_rng(7)
    rows = [
        {
            "key": key, "name": f"name of {key}", "role": "student" if key == "student" else "distilled",
            "arithmetic": arithmetic, "seed": seed, "accuracy": 59 + SHIFTS[key] + seed + spread * rng.normal(),
            "device": "a machine", "threads": 1, "train_seconds": 1800.0,
        }
        for key in keys for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64", "threads": "Int64"})


def test_two_rows_are_a_paired_t_test():
    runs = made(["plain", "full"])
    table = by_seed(runs)
    naive = stats.ttest_rel(table["name of plain"], table["name of full"])
    row = gaps(runs, "full", PUBLISHED).loc["name of plain"]
    low, high = naive.confidence_interval(0.9)
    assert row["gap"] == pytest.approx((table["name of plain"] - table["name of full"]).mean())
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["published"] == pytest.approx(-2.3) and row["seeds"] == 3
    assert orders(runs, PUBLISHED)["p"][0] == pytest.approx(naive.pvalue)


def test_the_spread_is_that_of_the_distilled_rows_and_the_one_taken_off():
    runs = made()
    of_student = gaps(runs, "student", PUBLISHED)
    assert list(of_student.index) == ["name of plain", "name of more", "name of full"]
    assert of_student.index.name == "minus name of student"
    assert list(gaps(runs, "full", PUBLISHED).index) == ["name of plain", "name of more"]
    variance, free = residual_variance(by_seed(runs[runs["role"] == "distilled"]).T.to_numpy(float))
    half = stats.t.ppf(0.95, free) * np.sqrt(2 * variance / 3)
    found = gaps(runs, "full", PUBLISHED)
    assert free == 4 and (found["high"] - found["gap"]).to_numpy() == pytest.approx([half, half])


def test_one_arithmetic_enters_and_diverged_runs_do_not():
    other = made(["full"], seeds=1, arithmetic="fp32 (teacher fp16)", spread=9.0)
    runs = pd.concat([other, made()], ignore_index=True)
    runs.loc[runs.index[-1], "accuracy"] = np.nan
    table = by_seed(runs)
    assert table.columns.name == "bf16" and table.notna().sum().sum() == 11
    assert gaps(runs, "student", PUBLISHED)["seeds"].tolist() == [2, 2, 2]


def test_every_two_rows_of_which_different_figures_are_published_are_ordered():
    found = orders(made(), PUBLISHED.drop("name of student"))
    assert found[["worse", "better"]].to_numpy().tolist() == [["name of plain", "name of full"]]
    assert not len(orders(made(), pd.Series({"name of plain": 71.8, "name of full": 71.8})))
    three = pd.Series({"name of plain": 71.0, "name of more": 70.0, "name of full": 69.0})
    raised = orders(made(), three)
    assert raised["published"].tolist() == [1.0, 2.0, 1.0]
    alone = [orders(made(), three[list(pair)])["p"][0] for pair in raised[["worse", "better"]].to_numpy()]
    smallest = int(np.argmin(alone))
    assert raised["p"][smallest] == pytest.approx(min(1, 3 * alone[smallest]))  # Holm
    said = describe_orders(made(), three).data
    assert "tell 2 apart" in said and "0 in the published order, 2 in the opposite one" in said
    assert "tell none apart" in describe_orders(made(spread=9.0), three).data


def test_one_seed_has_no_interval_and_no_run_no_row():
    single = gaps(made(seeds=1), "full", PUBLISHED)
    assert single["gap"].notna().all() and single[["low", "high"]].isna().all(axis=None)
    assert orders(made(seeds=1), PUBLISHED)["p"].isna().all()
    nothing = made()[:0]
    assert not len(gaps(nothing, "full", PUBLISHED)) and not len(orders(nothing, PUBLISHED))
    assert describe_orders(nothing, PUBLISHED).data == "<p>Short runs on record: none.</p>"
    assert "no short run is on record" in [t.get_text() for t in draw([]).axes[0].texts]


def test_a_panel_for_each_row_taken_off_shows_both_gaps():
    found = [gaps(made(), key, PUBLISHED) for key in ("full", "student")]
    left, right = draw(found).axes
    assert left.get_title() == "minus name of full" and right.get_title() == "minus name of student"
    printed, measured = ([x for line in right.lines if line.get_label() == name for x in line.get_xdata()]
                         for name in ("published", "_nolegend_"))  # fmt: skip
    assert printed[0] == pytest.approx(0.5) and printed[2] == pytest.approx(2.8)
    assert measured == pytest.approx(found[1]["gap"].tolist())
    assert [label.get_text() for label in left.get_yticklabels()] == list(found[1].index), "rows stand once"
