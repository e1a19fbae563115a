"""Checks of what the rules are given: one clear sentence each."""

import math
from collections.abc import Sequence

import numpy as np

from rkd.errors import ConfigError


def runs(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Accuracies of runs as a vector of float64, which may be empty."""
    try:
        vector = np.asarray(values, float)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {values!r}; it must be a sequence of accuracies in percent") from None
    if vector.ndim != 1:
        raise ConfigError(
            f"{name} has {vector.ndim} dimensions; it must be a sequence of accuracies in percent"
        )
    if not np.isfinite(vector).all():
        bad = vector[~np.isfinite(vector)][0]
        raise ConfigError(f"{name} holds {bad}; every run must have a finite accuracy in percent")
    return vector


def groups(name: str, values: Sequence[Sequence[float] | np.ndarray]) -> list[np.ndarray]:
    """One vector per group; at least one group."""
    if not len(values):
        raise ConfigError(f"{name} is empty; at least one group of runs is needed")
    return [runs(f"{name}[{i}]", group) for i, group in enumerate(values)]


def finite(name: str, number: float) -> float:
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float, np.number))
        or not math.isfinite(number)
    ):
        raise ConfigError(f"{name} is {number!r}; it must be a finite number")
    return float(number)


def margin(name: str, number: float, zero: bool = False) -> float:
    """A width in pp: positive, or also 0 where that means something."""
    if finite(name, number) < 0 or (number == 0 and not zero):
        raise ConfigError(f"{name} is {number!r}; it must be {'0 or more' if zero else 'above 0'}")
    return float(number)


def level(alpha: float) -> float:
    """1 - 2·alpha, the level of the two-sided interval whose ends err at alpha each."""
    if not 0 < finite("alpha", alpha) < 0.5:
        raise ConfigError(f"alpha is {alpha!r}; it must lie between 0 and 0.5")
    return 1 - 2 * float(alpha)


def count(name: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise ConfigError(f"{name} is {number!r}; it must be a whole number of at least 1")
    return int(number)


def generator(rng: object) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise ConfigError(f"rng is {rng!r}; it must be a numpy.random.Generator")
    return rng


def contrast(weights: Sequence[float], n_groups: int) -> np.ndarray:
    """Weights of a contrast: one per group, not all 0, adding up to 0."""
    vector = np.array([finite(f"contrast[{i}]", weight) for i, weight in enumerate(weights)])
    if len(vector) != n_groups:
        raise ConfigError(
            f"contrast has {len(vector)} weights for {n_groups} groups; one per group is needed"
        )
    if not vector.any() or abs(vector.sum()) > 1e-9 * abs(vector).sum():
        raise ConfigError(
            f"contrast adds up to {vector.sum():g}; its weights must not be all 0, and add up to 0"
        )
    return vector


def indices(name: str, chosen: Sequence[int], size: int) -> tuple[int, ...]:
    for index in chosen:
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not 0 <= index < size:
            raise ConfigError(f"{name} holds {index!r}; allowed: 0 to {size - 1}")
    return tuple(int(index) for index in chosen)
