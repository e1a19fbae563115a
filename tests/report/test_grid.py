"""Methods against pairs: which number stands in which cell, and the gains."""

import re
from dataclasses import replace

import pytest
from conftest import tiny_plain
from evidence import record

from rkd.experiments.chapters import Line, Published
from rkd.report.grid import gain_plot, gains_in_words, grid_table, printed_means, side_of
from rkd.report.summary import measure_values


def line(key, label, group, role="distilled", said=()):
    return Line(key, label, (), group, tuple(Published("README", v, "a note") for v in said), role=role)


def lines():
    return [
        line("a-s", "student alone", "A", "student", [70.0]),
        line("a-kd", "KD", "A", said=[71.5]),
        line("a-at", "AT", "A", said=[70.5]),
        line("b-s", "student alone", "B", "student", [60.0]),
        line("b-kd", "KD", "B", said=[59.0]),
    ]


@pytest.fixture
def sides():
    nothing = dict.fromkeys([one.key for one in lines()], measure_values([]))
    paper = side_of(lines(), nothing | {"b-kd": measure_values([58.0])})
    own = [*lines()[:2], line("c-kd", "KD", "C")]
    here = side_of(
        own,
        {
            "a-s": measure_values([40.0, 42.0]),
            "a-kd": measure_values([43.0, 44.0]),
            "c-kd": measure_values([]),
        },
    )
    return here, paper


def cells(table):
    """Text of the cells by (row, column)."""
    text = [
        [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
    ]
    return {
        (row[0], head): cell.split()
        for row in text[1:]
        for head, cell in zip(text[0][1:], row[1:], strict=True)
    }


def test_cells_in_several_arithmetics_name_theirs(sides):
    _, paper = sides
    made = {
        name: measure_values([43.0], [record(tiny_plain(precision=name), 43.0)]) for name in ("fp16", "fp32")
    }
    first, second = lines()[:2]
    mixed = side_of([first, second], {"a-s": made["fp16"], "a-kd": made["fp32"]})
    found = cells(grid_table(mixed, paper, "last"))
    assert found["KD", "A"] == ["43.00", "+0.00", "fp32", "(1)", "71.50"]
    assert found["student alone", "A"] == ["43.00", "fp16", "(1)", "70.00"]
    same = side_of([first, second], {"a-s": made["fp16"], "a-kd": made["fp16"]})
    assert cells(grid_table(same, paper, "last"))["KD", "A"] == ["43.00", "+0.00", "71.50"]


def test_measured_stands_above_published_with_its_gain(sides):
    found = cells(grid_table(*sides, "last"))
    assert found["KD", "A"] == ["43.50", "+2.50", "71.50"]
    assert found["student alone", "A"] == ["41.00", "70.00"]
    assert found["KD", "B"] == ["58.00", "59.00"], "recorded, but without its student no gain"
    assert found["AT", "A"] == ["–", "70.50"] and found["AT", "B"] == []
    assert found["KD", "C"] == ["–"]
    heads = re.findall(r'<th scope="col">(.*?)</th>', grid_table(*sides, "best"))
    assert heads == ["best epoch, %", "C", "A", "B"], "own pairs first"


def test_mean_over_pairs_needs_all_of_them(sides):
    here, paper = sides
    found = cells(grid_table(here, paper, "last", {"KD": "65.2 (+0.3)"}))
    assert found["KD", "mean"] == ["50.75", "65.2", "(+0.3)"]
    assert found["student alone", "mean"] == ["–"] and found["AT", "mean"] == ["–"]


def test_spread_and_sources_are_told(sides):
    table = grid_table(*sides, "last")
    assert 'title="sd 0.71 over 2 runs"' in table and 'title="one run"' in table
    assert 'title="README 71.50: a note"' in table and 'tabindex="0"' in table


def test_gains(sides):
    here, paper = sides
    assert gains_in_words(here, "last") == "KD +2.50"
    assert paper.published_gain("A", paper.cells["KD", "A"][0]) == 1.5
    other = replace(paper.cells["KD", "A"][0], published=(Published("elsewhere", 90.0),))
    assert str(paper.published_gain("A", other)) == "nan", "values of two sources are not subtracted"
    assert gains_in_words(paper, "last") == "nothing measured"
    figure = gain_plot(here, paper, "profile smoke", "last", together=False)
    marks = [
        sorted(drawn.get_xdata()) for ax in figure.axes for drawn in ax.lines if drawn.get_marker() in "so"
    ]
    assert marks == [[-1.0, 1.5], [0.5], [2.5]]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["KD", "AT"]
    assert len(gain_plot(here, paper, "profile paper", "last", together=True).axes) == 1


def test_means_as_printed():
    found = printed_means()
    assert found["student alone"] == "80.9" and found["ST"] == "82.7 (+1.8)"
    assert found["ST + AT"] == "82.2 (+1.5)" and len(found) == 6
