"""The page on reading verdicts: its cells show what the rules and the simulation say."""

import math
import warnings

import matplotlib
import pytest
from cells import execute


@pytest.fixture(scope="module")
def page():
    matplotlib.use("agg")
    with warnings.catch_warnings(action="error"):
        return execute("verdicts", profile="smoke", margin=0.5, alpha=0.05, sd=0.25, repeats=40)


def test_examples_show_four_verdicts_and_what_more_runs_do(page):
    found = list(page["results"].values())
    assert [j.verdict for j in found] == [
        "reproduced", "not reproduced", "exceeded", "inconclusive", "reproduced", "inconclusive",
    ]  # fmt: skip
    assert all(j.details["sd"] == pytest.approx(0.25) for j in found)
    assert found[3].estimate == pytest.approx(found[4].estimate)  # only the number of runs differs


def test_widths_by_formula(page):
    widths = page["widths"]
    halves = dict(zip(widths["runs"], widths["half-width of the interval"], strict=True))
    for n, t in ((3, 2.919986), (5, 2.131847), (10, 1.833113)):
        assert halves[n] == pytest.approx(t * 0.25 / math.sqrt(n), rel=1e-6)
    assert widths["means must agree within"][0] == f"{0.5 - 2.919986 * 0.25 / math.sqrt(3):.2f} pp"


def test_pictures_have_alternative_texts_with_figures_in_them(page):
    drawn = page["areas"]("effect", "Title?", "gain, pp", [0.0, 1.0, 2.0], {"none": 0.0, "gain": 2.0})
    shown = page["characteristics"]("effect", [2.0], (10,))
    assert "10 runs at none: not reproduced" in drawn.alt and "10 runs at gain: reproduced" in drawn.alt
    assert shown["reproduced"][0] > 0.9
    assert len([ax for ax in drawn.figure.axes if ax.collections]) == 3


def test_rates_are_those_of_the_simulation(page):
    rates = page["rates"]
    assert len(page["powers"]) == len(rates[rates["stated"].isna()]) / 3
