"""Checks of what the rules are given: one clear sentence each."""

from collections.abc import Callable, Sequence

import numpy as np

from rkd.errors import ConfigError


def number(
    name: str, given: float, allowed: Callable[[float], bool] = np.isfinite, words: str = "a finite number"
) -> float:
    """A number that is allowed; `words` say which are."""
    right = isinstance(given, (int, float, np.number)) and not isinstance(given, bool)
    if not right or not np.isfinite(given) or not allowed(given):
        raise ConfigError(f"{name} is {given!r}; it must be {words}")
    return float(given)


def margin(name: str, given: float, zero: bool = False) -> float:
    """A width in pp: positive, or also 0 where that means something."""
    return number(name, given, lambda x: x > 0 or (zero and x == 0), "0 or more" if zero else "above 0")


def level(alpha: float) -> float:
    """1 - 2·alpha, the level of the two-sided interval whose ends err at alpha each."""
    return 1 - 2 * number("alpha", alpha, lambda a: 0 < a < 0.5, "between 0 and 0.5")


def count(name: str, given: int) -> int:
    return int(number(name, given, lambda x: x >= 1 and x == int(x), "a whole number of at least 1"))


def runs(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Accuracies of runs as a vector of float64, which may be empty."""
    try:
        vector = np.asarray(values, float)
    except (TypeError, ValueError):
        vector = np.array(np.nan)  # refused below
    if vector.ndim != 1:
        raise ConfigError(f"{name} is {values!r}; it must be a sequence of accuracies in percent")
    if not np.isfinite(vector).all():
        bad = vector[~np.isfinite(vector)][0]
        raise ConfigError(f"{name} holds {bad}; every run must have a finite accuracy in percent")
    return vector


def groups(name: str, values: Sequence[Sequence[float] | np.ndarray]) -> list[np.ndarray]:
    """One vector per group; at least one group."""
    if not len(values):
        raise ConfigError(f"{name} is empty; at least one group of runs is needed")
    return [runs(f"{name}[{i}]", group) for i, group in enumerate(values)]


def contrast(weights: Sequence[float], n_groups: int) -> np.ndarray:
    """Weights of a contrast: one per group, not all 0, adding up to 0."""
    vector = np.array([number(f"contrast[{i}]", weight) for i, weight in enumerate(weights)])
    if len(vector) != n_groups:
        raise ConfigError(
            f"contrast has {len(vector)} weights for {n_groups} groups; one per group is needed"
        )
    if not vector.any() or abs(vector.sum()) > 1e-9 * abs(vector).sum():
        raise ConfigError(
            f"contrast adds up to {vector.sum():g}; its weights must not be all 0, and add up to 0"
        )
    return vector
