"""Verdicts worked out by hand: every rule, every verdict, every limit.

Quantiles and p values of t come from integrating its density here, so that nothing is compared with itself.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd.errors import ConfigError
from rkd.judge import decide, resampling, rules
from rkd.judge.contrast import contrast

DECLARED = {"alpha": 0.05, "min_seeds": 5}
SHAPE = 0.15 * np.arange(-2, 3)  # mean 0, variance 0.15² · 10 / 4
SD = 0.15 * math.sqrt(2.5)
ERROR = SD / math.sqrt(5)


def around(mean: float, scale: float = 1.0) -> list[float]:
    return list(mean + scale * SHAPE)


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def t_below(t: float, df: float) -> float:
    """P(T <= t) by Simpson's rule on the density."""
    if math.isinf(t):
        return float(t > 0)
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    x = np.linspace(0, abs(t), 20001)
    y = scale * (1 + x**2 / df) ** (-(df + 1) / 2)
    area = (x[1] - x[0]) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
    return 0.5 + math.copysign(area, t)


def t_quantile(p: float, df: float) -> float:
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(middle, df) < p else (low, middle)
    return low


def test_quantiles_of_this_file_are_those_of_the_printed_tables():
    assert t_quantile(0.95, 4) == pytest.approx(2.1318, abs=1e-4)
    assert t_quantile(0.975, 8) == pytest.approx(2.3060, abs=1e-4)


# --- value -----------------------------------------------------------------------------------------------------------

HALF = t_quantile(0.95, 4) * ERROR  # 0.226


def judge_value(gap: float, **changes) -> rules.RuleResult:
    given = {"published_n": 3, "margin": 0.5, **DECLARED, **changes}
    return rules.value(around(71.0 + gap), 71.0, **given)


@pytest.mark.parametrize(
    ("gap", "verdict", "words"),
    [
        (0.0, "reproduced", "lies within ±0.5"),
        (0.5 - HALF - 1e-6, "reproduced", "lies within ±0.5"),
        (-0.5 + HALF + 1e-6, "reproduced", "lies within ±0.5"),
        (0.5 - HALF + 1e-6, "inconclusive", "includes 0.5"),
        (-0.5 + HALF - 1e-6, "inconclusive", "includes -0.5"),
        (0.5 + HALF - 1e-6, "inconclusive", "includes 0.5"),
        (0.5 + HALF + 1e-6, "exceeded", "lies above 0.5"),
        (-0.5 - HALF + 1e-6, "inconclusive", "includes -0.5"),
        (-0.5 - HALF - 1e-6, "not reproduced", "lies below -0.5"),
    ],
)
def test_value_turns_where_the_interval_meets_the_margin(gap, verdict, words):
    judged = judge_value(gap)
    assert judged.verdict == verdict and words in judged.sentence
    assert judged.estimate == pytest.approx(gap, abs=1e-9) and judged.level == pytest.approx(0.9)
    assert judged.interval == pytest.approx((gap - HALF, gap + HALF), abs=1e-6)
    assert judged.p_holm is None and judged.n == (5,)


def test_value_p_is_that_of_the_test_that_decides():
    tests = {
        0.2: 1 - t_below((0.2 + 0.5) / ERROR, 4),  # above -0.5
        1.0: 1 - t_below((1.0 - 0.5) / ERROR, 4),
        -1.0: t_below((-1.0 + 0.5) / ERROR, 4),
    }
    tests[0.2] = max(tests[0.2], t_below((0.2 - 0.5) / ERROR, 4))
    for gap, p in tests.items():
        assert judge_value(gap).p == pytest.approx(p, abs=1e-7)


def test_value_sentence_gives_the_figures():
    ours = [71.6, 71.3, 71.9, 71.7, 71.6]
    half = 2.1318 * math.sqrt(sum((x - 71.62) ** 2 for x in ours) / 4 / 5)
    judged = rules.value(ours, 71.79, published_n=3, margin=0.5, **DECLARED)
    assert judged.sentence == (
        f"mean 71.62 over 5 runs, 0.17 below the published 71.79; the 90 % interval {-0.17 - half:.2f} to "
        f"{-0.17 + half:.2f} lies within ±0.5"
    )


@pytest.mark.parametrize("published_n", [None, 1, 3])
def test_value_predicts_a_mean_of_as_many_runs_as_were_published(published_n):
    half = t_quantile(0.975, 4) * SD * math.sqrt(1 / 5 + 1 / (published_n or 1))
    for gap, inside in ((half - 1e-4, 1.0), (half + 1e-4, 0.0)):
        details = judge_value(gap, published_n=published_n).details
        assert details["published_inside"] == inside and details["sd"] == pytest.approx(SD)
        assert details["prediction_low"] == pytest.approx(71 + gap - half, abs=1e-6)
        assert details["prediction_high"] == pytest.approx(71 + gap + half, abs=1e-6)


def test_value_says_how_many_more_runs_would_decide():
    def half(n: int) -> float:
        return t_quantile(0.95, n - 1) * SD / math.sqrt(n)

    for gap in (0.35, 0.4, -0.62):
        judged = judge_value(gap)
        needed = next(n for n in range(6, 200) if half(n) < abs(abs(gap) - 0.5))
        assert judged.verdict == "inconclusive" and judged.more_seeds == needed - 5
    assert judge_value(0.5).more_seeds is None  # on the margin no number of runs helps
    assert judge_value(0.0).more_seeds is None  # decided


def test_too_few_runs_are_inconclusive_with_their_number():
    judged = rules.value([71.0, 71.1, 70.9], 71.0, published_n=3, margin=0.5, **DECLARED)
    assert judged.verdict == "inconclusive" and judged.p is None and judged.more_seeds == 2
    assert judged.details["runs_missing"] == 2 and "2 more runs are needed" in judged.sentence
    far = rules.value([60.0, 60.1, 59.9], 71.0, published_n=3, margin=0.5, **DECLARED)
    assert far.verdict == "inconclusive"


def test_no_runs_are_not_run():
    for judged in (
        rules.value([], 71.0, published_n=3, margin=0.5, **DECLARED),
        rules.chance([], chance=1.0, margin=0.5, **DECLARED),
        rules.order([], around(70), rng=generator(), **DECLARED),
        rules.order([], 70.0, rng=generator(), **DECLARED),
        rules.effect(around(70), [], published=1.0, margin=0.5, **DECLARED),
        rules.trend([around(70), []], [-1, 1], margin=0.2, rng=generator(), **DECLARED),
        rules.bound([[], []], [70.0, 71.0], bound=0.8, **DECLARED),
        rules.not_run("no record"),
    ):
        assert judged.verdict == "not run" and judged.p is None and judged.more_seeds is None
        assert math.isnan(judged.estimate) and judged.sentence


def test_one_run_and_equal_runs():
    single = rules.value([71.0], 71.0, published_n=3, margin=0.5, alpha=0.05, min_seeds=1)
    assert single.verdict == "inconclusive" and single.interval == (-math.inf, math.inf)
    assert single.p is None and single.more_seeds == 1 and "without a spread" in single.sentence
    equal = rules.value([71.3] * 5, 71.0, published_n=3, margin=0.5, **DECLARED)
    assert equal.verdict == "reproduced" and equal.interval == pytest.approx((0.3, 0.3)) and equal.p == 0.0
    edge = rules.value([71.5] * 5, 71.0, published_n=3, margin=0.5, **DECLARED)
    assert edge.verdict == "inconclusive" and edge.more_seeds is None  # exactly on the margin is not inside


def test_two_runs_have_one_degree_of_freedom():
    judged = rules.value([70.9, 71.1], 71.0, published_n=3, margin=0.5, alpha=0.05, min_seeds=2)
    half = math.tan(math.pi * 0.45) * 0.1  # t with one degree of freedom is Cauchy; the standard error is 0.1
    assert judged.interval == pytest.approx((-half, half)) and judged.verdict == "inconclusive"


def test_chance_is_missed_on_both_sides():
    judge = {"chance": 1.0, "margin": 0.5, **DECLARED}
    assert (
        rules.chance([1.0] * 5, **judge).verdict == "reproduced"
    )  # constant predictions are always right alike
    assert rules.chance(around(1.1), **judge).verdict == "reproduced"
    above = rules.chance(around(4.0), **judge)
    assert above.verdict == "not reproduced" and "3.00 above the 1.00 expected by chance" in above.sentence
    assert rules.chance(around(1.5), **judge).verdict == "inconclusive"


# --- order -----------------------------------------------------------------------------------------------------------


def judge_order(a, b, **changes) -> rules.RuleResult:
    return rules.order(a, b, **{"rng": generator(), **DECLARED, **changes})


def test_probability_counts_pairs_and_halves_ties():
    a, b = [70.0, 71.0, 72.0], [70.5, 71.0]
    wins = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    assert resampling.probability_above(np.array(a), np.array(b)) == pytest.approx(wins / 6) == 3.5 / 6
    assert judge_order(a, b, min_seeds=2).estimate == pytest.approx(3.5 / 6)


def test_bootstrap_interval_is_that_of_all_resamples():
    a, b = np.array([70.1, 70.6, 71.5]), np.array([70.0, 70.3, 71.0])
    every = [
        np.mean([(x > y) for x in drawn_a for y in drawn_b])
        for drawn_a in itertools.product(a, repeat=3)
        for drawn_b in itertools.product(b, repeat=3)
    ]
    expected = np.quantile(every, [0.05, 0.95])
    found = resampling.probability_above_interval(a, b, 0.9, 100_000, generator())
    assert found == pytest.approx(expected, abs=1e-9)  # multiples of 1/9: enough resamples hit them exactly


def test_order_of_separated_runs():
    judged = judge_order(around(72.0), around(71.0))
    t = 1.0 / math.sqrt(2 * SD**2 / 5)
    assert judged.verdict == "reproduced" and judged.estimate == 1.0 and judged.interval == (1.0, 1.0)
    assert judged.p == pytest.approx(1 - t_below(t, 8), abs=1e-7) and judged.n == (5, 5)
    assert judged.details["difference"] == pytest.approx(1.0)
    assert judge_order(around(71.0), around(72.0)).verdict == "not reproduced"


def test_order_is_not_found_by_the_bootstrap_alone():
    """Three separated pairs of runs: every resample agrees, Welch's test does not."""
    a, b = [70.9, 71.0, 74.0], [70.6, 70.7, 70.8]
    judged = judge_order(a, b, min_seeds=3)
    assert judged.interval == (1.0, 1.0) and judged.estimate == 1.0
    v = [np.var(x, ddof=1) / 3 for x in (a, b)]
    df = sum(v) ** 2 / sum(x**2 / 2 for x in v)
    p = 1 - t_below((np.mean(a) - np.mean(b)) / math.sqrt(sum(v)), df)
    assert p > 0.05 and judged.p == pytest.approx(p, abs=1e-6)
    assert judged.verdict == "inconclusive" and judged.more_seeds > 0
    assert "not borne out" in judged.sentence


def noncentral_t_below(t: float, df: float, shift: float) -> float:
    """P((Z + shift) / sqrt(W / df) <= t), integrated over the chi-squared W."""
    w = np.linspace(1e-9, df + 40 * math.sqrt(2 * df) + 40, 200_001)
    density = np.exp((df / 2 - 1) * np.log(w) - w / 2 - df / 2 * math.log(2) - math.lgamma(df / 2))
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in (t * np.sqrt(w / df) - shift)[::20]])
    return float(np.trapezoid(below * density[::20], w[::20]))


def test_guard_of_not_reproduced_is_the_noncentral_t_test():
    for shift in (0.0, 0.1, -0.3):
        gap = contrast([np.array(around(71 + shift)), np.array(around(71.0, 2.0))], [1.0, -1.0])
        v = [SD**2 / 5, 4 * SD**2 / 5]
        df = sum(v) ** 2 / sum(x**2 / 4 for x in v)
        expected = noncentral_t_below(shift / math.sqrt(sum(v)), df, 0.674490 * math.sqrt(5))
        assert float(decide.p_seldom_above(gap, 0.75)) == pytest.approx(expected, abs=1e-4)


def test_order_that_may_be_either():
    judged = judge_order(around(71.2), around(71.0))
    assert judged.verdict == "inconclusive" and "includes 0.5 and 0.75" in judged.sentence
    assert judged.more_seeds is None  # its normal P(A > B), 0.72, is below the threshold, but hardly
    spread = judge_order(around(71.6, 3.0), around(71.0))
    assert spread.verdict == "inconclusive"
    v = [9 * SD**2, SD**2]
    df = sum(v) ** 2 / sum(x**2 for x in v)  # times n - 1

    def p(n: int) -> float:
        return 1 - t_below(0.6 / math.sqrt(sum(v) / n), df * (n - 1))

    assert spread.more_seeds == next(n for n in range(6, 200) if p(n) < 0.05) - 5


def test_order_against_a_published_number():
    judged = judge_order(around(72.0), 71.0)
    assert judged.verdict == "reproduced" and judged.n == (5,)
    assert judged.p == pytest.approx(1 - t_below(1.0 / ERROR, 4), abs=1e-7)
    assert "the published 71.00" in judged.sentence
    assert judge_order(around(70.0), 71.0).verdict == "not reproduced"
    assert judge_order(around(71.0), 71.0).estimate == pytest.approx(0.5)


def test_order_of_a_single_run_knows_nothing():
    judged = judge_order([75.0], [70.0], min_seeds=1)
    assert judged.verdict == "inconclusive" and judged.interval == (0.0, 1.0) and judged.p is None
    assert judge_order([75.0] * 5, [70.0] * 5).verdict == "reproduced"
    assert judge_order([70.0] * 5, [70.0] * 5).verdict == "not reproduced"


def test_same_generator_same_judgement():
    a, b = around(71.3), around(71.0)
    assert judge_order(a, b) == judge_order(a, b)
    assert judge_order(a, b).interval == pytest.approx(
        judge_order(a, b, rng=np.random.default_rng(1)).interval, abs=0.1
    )


# --- effect ----------------------------------------------------------------------------------------------------------

HALF_GAIN = t_quantile(0.95, 8) * math.sqrt(2) * ERROR  # 0.279


def judge_effect(gain: float, published: float = 2.0, margin: float = 0.5) -> rules.RuleResult:
    return rules.effect(around(70 + gain), around(70.0), published=published, margin=margin, **DECLARED)


@pytest.mark.parametrize(
    ("gain", "verdict", "words"),
    [
        (2.0, "reproduced", "lies within 1.50 to 2.50"),
        (1.5 + HALF_GAIN + 1e-6, "reproduced", "lies within"),
        (1.5 + HALF_GAIN - 1e-6, "inconclusive", "includes 1.5"),
        (2.5 - HALF_GAIN + 1e-6, "inconclusive", "includes 2.5"),
        (2.5 + HALF_GAIN + 1e-6, "exceeded", "lies above 2.50"),
        (1.5 - HALF_GAIN - 1e-6, "reproduced, smaller effect", "lies above 0 and below 1.50"),
        (HALF_GAIN + 1e-6, "reproduced, smaller effect", "lies above 0"),
        (HALF_GAIN - 1e-6, "not reproduced", "does not lie above 0, but below 1.50"),
        (-1.0, "not reproduced", "a gain of -1.00"),
    ],
)
def test_effect_turns_at_its_limits(gain, verdict, words):
    judged = judge_effect(gain)
    assert judged.verdict == verdict and words in judged.sentence
    assert judged.interval == pytest.approx((gain - HALF_GAIN, gain + HALF_GAIN), abs=1e-6)
    assert judged.details["ratio"] == pytest.approx(gain / 2) and judged.details["published_gain"] == 2.0
    assert judged.p == pytest.approx(1 - t_below(gain / (math.sqrt(2) * ERROR), 8), abs=1e-6)


def test_small_published_gain():
    """With a gain below the margin the interval must still clear 0, and only a loss refutes it."""
    assert judge_effect(0.4, published=0.3).verdict == "reproduced"
    assert judge_effect(0.1, published=0.3).verdict == "inconclusive"
    assert judge_effect(-HALF_GAIN + 1e-6, published=0.3).verdict == "inconclusive"
    assert judge_effect(-HALF_GAIN - 1e-6, published=0.3).verdict == "not reproduced"


@pytest.mark.parametrize("gain", [2.0, 1.5, 1.0, 0.1, -1.0, 3.2])
def test_published_loss_is_the_mirror_image(gain):
    up = judge_effect(gain)
    down = rules.effect(around(70.0), around(70.0 + gain), published=-2.0, margin=0.5, **DECLARED)
    assert down.verdict == up.verdict and down.more_seeds == up.more_seeds
    assert down.estimate == pytest.approx(-up.estimate)
    assert down.interval == pytest.approx((-up.interval[1], -up.interval[0])) and down.p == pytest.approx(
        up.p
    )
    assert down.details["ratio"] == pytest.approx(up.details["ratio"]) and "loss of" in down.sentence


def test_welch_with_unequal_runs():
    a, b = [72.0, 72.4, 71.7], [70.0, 70.1, 69.9, 70.05, 69.95, 70.2]
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 6
    df = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 5)
    gain, half = np.mean(a) - np.mean(b), t_quantile(0.95, df) * math.sqrt(va + vb)
    judged = rules.effect(a, b, published=2.0, margin=0.5, alpha=0.05, min_seeds=3)
    assert judged.interval == pytest.approx((gain - half, gain + half), abs=1e-6) and judged.n == (3, 6)
    assert judged.details["degrees_of_freedom"] == pytest.approx(df)


# --- trend -----------------------------------------------------------------------------------------------------------


def judge_trend(step: float, margin: float = 0.3, **changes) -> rules.RuleResult:
    groups = [around(70.0), around(70.0 + step / 2), around(70.0 + step)]
    return rules.trend(groups, [-1, 0, 1], margin=margin, rng=generator(), **{**DECLARED, **changes})


@pytest.mark.parametrize(
    ("step", "margin", "verdict"),
    [
        (HALF_GAIN + 1e-6, 0.3, "reproduced"),
        (HALF_GAIN - 1e-6, 0.3, "inconclusive"),
        (0.3 - HALF_GAIN + 1e-6, 0.3, "inconclusive"),
        (0.3 - HALF_GAIN - 1e-6, 0.3, "not reproduced"),
        (0.4, 0.7, "reproduced, smaller effect"),
        (-1.0, 0.0, "not reproduced"),
    ],
)
def test_trend_turns_at_its_limits(step, margin, verdict):
    judged = judge_trend(step, margin)
    assert judged.verdict == verdict and judged.n == (5, 5, 5)
    assert judged.interval == pytest.approx((step - HALF_GAIN, step + HALF_GAIN), abs=1e-6)


def test_contrast_weighs_means_and_variances():
    groups, weights = [around(70.0), around(70.5, 2.0), around(71.0, 3.0)], [-1.0, 0.25, 0.75]
    v = [w**2 * (k * SD) ** 2 / 5 for w, k in zip(weights, (1, 2, 3), strict=True)]
    judged = rules.trend(groups, weights, margin=0.2, rng=generator(), **DECLARED)
    assert judged.estimate == pytest.approx(0.25 * 0.5 + 0.75)
    assert judged.details["standard_error"] == pytest.approx(math.sqrt(sum(v)))
    assert judged.details["degrees_of_freedom"] == pytest.approx(sum(v) ** 2 / sum(x**2 / 4 for x in v))


def test_place_of_the_maximum_is_the_share_of_resamples():
    groups = list(generator().normal(70.0, 0.5, (3, 3)))
    draws = [[np.mean(d) for d in itertools.product(group, repeat=3)] for group in groups]
    share = np.mean([np.argmax(means) in (1, 2) for means in itertools.product(*draws)])
    judged = rules.trend(
        groups, [-1, 0.5, 0.5], margin=0.2, rng=generator(), best=(1, 2), alpha=0.05, min_seeds=3
    )
    assert judged.details["argmax_inside"] == pytest.approx(share, abs=0.02)
    assert "argmax_inside" not in judge_trend(0.5).details


# --- bound -----------------------------------------------------------------------------------------------------------


def judge_bound(*gaps: float, **changes) -> rules.RuleResult:
    ours = [around(70.0 + i + gap) for i, gap in enumerate(gaps)]
    return rules.bound(ours, [70.0 + i for i in range(len(gaps))], bound=0.8, **{**DECLARED, **changes})


def test_bound_needs_every_row():
    assert judge_bound(0.0, 0.8 - HALF - 1e-6, -0.8 + HALF + 1e-6).verdict == "reproduced"
    one = judge_bound(0.0, 0.8 - HALF + 1e-6, 0.1)
    assert one.verdict == "inconclusive" and one.details["rows_within"] == 2 and one.details["row"] == 1
    assert "row 2 decides" in one.sentence and one.estimate == pytest.approx(0.8 - HALF, abs=1e-5)
    assert one.p == pytest.approx(0.05, abs=1e-4)


def test_bound_is_broken_by_one_row_at_a_share_of_alpha():
    corrected = t_quantile(1 - 0.05 / 3, 4) * ERROR
    assert judge_bound(0.0, 0.8 + corrected + 1e-5, 0.1).verdict == "not reproduced"
    assert judge_bound(0.0, -0.8 - corrected - 1e-5, 0.1).verdict == "not reproduced"
    chance = judge_bound(
        0.0, 0.8 + corrected - 1e-5, 0.1
    )  # beyond at alpha, which one of three may be by chance
    assert chance.interval[0] > 0.8 and chance.verdict == "inconclusive"


def test_bound_with_a_row_that_was_not_run():
    judged = rules.bound([around(70), [], around(72)], [70.0, 71.0, 72.0], bound=0.8, **DECLARED)
    assert judged.verdict == "inconclusive" and judged.n == (5, 0, 5) and judged.more_seeds == 5
    assert "2 of 3 rows lie within" in judged.sentence


# --- families --------------------------------------------------------------------------------------------------------


def with_p(p: float | None, **changes) -> rules.RuleResult:
    return dataclasses.replace(judge_effect(2.0), p=p, **changes)


def test_holm_by_hand():
    """Sorted, the p are multiplied by 4, 3, 2, 1, and none may end below the one before."""
    corrected = rules.holm([with_p(p) for p in (0.03, 0.012, 0.04, 0.011)], 0.05)
    assert [j.p_holm for j in corrected] == pytest.approx(
        [0.06, 0.044, 0.06, 0.044]
    )  # 0.012 · 3 = 0.036 is raised
    assert [j.verdict for j in corrected] == ["inconclusive", "reproduced", "inconclusive", "reproduced"]
    assert [j.p for j in corrected] == [0.03, 0.012, 0.04, 0.011]
    assert "p = 0.060 after Holm's correction over 4 comparisons" in corrected[0].sentence
    assert corrected[0].more_seeds >= 1 and corrected[1].more_seeds is None


def test_holm_against_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    for p in np.random.default_rng(0).uniform(0, 0.2, (3, 8)):
        assert decide.holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_holm_on_the_edge_of_alpha():
    just, over = (
        rules.holm([with_p(0.0249), with_p(0.9)], 0.05),
        rules.holm([with_p(0.025), with_p(0.9)], 0.05),
    )
    assert just[0].verdict == "reproduced" and over[0].verdict == "inconclusive"


def test_holm_leaves_others_alone():
    value, absent = judge_value(0.0), rules.not_run("no record")
    few = rules.effect([72.0, 72.1], [70.0, 70.1], published=2.0, margin=0.5, **DECLARED)
    family = rules.holm([value, with_p(0.04), absent, few], 0.05)
    assert family[0] == value and family[2] == absent and family[3] == few
    assert family[1].p_holm == pytest.approx(0.04) and family[1].verdict == "reproduced"
    assert rules.holm([], 0.05) == [] and rules.holm([value], 0.05) == [value]


def test_holm_refutes_what_is_too_small_without_its_sign():
    small = judge_effect(HALF_GAIN + 0.01)
    assert small.verdict == "reproduced, smaller effect"
    taken = rules.holm([small, with_p(0.5), with_p(0.6)], 0.05)[0]
    assert taken.verdict == "not reproduced" and taken.more_seeds is None
    lost = judge_effect(-1.0)
    assert rules.holm([lost, with_p(0.001)], 0.05)[0].verdict == "not reproduced"


def test_holm_corrects_all_three_kinds():
    kinds = [judge_order(around(71.4), around(71.0)), judge_effect(0.4, published=0.3), judge_trend(0.4)]
    assert [j.verdict for j in kinds] == ["reproduced"] * 3
    p = kinds[0].p
    assert [j.p for j in kinds] == pytest.approx([p] * 3)
    corrected = rules.holm(kinds * 10, 0.05)
    assert all(j.p_holm == pytest.approx(min(30 * p, 1)) for j in corrected)
    assert {j.verdict for j in corrected} == {"inconclusive"}


# --- all of them -----------------------------------------------------------------------------------------------------


def test_agrees_with_the_equivalence_and_welch_tests_of_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="statsmodels is not installed")
    rng = np.random.default_rng(3)
    for _ in range(10):
        a, b = rng.normal(70.2, 0.3, 6), rng.normal(70.0, 0.2, 5)
        judged = rules.value(a, 70.0, published_n=3, margin=0.5, **DECLARED)
        if judged.verdict == "reproduced":
            assert judged.p == pytest.approx(weightstats.DescrStatsW(a - 70.0).ttost_mean(-0.5, 0.5)[0])
        _, p, _ = weightstats.ttest_ind(a, b, alternative="larger", usevar="unequal")
        assert rules.effect(a, b, published=1.0, margin=0.5, **DECLARED).p == pytest.approx(p)


def every_rule(a, b, c, min_seeds):
    common = {"alpha": 0.05, "min_seeds": min_seeds}
    yield rules.value(a, 71.0, published_n=None, margin=0.5, **common)
    yield rules.chance(a, chance=71.0, margin=0.5, **common)
    yield rules.order(a, b, rng=generator(), resamples=50, **common)
    yield rules.order(a, 71.0, rng=generator(), resamples=50, **common)
    yield rules.effect(a, b, published=-1.0, margin=0.5, **common)
    yield rules.trend([a, b, c], [-1, 0.25, 0.75], margin=0.2, rng=generator(), best=(2,), **common)
    yield rules.bound([a, b], [71.0, 71.0], bound=0.8, **common)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_smallest_and_flattest_data_get_a_sound_verdict(n):
    rng = np.random.default_rng(n)
    choices = [
        [71.0] * n,
        [72.5] * n,
        list(rng.normal(71, 0.2, n)),
        list(rng.normal(75, 0.2, 4)),
        [71.0, 71.0],
    ]
    for a, b in itertools.product(choices, repeat=2):
        for judged in every_rule(a, b, b[:1] + a, min_seeds=1):
            assert judged.verdict in rules.VERDICTS and judged.verdict != "not run"
            assert math.isfinite(judged.estimate) and not any(map(math.isnan, judged.interval))
            assert judged.interval[0] <= judged.interval[1]
            assert judged.p is None or 0 <= judged.p <= 1
            assert (judged.more_seeds is None) or judged.more_seeds >= 1
            assert not any(math.isnan(number) for number in judged.details.values())
            assert (
                "nan" not in judged.sentence
                and "inf" not in judged.sentence
                and "-0.00" not in judged.sentence
            )
            if min(judged.n) < 2 and judged.rule != "bound":  # there another row may refute it
                assert judged.verdict == "inconclusive" and judged.p is None


def test_runs_are_left_as_they_are():
    a = np.array(around(71.0))
    before = a.copy()
    for judged in every_rule(a, a, a, 5):
        assert judged.n[0] == 5
    assert (a == before).all()


VALUE = {"published_n": 3, "margin": 0.5, **DECLARED}
TREND = {"margin": 0.2, **DECLARED}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rules.value([71.0, math.nan], 71.0, **VALUE), "ours holds nan"),
        (lambda: rules.value([71.0, math.inf], 71.0, **VALUE), "ours holds inf"),
        (lambda: rules.value([[71.0]], 71.0, **VALUE), "must be a sequence of accuracies"),
        (lambda: rules.value(["high"], 71.0, **VALUE), "ours is"),
        (lambda: rules.value([71.0], math.nan, **VALUE), "published is nan"),
        (lambda: rules.value([71.0], 71.0, **{**VALUE, "published_n": 0}), "published_n is 0"),
        (
            lambda: rules.value([71.0], 71.0, **{**VALUE, "margin": -0.5}),
            "margin is -0.5; it must be above 0",
        ),
        (lambda: rules.value([71.0], 71.0, **{**VALUE, "margin": 0}), "margin is 0; it must be above 0"),
        (
            lambda: rules.value([71.0], 71.0, **{**VALUE, "alpha": 0.5}),
            "alpha is 0.5; it must be between 0 and 0.5",
        ),
        (lambda: rules.value([71.0], 71.0, **{**VALUE, "alpha": 0}), "alpha is 0"),
        (lambda: rules.value([71.0], 71.0, **{**VALUE, "min_seeds": 2.5}), "min_seeds is 2.5"),
        (lambda: rules.order([71.0], math.nan, rng=generator(), **DECLARED), "b is nan"),
        (lambda: judge_order([71.0], [70.0], threshold=0.5), "threshold is 0.5"),
        (lambda: judge_order([71.0], [70.0], resamples=0), "resamples is 0"),
        (lambda: judge_effect(1.0, published=0.0), "gain of 0"),
        (lambda: rules.trend([], [], rng=generator(), **TREND), "groups is empty"),
        (lambda: rules.trend([[1], [2]], [-1, 0.5], rng=generator(), **TREND), "contrast adds up to -0.5"),
        (lambda: rules.trend([[1], [2]], [0, 0], rng=generator(), **TREND), "must not be all 0"),
        (lambda: rules.trend([[1], [2], [3]], [-1, 1], rng=generator(), **TREND), "2 weights for 3 groups"),
        (
            lambda: rules.trend([[1], [2]], [-1, 1], rng=generator(), best=[2], **TREND),
            "best holds 2; allowed: 0 to 1",
        ),
        (lambda: judge_trend(0.5, margin=-0.1), "margin is -0.1; it must be 0 or more"),
        (
            lambda: rules.bound([[71.0]], [71.0, 72.0], bound=0.8, **DECLARED),
            "published has 2 values for 1 rows",
        ),
        (lambda: rules.bound([], [], bound=0.8, **DECLARED), "ours is empty"),
        (lambda: rules.bound([[math.nan]], [71.0], bound=0.8, **DECLARED), r"ours\[0\] holds nan"),
        (lambda: rules.bound([[71.0]], [71.0], bound=-1, **DECLARED), "bound is -1"),
        (lambda: rules.holm([], 0.6), "alpha is 0.6"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, said):
    with pytest.raises(ConfigError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
