"""What given parameters change, against the profile's own: the numbers, and what the table says of gaps."""

import math
import re

import numpy as np
import pytest
from conftest import tiny_plain
from scipy import stats

from rkd.experiments.chapters import Line
from rkd.report.differences import difference, difference_table
from rkd.report.summary import Measured, measure_values


def test_difference_is_welchs():
    a, b = (71.2, 71.9, 71.5, 72.3), (70.1, 70.9, 70.2)
    gap, low, high = difference(measure_values(a), measure_values(b))
    va, vb = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    free = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    half = stats.t.ppf(0.975, free) * math.sqrt(va + vb)
    assert (gap, low, high) == pytest.approx((np.mean(a) - np.mean(b), gap - half, gap + half))


def test_one_run_a_side_has_no_interval_and_no_run_no_difference():
    gap, low, high = difference(measure_values([3.0]), measure_values([1.0, 2.0]))
    assert gap == pytest.approx(1.5) and math.isnan(low) and math.isnan(high)
    assert difference(measure_values([]), measure_values([1.0])) is None


def test_table_marks_same_missing_and_new_lines():
    nothing = Measured((), (), 1, 0, ())
    base = [Line(key, key, (tiny_plain(seed=i),)) for i, key in enumerate(("same", "moved", "gone"))]
    ours = [
        base[0],
        Line("moved", "moved", (tiny_plain(seed=7),)),
        Line("gone", "gone", (tiny_plain(seed=8),)),
        Line("new", "new", (tiny_plain(seed=9),)),
    ]
    measured = {
        "same": measure_values([2.0]),
        "moved": measure_values([5.0, 6.0]),
        "gone": nothing,
        "new": nothing,
    }
    before = {
        "same": measure_values([2.0]),
        "moved": measure_values([4.0, 4.5]),
        "gone": measure_values([1.0]),
    }
    table = difference_table(ours, measured, base, before, "lambda-0.9")
    rows = dict(re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', table))
    assert "the same runs" in rows["same"] and "+" not in rows["same"]
    assert "+1.25" in rows["moved"] and " to " in rows["moved"]
    assert rows["gone"].count("missing</span>") == 2
    assert "no such line" in rows["new"]
    assert "lambda-0.9" in table
