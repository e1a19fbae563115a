"""From contrasts to verdicts: the inequalities of each rule, for one data set or many at once.

`rkd.judge.rules`, which explains verdicts, and book/verdicts.ipynb, which simulates the rules' errors, both use them.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from rkd.judge.contrast import Contrast, ratio

REPRODUCED, SMALLER, EXCEEDED = "reproduced", "reproduced, smaller effect", "exceeded"
NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN = "not reproduced", "inconclusive", "not run"
VERDICTS = (REPRODUCED, SMALLER, EXCEEDED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)
THRESHOLD = 0.75  # least P(A > B) at which A is called better


# In order of precedence: a verdict, where it holds, and what is then said of the interval.
Cases = Sequence[tuple[str, np.ndarray, str]]
Ends = tuple[np.ndarray, np.ndarray]  # low and high ends of intervals


def value(gap: Contrast, margin: float, alpha: float) -> Cases:
    """Return the cases for a mean minus the published one."""
    low, high = gap.interval(1 - 2 * alpha)
    return (
        (REPRODUCED, (low > -margin) & (high < margin), f"lies within ±{margin:g}"),
        (EXCEEDED, low > margin, f"lies above {margin:g}"),
        (NOT_REPRODUCED, high < -margin, f"lies below {-margin:g}"),
    )


def order(probability: np.ndarray, ends: Ends, gap: Contrast, threshold: float, alpha: float) -> Cases:
    """Return the cases for P(A > B) with its bootstrap interval, each guarded by a test on mean(A) - mean(B)."""
    low, high = ends
    above = (low > 0.5) & (probability >= threshold) & (gap.p_above(0.0) < alpha)
    below = (high < threshold) & (p_seldom_above(gap, threshold) < alpha)
    return (REPRODUCED, above, "lies above 0.5"), (NOT_REPRODUCED, below, f"lies below {threshold:g}")


def order_by_tests(gap: Contrast, threshold: float, alpha: float) -> Cases:
    """Return the cases of `order` from means and spreads alone: what more runs of the same kind would give."""
    probability = special.ndtr(ratio(gap.value, np.sqrt(gap.variances.sum(-1))))
    return order(probability, (probability, probability), gap, threshold, alpha)


def p_seldom_above(gap: Contrast, threshold: float) -> np.ndarray:
    """Return the one-sided p of the hypothesis that P(A > B) is at least `threshold`, for normally distributed runs.

    For these, P(A > B) = Φ(difference of means / root of the summed variances), so the hypothesis sets the
    noncentrality of Welch's t. Without any spread the question is settled; with a single run on a side it is open.
    """
    error, spread = gap.standard_error, np.sqrt(gap.variances.sum(-1))
    usable = (error > 0) & np.isfinite(error)
    settled = np.where((error == 0) & (gap.value <= 0), 0.0, 1.0)
    error, spread = np.where(usable, error, 1.0), np.where(usable, spread, 1.0)
    shift = special.ndtri(threshold) * spread / error
    return np.where(usable, special.nctdtr(gap.degrees_of_freedom, shift, gap.value / error), settled)


def effect(gain: Contrast, published: float, margin: float, alpha: float) -> Cases:
    """Return the cases for a gain whose claimed direction is upwards (published > 0)."""
    low, high = gain.interval(1 - 2 * alpha)
    least, most = published - margin, published + margin
    nothing = max(least, 0.0)
    return (
        (
            REPRODUCED,
            (low > nothing) & (high < most),
            f"lies within {two_decimals(least)} to {two_decimals(most)}",
        ),
        (SMALLER, (low > 0) & (high < least), f"lies above 0 and below {two_decimals(least)}"),
        (EXCEEDED, low > most, f"lies above {two_decimals(most)}"),
        (NOT_REPRODUCED, high < nothing, f"does not lie above 0, but below {two_decimals(nothing)}"),
    )


def trend(slope: Contrast, margin: float, alpha: float) -> Cases:
    """Return the cases for a contrast whose claimed direction is upwards."""
    there, small = slope.p_above(0.0) < alpha, slope.interval(1 - 2 * alpha)[1] < margin
    return (
        (REPRODUCED, there & ~small, "lies above 0"),
        (SMALLER, there & small, f"lies above 0 and below {margin:g}"),
        (NOT_REPRODUCED, small, f"does not lie above 0, but below {margin:g}"),
    )


def direction(slope: Contrast, alpha: float) -> Cases:
    """Return the cases for a contrast whose claimed direction is upwards, whatever its size."""
    return (
        (REPRODUCED, slope.p_above(0.0) < alpha, "lies above 0"),
        (NOT_REPRODUCED, slope.p_below(0.0) < alpha, "lies below 0"),
    )


def bound(gaps: list[Contrast], limit: float, alpha: float) -> Cases:
    """Return the cases for all gaps at once: every gap within the limit, or at least one beyond it."""
    within, beyond = p_all_within(gaps, limit) < alpha, p_one_beyond(gaps, limit) < alpha
    return (
        (REPRODUCED, within, f"lies within ±{limit:g}"),
        (NOT_REPRODUCED, beyond, f"lies beyond ±{limit:g}"),
    )


def p_all_within(gaps: list[Contrast], limit: float) -> np.ndarray:
    """Return the largest p for lying within. "All of them" needs no correction, since any one gap can refute it."""
    return np.max([gap.p_within(limit) for gap in gaps], axis=0)


def p_one_beyond(gaps: list[Contrast], limit: float) -> np.ndarray:
    """Return the smallest p for lying beyond, times the number of gaps (Bonferroni), since any one gap suffices."""
    return np.minimum(np.min([gap.p_beyond(limit) for gap in gaps], axis=0) * len(gaps), 1.0)


def holm_p(p: np.ndarray) -> np.ndarray:
    """Return p after Holm's step-down correction over the last axis (Holm 1979): the smallest of m is multiplied by m,
    the next by m - 1 and so on, and none may end up below the one before."""
    p = np.asarray(p, float)
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    raised = np.minimum(np.maximum.accumulate(stepped, -1), 1.0)
    return np.take_along_axis(raised, np.argsort(order, axis=-1), -1)


def first_case(cases: Cases) -> np.ndarray:
    """Return the verdict of the first case that holds, else inconclusive."""
    verdicts, conditions, _ = zip(*cases, strict=True)
    return np.select(conditions, verdicts, INCONCLUSIVE)


def two_decimals(x: float) -> str:
    """Return the number with two decimals, never as -0.00."""
    return f"{round(float(x), 2) + 0.0:.2f}"
