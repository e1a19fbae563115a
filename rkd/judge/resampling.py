"""Bootstrap over runs, from an explicit generator."""

from collections.abc import Sequence

import numpy as np


def probability_above(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """P(A > B), (...): the share of pairs of runs, (..., n) and (..., m), in which that of A is the better one, ties
    counting half.

    Source: Mann and Whitney's statistic over n·m; Bouthillier et al. 2021 (arXiv 2103.03098) judge methods by it.
    """
    return _pairs(a, b).mean((-2, -1))


def probability_above_interval(
    a: np.ndarray, b: np.ndarray, level: float, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, (...) each, of the percentile bootstrap interval of `probability_above`; the runs of each side are
    drawn again with replacement. Several data sets share the draws. Of a side of one run it does not know the spread:
    it is for the caller to ask for more."""
    pairs = _pairs(a, b)
    n, m = pairs.shape[-2:]
    drawn_a, drawn_b = _draws(n, resamples, rng), _draws(m, resamples, rng)
    shares = np.einsum("rn,...nm,rm->r...", drawn_a, pairs, drawn_b, optimize=["einsum_path", (0, 1), (0, 1)])
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def largest_inside(
    groups: Sequence[np.ndarray], best: Sequence[int], resamples: int, rng: np.random.Generator
) -> float:
    """Bootstrap probability that the group with the largest mean is one of `best` (ties go to the first group)."""
    means = np.stack([_draws(len(group), resamples, rng) @ group for group in groups])
    return float(np.isin(means.argmax(0), list(best)).mean())


def _draws(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, n): how often each run was drawn, as a share; rows sum to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., n, m): 1 where a run of A is above a run of B, 0.5 where equal, else 0."""
    a, b = a[..., :, None], b[..., None, :]
    return (a > b) + 0.5 * (a == b)
