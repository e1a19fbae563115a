"""From contrasts to verdicts: the inequalities of each rule, for one data set or many at once.

`rkd.judge.rules` states the rules in words and explains a verdict; `rkd.judge.simulate` measures how often they err.
Both decide here.
"""

import numpy as np
from scipy import special

from rkd.judge.contrast import Contrast, ratio

REPRODUCED, SMALLER, EXCEEDED = "reproduced", "reproduced, smaller effect", "exceeded"
NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN = "not reproduced", "inconclusive", "not run"
VERDICTS = (REPRODUCED, SMALLER, EXCEEDED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)


def value(gap: Contrast, margin: float, alpha: float) -> np.ndarray:
    """Verdicts on mean minus published."""
    low, high = gap.interval(1 - 2 * alpha)
    return _first(
        (REPRODUCED, (low > -margin) & (high < margin)),
        (EXCEEDED, low > margin),
        (NOT_REPRODUCED, high < -margin),
    )


def order(
    probability: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    gap: Contrast,
    threshold: float,
    alpha: float,
) -> np.ndarray:
    """Verdicts on P(A > B) with its bootstrap interval, guarded at both ends by tests on mean(A) - mean(B)."""
    low, high = ends
    return _first(
        (REPRODUCED, (low > 0.5) & (probability >= threshold) & (gap.p_above(0.0) < alpha)),
        (NOT_REPRODUCED, (high < threshold) & (p_seldom_above(gap, threshold) < alpha)),
    )


def order_by_tests(gap: Contrast, threshold: float, alpha: float) -> np.ndarray:
    """As `order`, from means and spreads alone: what more runs of the same kind would give."""
    probability = special.ndtr(ratio(gap.value, np.sqrt(gap.variances.sum(-1))))
    return order(probability, (probability, probability), gap, threshold, alpha)


def p_seldom_above(gap: Contrast, threshold: float) -> np.ndarray:
    """One-sided p of the hypothesis that P(A > B) is at least `threshold`, for normal runs.

    There P(A > B) = Φ(difference of means / root of the summed variances), so the hypothesis sets the noncentrality
    of Welch's t. With no spread at all the question is settled; with a single run on a side it is open.
    """
    error, spread = gap.standard_error, np.sqrt(gap.variances.sum(-1))
    usable = (error > 0) & np.isfinite(error)
    error, spread = np.where(usable, error, 1.0), np.where(usable, spread, 1.0)
    shift = special.ndtri(threshold) * spread / error
    p = special.nctdtr(gap.degrees_of_freedom, shift, gap.value / error)
    settled = np.where((gap.standard_error == 0) & (gap.value <= 0), 0.0, 1.0)
    return np.where(usable, p, settled)


def effect(gain: Contrast, published: float, margin: float, alpha: float) -> np.ndarray:
    """Verdicts on a gain whose claimed direction is upwards (published > 0)."""
    low, high = gain.interval(1 - 2 * alpha)
    above = low > 0
    return _first(
        (REPRODUCED, above & (low > published - margin) & (high < published + margin)),
        (SMALLER, above & (high < published - margin)),
        (EXCEEDED, above & (low > published + margin)),
        (NOT_REPRODUCED, ~above & (high < max(published - margin, 0.0))),
    )


def trend(slope: Contrast, margin: float, alpha: float) -> np.ndarray:
    """Verdicts on a contrast whose claimed direction is upwards."""
    _, high = slope.interval(1 - 2 * alpha)
    there, small = slope.p_above(0.0) < alpha, high < margin
    return _first((REPRODUCED, there & ~small), (SMALLER, there & small), (NOT_REPRODUCED, small))


def bound(gaps: list[Contrast], limit: float, alpha: float) -> np.ndarray:
    """Verdicts on all gaps at once: every one within the limit, or some one beyond it."""
    return _first(
        (REPRODUCED, p_all_within(gaps, limit) < alpha),
        (NOT_REPRODUCED, p_one_beyond(gaps, limit) < alpha),
    )


def p_all_within(gaps: list[Contrast], limit: float) -> np.ndarray:
    """The largest p of lying within. An "all of them" needs no correction, for each alone can break it."""
    return np.max([gap.p_within(limit) for gap in gaps], axis=0)


def p_one_beyond(gaps: list[Contrast], limit: float) -> np.ndarray:
    """The smallest p of lying beyond, times the number of gaps (Bonferroni), for each alone can make it so."""
    return np.minimum(np.min([gap.p_beyond(limit) for gap in gaps], axis=0) * len(gaps), 1.0)


def holm(p: np.ndarray) -> np.ndarray:
    """p after Holm's step-down correction over the last axis (Holm 1979): the smallest is multiplied by their number m,
    the next by m - 1, and none may end below the one before."""
    p = np.asarray(p, float)
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    raised = np.minimum(np.maximum.accumulate(stepped, -1), 1.0)
    return np.take_along_axis(raised, np.argsort(order, axis=-1), -1)


def _first(*cases: tuple[str, np.ndarray]) -> np.ndarray:
    """The verdict of the first condition that holds, else inconclusive."""
    return np.select([condition for _, condition in cases], [verdict for verdict, _ in cases], INCONCLUSIVE)
