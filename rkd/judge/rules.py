"""Rules that turn runs into a verdict on a claim: accuracies in, a result out, wherever they come from.

Accuracies are in percent, differences in percentage points (pp). Every rule asks a question that was fixed before the
runs were made. It answers "inconclusive" if its interval, of level 1 - 2·alpha, straddles a limit (a difference that is
not significant is no reproduction) or if a side has fewer than `min_seeds` runs. Runs that are all equal give an
interval of no width, a single run gives none. The inequalities are those of `rkd.judge.decide`; book/verdicts.ipynb
simulates how often each rule errs.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from rkd.judge import decide, resampling
from rkd.judge.contrast import Contrast, contrast, paired
from rkd.judge.decide import (
    EXCEEDED,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    SMALLER,
    two_decimals,
)

if TYPE_CHECKING:
    from rkd.judge.declared import Claim

MOST_RUNS = 200  # per side, at which looking ahead stops
RESAMPLES = 10_000
Groups = Sequence[np.ndarray]


@dataclass(frozen=True)
class RuleResult:
    """What runs say about one claim.

    Attributes:
        verdict: one of VERDICTS.
        estimate: value: mean - published; chance: mean - chance; bound: as value, of the row that decides; order:
            P(A > B); effect: mean(A) - mean(B); trend: the contrast. NaN where nothing was run.
        interval: low and high end of the estimate's interval; infinite (order: 0 and 1) with a single run on a side.
        level: confidence level of the interval, such as 0.90.
        p: one-sided p of the test that decides; None if none does, as with too few runs.
        n: runs per side or group.
        more_seeds: for an inconclusive verdict, about how many more runs per side would decide it if means and spreads
            stayed as they are; None: not even 200 runs would.
        sentence: why, with figures.
        details: for value and chance: mean and, with several runs, sd; for value also prediction_low, prediction_high
            and published_inside (1.0 or 0.0). For an effect: ratio (to the published gain). For a trend: argmax_inside.
            For a direction: against (1.0 or 0.0).
        free: degrees of freedom behind p.
        without_p: what the cases that need no p say by themselves, possibly INCONCLUSIVE: the verdict where one that
            needs p has none below alpha after correction.
        p_holm: p after Holm's correction over the family (`correct_holm`).
    """

    verdict: str
    estimate: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    level: float = math.nan
    p: float | None = None
    n: tuple[int, ...] = ()
    more_seeds: int | None = None
    sentence: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    free: float = math.nan
    without_p: str = INCONCLUSIVE
    p_holm: float | None = None


def judge(claim: "Claim", groups: Sequence[Sequence[float] | np.ndarray]) -> RuleResult:
    """Apply the rule of a claim's kind, before Holm's correction.

    Args:
        claim: what is claimed; for a made-up claim the kind and the numbers are enough.
        groups: accuracies of runs for each of `claim.groups`: one side, a and b, or the groups of a trend or a bound.
            A row of a bound may be empty if another is not.

    Raises:
        ConfigError: an accuracy that is not finite.
    """
    return _RULES[claim.kind](claim, [np.asarray(group, float) for group in groups])


def _value(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge whether our mean is the published value, give or take the margin.

    The interval is the t interval of mean(ours) - published; asking that all of it lie within the margin amounts to the
    two one-sided tests of equivalence (Schuirmann 1987). The details also say whether the published value lies in the
    95 % prediction interval for a mean of as many new runs as it stands on, or of one if that is unknown.
    """
    found = _near(claim, groups, claim.published, f"the published {claim.published:.2f}")
    if "sd" not in found.details:
        return found
    (n,), mean, sd = found.n, found.details["mean"], found.details["sd"]
    half = float(special.stdtrit(n - 1, 0.975)) * sd * math.sqrt(1 / n + 1 / (claim.published_n or 1))
    low, high = mean - half, mean + half
    inside = float(low <= claim.published <= high)
    predicted = {"prediction_low": low, "prediction_high": high, "published_inside": inside}
    return replace(found, details={**found.details, **predicted})


def _chance(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge, like `_value`, whether our mean is at chance level; here a mean above it is not reproduced either."""
    found = _near(claim, groups, claim.chance, f"the {claim.chance:.2f} expected by chance")
    return replace(found, verdict=NOT_REPRODUCED) if found.verdict == EXCEEDED else found


def _near(claim: "Claim", groups: Groups, target: float, name: str) -> RuleResult:
    (runs,), margin = groups, claim.margin
    gap = contrast([runs - target], [1.0])
    verdict = str(decide.first_case(decide.value(gap, margin, claim.alpha)))
    p = {EXCEEDED: gap.p_above(margin), NOT_REPRODUCED: gap.p_below(-margin)}
    spread = {"sd": float(np.std(runs, ddof=1))} if len(runs) > 1 else {}
    return _result(
        claim, groups, f"{_mean(runs)}, {_off(float(gap.value), name)}", gap,
        lambda k: decide.value(gap.with_more(k), margin, claim.alpha), (-margin, margin),
        p=p.get(verdict, gap.p_within(margin)), details={"mean": float(runs.mean()), **spread},
    )  # fmt: skip


def _order(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge whether A is better than B or, without runs of B, than the published number (by one-sample tests).

    P(A > B) is the probability that a run of A beats a run of B, ties counting half, with a percentile bootstrap
    interval. Reproduced: its lower end is above 0.5, the estimate at least THRESHOLD, and Welch's one-sided test
    of the means has p < alpha. Not reproduced: its upper end is below the threshold, and the t test of the hypothesis
    P(A > B) >= threshold, for normal runs, has p < alpha.

    The two tests are guards: the bootstrap interval of a handful of values is too narrow and, by itself, errs in up to
    10 % of cases at an alpha of 0.05.

    Source: Bouthillier et al. 2021 (arXiv 2103.03098) for the probability and its threshold.
    """
    ours, theirs = (*groups, np.array([claim.published]))[:2]
    two = len(groups) == 2
    gap = contrast(groups, [1.0, -1.0]) if two else contrast([ours - theirs], [1.0])
    probability, p, ends = resampling.probability_above(ours, theirs), float(gap.p_above(0.0)), (0.0, 1.0)
    against = _mean(theirs) if two else f"the published {two_decimals(theirs[0])}"
    said = f"{_mean(ours)} against {against}, P(A > B) is {two_decimals(probability)}"
    if several := min(map(len, groups)) > 1:  # a single run says nothing about the spread
        level, rng = 1 - 2 * claim.alpha, _generator(claim)
        ends = resampling.probability_above_interval(ours, theirs, level, RESAMPLES, rng)
        said += f", {_p(p)} for the means"
    return _result(
        claim, groups, said, gap, lambda k: decide.order_by_tests(gap.with_more(k), decide.THRESHOLD, claim.alpha),
        (0.5, decide.THRESHOLD), now=decide.order(probability, ends, gap, decide.THRESHOLD, claim.alpha),
        estimate=probability, ends=ends, between="is not borne out by the means", p=p if several else None,
    )  # fmt: skip


def _effect(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge whether the gain of A over B is the published one, give or take the margin.

    The interval is Welch's for mean(A) - mean(B). It must lie above 0 to be called a gain at all; p tests that there is
    none. For a published loss all signs are flipped.
    """
    sign, claimed, margin = math.copysign(1.0, claim.published), abs(claim.published), claim.margin
    gain = contrast(groups, [sign, -sign])  # positive where it goes as claimed
    noun, means = "gain" if sign > 0 else "loss", " against ".join(map(_mean, groups))
    found = _result(
        claim, groups, f"a {noun} of {two_decimals(gain.value)} ({means}), published {two_decimals(claimed)}", gain,
        lambda k: decide.effect(gain.with_more(k), claimed, margin, claim.alpha),
        (0.0, claimed - margin, claimed + margin), p=gain.p_above(0.0), details={"ratio": float(gain.value) / claimed},
    )  # fmt: skip
    if sign > 0:
        return found
    return replace(found, estimate=-found.estimate, interval=(-found.interval[1], -found.interval[0]))


def _trend(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge whether the means of several groups go the way that is claimed.

    The contrast is the sum of weight times mean, tested one-sided by t after Welch and Satterthwaite. The details give
    the bootstrap probability that the largest mean is one of `claim.best`; it decides nothing.
    """
    slope, details = contrast(groups, claim.contrast), {}
    if claim.best and min(map(len, groups)) > 1:
        inside = resampling.largest_inside(groups, claim.best, RESAMPLES, _generator(claim))
        details["argmax_inside"] = inside
    runs = sum(map(len, groups))
    return _result(
        claim, groups, f"the contrast over {runs} runs in {len(groups)} groups is {two_decimals(slope.value)}", slope,
        lambda k: decide.trend(slope.with_more(k), claim.margin, claim.alpha), (0.0, claim.margin),
        p=slope.p_above(0.0), details=details,
    )  # fmt: skip


def _bound(claim: "Claim", groups: Groups) -> RuleResult:
    """Judge whether every mean is closer to its published value than the bound.

    The tests are those of a value, with the bound as margin: "every" needs no correction (intersection-union), "some
    row lies beyond" is tested at alpha divided by the number of rows (Bonferroni). Rows without runs are not judged.
    """
    limit, published = claim.margin, claim.published
    gaps = {i: contrast([runs - published[i]], [1.0]) for i, runs in enumerate(groups) if len(runs)}
    every = [*gaps.values()]
    within = {i: float(gap.p_within(limit)) for i, gap in gaps.items()}
    i, p = max(within, key=within.get), decide.p_all_within(every, limit)
    if decide.first_case(decide.bound(every, limit, claim.alpha)) == NOT_REPRODUCED:
        i, p = min(gaps, key=lambda i: float(gaps[i].p_beyond(limit))), decide.p_one_beyond(every, limit)
    inside = sum(each < claim.alpha for each in within.values())
    return _result(
        claim, groups, f"{inside} of {len(groups)} rows lie within ±{limit:g} by their intervals; row {i + 1} decides: "
        f"{_mean(groups[i])}, {_off(float(gaps[i].value), f'the published {published[i]:.2f}')}", gaps[i],
        lambda k: decide.bound([gap.with_more(k) for gap in every], limit, claim.alpha), (-limit, limit),
        between="is not the only one to look at", p=p,
    )  # fmt: skip


def judge_direction(
    claim: "Claim", groups: Sequence[Sequence[float]], weights: Sequence[float], table: np.ndarray
) -> RuleResult:
    """Judge whether a weighted sum of groups points the claimed way: for short runs, whose effects differ in size.

    Runs are paired by seed, and their spread is that of all rows of a table (`rkd.judge.contrast.paired`). p belongs to
    the direction in which the sum points; the details say if that is against the claim (against: 1.0).

    Args:
        groups: accuracies of the same seeds, in the same order, for each of `claim.groups`.
        weights: one per group, so that the claimed direction is up.
        table: (rows, seeds) of accuracies, NaN where there is no run; the groups are rows of it.
    """
    slope = paired([np.asarray(group) for group in groups], weights, table)
    against = bool(slope.value < 0)
    seeds = f"{len(groups[0])} seed{'s' * (len(groups[0]) > 1)}"
    how = f"{'against ' * against}the claimed way over {seeds}, paired"
    how += f", by the spread of {len(table)} rows" if slope.free else ""
    return _result(
        claim, groups[:1], f"{two_decimals(abs(slope.value))} points {how}", slope,
        lambda k: decide.direction(slope.with_more(k), claim.alpha), (0.0,),
        p=slope.p_below(0.0) if against else slope.p_above(0.0), details={"against": float(against)},
    )  # fmt: skip


_RULES: Mapping[str, Callable[["Claim", Groups], RuleResult]] = {
    "value": _value, "order": _order, "effect": _effect, "trend": _trend, "bound": _bound, "chance": _chance,
}  # fmt: skip


def _generator(claim: "Claim") -> np.random.Generator:
    """Return the claim's own random stream, seeded by its id: its interval depends on its runs alone."""
    return np.random.default_rng(zlib.crc32(claim.id.encode()))


def correct_holm(results: Sequence[RuleResult], alpha: float) -> list[RuleResult]:
    """Correct p of the results of one family, and withdraw verdicts that no longer stand.

    The results are of claims that were declared together: the probability that any is called reproduced without cause
    stays at alpha. A result without a p counts as p = 1, so that no verdict is withdrawn once another claim gets its
    runs. A result whose corrected p is not below alpha becomes inconclusive, or "not reproduced" if its interval lies
    below what is claimed.

    For `judge_direction`, a sum that points the other way is a finding as well: its p is corrected in the same manner,
    each direction by itself.
    """
    ways = np.array([bool(found.details.get("against")) for found in results])
    p = np.array([1.0 if found.p is None else found.p for found in results])
    corrected = np.where(ways, decide.holm_p(np.where(ways, p, 1.0)), decide.holm_p(np.where(ways, 1.0, p)))
    return [
        found if found.p is None else _corrected(found, float(p), len(results), alpha)
        for found, p in zip(results, corrected, strict=True)
    ]


def _corrected(found: RuleResult, p: float, size: int, alpha: float) -> RuleResult:
    sentence = f"{found.sentence}; {_p(p)} after Holm's correction over {size} comparisons"
    found = replace(found, p_holm=p, sentence=sentence)
    needs_p = (NOT_REPRODUCED,) if found.details.get("against") else (REPRODUCED, SMALLER, EXCEEDED)
    if found.verdict not in needs_p or p < alpha:
        return found
    if found.without_p not in (INCONCLUSIVE, found.verdict):
        return replace(found, verdict=found.without_p)

    def ahead(k: np.ndarray) -> decide.Cases:
        """Return the case of the same test with t growing as the root of n, corrected in full as if p were smallest."""
        n = min(found.n)
        t = -special.stdtrit(found.free, found.p) * np.sqrt((n + k) / n)
        return [(REPRODUCED, special.stdtr(found.free * (n + k - 1) / (n - 1), -t) * size < alpha, "")]

    return replace(found, verdict=INCONCLUSIVE, more_seeds=_more(found.n, 1, ahead))


def not_run(reason: str) -> RuleResult:
    """Return the result of a claim for which nothing was run."""
    return RuleResult(NOT_RUN, sentence=reason)


def _result(
    claim: "Claim", groups: Groups, said: str, gap: Contrast, rule: Callable[[np.ndarray | int], decide.Cases],
    limits: tuple[float, ...], *, p: float | None, now: decide.Cases | None = None, estimate: float | None = None,
    ends: tuple[float, float] | None = None, between: str = "", details: Mapping[str, float] | None = None,
) -> RuleResult:  # fmt: skip
    """Return a result with its sentence; inconclusive if there are too few runs.

    Args:
        said: first half of the sentence, the measurement.
        gap: what is measured.
        rule: gives the cases after that many more runs per group, for a number or a vector of numbers.
        limits: limits that make the result inconclusive if the interval includes them.
        now: the cases of these runs, where `rule(0)` only approximates them.
        estimate, ends: what is shown in place of the gap and its interval.
        between: what is said of an inconclusive interval that includes no limit.
    """
    level, n, cases = 1 - 2 * claim.alpha, tuple(map(len, groups)), now or rule(0)
    verdict, (low, high) = str(decide.first_case(cases)), map(float, ends or gap.interval(level))
    missing, known = claim.min_seeds - min(n), math.isfinite(low) and math.isfinite(high)
    if known:
        inside = " and ".join(f"{limit:g}" for limit in limits if low <= limit <= high)
        words = {name: words for name, _, words in cases}
        where = words.get(verdict, f"includes {inside}" if inside else between)
        said += f"; the {100 * level:.3g} % interval {two_decimals(low)} to {two_decimals(high)} {where}"
    else:
        said += ", without a spread"
    if missing > 0:
        short, verdict = sum(size < claim.min_seeds for size in n), INCONCLUSIVE
        of = {1: "", 2: " on each side" if short == 2 else " on one side"}.get(
            len(n), f" in {short} of {len(n)} groups" if short < len(n) else " in each group"
        )
        needed, are = ("one more run", "is") if missing == 1 else (f"{missing} more runs", "are")
        said += f"; {needed}{of} {are} needed for a verdict"
    p = float(p) if p is not None and known and missing <= 0 else None
    more = _more(n, claim.min_seeds, rule) if verdict == INCONCLUSIVE else None
    shown, free = float(gap.value if estimate is None else estimate), float(gap.degrees_of_freedom)
    without_p = str(decide.first_case(cases[-1:]))
    return RuleResult(verdict, shown, (low, high), level, p, n, more, said, details or {}, free, without_p)


def _more(n: Sequence[int], min_seeds: int, ahead: Callable[[np.ndarray], decide.Cases]) -> int | None:
    """Return the smallest number of further runs per group that gives a verdict; None if even MOST_RUNS would not."""
    least = max(min_seeds - min(n), 1)
    if min(n) < 2:  # no spread to look ahead with
        return least
    k = np.arange(least, MOST_RUNS - min(n) + 1)
    decided = k[decide.first_case(ahead(k)) != INCONCLUSIVE] if len(k) else k
    return int(decided[0]) if len(decided) else None


def _mean(runs: np.ndarray) -> str:
    found = two_decimals(runs.mean())
    return f"{found} in one run" if len(runs) == 1 else f"mean {found} over {len(runs)} runs"


def _off(difference: float, target: str) -> str:
    size = two_decimals(abs(difference))
    if size == "0.00":
        return f"equal to {target}"
    return f"{size} {'above' if difference > 0 else 'below'} {target}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
