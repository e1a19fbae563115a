"""How often the rules err, and how often they decide: simulated with normal runs whose truth is known.

    python -m rkd.judge.simulate [--seed 0] [--repeats 2000]

prints the rates and ends with status 1 if one exceeds what its rule states. The verdicts come from the same
inequalities (`rkd.judge.decide`) that decide about the records, without the floor of `min_seeds`, so that three runs
can be looked at as well.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from rkd import published
from rkd.errors import ConfigError, unknown
from rkd.judge import checks, decide, resampling
from rkd.judge.contrast import Contrast, contrast
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, SMALLER, VERDICTS

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


@dataclass(frozen=True)
class _Draw:
    """Data sets of n runs per side, `repeats` of them, and verdicts on them."""

    s: Setting
    n: int
    repeats: int
    rng: np.random.Generator

    def runs(self, mean: float, sd: float | None = None, repeats: int | None = None) -> np.ndarray:
        return self.rng.normal(mean, sd or self.s.sd, (repeats or self.repeats, self.n))

    def gap(self, mean: float) -> Contrast:
        return contrast([self.runs(mean)], [1.0])

    def sides(self, difference: float, repeats: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        s = self.s
        return self.runs(difference, repeats=repeats), self.runs(0.0, s.sd * s.sd_ratio, repeats)

    def ordered(self, a: np.ndarray, b: np.ndarray, gap: Contrast) -> np.ndarray:
        s, level, ends = self.s, checks.level(self.s.alpha), []
        for start in range(0, len(a), CHUNK):
            piece = slice(start, start + CHUNK)
            ends.append(
                resampling.probability_above_interval(a[piece], b[piece], level, s.resamples, self.rng)
            )
        low, high = map(np.concatenate, zip(*ends, strict=True))
        return decide.order(resampling.probability_above(a, b), (low, high), gap, s.threshold, s.alpha)

    def order(self, difference: float, repeats: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Verdicts, and Welch's p."""
        a, b = self.sides(difference, repeats)
        gap = contrast([a, b], [1.0, -1.0])
        return self.ordered(a, b, gap), gap.p_above(0.0)

    def order_against_one(self, difference: float) -> np.ndarray:
        runs = self.runs(difference)
        return self.ordered(runs, np.zeros((self.repeats, 1)), contrast([runs], [1.0]))

    def family(self, difference: float, correct: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """One verdict per family: reproduced if any of its comparisons is, with p as corrected."""
        found = self.order(difference, self.repeats * self.s.family)
        verdicts, p = (array.reshape(self.repeats, self.s.family) for array in found)
        any_found = ((verdicts == REPRODUCED) & (correct(p) < self.s.alpha)).any(1)
        return np.where(any_found, REPRODUCED, INCONCLUSIVE)

    def trend(self, difference: float) -> np.ndarray:
        """Groups in the published proportions, stretched so that the contrast is `difference`."""
        s = self.s
        groups = [self.runs(mean) for mean in np.array(s.shape) * difference / s.published_contrast]
        return decide.trend(contrast(groups, s.contrast), s.trend_margin, s.alpha)

    def bound(self, means: Sequence[float]) -> np.ndarray:
        return decide.bound([self.gap(mean) for mean in means], self.s.bound, self.s.alpha)


# Verdicts of a rule on drawn data sets whose true difference is x pp.
_RULES: Mapping[str, Callable[[_Draw, float], np.ndarray]] = {
    "value": lambda d, x: decide.value(d.gap(x), d.s.margin, d.s.alpha),
    "order": lambda d, x: d.order(x)[0],
    "order, against one number": _Draw.order_against_one,
    "order, family": lambda d, x: d.family(x, lambda p: decide.holm(p)),
    "order, family without Holm": lambda d, x: d.family(x, lambda p: p),
    "effect": lambda d, x: decide.effect(
        contrast(d.sides(x), [1.0, -1.0]), d.s.published_gain, d.s.margin, d.s.alpha
    ),
    "trend": _Draw.trend,
    "bound": lambda d, x: d.bound([x] * d.s.rows),
    "bound, one row off": lambda d, x: d.bound([x] + [0.0] * (d.s.rows - 1)),
}


@dataclass(frozen=True)
class Case:
    """A question to the simulation: how often is a verdict reached at a truth?

    Attributes:
        rule: whose verdicts.
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
    threshold, one = f"P(A > B) = {s.threshold:g}", NormalDist().inv_cdf(s.threshold) * s.sd
    pairs = f"all {s.family} pairs equal"
    return [
        Case("value", "no difference", 0.0, (REPRODUCED,), False),
        Case("value", "at the margin", m, (REPRODUCED,), True),
        Case("value", "at the margin", m, (EXCEEDED,), True),
        Case("value", "at minus the margin", -m, (NOT_REPRODUCED,), True),
        Case("value", "twice the margin below", -2 * m, (NOT_REPRODUCED,), False),
        Case("order", "A and B equal", 0.0, (REPRODUCED,), True),
        Case("order", threshold, s.at_threshold, (NOT_REPRODUCED,), True),
        Case("order", "A and B equal", 0.0, (NOT_REPRODUCED,), False),
        Case("order", "A better by 0.5", 0.5, (REPRODUCED,), False),
        Case("order", "A better by 1", 1.0, (REPRODUCED,), False),
        Case("order, against one number", "A at the number", 0.0, (REPRODUCED,), True),
        Case("order, against one number", threshold, one, (NOT_REPRODUCED,), True),
        Case("order, family", pairs, 0.0, (REPRODUCED,), True),
        Case("order, family without Holm", pairs, 0.0, (REPRODUCED,), False),
        Case("effect", "the published gain", g, (REPRODUCED,), False),
        Case("effect", "half the published gain", g / 2, (SMALLER,), False),
        Case("effect", "no gain", 0.0, (NOT_REPRODUCED,), False),
        Case("effect", "no gain", 0.0, shown, True),
        Case("effect", "published gain minus margin", g - m, (REPRODUCED,), True),
        Case("effect", "published gain minus margin", max(g - m, 0.0), (SMALLER, NOT_REPRODUCED), True),
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
    if rule not in _RULES:
        raise unknown("rule", rule, _RULES)
    if checks.count("n", n) < 2:
        raise ConfigError(f"n is {n}; a rule needs at least 2 runs per side")
    return _RULES[rule](_Draw(s, n, checks.count("repeats", repeats), rng), difference)


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
    for rule in rules:
        if rule not in _RULES:
            raise unknown("rule", rule, _RULES)
    rows = []
    for i, case in enumerate(cases(s)):
        for n in runs if not rules or case.rule in rules else ():
            found = verdicts(case.rule, case.difference, n, s, repeats, np.random.default_rng((seed, i, n)))
            rate = float(np.isin(found, case.verdicts).mean())
            named = {**asdict(case), "counted": " or ".join(case.verdicts), "n": n, "sd": s.sd}
            rows.append({**named, "rate": rate, "stated": s.alpha if case.error else np.nan})
    table = pd.DataFrame(rows).assign(error=error)
    table["kept"] = ~(table["rate"] > table["stated"] + 4 * error)
    columns = ["rule", "truth", "counted", "n", "sd", "difference", "rate", "error", "stated", "kept"]
    return table[columns]


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
    said = rates["rate"].map("{:.1%}".format).str.replace("%", " %")
    texts = rates.assign(
        shown=said + np.where(rates["kept"], "", " (exceeded)"),
        stated=[f"≤ {100 * alpha:g} %" if alpha == alpha else "" for alpha in rates["stated"]],
        n=[f"n = {n}" for n in rates["n"]],
    ).rename(columns={"counted": "verdict"})
    keys = ["rule", "truth", "verdict", "stated"]
    order = texts[keys].drop_duplicates()
    wide = texts.pivot(index=keys, columns="n", values="shown").reset_index()
    return order.merge(wide)[[*keys, *texts["n"].unique()]]


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
