"""How often the rules err, and how often they decide: simulated with normal runs whose truth is known.

    python -m rkd.judge.simulate [--seed 0] [--repeats 2000]

prints the rates and ends with status 1 if one exceeds what its rule states. The verdicts come from the same
inequalities (`rkd.judge.decide`) that judge the records, without the floor of `min_seeds`, so that three runs can be
looked at as well.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from rkd import published
from rkd.errors import ConfigError, unknown
from rkd.judge import checks, decide, resampling
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, SMALLER, VERDICTS
from rkd.judge.estimate import estimate

RUNS = (3, 5, 10)
CHUNK = 400  # data sets bootstrapped at once


@dataclass(frozen=True)
class Setting:
    """What is simulated: runs with normal errors, and the numbers the rules are declared with.

    Attributes:
        sd: standard deviation of one run, in pp.
        sd_ratio: that of B over that of A.
        margin, alpha, threshold: of the rules.
        published_gain: of the effect, in pp.
        bound, rows: of a bound over several rows, in pp.
        shape, contrast, trend_margin: published means of the groups of a trend, in percent; its weights; its margin.
        family: comparisons corrected together.
        resamples: of each bootstrap; fewer than in a verdict, where it is one data set and not thousands.
    """

    sd: float = 0.25
    sd_ratio: float = 1.0
    margin: float = 0.5
    alpha: float = 0.05
    threshold: float = 0.75
    published_gain: float = 2.0
    bound: float = 0.8
    rows: int = 8
    shape: tuple[float, ...] = tuple(published.load(source="re_paper", table="Table 4")["number"])
    contrast: tuple[float, ...] = (-1.0, 0.0, 0.0, 1 / 3, 2 / 3)
    trend_margin: float = 0.2
    family: int = 8
    resamples: int = 500

    def __post_init__(self) -> None:
        for name in ("sd", "sd_ratio", "margin", "published_gain", "bound", "trend_margin"):
            checks.margin(name, getattr(self, name))
        checks.level(self.alpha)
        checks.contrast(self.contrast, len(self.shape))

    @property
    def at_threshold(self) -> float:
        """Difference of means at which P(A > B) is the threshold."""
        return NormalDist().inv_cdf(self.threshold) * float(np.hypot(self.sd, self.sd * self.sd_ratio))

    @property
    def published_contrast(self) -> float:
        return float(np.dot(self.contrast, self.shape))


Sampler = Callable[[Setting, float, int, int, np.random.Generator], np.ndarray]
_samplers: dict[str, Sampler] = {}


def _sampler(rule: str) -> Callable[[Sampler], Sampler]:
    """Registers what draws data sets of a rule and returns a verdict for each, at a true difference."""

    def register(function: Sampler) -> Sampler:
        _samplers[rule] = function
        return function

    return register


@_sampler("value")
def _value(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    return decide.value(estimate([_runs(rng, repeats, n, difference, s.sd)], [1.0]), s.margin, s.alpha)


@_sampler("order")
def _order(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    return _ordered(s, *_sides(s, difference, n, repeats, rng), rng)[0]


@_sampler("order, against one number")
def _order_one(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    runs = _runs(rng, repeats, n, difference, s.sd)
    ends = _bootstrap(runs, np.zeros((repeats, 1)), s, rng)
    share = resampling.probability_above(runs, np.zeros((repeats, 1)))
    return decide.order(share, ends, estimate([runs], [1.0]), s.threshold, s.alpha)


@_sampler("order, family")
def _order_family(
    s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """One verdict per family: reproduced if any of its comparisons is, after Holm's correction."""
    verdicts, p = _family(s, difference, n, repeats, rng)
    return _any_reproduced(np.where(decide.holm(p) < s.alpha, verdicts, INCONCLUSIVE))


@_sampler("order, family without Holm")
def _order_uncorrected(
    s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """What would be found without the correction."""
    return _any_reproduced(_family(s, difference, n, repeats, rng)[0])


@_sampler("effect")
def _effect(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    gain = estimate(_sides(s, difference, n, repeats, rng), [1.0, -1.0])
    return decide.effect(gain, s.published_gain, s.margin, s.alpha)


@_sampler("trend")
def _trend(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Groups in the published proportions, stretched so that the contrast is `difference`."""
    shape = np.array(s.shape) * difference / s.published_contrast
    groups = [_runs(rng, repeats, n, mean, s.sd) for mean in shape]
    return decide.trend(estimate(groups, s.contrast), s.trend_margin, s.alpha)


@_sampler("bound")
def _bound(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """All rows at the same true difference."""
    gaps = [estimate([_runs(rng, repeats, n, difference, s.sd)], [1.0]) for _ in range(s.rows)]
    return decide.bound(gaps, s.bound, s.alpha)


@_sampler("bound, one row off")
def _bound_one(s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """One row at the difference, the others where they should be."""
    means = [difference] + [0.0] * (s.rows - 1)
    gaps = [estimate([_runs(rng, repeats, n, mean, s.sd)], [1.0]) for mean in means]
    return decide.bound(gaps, s.bound, s.alpha)


def _runs(rng: np.random.Generator, repeats: int, n: int, mean: float, sd: float) -> np.ndarray:
    return rng.normal(mean, sd, (repeats, n))


def _sides(
    s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    return _runs(rng, repeats, n, difference, s.sd), _runs(rng, repeats, n, 0.0, s.sd * s.sd_ratio)


def _bootstrap(
    a: np.ndarray, b: np.ndarray, s: Setting, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    pieces = [slice(start, start + CHUNK) for start in range(0, len(a), CHUNK)]
    level = checks.level(s.alpha)
    ends = [
        resampling.probability_above_interval(a[piece], b[piece], level, s.resamples, rng) for piece in pieces
    ]
    low, high = zip(*ends, strict=True)
    return np.concatenate(low), np.concatenate(high)


def _ordered(
    s: Setting, a: np.ndarray, b: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts, and Welch's p."""
    gap = estimate([a, b], [1.0, -1.0])
    ends = _bootstrap(a, b, s, rng)
    return decide.order(resampling.probability_above(a, b), ends, gap, s.threshold, s.alpha), gap.p_above(0.0)


def _family(
    s: Setting, difference: float, n: int, repeats: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(repeats, family) verdicts and p."""
    found = _ordered(s, *_sides(s, difference, n, repeats * s.family, rng), rng)
    return tuple(array.reshape(repeats, s.family) for array in found)


def _any_reproduced(verdicts: np.ndarray) -> np.ndarray:
    return np.where((verdicts == REPRODUCED).any(1), REPRODUCED, INCONCLUSIVE)


@dataclass(frozen=True)
class Case:
    """A question to the simulation: how often is a verdict reached at a truth?

    Attributes:
        rule: key of a sampler.
        truth: in words.
        difference: the truth, in pp.
        verdicts: that are counted.
        error: whether they are errors there, of which the rule states a rate of at most alpha.
    """

    rule: str
    truth: str
    difference: float
    verdicts: tuple[str, ...]
    error: bool


def cases(s: Setting) -> list[Case]:
    """Every stated rate at the truth where it is largest, and what can be found where there is something."""
    g, m = s.published_gain, s.margin
    shown = (REPRODUCED, SMALLER, EXCEEDED)
    half, least = "half the published gain", max(g - m, 0.0)
    return [
        Case("value", "no difference", 0.0, (REPRODUCED,), False),
        Case("value", "at the margin", m, (REPRODUCED,), True),
        Case("value", "at the margin", m, (EXCEEDED,), True),
        Case("value", "at minus the margin", -m, (NOT_REPRODUCED,), True),
        Case("value", "twice the margin below", -2 * m, (NOT_REPRODUCED,), False),
        Case("order", "A and B equal", 0.0, (REPRODUCED,), True),
        Case("order", f"P(A > B) = {s.threshold:g}", s.at_threshold, (NOT_REPRODUCED,), True),
        Case("order", "A and B equal", 0.0, (NOT_REPRODUCED,), False),
        Case("order", "A better by 0.5", 0.5, (REPRODUCED,), False),
        Case("order", "A better by 1", 1.0, (REPRODUCED,), False),
        Case("order, against one number", "A at the number", 0.0, (REPRODUCED,), True),
        Case(
            "order, against one number",
            f"P(A > B) = {s.threshold:g}",
            NormalDist().inv_cdf(s.threshold) * s.sd,
            (NOT_REPRODUCED,),
            True,
        ),
        Case("order, family", f"all {s.family} pairs equal", 0.0, (REPRODUCED,), True),
        Case("order, family without Holm", f"all {s.family} pairs equal", 0.0, (REPRODUCED,), False),
        Case("effect", "the published gain", g, (REPRODUCED,), False),
        Case("effect", half, g / 2, (SMALLER,), False),
        Case("effect", "no gain", 0.0, (NOT_REPRODUCED,), False),
        Case("effect", "no gain", 0.0, shown, True),
        Case("effect", "published gain minus margin", g - m, (REPRODUCED,), True),
        Case("effect", "published gain minus margin", least, (SMALLER, NOT_REPRODUCED), True),
        Case("effect", "published gain plus margin", g + m, (EXCEEDED,), True),
        Case("trend", "a flat curve", 0.0, (REPRODUCED, SMALLER), True),
        Case("trend", "at the margin", s.trend_margin, (SMALLER, NOT_REPRODUCED), True),
        Case("trend", "the published shape (Table 4)", s.published_contrast, (REPRODUCED,), False),
        Case("trend", "four times as steep", 4 * s.published_contrast, (REPRODUCED,), False),
        Case("bound", "all rows as published", 0.0, (REPRODUCED,), False),
        Case("bound, one row off", "one row at the bound", s.bound, (REPRODUCED,), True),
        Case("bound", "all rows at the bound", s.bound, (NOT_REPRODUCED,), True),
        Case("bound, one row off", "one row twice as far", 2 * s.bound, (NOT_REPRODUCED,), False),
    ]


def verdicts(
    rule: str, difference: float, n: int, s: Setting, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """(repeats,) verdicts of a rule on data sets whose true difference is known.

    Args:
        rule: "value", "order", "effect", "trend", "bound" or one of their variants in `cases`.
        difference: in pp; mean minus published, A minus B, the contrast.
        n: runs per side, at least 2.
    """
    if rule not in _samplers:
        raise unknown("rule", rule, _samplers)
    if checks.count("n", n) < 2:
        raise ConfigError(f"n is {n}; a rule needs at least 2 runs per side")
    return _samplers[rule](s, difference, n, checks.count("repeats", repeats), rng)


def error_rates(
    s: Setting | None = None,
    *,
    seed: int = 0,
    repeats: int = 2000,
    runs: Sequence[int] = RUNS,
    rules: Sequence[str] = (),
) -> pd.DataFrame:
    """Simulated rates of every rule, or of those named.

    With equal spreads no stated rate is exceeded. Welch's test is an approximation elsewhere: where one spread is three
    times the other, the rate of a family of 8 comparisons rises to about 6 %.

    Returns:
        One row per case and n: rule, truth, counted (verdicts), n, sd, difference (pp), rate, error (its Monte-Carlo
        standard error where the rate is alpha), stated (alpha, or NaN where the rate is a power) and kept (whether
        the rate exceeds what is stated by no more than four such errors; always so without a stated one).
    """
    s = s or Setting()
    error = float(np.sqrt(s.alpha * (1 - s.alpha) / checks.count("repeats", repeats)))
    known = {case.rule for case in cases(s)}
    for rule in rules:
        if rule not in known:
            raise unknown("rule", rule, known)
    rows = []
    for i, case in enumerate(cases(s)):
        for n in runs if not rules or case.rule in rules else ():
            found = verdicts(case.rule, case.difference, n, s, repeats, np.random.default_rng((seed, i, n)))
            rate = float(np.isin(found, case.verdicts).mean())
            stated = s.alpha if case.error else np.nan
            rows.append(
                {
                    "rule": case.rule,
                    "truth": case.truth,
                    "counted": " or ".join(case.verdicts),
                    "n": n,
                    "sd": s.sd,
                    "difference": case.difference,
                    "rate": rate,
                    "error": error,
                    "stated": stated,
                    "kept": not rate > stated + 4 * error,
                }
            )
    return pd.DataFrame(rows)


def characteristics(
    rule: str,
    differences: Sequence[float],
    s: Setting | None = None,
    *,
    seed: int = 0,
    repeats: int = 1000,
    runs: Sequence[int] = RUNS,
) -> pd.DataFrame:
    """Probability of each verdict against the true difference.

    Returns:
        One row per n and difference: n, difference (pp), and a column for each verdict; they add up to 1.
    """
    s = s or Setting()
    rows = []
    for n in runs:
        for i, difference in enumerate(differences):
            found = verdicts(rule, float(difference), n, s, repeats, np.random.default_rng((seed, i, n)))
            shares = {verdict: float((found == verdict).mean()) for verdict in VERDICTS}
            rows.append({"n": n, "difference": float(difference), **shares})
    return pd.DataFrame(rows)


def side_by_side(rates: pd.DataFrame) -> pd.DataFrame:
    """`error_rates` with one row per case and one column per n, rates in percent as text; exceeded ones are marked."""
    wide = []
    for (rule, truth, counted), rows in rates.groupby(["rule", "truth", "counted"], sort=False):
        stated = rows["stated"].iloc[0]
        wide.append(
            {
                "rule": rule,
                "truth": truth,
                "verdict": counted,
                "stated": "" if np.isnan(stated) else f"≤ {100 * stated:g} %",
                **{
                    f"n = {row.n}": f"{100 * row.rate:.1f} %" + ("" if row.kept else " (exceeded)")
                    for row in rows.itertuples()
                },
            }
        )
    return pd.DataFrame(wide)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rkd.judge.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2000, help="data sets per rate")
    options = parser.parse_args(arguments)
    rates = error_rates(seed=options.seed, repeats=options.repeats)
    sd, error = rates["sd"].iloc[0], rates["error"].iloc[0]
    print(f"runs of standard deviation {sd:g} pp, {options.repeats} data sets per rate", end=" ")
    print(f"(a rate of 5 % is known to ±{100 * error:.1f} %)")
    print(side_by_side(rates).to_string(index=False))
    exceeded = int((~rates["kept"]).sum())
    print(f"{exceeded} of {int(rates['stated'].notna().sum())} stated rates are exceeded")
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
