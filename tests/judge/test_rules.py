"""Verdicts worked out by hand, with the distributions of scipy.stats: every rule, every verdict, every limit."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rkd.errors import ConfigError
from rkd.judge import VERDICTS, Claim, RuleResult, decide, resampling, rules
from rkd.judge.contrast import contrast, paired, residual_variance

SHAPE = 0.15 * np.arange(-2, 3)  # mean 0, variance 0.15² · 10 / 4
SD = 0.15 * math.sqrt(2.5)
ERROR = SD / math.sqrt(5)
RNG = np.random.default_rng(0)


def around(mean: float, scale: float = 1.0) -> list[float]:
    return list(mean + scale * SHAPE)


def judge(kind, *groups, **numbers) -> RuleResult:
    return rules.judge(Claim(kind, **numbers), groups)


# --- value and chance ------------------------------------------------------------------------------------------------

HALF = stats.t.ppf(0.95, 4) * ERROR  # 0.226
VALUE = {"published": 71.0, "published_n": 3, "margin": 0.5}


def judge_value(gap: float, **changes) -> RuleResult:
    return judge("value", around(71.0 + gap), **{**VALUE, **changes})


@pytest.mark.parametrize(
    ("gap", "verdict", "words"),
    [
        (0.5 - HALF - 1e-6, "reproduced", "lies within ±0.5"),
        (-0.5 + HALF + 1e-6, "reproduced", "lies within ±0.5"),
        (0.5 - HALF + 1e-6, "inconclusive", "includes 0.5"),
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


def test_value_sentence_gives_the_figures():
    ours = [71.6, 71.3, 71.9, 71.7, 71.6]
    half = 2.1318 * math.sqrt(sum((x - 71.62) ** 2 for x in ours) / 4 / 5)
    assert judge("value", ours, **{**VALUE, "published": 71.79}).sentence == (
        f"mean 71.62 over 5 runs, 0.17 below the published 71.79; the 90 % interval {-0.17 - half:.2f} to "
        f"{-0.17 + half:.2f} lies within ±0.5"
    )


@pytest.mark.parametrize("published_n", [None, 3])
def test_value_predicts_a_mean_of_as_many_runs_as_were_published(published_n):
    half = stats.t.ppf(0.975, 4) * SD * math.sqrt(1 / 5 + 1 / (published_n or 1))
    for gap, inside in ((half - 1e-4, 1.0), (half + 1e-4, 0.0)):
        details = judge_value(gap, published_n=published_n).details
        assert details["published_inside"] == inside and details["sd"] == pytest.approx(SD)
        assert details["prediction_low"] == pytest.approx(71 + gap - half, abs=1e-6)
        assert details["prediction_high"] == pytest.approx(71 + gap + half, abs=1e-6)


def test_value_says_how_many_more_runs_would_decide():
    for gap in (0.35, -0.62):
        needed = next(
            n for n in range(6, 200) if stats.t.ppf(0.95, n - 1) * SD / math.sqrt(n) < abs(abs(gap) - 0.5)
        )
        assert judge_value(gap).verdict == "inconclusive" and judge_value(gap).more_seeds == needed - 5
    assert judge_value(0.5).more_seeds is None  # on the margin no number of runs helps
    assert judge_value(0.0).more_seeds is None  # decided


def test_too_few_runs_are_inconclusive_with_their_number():
    for shift in (0, -11):
        judged = judge("value", [71.0 + shift, 71.1 + shift, 70.9 + shift], **VALUE)
        assert judged.verdict == "inconclusive" and judged.p is None and judged.more_seeds == 2
        assert judged.sentence.endswith("; 2 more runs are needed for a verdict")


def test_one_run_two_runs_and_equal_runs():
    single = judge("value", [71.0], **VALUE, min_seeds=1)
    assert single.verdict == "inconclusive" and single.interval == (-math.inf, math.inf)
    assert single.p is None and single.more_seeds == 1 and "without a spread" in single.sentence
    half = math.tan(math.pi * 0.45) * 0.1  # t with one degree of freedom is Cauchy; the standard error is 0.1
    assert judge("value", [70.9, 71.1], **VALUE).interval == pytest.approx((-half, half))
    equal = judge("value", [71.3] * 5, **VALUE)
    assert equal.verdict == "reproduced" and equal.interval == pytest.approx((0.3, 0.3)) and equal.p == 0.0
    edge = judge("value", [71.5] * 5, **VALUE)
    assert edge.verdict == "inconclusive" and edge.more_seeds is None  # exactly on the margin is not inside


def test_chance_is_missed_on_both_sides():
    at = {"chance": 1.0, "margin": 0.5}
    assert judge("chance", [1.0] * 5, **at).verdict == "reproduced"  # constant predictions are right alike
    above = judge("chance", around(4.0), **at)
    assert above.verdict == "not reproduced" and "3.00 above the 1.00 expected by chance" in above.sentence
    assert judge("chance", around(1.5), **at).verdict == "inconclusive"


# --- order -----------------------------------------------------------------------------------------------------------


def test_probability_counts_pairs_and_its_interval_is_that_of_all_resamples():
    a, b = np.array([70.1, 70.6, 71.5]), np.array([70.0, 70.3, 71.0])
    pairs = itertools.product(itertools.product(a, repeat=3), itertools.product(b, repeat=3))
    every = [np.mean([(x > y) for x in drawn_a for y in drawn_b]) for drawn_a, drawn_b in pairs]
    judged = judge("order", [70.0, 71.0, 72.0], [70.5, 71.0])
    assert judged.estimate == pytest.approx(3.5 / 6), "a tie is half"
    expected = np.quantile(every, [0.05, 0.95])
    found = resampling.probability_above_interval(a, b, 0.9, 100_000, np.random.default_rng(7))
    assert found == pytest.approx(expected, abs=1e-9)  # multiples of 1/9: enough resamples hit them exactly


def test_order_is_not_found_by_the_bootstrap_alone():
    """Three separated pairs of runs: every resample agrees, Welch's test does not."""
    a, b = [70.9, 71.0, 74.0], [70.6, 70.7, 70.8]
    judged = judge("order", a, b, min_seeds=3)
    assert judged.interval == (1.0, 1.0) and judged.estimate == 1.0
    v = [np.var(x, ddof=1) / 3 for x in (a, b)]
    df = sum(v) ** 2 / sum(x**2 / 2 for x in v)
    p = 1 - stats.t.cdf((np.mean(a) - np.mean(b)) / math.sqrt(sum(v)), df)
    assert p > 0.05 and judged.p == pytest.approx(p, abs=1e-6)
    assert judged.verdict == "inconclusive" and judged.more_seeds > 0
    assert "not borne out" in judged.sentence


def test_guard_of_not_reproduced_is_the_noncentral_t_test():
    for shift in (0.1, -0.3):
        gap = contrast([np.array(around(71 + shift)), np.array(around(71.0, 2.0))], [1.0, -1.0])
        v = [SD**2 / 5, 4 * SD**2 / 5]
        df = sum(v) ** 2 / sum(x**2 / 4 for x in v)
        expected = stats.nct.cdf(shift / math.sqrt(sum(v)), df, 0.674490 * math.sqrt(5))
        assert float(decide.p_seldom_above(gap, 0.75)) == pytest.approx(expected, abs=1e-4)


def test_order_that_may_be_either():
    judged = judge("order", around(71.2), around(71.0))
    assert judged.verdict == "inconclusive" and "includes 0.5 and 0.75" in judged.sentence
    assert judged.more_seeds is None  # its normal P(A > B), 0.72, is below the threshold, but hardly
    spread = judge("order", around(71.6, 3.0), around(71.0))
    v = [9 * SD**2, SD**2]
    df = sum(v) ** 2 / sum(x**2 for x in v)  # times n - 1
    needed = next(n for n in range(6, 200) if stats.t.cdf(0.6 / math.sqrt(sum(v) / n), df * (n - 1)) > 0.95)
    assert spread.verdict == "inconclusive" and spread.more_seeds == needed - 5


def test_order_against_a_published_number():
    judged = judge("order", around(72.0), published=71.0)
    assert judged.verdict == "reproduced" and judged.n == (5,) and "the published 71.00" in judged.sentence
    assert judged.p == pytest.approx(1 - stats.t.cdf(1.0 / ERROR, 4), abs=1e-7)
    assert judge("order", around(70.0), published=71.0).verdict == "not reproduced"
    assert judge("order", around(71.0), published=71.0).estimate == pytest.approx(0.5)


def test_order_of_a_single_run_knows_nothing():
    judged = judge("order", [75.0], [70.0], min_seeds=1)
    assert judged.verdict == "inconclusive" and judged.interval == (0.0, 1.0) and judged.p is None
    assert judge("order", [75.0] * 5, [70.0] * 5).verdict == "reproduced"
    assert judge("order", [70.0] * 5, [70.0] * 5).verdict == "not reproduced"


# --- effect ----------------------------------------------------------------------------------------------------------

HALF_GAIN = stats.t.ppf(0.95, 8) * math.sqrt(2) * ERROR  # 0.279


def judge_effect(gain: float, published: float = 2.0) -> RuleResult:
    return judge("effect", around(70 + gain), around(70.0), published=published, margin=0.5)


@pytest.mark.parametrize(
    ("gain", "verdict", "words"),
    [
        (1.5 + HALF_GAIN + 1e-6, "reproduced", "lies within 1.50 to 2.50"),
        (1.5 + HALF_GAIN - 1e-6, "inconclusive", "includes 1.5"),
        (2.5 - HALF_GAIN + 1e-6, "inconclusive", "includes 2.5"),
        (2.5 + HALF_GAIN + 1e-6, "exceeded", "lies above 2.50"),
        (1.5 - HALF_GAIN - 1e-6, "reproduced, smaller effect", "lies above 0 and below 1.50"),
        (HALF_GAIN + 1e-6, "reproduced, smaller effect", "lies above 0"),
        (HALF_GAIN - 1e-6, "not reproduced", "does not lie above 0, but below 1.50"),
        (-1.0, "not reproduced", "a gain of -1.00"),
    ],
)
def test_effect_turns_at_its_limits_and_a_published_loss_is_the_mirror_image(gain, verdict, words):
    judged = judge_effect(gain)
    assert judged.verdict == verdict and words in judged.sentence
    assert judged.interval == pytest.approx((gain - HALF_GAIN, gain + HALF_GAIN), abs=1e-6)
    assert judged.details["ratio"] == pytest.approx(gain / 2)
    assert judged.p == pytest.approx(1 - stats.t.cdf(gain / (math.sqrt(2) * ERROR), 8), abs=1e-6)
    down = judge("effect", around(70.0), around(70.0 + gain), published=-2.0, margin=0.5)
    assert (down.verdict, down.more_seeds) == (judged.verdict, judged.more_seeds)
    assert "loss of" in down.sentence
    assert (down.estimate, *down.interval) == pytest.approx([-gain, -gain - HALF_GAIN, -gain + HALF_GAIN])
    assert (down.p, down.details["ratio"]) == pytest.approx((judged.p, judged.details["ratio"]))


def test_small_published_gain():
    """With a gain below the margin the interval must still clear 0, and only a loss refutes it."""
    assert judge_effect(0.4, published=0.3).verdict == "reproduced"
    assert judge_effect(0.1, published=0.3).verdict == "inconclusive"
    assert judge_effect(-HALF_GAIN + 1e-6, published=0.3).verdict == "inconclusive"
    assert judge_effect(-HALF_GAIN - 1e-6, published=0.3).verdict == "not reproduced"


# --- trend and bound -------------------------------------------------------------------------------------------------


def judge_trend(step: float, margin: float = 0.3) -> RuleResult:
    groups = [around(70.0), around(70.0 + step / 2), around(70.0 + step)]
    return judge("trend", *groups, contrast=(-1, 0, 1), margin=margin)


@pytest.mark.parametrize(
    ("step", "margin", "verdict"),
    [
        (HALF_GAIN + 1e-6, 0.3, "reproduced"),
        (HALF_GAIN - 1e-6, 0.3, "inconclusive"),
        (0.3 - HALF_GAIN + 1e-6, 0.3, "inconclusive"),
        (0.3 - HALF_GAIN - 1e-6, 0.3, "not reproduced"),
        (0.4, 0.7, "reproduced, smaller effect"),
    ],
)
def test_trend_turns_at_its_limits(step, margin, verdict):
    judged = judge_trend(step, margin)
    assert judged.verdict == verdict and judged.n == (5, 5, 5)
    assert judged.interval == pytest.approx((step - HALF_GAIN, step + HALF_GAIN), abs=1e-6)
    assert "argmax_inside" not in judged.details


def test_contrast_weighs_means_and_variances():
    groups, weights = [around(70.0), around(70.5, 2.0), around(71.0, 3.0)], (-1.0, 0.25, 0.75)
    v = [w**2 * (k * SD) ** 2 / 5 for w, k in zip(weights, (1, 2, 3), strict=True)]
    judged = judge("trend", *groups, contrast=weights, margin=0.2)
    assert judged.estimate == pytest.approx(0.25 * 0.5 + 0.75)
    half = stats.t.ppf(0.95, sum(v) ** 2 / sum(x**2 / 4 for x in v)) * math.sqrt(sum(v))
    assert judged.interval[1] - judged.estimate == pytest.approx(half, abs=1e-6)


def test_place_of_the_maximum_is_the_share_of_resamples():
    groups = list(np.random.default_rng(7).normal(70.0, 0.5, (3, 3)))
    draws = [[np.mean(d) for d in itertools.product(group, repeat=3)] for group in groups]
    share = np.mean([np.argmax(means) in (1, 2) for means in itertools.product(*draws)])
    judged = judge("trend", *groups, contrast=(-1, 0.5, 0.5), margin=0.2, best=(1, 2))
    assert judged.details["argmax_inside"] == pytest.approx(share, abs=0.02)


def judge_bound(*gaps: float) -> RuleResult:
    rows = [around(70.0 + i + gap) for i, gap in enumerate(gaps)]
    return judge("bound", *rows, published=tuple(70.0 + i for i in range(len(gaps))), margin=0.8)


def test_bound_needs_every_row():
    assert judge_bound(0.0, 0.8 - HALF - 1e-6, -0.8 + HALF + 1e-6).verdict == "reproduced"
    one = judge_bound(0.0, 0.8 - HALF + 1e-6, 0.1)
    assert one.verdict == "inconclusive" and "2 of 3 rows lie within" in one.sentence
    assert "row 2 decides" in one.sentence and one.estimate == pytest.approx(0.8 - HALF, abs=1e-5)
    assert one.p == pytest.approx(0.05, abs=1e-4)
    absent = judge("bound", around(70), [], around(72), published=(70.0, 71.0, 72.0), margin=0.8)
    assert absent.verdict == "inconclusive" and absent.n == (5, 0, 5) and absent.more_seeds == 5


def test_bound_is_broken_by_one_row_at_a_share_of_alpha():
    corrected = stats.t.ppf(1 - 0.05 / 3, 4) * ERROR
    assert judge_bound(0.0, 0.8 + corrected + 1e-5, 0.1).verdict == "not reproduced"
    assert judge_bound(0.0, -0.8 - corrected - 1e-5, 0.1).verdict == "not reproduced"
    chance = judge_bound(0.0, 0.8 + corrected - 1e-5, 0.1)  # beyond at alpha: one of three may be by chance
    assert chance.interval[0] > 0.8 and chance.verdict == "inconclusive"


# --- families --------------------------------------------------------------------------------------------------------


def with_p(p: float | None) -> RuleResult:
    return dataclasses.replace(judge_effect(2.0), p=p)


def test_holm_by_hand():
    """Sorted, the p are multiplied by 4, 3, 2, 1, and none may end below the one before."""
    corrected = rules.correct_holm([with_p(p) for p in (0.03, 0.012, 0.04, 0.011)], 0.05)
    assert [j.p_holm for j in corrected] == pytest.approx([0.06, 0.044, 0.06, 0.044])  # 0.036 is raised
    assert [j.verdict for j in corrected] == ["inconclusive", "reproduced", "inconclusive", "reproduced"]
    assert [j.p for j in corrected] == [0.03, 0.012, 0.04, 0.011]
    assert "p = 0.060 after Holm's correction over 4 comparisons" in corrected[0].sentence
    assert corrected[0].more_seeds >= 1 and corrected[1].more_seeds is None
    edge = [rules.correct_holm([with_p(p), with_p(0.9)], 0.05)[0].verdict for p in (0.0249, 0.025)]
    assert edge == ["reproduced", "inconclusive"]


def test_holm_counts_results_without_p_and_leaves_them_alone():
    few = judge("effect", [72.0, 72.1], [70.0, 70.1], published=2.0, margin=0.5)
    absent = rules.not_run("no record")
    for p, verdict in ((0.016, "reproduced"), (0.017, "inconclusive")):
        family = rules.correct_holm([with_p(p), absent, few], 0.05)
        assert family[1:] == [absent, few] and family[0].p_holm == pytest.approx(3 * p)
        assert family[0].verdict == verdict
    assert rules.correct_holm([], 0.05) == [] and rules.correct_holm([few], 0.05) == [few]


def test_no_verdict_is_taken_back_because_others_get_runs():
    rng = np.random.default_rng(3)
    for _ in range(100):
        family = [with_p(p) for p in 10 ** rng.uniform(-3, 0, 6)]
        known: set[int] = set()
        for runs in range(7):
            absent = [rules.not_run("")] * (len(family) - runs)
            shown = rules.correct_holm([*family[:runs], *absent], 0.05)
            stands = {i for i, result in enumerate(shown) if result.verdict == "reproduced"}
            assert known <= stands
            known = stands


def test_holm_refutes_what_is_too_small_without_its_sign():
    small = judge_effect(HALF_GAIN + 0.01)
    assert small.verdict == "reproduced, smaller effect"
    taken = rules.correct_holm([small, with_p(0.5), with_p(0.6)], 0.05)[0]
    assert taken.verdict == "not reproduced" and taken.more_seeds is None
    assert rules.correct_holm([judge_effect(-1.0), with_p(0.001)], 0.05)[0].verdict == "not reproduced"


def test_holm_corrects_all_three_kinds():
    kinds = [judge("order", around(71.4), around(71.0)), judge_effect(0.4, published=0.3), judge_trend(0.4)]
    assert [j.verdict for j in kinds] == ["reproduced"] * 3
    corrected = rules.correct_holm(kinds * 10, 0.05)
    assert all(j.p_holm == pytest.approx(30 * kinds[0].p) for j in corrected)
    assert {j.verdict for j in corrected} == {"inconclusive"}


# --- all of them -----------------------------------------------------------------------------------------------------


def test_p_and_welchs_interval_are_those_of_the_test_that_decides():
    rng, seen = np.random.default_rng(3), set()
    for mean in (70.2, 69.9, 71.4, 68.5) * 3:
        a, b = rng.normal(mean, 0.3, 6), rng.normal(70.0, 0.2, 5)
        judged = judge("value", a, published=70.0, margin=0.5)
        limits = {
            "reproduced": ((69.5, "greater"), (70.5, "less")),
            "exceeded": ((70.5, "greater"),),
            "not reproduced": ((69.5, "less"),),
        }
        tests = limits.get(judged.verdict, limits["reproduced"])
        p = max(stats.ttest_1samp(a, limit, alternative=side).pvalue for limit, side in tests)
        assert judged.p == pytest.approx(p)
        seen.add(judged.verdict)
        judged = judge("effect", a, b, published=1.0, margin=0.5)
        assert judged.p == pytest.approx(stats.ttest_ind(a, b, alternative="greater", equal_var=False).pvalue)
        interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
        assert judged.interval == pytest.approx((interval.low, interval.high)) and judged.n == (6, 5)
    assert seen >= {*limits}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_smallest_and_flattest_data_get_a_sound_verdict(n, monkeypatch):
    monkeypatch.setattr(rules, "RESAMPLES", 50)
    drawn = np.random.default_rng(n).normal(71, 0.2, n)
    choices = [[71.0] * n, [72.5] * n, list(drawn), [75.0, 75.2, 74.9, 75.1], [71.0, 71.0]]
    for a, b in itertools.product(choices, repeat=2):
        for judged in (
            judge("value", a, published=71.0, margin=0.5, min_seeds=1),
            judge("order", a, b, min_seeds=1),
            judge("order", a, published=71.0, min_seeds=1),
            judge("effect", a, b, published=-1.0, margin=0.5, min_seeds=1),
            judge("trend", a, b, b[:1] + a, contrast=(-1, 0.25, 0.75), margin=0.2, best=(2,), min_seeds=1),
            judge("bound", a, b, published=(71.0, 71.0), margin=0.8, min_seeds=1),
        ):
            assert judged.verdict in VERDICTS and judged.interval[0] <= judged.interval[1]
            assert judged.p is None or 0 <= judged.p <= 1
            assert (judged.more_seeds is None) or judged.more_seeds >= 1
            assert not any(map(math.isnan, (judged.estimate, *judged.interval, *judged.details.values())))
            assert not any(wrong in judged.sentence for wrong in ("nan", "inf", "-0.00"))
            if min(judged.n) < 2 and "rows" not in judged.sentence:  # another row may refute a bound
                assert judged.verdict == "inconclusive" and judged.p is None


def test_bad_numbers_are_one_clear_sentence():
    with pytest.raises(ConfigError, match="a run's accuracy is not finite"):
        judge("value", [71.0, math.nan], **VALUE)


# --- short runs: rows and seeds ----------------------------------------------------------------------------------


def test_what_rows_and_seeds_leave_over_by_dummy_variables():
    """Holes too, and a seed that one row alone has, which tells nothing."""
    table = RNG.normal(60, 1, (4, 4))
    table[1, 2] = table[3, 1] = np.nan
    table[:3, 3] = np.nan
    row, seed = np.nonzero(np.isfinite(table))
    dummies = [np.ones(len(row)), *(row == i for i in range(1, 4)), *(seed == j for j in range(1, 4))]
    _, left, rank, _ = np.linalg.lstsq(np.array(dummies, float).T, table[row, seed])
    variance, free = residual_variance(table)
    assert free == len(row) - rank == 4 and variance == pytest.approx(left[0] / 4)
    many, _ = residual_variance(np.stack([table, 2 * table]))
    assert many == pytest.approx([variance, 4 * variance])


def test_nothing_left_over_is_no_spread_or_none_known():
    same = np.array([[60.0, 61.0, 62.5], [59.9, 60.9, 62.4]])
    assert residual_variance(same) == (0.0, 2) and paired(same, [1, -1], same).p_above(0.0) == 0.0
    variance, free = residual_variance(same[:, :1])
    assert (variance, free) == (np.inf, 0)
    alone = paired(same[:, :1], [1, -1], same[:, :1])
    assert alone.value == pytest.approx(0.1) and alone.interval(0.9) == (-np.inf, np.inf)


def test_a_direction_errs_as_rarely_as_stated():
    """Six equal rows of three seeds, seeds that matter more than rows do, all steps judged by Holm: both ways."""
    table = RNG.normal(60, 0.2, (4000, 6, 3)) + RNG.normal(0, 1, (4000, 1, 3))
    steps = [paired([table[:, i + 1], table[:, i]], [1, -1], table) for i in range(5)]
    for way in ("p_above", "p_below"):
        p = decide.holm_p(np.stack([getattr(step, way)(0.0) for step in steps], -1))
        assert 0.02 < (p < 0.05).any(-1).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 4000)
