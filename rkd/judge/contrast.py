"""Weighted sums of group means with standard errors and t tests: what every rule decides by or is guarded by.

Works on one data set or on many at once (simulations): leading axes are data sets, the last axis of a group is runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special  # the same distributions as scipy.stats, which takes a second to import

from rkd.errors import ConfigError


@dataclass(frozen=True)
class Contrast:
    """The sum of weight times mean over independent groups of runs.

    Attributes:
        value: (...), the sum.
        variances: (..., groups), weight² times the sample variance of one run; infinite for a group of one run.
        n: (groups,) or (..., groups), runs per group.
        free: degrees of freedom of the variances, if they were estimated from more than these groups.
    """

    value: np.ndarray
    variances: np.ndarray
    n: np.ndarray
    free: int | None = None

    @property
    def standard_error(self) -> np.ndarray:
        return np.sqrt((self.variances / self.n).sum(-1))

    @property
    def degrees_of_freedom(self) -> np.ndarray:
        """`free` if given, else by Welch and Satterthwaite; with one group n - 1; the sum of n - 1 if no runs vary."""
        if self.free is not None:
            return np.full(np.shape(self.value), max(self.free, 1))
        free = np.maximum(self.n - 1, 1)
        parts = np.where(np.isfinite(self.variances), self.variances, 1.0) / self.n
        parts = parts / np.maximum(parts.max(-1, keepdims=True), 1e-300)  # squares of tiny ones underflow
        total, spread = parts.sum(-1), (parts**2 / free).sum(-1)
        return np.where(total > 0, total**2 / np.where(spread > 0, spread, 1.0), free.sum(-1))

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return both ends of the two-sided confidence interval; infinite where a group has a single run."""
        half = special.stdtrit(self.degrees_of_freedom, (1 + level) / 2) * self.standard_error
        return self.value - half, self.value + half

    def p_above(self, limit: float) -> np.ndarray:
        """Return the one-sided p of the hypothesis that the sum is at most `limit`: small where the sum lies above."""
        return special.stdtr(self.degrees_of_freedom, -ratio(self.value - limit, self.standard_error))

    def p_below(self, limit: float) -> np.ndarray:
        """Return the one-sided p of the hypothesis that the sum is at least `limit`: small where the sum lies below."""
        return special.stdtr(self.degrees_of_freedom, ratio(self.value - limit, self.standard_error))

    def p_within(self, limit: float) -> np.ndarray:
        """Return the p of the two one-sided tests: small where the sum lies between -limit and limit."""
        return np.maximum(self.p_above(-limit), self.p_below(limit))

    def p_beyond(self, limit: float) -> np.ndarray:
        """Return the smaller p of the two one-sided tests for lying above limit or below -limit."""
        return np.minimum(self.p_above(limit), self.p_below(-limit))

    def with_more(self, runs: np.ndarray | int) -> "Contrast":
        """Return it with `runs` more runs per group, mean and spread unchanged; (k,) numbers give k data sets."""
        return replace(self, n=self.n + np.asarray(runs)[..., None])


def contrast(groups: Sequence[np.ndarray], weights: Sequence[float]) -> Contrast:
    """Return the sum of weight times mean.

    Args:
        groups: each (..., runs), runs >= 1.
        weights: one per group; a group of weight 0 adds neither to the sum nor to its error.

    Raises:
        ConfigError: a run without a finite accuracy.
    """
    pairs = list(zip(groups, weights, strict=True))
    if not all(np.isfinite(group).all() for group in groups):
        raise ConfigError("a run's accuracy is not finite; every run must have one in percent")
    variances = [_variance(group) * w**2 if w else np.zeros(group.shape[:-1]) for group, w in pairs]
    sizes = np.array([group.shape[-1] for group in groups])
    return Contrast(np.asarray(sum(w * group.mean(-1) for group, w in pairs)), np.stack(variances, -1), sizes)


def paired(groups: Sequence[np.ndarray], weights: Sequence[float], table: np.ndarray) -> Contrast:
    """Return the sum of weight times mean over groups of the same seeds, in the same order: seed effects common to all
    groups cancel. The remaining spread is assumed equal in all rows of `table`, which includes the groups: three seeds
    of two rows alone say next to nothing about it. For two groups that are the whole table, this is the paired t test.

    Args:
        groups: each (..., seeds), seeds >= 1.
        table: (..., rows, seeds), NaN where there is no run, at the same places in all data sets.
    """
    variance, free = residual_variance(table)
    value = np.asarray(sum(w * np.mean(group, -1) for group, w in zip(groups, weights, strict=True)))
    own = variance * np.dot(weights, weights)
    return Contrast(value, np.asarray(own)[..., None], np.array([np.shape(groups[0])[-1]]), free)


def residual_variance(table: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the variance of a run about the sum of a row effect and a seed effect (least squares), and its degrees of
    freedom, (rows - 1) (seeds - 1) for a full table; an infinite variance and 0 where none are left.

    Args:
        table: (..., rows, seeds), NaN where there is no run, at the same places in all data sets.
    """
    there = np.isfinite(table).reshape(-1, *table.shape[-2:])[0]
    row, seed = np.nonzero(there)
    design = np.hstack([np.eye(len(there))[row], np.eye(there.shape[1])[seed]])
    fit = design @ np.linalg.pinv(design)
    runs, free = table[..., row, seed], len(row) - round(np.trace(fit))
    left = ((runs - runs @ fit) ** 2).sum(-1)
    left = np.where(left > 1e-18 * (runs**2).sum(-1), left, 0.0)  # rounding errors, if all seeds agree
    return (left / free if free else np.full_like(left, np.inf)), free


def _variance(group: np.ndarray) -> np.ndarray:
    """Return the sample variance over the last axis: exactly 0 if all runs are equal, infinite for a single run."""
    if group.shape[-1] < 2:
        return np.full(group.shape[:-1], np.inf)
    return np.where(np.ptp(group, -1) == 0, 0.0, group.var(-1, ddof=1))


def ratio(difference: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return difference / spread; where the spread is 0: 0 for no difference, else plus or minus infinity."""
    certain = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    return np.where(spread > 0, difference / np.where(spread > 0, spread, 1.0), certain)
