"""The rules err no more often than they state, as the page on verdicts shows it, with its examples and pictures; one
that does is noticed."""

import math
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")

from cells import execute

from rkd.judge import Claim, decide, resampling, rules
from rkd.judge.contrast import Contrast, contrast


@pytest.fixture(scope="module")
def page():
    """The page's names, after it was executed with few repeats: its functions read its numbers."""
    given = {"profile": "smoke", "margin": 0.5, "alpha": 0.05, "sd": 0.25, "repeats": 40}
    with warnings.catch_warnings(action="error"):
        names = execute("verdicts", **given)
    names |= {"repeats": 600, "resamples": 200}
    return names


@pytest.fixture(scope="module")
def rates(page):
    return page["error_rates"]()


@pytest.fixture
def simulated(page, monkeypatch):
    """Rates at other numbers of the page."""

    def rates(*rules, counts=(5,), **numbers):
        for name, number in numbers.items():
            monkeypatch.setitem(page, name, number)
        return page["error_rates"](counts, rules)

    return rates


def rate(rates, rule, truth, n) -> float:
    (found,) = rates[(rates.rule == rule) & (rates.truth == truth) & (rates.n == n)].rate
    return found


def test_stated_rates_hold(rates, page):
    stated = rates[rates.stated.notna()]
    assert rates.kept.all() and len(stated) == 57 and (stated.stated == 0.05).all()
    assert (stated.rate <= 0.05 + 4 * 0.0089).all() and set(rates.rule) == {*page["RULES"]}
    exact = rates[(rates.rule == "value") & rates.truth.isin(["at the margin", "at minus the margin"])]
    assert (abs(exact.rate - 0.05) <= 4 * 0.0089).all(), "one-sided tests by t: not far below alpha either"


def test_power_grows_with_runs_and_with_the_difference(rates):
    for rule, truth in {
        "value": "no difference",
        "effect": "the published gain",
        "order": "A better by 0.5",
    }.items():
        three, five, ten = (rate(rates, rule, truth, n) for n in (3, 5, 10))
        assert three + 0.1 < five <= ten and ten > 0.95
    assert rate(rates, "order", "A better by 1", 5) > rate(rates, "order", "A better by 0.5", 5) > 0.8
    shape = "the published shape (Table 4)"
    assert rate(rates, "trend", shape, 5) < 0.7 < rate(rates, "trend", "four times as steep", 5)


def test_power_of_value_is_that_of_a_direct_simulation(rates):
    """Written again with plain numpy: |mean| + t·s/√n < margin."""
    rng = np.random.default_rng(5)
    for n, t in ((3, 2.919986), (5, 2.131847), (10, 1.833113)):
        runs = rng.normal(0, 0.25, (10_000, n))
        within = abs(runs.mean(1)) + t * runs.std(1, ddof=1) / np.sqrt(n) < 0.5
        assert rate(rates, "value", "no difference", n) == pytest.approx(within.mean(), abs=0.06)


def test_without_holm_the_family_errs_far_too_often(rates, simulated, monkeypatch):
    assert rate(rates, "order, family without Holm", "all 8 pairs equal", 5) > 0.2
    monkeypatch.setattr(decide, "holm_p", lambda p: p)
    assert not simulated("order, family", repeats=300).kept.any()


def test_without_its_guards_the_bootstrap_errs_too_often(simulated, monkeypatch):
    monkeypatch.setattr(Contrast, "p_above", lambda self, limit: np.zeros_like(self.value))
    monkeypatch.setattr(decide, "p_seldom_above", lambda gap, threshold: np.zeros_like(gap.value))
    broken = simulated("order", counts=(3,), ratio=3.0, repeats=3000)
    assert list(broken[~broken.kept].verdict) == ["reproduced", "not reproduced"]


def test_too_narrow_an_interval_is_noticed(simulated, monkeypatch):
    right = Contrast.interval
    monkeypatch.setattr(Contrast, "interval", lambda self, level: right(self, level - 0.1))
    broken = simulated("value", "effect", repeats=1500)
    assert set(broken[~broken.kept].rule) == {"value", "effect"}


def test_stated_rates_hold_with_uneven_spreads(simulated):
    assert simulated("order", "effect", counts=(3, 5, 10), ratio=3.0, repeats=2000).kept.all()
    family = simulated("order, family", counts=(3, 5, 10), ratio=3.0, repeats=2000)
    assert (family.rate < 0.075).all()  # Welch's test far out in its tail: about 6 %, as the page says


def test_simulation_judges_as_the_rules_do(monkeypatch):
    """The same data through the rules, one by one, and through the inequalities, all at once."""
    monkeypatch.setattr(rules, "RESAMPLES", 200)
    monkeypatch.setattr(rules, "_generator", lambda claim: np.random.default_rng(0))
    rng = np.random.default_rng(11)
    for n in (2, 5):
        truth = rng.uniform(-1.2, 3.2, (40, 1))
        a, b, c = (rng.normal(shift, 0.25, (40, n)) for shift in (truth, 0.0, truth / 2))
        one, gap = contrast([a], [1.0]), contrast([a, b], [1.0, -1.0])
        ends = resampling.probability_above_interval(a, b, 0.9, 200, np.random.default_rng(0))
        trend, rows = contrast([b, c, a], [-1, 0, 1]), [one, contrast([b], [1.0])]
        share = resampling.probability_above(a, b)
        for kind, numbers, groups, cases in (
            ("value", {"published": 0.0, "margin": 0.5}, [a], decide.value(one, 0.5, 0.05)),
            ("order", {}, [a, b], decide.order(share, ends, gap, 0.75, 0.05)),
            ("effect", {"published": 2.0, "margin": 0.5}, [a, b], decide.effect(gap, 2.0, 0.5, 0.05)),
            ("trend", {"contrast": (-1, 0, 1), "margin": 0.3}, [b, c, a], decide.trend(trend, 0.3, 0.05)),
            ("bound", {"published": (0.0, 0.0), "margin": 0.8}, [a, b], decide.bound(rows, 0.8, 0.05)),
        ):
            claim = Claim(kind, min_seeds=2, **numbers)
            one_by_one = [rules.judge(claim, sides).verdict for sides in zip(*groups, strict=True)]
            assert one_by_one == list(decide.first_case(cases)), kind
            assert kind != "effect" or len(set(one_by_one)) > 1


def test_cases_do_not_disturb_each_other(simulated, rates):
    alone = simulated("trend")
    assert list(rates[(rates.rule == "trend") & (rates.n == 5)].rate) == list(alone.rate)


def test_setting_is_the_published_one(page):
    assert tuple(page["shape"]) == (71.62, 71.62, 71.79, 71.77, 71.91)
    assert page["steepness"] == pytest.approx((71.77 + 2 * 71.91) / 3 - 71.62)


def test_table_marks_what_is_exceeded(page, rates):
    table = page["side_by_side"](rates)
    assert list(table.columns) == ["rule", "truth", "verdict", "stated", "n = 3", "n = 5", "n = 10"]
    assert len(table) * 3 == len(rates) and not table["n = 5"].str.contains("exceeded").any()
    assert table["n = 5"][0] == f"{100 * rates.rate[1]:.1f} %"
    assert page["side_by_side"](rates.assign(kept=False))["n = 3"].str.endswith("% (exceeded)").all()


def test_examples_show_four_verdicts_and_what_more_runs_do(page):
    found = list(page["results"].values())
    assert [j.verdict for j in found] == [
        "reproduced", "not reproduced", "exceeded", "inconclusive", "reproduced", "inconclusive",
    ]  # fmt: skip
    assert all(j.details["sd"] == pytest.approx(0.25) for j in found)
    assert found[3].estimate == pytest.approx(found[4].estimate)  # only the number of runs differs


def test_widths_by_formula(page):
    widths = page["widths"]
    halves = dict(zip(widths["runs"], widths["half-width of the interval"], strict=True))
    for n, t in ((3, 2.919986), (5, 2.131847), (10, 1.833113)):
        assert halves[n] == pytest.approx(t * 0.25 / math.sqrt(n), rel=1e-6)
    assert widths["means must agree within"][0] == f"{0.5 - 2.919986 * 0.25 / math.sqrt(3):.2f} pp"


def test_pictures_have_alternative_texts_with_figures_in_them(page):
    drawn = page["areas"]("effect", "Title?", "gain, pp", [0.0, 1.0, 2.0], {"none": 0.0, "gain": 2.0})
    shown = page["characteristics"]("effect", [2.0], (10,))
    assert "10 runs at none: not reproduced" in drawn.alt and "10 runs at gain: reproduced" in drawn.alt
    assert shown["reproduced"][0] > 0.9
    assert len([ax for ax in drawn.figure.axes if ax.collections]) == 3


def test_rates_are_those_of_the_simulation(page):
    rates = page["rates"]
    assert len(page["powers"]) == len(rates[rates["stated"].isna()]) / 3
