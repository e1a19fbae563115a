"""The rules' verdicts on normal runs whose truth is known: how often they err, and how often they decide.

Of many data sets at once, by the same inequalities (`rkd.judge.decide`) that decide about the records, without the
floor of `min_seeds`, so that three runs can be looked at as well. The rates stand in book/verdicts.ipynb.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from rkd import published
from rkd.config import Count, ErrorRate, Positive, check, frozen
from rkd.errors import unknown
from rkd.judge import decide, resampling
from rkd.judge.contrast import Contrast, contrast
from rkd.judge.decide import INCONCLUSIVE, REPRODUCED, VERDICTS, first

RUNS = (3, 5, 10)
CHUNK = 400  # data sets bootstrapped at once


@frozen
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

    sd: Positive = 0.25
    sd_ratio: Positive = 1.0
    margin: Positive = 0.5
    alpha: ErrorRate = 0.05
    threshold: Positive = decide.THRESHOLD
    published_gain: Positive = 2.0
    bound: Positive = 0.8
    rows: Count = 8
    shape: tuple[float, ...] = tuple(published.load(source="re_paper", table="Table 4")["number"])
    contrast: tuple[float, ...] = (-1.0, 0.0, 0.0, 1 / 3, 2 / 3)
    trend_margin: Positive = 0.2
    family: Count = 8
    resamples: Count = 500

    @property
    def at_threshold(self) -> float:
        """Difference of means at which P(A > B) is the threshold."""
        return NormalDist().inv_cdf(self.threshold) * float(np.hypot(self.sd, self.sd * self.sd_ratio))

    @property
    def published_contrast(self) -> float:
        return float(np.dot(self.contrast, self.shape))


@dataclass(frozen=True)
class _Draw:
    """Data sets of n runs per side, `repeats` of them, and verdicts on them at a true difference in pp."""

    s: Setting
    n: int
    repeats: int
    rng: np.random.Generator

    def runs(self, mean: float, ratio: float = 1.0) -> np.ndarray:
        return self.rng.normal(mean, self.s.sd * ratio, (self.repeats, self.n))

    def gap(self, mean: float) -> Contrast:
        return contrast([self.runs(mean)], [1.0])

    def sides(self, difference: float) -> tuple[np.ndarray, np.ndarray, Contrast]:
        a, b = self.runs(difference), self.runs(0.0, self.s.sd_ratio)
        return a, b, contrast([a, b], [1.0, -1.0])

    def order(self, a: np.ndarray, b: np.ndarray, gap: Contrast) -> np.ndarray:
        s, level = self.s, 1 - 2 * self.s.alpha
        ends = [
            resampling.probability_above_interval(
                a[i : i + CHUNK], b[i : i + CHUNK], level, s.resamples, self.rng
            )
            for i in range(0, len(a), CHUNK)
        ]
        share = resampling.probability_above(a, b)
        return first(decide.order(share, np.concatenate(ends, -1), gap, s.threshold, s.alpha))

    def order_against_one(self, difference: float) -> np.ndarray:
        runs = self.runs(difference)
        return self.order(runs, np.zeros((self.repeats, 1)), contrast([runs], [1.0]))

    def family(self, difference: float, corrected: bool) -> np.ndarray:
        """One verdict per family: reproduced if any of its comparisons is."""
        every = replace(self, repeats=self.repeats * self.s.family)
        a, b, gap = every.sides(difference)
        found, p = (x.reshape(self.repeats, -1) for x in (every.order(a, b, gap), gap.p_above(0.0)))
        right = (decide.holm(p) if corrected else p) < self.s.alpha
        return np.where(((found == REPRODUCED) & right).any(1), REPRODUCED, INCONCLUSIVE)

    def effect(self, difference: float) -> np.ndarray:
        *_, gain = self.sides(difference)
        return first(decide.effect(gain, self.s.published_gain, self.s.margin, self.s.alpha))

    def trend(self, difference: float) -> np.ndarray:
        """Groups in the published proportions, stretched so that the contrast is `difference`."""
        s = self.s
        groups = [self.runs(mean) for mean in np.array(s.shape) * difference / s.published_contrast]
        return first(decide.trend(contrast(groups, s.contrast), s.trend_margin, s.alpha))

    def bound(self, *differences: float) -> np.ndarray:
        return first(decide.bound([self.gap(x) for x in differences], self.s.bound, self.s.alpha))


RULES: Mapping[str, Callable[[_Draw, float], np.ndarray]] = {
    "value": lambda d, x: first(decide.value(d.gap(x), d.s.margin, d.s.alpha)),
    "order": lambda d, x: d.order(*d.sides(x)),
    "order, against one number": _Draw.order_against_one,
    "order, family": lambda d, x: d.family(x, corrected=True),
    "order, family without Holm": lambda d, x: d.family(x, corrected=False),
    "effect": _Draw.effect,
    "trend": _Draw.trend,
    "bound": lambda d, x: d.bound(*[x] * d.s.rows),
    "bound, one row off": lambda d, x: d.bound(x, *[0.0] * (d.s.rows - 1)),
}


def verdicts(
    rule: str, difference: float, n: int, s: Setting, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """(repeats,) verdicts of a rule, a key of `RULES`, on data sets of n >= 2 runs per side whose true difference in pp
    (mean minus published, A minus B, the contrast) is known."""
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    return RULES[rule](_Draw(s, n, check(Count, "repeats", repeats), rng), difference)


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
    rows = []
    for n in runs:
        for i, x in enumerate(map(float, differences)):
            found = verdicts(rule, x, n, s or Setting(), repeats, np.random.default_rng((seed, i, n)))
            shares = {verdict: float((found == verdict).mean()) for verdict in VERDICTS}
            rows.append({"n": n, "difference": x, **shares})
    return pd.DataFrame(rows)
