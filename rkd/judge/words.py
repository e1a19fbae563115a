"""Phrases of the sentences that explain a verdict."""

import numpy as np


def number(x: float) -> str:
    """Two decimals, and never -0.00."""
    return f"{round(float(x), 2) + 0.0:.2f}"


def mean(runs: np.ndarray) -> str:
    if len(runs) == 1:
        return f"{number(runs[0])} in one run"
    return f"mean {number(runs.mean())} over {len(runs)} runs"


def gap(difference: float, target: str) -> str:
    rounded = number(difference)
    if float(rounded) == 0:
        return f"equal to {target}"
    return f"{rounded.lstrip('-')} {'above' if difference > 0 else 'below'} {target}"


def interval(ends: tuple[float, float], level: float) -> str:
    return f"the {100 * level:.3g} % interval {number(ends[0])} to {number(ends[1])}"


def included(ends: tuple[float, float], limits: tuple[float, ...]) -> str:
    """Which limits keep an interval from a verdict; empty if none does."""
    inside = [f"{limit:g}" for limit in limits if ends[0] <= limit <= ends[1]]
    return f"includes {' and '.join(inside)}" if inside else ""


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def more(missing: int, sides: int) -> str:
    """What is missing before there can be a verdict."""
    runs = "one more run" if missing == 1 else f"{missing} more runs"
    where = {1: "", 2: " on each side"}.get(sides, " in each group")
    return f"{runs}{where} {'is' if missing == 1 else 'are'} needed for a verdict"
