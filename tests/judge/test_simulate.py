"""The rules err no more often than they state; one that does is noticed."""

import dataclasses
import re

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd import published
from rkd.errors import ConfigError
from rkd.judge import decide, resampling, rules, simulate
from rkd.judge.contrast import Contrast, contrast

QUICK = simulate.Setting(resamples=300)


def exceeded(rates) -> set[tuple[str, int]]:
    return {(row.rule, row.n) for row in rates.itertuples() if not row.kept}


@pytest.fixture(scope="module")
def rates():
    return simulate.error_rates(QUICK, repeats=1500)


def rate(rates, rule, truth, n) -> float:
    (found,) = rates[(rates.rule == rule) & (rates.truth == truth) & (rates.n == n)].rate
    return found


def test_stated_rates_hold(rates):
    assert exceeded(rates) == set()
    assert set(rates.rule) >= {"value", "order", "effect", "trend", "bound", "order, family"}
    stated = rates[rates.stated.notna()]
    assert len(stated) == 48 and (stated.stated == 0.05).all() and (stated.rate <= 0.05 + 4 * 0.0057).all()


def test_tests_of_one_mean_err_exactly_at_alpha(rates):
    """At the limit itself one-sided tests by t are exact: not above alpha, and not far below either."""
    for truth in ("at the margin", "at minus the margin"):
        found = rates[(rates.rule == "value") & (rates.truth == truth)]
        assert (abs(found.rate - 0.05) <= 4 * found.error).all()


def test_power_grows_with_runs_and_with_the_difference(rates):
    for rule, truth in (
        ("value", "no difference"),
        ("effect", "the published gain"),
        ("order", "A better by 0.5"),
    ):
        three, five, ten = (rate(rates, rule, truth, n) for n in (3, 5, 10))
        assert three + 0.1 < five <= ten and ten > 0.95
    assert rate(rates, "order", "A better by 1", 5) > rate(rates, "order", "A better by 0.5", 5) > 0.8
    shape = "the published shape (Table 4)"
    assert rate(rates, "trend", shape, 5) < 0.7 < rate(rates, "trend", "four times as steep", 5)


def test_power_of_value_is_that_of_a_direct_simulation(rates):
    """Written again with plain numpy: |mean| + t·s/√n < margin."""
    rng = np.random.default_rng(5)
    for n, t in ((3, 2.919986), (5, 2.131847), (10, 1.833113)):
        runs = rng.normal(0, 0.25, (20_000, n))
        half = t * runs.std(1, ddof=1) / np.sqrt(n)
        assert rate(rates, "value", "no difference", n) == pytest.approx(
            np.mean(abs(runs.mean(1)) + half < 0.5), abs=0.05
        )


def test_without_holm_the_family_errs_far_too_often(rates, monkeypatch):
    assert rate(rates, "order, family without Holm", "all 8 pairs equal", 5) > 0.2
    monkeypatch.setattr(decide, "holm", lambda p: p)
    broken = simulate.error_rates(QUICK, repeats=300, runs=(5,), rules=["order, family"])
    assert exceeded(broken) == {("order, family", 5)}


def test_without_its_guards_the_bootstrap_errs_too_often(monkeypatch):
    monkeypatch.setattr(Contrast, "p_above", lambda self, limit: np.zeros_like(self.value))
    monkeypatch.setattr(decide, "p_seldom_above", lambda gap, threshold: np.zeros_like(gap.value))
    uneven = dataclasses.replace(QUICK, sd_ratio=3.0)
    broken = simulate.error_rates(uneven, repeats=3000, runs=(3,), rules=["order"])
    assert list(broken[~broken.kept].counted) == ["reproduced", "not reproduced"]


def test_too_narrow_an_interval_is_noticed(monkeypatch):
    right = Contrast.interval
    monkeypatch.setattr(Contrast, "interval", lambda self, level: right(self, level - 0.1))
    broken = simulate.error_rates(QUICK, repeats=1500, runs=(5, 10), rules=["value", "effect"])
    assert {rule for rule, _ in exceeded(broken)} == {"value", "effect"}


@pytest.mark.slow
def test_stated_rates_hold_with_uneven_spreads():
    uneven = dataclasses.replace(QUICK, sd_ratio=3.0)
    single = simulate.error_rates(uneven, repeats=4000, rules=["order", "effect"], seed=1)
    assert exceeded(single) == set()
    family = simulate.error_rates(uneven, repeats=2000, rules=["order, family"], seed=1)
    assert (
        family.rate < 0.075
    ).all()  # Welch's test far out in its tail: about 6 %, as is said where it is used


def test_simulation_judges_as_the_rules_do():
    """The same data through the public rules, one by one, and through the inequalities, all at once."""
    rng = np.random.default_rng(11)
    common = {"alpha": 0.05, "min_seeds": 2}
    for n in (2, 3, 5):
        truth = rng.uniform(-1.2, 3.2, (40, 1))
        a, b, c = (rng.normal(shift, 0.25, (40, n)) for shift in (truth, 0.0, truth / 2))
        one, gap = contrast([a], [1.0]), contrast([a, b], [1.0, -1.0])
        ends = resampling.probability_above_interval(a, b, 0.9, 200, np.random.default_rng(0))
        share = resampling.probability_above(a, b)
        at_once = {
            "value": decide.value(one, 0.5, 0.05),
            "order": decide.order(share, ends, gap, 0.75, 0.05),
            "effect": decide.effect(gap, 2.0, 0.5, 0.05),
            "trend": decide.trend(contrast([b, c, a], [-1, 0, 1]), 0.3, 0.05),
            "bound": decide.bound([one, contrast([b], [1.0])], 0.8, 0.05),
        }
        one_by_one = {name: [] for name in at_once}
        for x, y, z in zip(a, b, c, strict=True):
            fresh = np.random.default_rng(0)
            for judged in (
                rules.value(x, 0.0, published_n=None, margin=0.5, **common),
                rules.order(x, y, rng=fresh, resamples=200, **common),
                rules.effect(x, y, published=2.0, margin=0.5, **common),
                rules.trend([y, z, x], [-1, 0, 1], margin=0.3, rng=fresh, **common),
                rules.bound([x, y], [0.0, 0.0], bound=0.8, **common),
            ):
                one_by_one[judged.rule].append(judged.verdict)
        for name, verdicts in at_once.items():
            assert one_by_one[name] == list(verdicts), name
        assert len(set(at_once["effect"])) >= 2


def test_seed_decides_and_cases_do_not_disturb_each_other():
    def found(**given):
        return simulate.error_rates(QUICK, repeats=100, **given)

    assert found(rules=["value"]).equals(found(rules=["value"]))
    assert not found(rules=["value"]).equals(found(rules=["value"], seed=1))
    alone = found(rules=["trend"], runs=(5,))
    among = found(rules=["value", "trend"], runs=(3, 5))
    assert list(among[(among.rule == "trend") & (among.n == 5)].rate) == list(alone.rate)


def test_characteristics_are_shares():
    frame = simulate.characteristics("effect", [0.0, 2.0], QUICK, repeats=200, runs=(5,))
    assert np.allclose(frame[list(rules.VERDICTS)].sum(axis=1), 1.0)
    assert frame["not reproduced"][0] > 0.9 > frame["reproduced"][1] > 0.6


def test_setting_is_the_published_one():
    setting = simulate.Setting()
    table = published.load(source="re_paper", table="Table 4")
    assert setting.shape == tuple(table["number"]) == (71.62, 71.62, 71.79, 71.77, 71.91)
    assert setting.published_contrast == pytest.approx((71.77 + 2 * 71.91) / 3 - 71.62)
    assert setting.at_threshold == pytest.approx(0.6744898 * 0.25 * 2**0.5)


def test_table_marks_what_is_exceeded(rates):
    table = simulate.side_by_side(rates)
    assert list(table.columns) == ["rule", "truth", "verdict", "stated", "n = 3", "n = 5", "n = 10"]
    assert len(table) * 3 == len(rates) and not table["n = 5"].str.contains("exceeded").any()
    first = rates[(rates.rule == "value") & (rates.n == 5)].iloc[0].rate
    assert table["n = 5"][0] == f"{100 * first:.1f} %"
    marked = simulate.side_by_side(rates.assign(kept=False))
    assert marked["n = 3"].str.endswith("% (exceeded)").all()


def test_command_prints_the_table_and_ends_with_what_it_found(capsys, monkeypatch):
    assert simulate.main(["--repeats", "60", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "60 data sets per rate" in said and "0 of 48 stated rates are exceeded" in said
    assert re.search(r"order, family without Holm +all 8 pairs equal", said)
    monkeypatch.setattr(decide, "holm", lambda p: p)
    assert simulate.main(["--repeats", "60"]) == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: simulate.error_rates(repeats=0), "repeats is 0"),
        (lambda: simulate.error_rates(rules=["vale"]), "unknown rule 'vale' .did you mean 'value'"),
        (lambda: simulate.verdicts("value", 0.0, 1, QUICK, 10, np.random.default_rng()), "n is 1"),
        (
            lambda: simulate.verdicts("best", 0.0, 5, QUICK, 10, np.random.default_rng()),
            "unknown rule 'best'",
        ),
        (lambda: simulate.Setting(sd=0.0), "sd is 0.0; it must be above 0"),
        (lambda: simulate.Setting(alpha=0.7), "alpha is 0.7"),
        (lambda: simulate.Setting(contrast=(-1.0, 1.0)), "2 weights for 5 groups"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
