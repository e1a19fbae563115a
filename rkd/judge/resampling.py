"""Bootstrap over runs, with an explicit random generator."""

from collections.abc import Sequence

import numpy as np


def probability_above(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return P(A > B), (...): the share of pairs of runs, from (..., n) and (..., m), in which the run of A is better;
    ties count half.

    Source: Mann and Whitney's statistic over n·m; Bouthillier et al. 2021 (arXiv 2103.03098) judge methods by it.
    """
    return _pairs(a, b).mean((-2, -1))


def probability_above_interval(
    a: np.ndarray, b: np.ndarray, level: float, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends, (...) each, of the percentile bootstrap interval of `probability_above`, drawing the runs of
    each side with replacement. Several data sets share the draws. The interval cannot reflect the spread of a side with
    a single run: callers must ask for more runs."""
    pairs = _pairs(a, b)
    n, m = pairs.shape[-2:]
    drawn_a, drawn_b = _draws(n, resamples, rng), _draws(m, resamples, rng)
    shares = np.einsum("rn,...nm,rm->r...", drawn_a, pairs, drawn_b, optimize=["einsum_path", (0, 1), (0, 1)])
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def largest_inside(
    groups: Sequence[np.ndarray], best: Sequence[int], resamples: int, rng: np.random.Generator
) -> float:
    """Return the bootstrap probability that the group with the largest mean is in `best` (ties: the first group)."""
    means = np.stack([_draws(len(group), resamples, rng) @ group for group in groups])
    return float(np.isin(means.argmax(0), list(best)).mean())


def _draws(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each run was drawn, as a share, (resamples, n); rows sum to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (..., n, m): 1 where a run of A is above a run of B, 0.5 where they are equal, else 0."""
    a, b = a[..., :, None], b[..., None, :]
    return (a > b) + 0.5 * (a == b)
