"""What a notebook declares: read without executing it, and checked."""

import json

import pytest

from rkd import paths
from rkd.errors import ConfigError
from rkd.experiments import chapters
from rkd.experiments.chapters import Chapter, chapter_in, get_chapter
from rkd.experiments.settings import resolve

SMOKE = resolve("table3", {"profile": "smoke", "seeds": [0]})


def declared(**values):
    return Chapter.declared("mine", "Mine", {"METHOD": "reviewkd", **values})


def test_a_changed_row_changes_its_runs_alone():
    def runs(**changed):
        rows = get_chapter("table3").rows
        of = chapter_in(
            "table3", {"METHOD": "reviewkd", "ROWS": {**rows, "full": {**rows["full"], **changed}}}
        )
        return {line.key: line.runs for line in of.lines(SMOKE)}

    ours, plain = runs(attention=False), runs()
    assert [key for key in plain if ours[key] != plain[key]] == ["full"]
    assert ours["full"] == ours["rm_rlf_hcl"], "without attention it is that row"


def test_a_row_may_be_added_and_says_which_names_it_may_have():
    line = declared(ROWS={"max": {"hcl_pooling": "max", "note": "{student}: {hcl_pooling}"}}).lines(SMOKE)[0]
    assert line.runs[0].options.hcl_pooling == "max" and line.note == "ResNet-8: max"
    with pytest.raises(
        ConfigError, match=r"unknown name in row 'x' of mine: 'atention' .did you mean 'attention'"
    ):
        declared(ROWS={"x": {"atention": False}}).lines(SMOKE)
    with pytest.raises(ConfigError, match="rows is 3; it must map names to values"):
        declared(ROWS=3)
    with pytest.raises(ConfigError, match=r"'\{weight\}' cannot be filled in"):
        declared(ROWS={"x": {"note": "{weight}"}}).lines(SMOKE)


def notebook(path, source):
    cell = {"cell_type": "code", "metadata": {"tags": ["rows"]}, "source": source, "outputs": []}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_cells_that_are_no_literals_are_not_executed(tmp_path, monkeypatch):
    touched = tmp_path / "touched"
    (tmp_path / "book").mkdir()
    notebook(tmp_path / "book" / "bad.ipynb", f"ROWS = {{'x': {{'note': str(open({str(touched)!r}, 'w'))}}}}")
    monkeypatch.setattr(paths, "home", lambda: tmp_path)
    with pytest.raises(ConfigError, match="the cell tagged rows must assign literals alone"):
        get_chapter("bad")
    assert not touched.exists()


def test_a_notebook_is_read_again_once_it_has_changed(tmp_path):
    for key in ("first", "second"):
        assert list(chapters._read(notebook(tmp_path / "x.ipynb", f"ROWS = ['{key}']")).rows) == [key]
