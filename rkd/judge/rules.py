"""Rules that turn runs into a verdict on a published statement: arrays in, a result out, wherever the arrays come from.

Accuracies are in percent, differences in percentage points (pp). Every rule asks a question that was fixed before the
runs were made and answers "inconclusive" where its interval, of level 1 - 2·alpha, straddles a limit: a difference
that is not significant is no reproduction. Fewer than `min_seeds` runs on a side are inconclusive at best, no runs are
"not run". Runs that are all equal give an interval of no width, a single run gives none. How often each rule errs is
simulated in `rkd.judge.simulate`.

All rules take `alpha`, the error rate, between 0 and 0.5, and `min_seeds`, the runs needed per side; they raise
ConfigError for a number that is not finite or not in its range.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from rkd.errors import ConfigError
from rkd.judge import checks, decide, resampling, words
from rkd.judge.contrast import Contrast, contrast
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, SMALLER, VERDICTS

CORRECTED = ("order", "effect", "trend")  # rules whose p is corrected over the comparisons of a family
MOST_RUNS = 200  # per side, of those looked ahead to
Runs = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class RuleResult:
    """What runs say of one statement.

    Attributes:
        verdict: one of VERDICTS.
        estimate: value, chance: mean - published; bound: the same of the row that decides; order: P(A > B);
            effect: mean(A) - mean(B); trend: the contrast. NaN where nothing was run.
        interval: of the estimate, low and high; infinite where a side has a single run.
        level: confidence level of the interval, such as 0.90.
        p: of the test that decides, one-sided; None where none does, as with too few runs.
        p_holm: p after Holm's correction over the family (`holm`).
        n: runs per side or group.
        more_seeds: of an inconclusive verdict: about how many more runs per side would decide it, were means and
            spreads to stay as they are; None: not even 200 runs would.
        details: other numbers worth showing, by name; yes and no are 1.0 and 0.0.
        sentence: why, with figures.
        rule: its name.
    """

    verdict: str
    estimate: float
    interval: tuple[float, float]
    level: float
    p: float | None
    p_holm: float | None
    n: tuple[int, ...]
    more_seeds: int | None
    details: Mapping[str, float]
    sentence: str
    rule: str = ""


def value(
    ours: Runs, published: float, *, published_n: int | None, margin: float, alpha: float, min_seeds: int
) -> RuleResult:
    """Is our mean the published value, give or take the margin?

    The interval is that of mean(ours) - published, by t. Inside (-margin, margin): reproduced; these are the two
    one-sided tests of equivalence (Schuirmann 1987). Wholly above the margin: exceeded. Wholly below: not reproduced.
    Else inconclusive. The details also say whether the published value lies in the 95 % prediction interval for a
    mean of as many new runs as it stands on.

    Args:
        ours: accuracies of runs.
        published: taken as a fixed number.
        published_n: runs behind it; None (not told) counts as 1 in the prediction interval.
        margin: largest difference still called the same, above 0.
    """
    published = checks.number("published", published)
    new = 1 if published_n is None else checks.count("published_n", published_n)
    found = _near("value", ours, published, f"the published {published:.2f}", margin, alpha, min_seeds)
    if "sd" not in found.details:
        return found
    (n,), mean, sd = found.n, found.details["mean"], found.details["sd"]
    half = float(special.stdtrit(n - 1, 0.975)) * sd * math.sqrt(1 / n + 1 / new)
    low, high = mean - half, mean + half
    inside = float(low <= published <= high)
    predicted = {"prediction_low": low, "prediction_high": high, "published_inside": inside}
    return replace(found, details={**found.details, **predicted})


def chance(ours: Runs, *, chance: float, margin: float, alpha: float, min_seeds: int) -> RuleResult:
    """Is our mean at the level of chance, give or take the margin?

    The rule of `value` against that level, but wholly above the margin is "not reproduced" as well.
    """
    target = checks.number("chance", chance)
    found = _near("chance", ours, target, f"the {target:.2f} expected by chance", margin, alpha, min_seeds)
    return replace(found, verdict=NOT_REPRODUCED) if found.verdict == EXCEEDED else found


def order(
    a: Runs,
    b: Runs | float,
    *,
    alpha: float,
    min_seeds: int,
    rng: np.random.Generator,
    threshold: float = 0.75,
    resamples: int = 10_000,
) -> RuleResult:
    """Is A better than B?

    P(A > B) is the probability that a run of A beats a run of B, ties counting half, with a percentile bootstrap
    interval. Reproduced: its lower end is above 0.5, the estimate at least the threshold, and Welch's one-sided test
    of the means has p < alpha (after Holm's correction, see `holm`). Not reproduced: its upper end is below the
    threshold, and the t test of the hypothesis P(A > B) >= threshold, for normal runs, has p < alpha. Else
    inconclusive.

    The two tests are guards, for the bootstrap of a handful of values is too narrow, and of separated ones it is the
    point 1. With alpha 0.05 and A equal to B, its lower end alone passes 0.5 in about 10 % of cases with three runs a
    side and in 7 % with five; Welch's test keeps 5 %. At P(A > B) = 0.75 its upper end alone falls below in up to 8 %
    with three runs of unequal spread; the second test keeps 5 %.

    Args:
        a: runs of A.
        b: runs of B, or one published number: then the tests are of one sample.
        rng: generator of the bootstrap.
        threshold: P(A > B) from which A is called better, between 0.5 and 1.
        resamples: of the bootstrap.

    Source: Bouthillier et al. 2021 (arXiv 2103.03098) for the probability and its threshold.
    """
    level = checks.level(alpha)
    checks.count("resamples", resamples)
    checks.number("threshold", threshold, lambda t: 0.5 < t < 1, "between 0.5 and 1")
    one_sample = np.ndim(b) == 0
    ours = checks.runs("a", a)
    theirs = np.array([checks.number("b", b)]) if one_sample else checks.runs("b", b)
    groups = [ours] if one_sample else [ours, theirs]
    if absent := _absent("order", groups):
        return absent

    gap = contrast([ours - theirs], [1.0]) if one_sample else contrast(groups, [1.0, -1.0])
    probability = resampling.probability_above(ours, theirs)
    several = min(map(len, groups)) > 1
    ends = (0.0, 1.0)  # a single run tells nothing of its spread
    if several:
        ends = resampling.probability_above_interval(ours, theirs, level, resamples, rng)
    p = float(gap.p_above(0.0))
    where = {
        REPRODUCED: "lies above 0.5",
        NOT_REPRODUCED: f"lies below {threshold:g}",
        INCONCLUSIVE: words.included(ends, (0.5, threshold)) or "is not borne out by the means",
    }
    against = f"the published {words.number(theirs[0])}" if one_sample else words.mean(theirs)
    said = f"{words.mean(ours)} against {against}, P(A > B) is {words.number(probability)}"
    difference = {"difference": float(gap.value), **_test("welch_p", gap, p), "threshold": threshold}
    return _result(
        "order", decide.order(probability, ends, gap, threshold, alpha), probability, groups, min_seeds, level, where,
        interval=ends, p=p if several else None, details={**_sides(ours, theirs), **difference},
        said=said + f", {words.p_value(p)} for the means" * several,
        ahead=lambda k: decide.order_by_tests(gap.with_more(k), threshold, alpha),
    )  # fmt: skip


def effect(a: Runs, b: Runs, *, published: float, margin: float, alpha: float, min_seeds: int) -> RuleResult:
    """Is the gain of A over B the published one, give or take the margin?

    The interval is Welch's for mean(A) - mean(B), the published gain g, the margin m. Inside (g - m, g + m) and wholly
    above 0: reproduced. Above 0 and wholly below g - m: reproduced, smaller effect. Above 0 and wholly above g + m:
    exceeded. Not above 0 and wholly below g - m, or below 0 where g - m is negative: not reproduced. Else
    inconclusive. For a published loss (g < 0) all signs are turned round. p is that of no gain, and `holm` corrects it.

    Args:
        a, b: runs of A and B.
        published: gain in pp, not 0.
        margin: largest difference between gains still called the same, above 0.
    """
    level, margin = checks.level(alpha), checks.margin("margin", margin)
    if checks.number("published", published) == 0:
        raise ConfigError("published is a gain of 0; an effect needs a direction, judge the value instead")
    groups = [checks.runs("a", a), checks.runs("b", b)]
    if absent := _absent("effect", groups):
        return absent

    sign, claimed = math.copysign(1.0, published), abs(published)
    gain = contrast(groups, [sign, -sign])  # positive where it goes as claimed
    ends, p = gain.interval(level), float(gain.p_above(0.0))
    low, high = claimed - margin, claimed + margin
    where = {
        REPRODUCED: f"lies within {words.number(low)} to {words.number(high)}",
        SMALLER: f"lies above 0 and below {words.number(low)}",
        EXCEEDED: f"lies above {words.number(high)}",
        NOT_REPRODUCED: f"does not lie above 0, but below {words.number(max(low, 0.0))}",
        INCONCLUSIVE: words.included(ends, (0.0, low, high)),
    }
    noun, means = "gain" if sign > 0 else "loss", " against ".join(map(words.mean, groups))
    details = {
        **_sides(*groups),
        **_test("welch_p", gain, p),
        "published_gain": float(published),
        "ratio": float(gain.value) / claimed,
        "margin": margin,
        "below_claim": float(ends[1] < max(low, 0.0)),
    }
    found = _result(
        "effect", decide.effect(gain, claimed, margin, alpha), gain.value, groups, min_seeds, level, where,
        interval=ends, p=p, details=details,
        said=f"a {noun} of {words.number(gain.value)} ({means}), published {words.number(claimed)}",
        ahead=lambda k: decide.effect(gain.with_more(k), claimed, margin, alpha),
    )  # fmt: skip
    if sign > 0:
        return found
    return replace(found, estimate=-found.estimate, interval=(-found.interval[1], -found.interval[0]))


def trend(
    groups: Sequence[Runs],
    weights: Sequence[float],
    *,
    margin: float,
    alpha: float,
    min_seeds: int,
    rng: np.random.Generator,
    best: Sequence[int] = (),
) -> RuleResult:
    """Do the means of several groups go the way that is claimed?

    The contrast is the sum of weight times mean, with its t after Welch and Satterthwaite. One-sided p < alpha (after
    Holm's correction, see `holm`): reproduced, or "reproduced, smaller effect" if the upper end of the interval is
    below the margin all the same. Without that, an upper end below the margin: not reproduced. Else inconclusive.

    Args:
        groups: runs of each group, in the order of the weights; all count, those of weight 0 as well.
        weights: one per group, adding up to 0, positive in the claimed direction. Positive ones that add up to
            1 make the contrast a difference between two weighted means, in pp.
        margin: smallest contrast worth calling the claimed trend, 0 or more.
        rng: generator of the bootstrap for `best`.
        best: numbers of the groups, from 0, among which the largest mean is claimed to be; the bootstrap probability
            of that goes into the details ("argmax_inside") and decides nothing.
    """
    level, margin = checks.level(alpha), checks.margin("margin", margin, zero=True)
    runs = checks.groups("groups", groups)
    weights = checks.contrast(weights, len(runs))
    for place in best:
        if place not in range(len(runs)):
            raise ConfigError(f"best holds {place!r}; allowed: 0 to {len(runs) - 1}")
    if absent := _absent("trend", runs):
        return absent

    slope = contrast(runs, weights)
    ends, p = slope.interval(level), float(slope.p_above(0.0))
    where = {
        REPRODUCED: "lies above 0",
        SMALLER: f"lies above 0 and below {margin:g}",
        NOT_REPRODUCED: f"does not lie above 0, but below {margin:g}",
        INCONCLUSIVE: words.included(ends, (0.0, margin)),
    }
    details = {"margin": margin, **_test("contrast_p", slope, p), "below_claim": float(ends[1] < margin)}
    if best and min(map(len, runs)) > 1:
        details["argmax_inside"] = resampling.largest_inside(runs, best, 10_000, rng)
    return _result(
        "trend", decide.trend(slope, margin, alpha), slope.value, runs, min_seeds, level, where,
        interval=ends, p=p, details=details,
        said=f"the contrast over {sum(map(len, runs))} runs in {len(runs)} groups is {words.number(slope.value)}",
        ahead=lambda k: decide.trend(slope.with_more(k), margin, alpha),
    )  # fmt: skip


def bound(
    ours: Sequence[Runs], published: Sequence[float], *, bound: float, alpha: float, min_seeds: int
) -> RuleResult:
    """Is every mean closer to its published value than the bound?

    Reproduced if the two one-sided tests of `value`, with the bound for a margin, hold for every row: "every" needs no
    correction (intersection-union). Not reproduced if some row lies beyond the bound, by a one-sided test at alpha
    divided by the number of rows (Bonferroni). Else, or where a row lacks runs, inconclusive.

    Args:
        ours: runs of each row.
        published: one value per row.
        bound: in pp, above 0.
    """
    level, bound = checks.level(alpha), checks.margin("bound", bound)
    rows = checks.groups("ours", ours)
    targets = [checks.number(f"published[{i}]", target) for i, target in enumerate(published)]
    if len(targets) != len(rows):
        raise ConfigError(f"published has {len(targets)} values for {len(rows)} rows; one per row is needed")
    run = [i for i, row in enumerate(rows) if len(row)]
    if not run:
        return not_run("nothing has been run", "bound")

    gaps = [contrast([rows[i] - targets[i]], [1.0]) for i in run]
    verdict = str(decide.bound(gaps, bound, alpha))
    within, beyond = [float(g.p_within(bound)) for g in gaps], [float(g.p_beyond(bound)) for g in gaps]
    refuted = verdict == NOT_REPRODUCED
    deciding = beyond.index(min(beyond)) if refuted else within.index(max(within))
    gap, row = gaps[deciding], run[deciding]
    ends, inside = gap.interval(level), sum(each < alpha for each in within)
    where = {
        REPRODUCED: f"lies within ±{bound:g}",
        NOT_REPRODUCED: f"lies beyond ±{bound:g}",
        INCONCLUSIVE: words.included(ends, (-bound, bound)) or "is not the only one to look at",
    }
    details = {"bound": bound, "rows": float(len(rows)), "rows_within": float(inside), "row": float(row)}
    return _result(
        "bound", verdict, gap.value, rows, min_seeds, level, where,
        interval=ends, p=float((decide.p_one_beyond if refuted else decide.p_all_within)(gaps, bound)),
        details=details,
        said=f"{inside} of {len(rows)} rows lie within ±{bound:g} by their intervals; row {row + 1} decides: "
        f"{words.mean(rows[row])}, {words.gap(float(gap.value), f'the published {targets[row]:.2f}')}",
        ahead=lambda k: decide.bound([gap.with_more(k) for gap in gaps], bound, alpha),
    )  # fmt: skip


def holm(results: Sequence[RuleResult], alpha: float) -> list[RuleResult]:
    """Corrects p of the results of one family, and takes back verdicts that no longer stand.

    Holm's step-down correction over all `order`, `effect` and `trend` results with a p: the probability that any of
    them is called reproduced without cause stays at alpha. One whose corrected p is not below alpha becomes
    inconclusive, or "not reproduced" where its interval lies below what is claimed. Other results stay as they are.

    Args:
        results: those of a table, declared before the runs.
        alpha: error rate of the whole family.
    """
    checks.level(alpha)
    family = [i for i, found in enumerate(results) if found.rule in CORRECTED and found.p is not None]
    corrected = list(results)
    if family:
        adjusted = decide.holm([results[i].p for i in family])
        for i, p in zip(family, adjusted, strict=True):
            corrected[i] = _corrected(results[i], float(p), len(family), alpha)
    return corrected


def not_run(reason: str, rule: str = "") -> RuleResult:
    """The result of a statement nothing was run for."""
    nothing = math.nan, math.nan
    return RuleResult(NOT_RUN, math.nan, nothing, math.nan, None, None, (), None, {}, reason, rule)


def _near(
    rule: str, ours: Runs, target: float, name: str, margin: float, alpha: float, min_seeds: int
) -> RuleResult:
    """`value` and `chance`: mean minus target against the margin."""
    level, runs, margin = checks.level(alpha), checks.runs("ours", ours), checks.margin("margin", margin)
    if absent := _absent(rule, [runs]):
        return absent
    gap = contrast([runs - target], [1.0])
    verdict = str(decide.value(gap, margin, alpha))
    ends = gap.interval(level)
    p = {EXCEEDED: gap.p_above(margin), NOT_REPRODUCED: gap.p_below(-margin)}
    where = {
        REPRODUCED: f"lies within ±{margin:g}",
        EXCEEDED: f"lies above {margin:g}",
        NOT_REPRODUCED: f"lies below {-margin:g}",
        INCONCLUSIVE: words.included(ends, (-margin, margin)),
    }
    return _result(
        rule, verdict, gap.value, [runs], min_seeds, level, where,
        interval=ends, p=float(p.get(verdict, gap.p_within(margin))), details={**_side("", runs), "margin": margin},
        said=f"{words.mean(runs)}, {words.gap(float(gap.value), name)}",
        ahead=lambda k: decide.value(gap.with_more(k), margin, alpha),
    )  # fmt: skip


def _result(
    rule: str,
    verdict: str | np.ndarray,
    found: float | np.ndarray,
    groups: Sequence[np.ndarray],
    min_seeds: int,
    level: float,
    where: Mapping[str, str],
    *,
    interval: tuple[float, float],
    p: float | None,
    details: Mapping[str, float],
    said: str,
    ahead: Callable[[np.ndarray], np.ndarray],
) -> RuleResult:
    """A result with its sentence; without a verdict where runs are too few.

    Args:
        where: what there is to say of the interval, by verdict.
        said: first half of the sentence, the measurement.
        ahead: verdicts after k more runs per group, for a vector of k.
    """
    verdict, n = str(verdict), tuple(map(len, groups))
    missing = checks.count("min_seeds", min_seeds) - min(n)
    known = np.isfinite(interval).all()
    after = f"; {words.interval(interval, level)} {where[verdict]}" if known else ", without a spread"
    sentence = said + after
    if missing > 0:
        verdict, details = INCONCLUSIVE, {**details, "runs_missing": float(missing)}
        sentence += f"; {words.more(missing, len(n))}"
    more = _more(n, min_seeds, ahead) if verdict == INCONCLUSIVE else None
    ends = (float(interval[0]), float(interval[1]))
    decides = p if known and missing <= 0 else None
    return RuleResult(verdict, float(found), ends, level, decides, None, n, more, details, sentence, rule)


def _more(n: Sequence[int], min_seeds: int, ahead: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Smallest number of further runs per group with a verdict."""
    least = max(min_seeds - min(n), 1)
    if min(n) < 2:  # no spread to look ahead with
        return least
    k = np.arange(least, MOST_RUNS - min(n) + 1)
    decided = k[ahead(k) != INCONCLUSIVE] if len(k) else k
    return int(decided[0]) if len(decided) else None


def _corrected(found: RuleResult, p: float, size: int, alpha: float) -> RuleResult:
    sentence = f"{found.sentence}; {words.p_value(p)} after Holm's correction over {size} comparisons"
    if found.verdict not in (REPRODUCED, SMALLER, EXCEEDED) or p < alpha:
        return replace(found, p_holm=p, sentence=sentence)
    if found.details.get("below_claim"):
        return replace(found, verdict=NOT_REPRODUCED, p_holm=p, sentence=sentence)

    def ahead(k: np.ndarray) -> np.ndarray:
        """The same test, t growing with the root of n; corrected in full, as if all others were no smaller."""
        n, free = min(found.n), found.details["degrees_of_freedom"]
        t = -special.stdtrit(free, found.p) * np.sqrt((n + k) / n)
        later = special.stdtr(free * (n + k - 1) / (n - 1), -t)
        return np.where(later * size < alpha, REPRODUCED, INCONCLUSIVE)

    more = _more(found.n, 1, ahead)
    return replace(found, verdict=INCONCLUSIVE, p_holm=p, more_seeds=more, sentence=sentence)


def _absent(rule: str, groups: Sequence[np.ndarray]) -> RuleResult | None:
    """The result "not run" if a group has no run."""
    empty = sum(not len(group) for group in groups)
    if not empty:
        return None
    of = "nothing has been run" if empty == len(groups) else f"{empty} of {len(groups)} sides have no run"
    return not_run(of, rule)


def _side(name: str, runs: np.ndarray) -> dict[str, float]:
    """Mean, and sample standard deviation where there is one."""
    spread = {f"sd{name}": float(np.std(runs, ddof=1))} if len(runs) > 1 else {}
    return {f"mean{name}": float(runs.mean()), **spread}


def _sides(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    return {**_side("_a", a), **_side("_b", b)}


def _test(name: str, found: Contrast, p: float) -> dict[str, float]:
    """What the one-sided t test of a sum above 0 stands on; nothing where a group has a single run."""
    if not np.isfinite(found.standard_error):
        return {}
    error, free = float(found.standard_error), float(found.degrees_of_freedom)
    return {name: p, "standard_error": error, "degrees_of_freedom": free}


__all__ = [
    "VERDICTS", "RuleResult", "bound", "chance", "effect", "holm", "not_run", "order", "trend", "value",
]  # fmt: skip
