"""The page on reading verdicts: its pictures and tables say what the simulation and the rules say."""

import math
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd.errors import ConfigError
from rkd.judge import simulate
from rkd.judge.rules import VERDICTS
from rkd.report import power

GIVEN = {"profile": "smoke", "margin": 0.5, "alpha": 0.05, "sd": 0.25, "repeats": 200}


@pytest.fixture(scope="module")
def page():
    return power.open_power(GIVEN)


def rows_of(table: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", table, re.S)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_examples_show_four_verdicts_and_what_more_runs_do(page):
    judged = [j for _, j in page.examples()]
    assert [j.verdict for j in judged] == [
        "reproduced", "not reproduced", "exceeded", "inconclusive", "reproduced", "inconclusive",
    ]  # fmt: skip
    assert all(j.details["sd"] == pytest.approx(0.25) for j in judged)
    assert judged[3].estimate == pytest.approx(judged[4].estimate)  # only the number of runs differs
    cells = rows_of(page.reasons().data)
    assert [row[1] for row in cells] == [j.sentence for j in judged]
    assert all(row[0].endswith(j.verdict) for row, j in zip(cells, judged, strict=True))


def test_intervals_are_drawn_where_they_are(page):
    drawing = page.intervals()
    (ax,) = drawing.figure.axes
    ends = {
        tuple(round(float(x), 6) for x in line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2
    }
    for words, judged in page.examples():
        assert tuple(round(end, 6) for end in judged.interval) in ends
        assert f"{words}: {judged.verdict}" in drawing.alt


def test_widths_by_formula(page):
    cells = rows_of(page.widths().data)
    for row, (n, t) in zip(
        cells, ((3, 2.919986), (5, 2.131847), (10, 1.833113), (20, 1.729133)), strict=True
    ):
        half = t * 0.25 / math.sqrt(n)
        assert row == [str(n), f"{half:.2f} pp", f"{0.5 - half:.2f} pp"]
    wide = power.widths(simulate.Setting(sd=1.0))
    assert wide["means must agree within"].iloc[0] == "never"


@pytest.mark.parametrize("rule", ["value", "order", "effect"])
def test_areas_are_the_simulated_probabilities(rule):
    setting = simulate.Setting()
    frame = simulate.characteristics(rule, [0.0, 0.25, 1.0, 2.0], setting, repeats=60, runs=(3, 5))
    drawing = power.characteristics(frame, power.PANELS[rule], setting)
    axes = [ax for ax in drawing.figure.axes if ax.collections]
    assert len(axes) == 2
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    for ax, n in zip(axes, (3, 5), strict=True):
        rows = frame[frame["n"] == n]
        stacked = 100 * np.cumsum([rows[verdict] for verdict in shown], axis=0)
        for area, top in zip(ax.collections, stacked, strict=True):
            points = area.get_paths()[0].vertices
            for x, y in zip(rows["difference"], top, strict=True):
                assert np.isclose(points, (x, y)).all(1).any()
        assert np.allclose(stacked[-1], 100)  # every verdict that occurs is drawn
    best = max(VERDICTS, key=lambda verdict: frame[frame["n"] == 3].iloc[0][verdict])
    assert f"3 runs: {best}" in drawing.alt


def test_tables_part_errors_from_powers(page):
    errors, powers = rows_of(page.errors().data), rows_of(page.powers().data)
    rates = simulate.error_rates(page.setting, repeats=200)
    assert (
        len(errors) == len(rates[rates.stated.notna()]) / 3
        and len(powers) == len(rates[rates.stated.isna()]) / 3
    )
    assert all(len(row) == 4 for row in (*errors, *powers)) and "stated: at most 5 %" in page.errors().data
    first = rates[rates.stated.isna()].iloc[:3]
    assert powers[0] == ["no differencecalled reproduced", *(f"{100 * rate:.1f} %" for rate in first.rate)]
    assert page.powers().data.count("order, family without Holm") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margin": -0.5}, "margin is -0.5"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"sd": 0}, "sd is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"profile": "paperr"}, "paperr"),
        ({"marginn": 0.4}, "unknown parameter 'marginn'; did you mean 'margin'"),
    ],
)
def test_bad_parameters_are_one_clear_sentence(changes, said):
    with pytest.raises(ConfigError, match=said):
        power.open_power({**GIVEN, **changes})


def test_unknown_picture_and_missing_parameter(page):
    with pytest.raises(ConfigError, match="unknown rule 'trend'; allowed: value, order, effect"):
        page.figure("trend")
    with pytest.raises(ConfigError, match="'sd' is not set"):
        power.open_power({name: value for name, value in GIVEN.items() if name != "sd"})
