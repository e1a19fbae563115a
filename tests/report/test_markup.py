"""Text that the package did not write is text on every page: of records, logs, data sets, profiles and measurements."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from alive import IN_BROWSER, MARK, alive
from cells import cells
from IPython.display import Markdown

from rkd import paths
from rkd.errors import RkdError
from rkd.records import Record
from rkd.report.book import TOKEN, VARIATION
from rkd.report.interactive.markup import code, directive
from rkd.report.tables import frame

ROOT = paths.home()
AS_FILE = MARK.replace("/", "")


def leaves(part):
    """Every text in nested dicts, as its owner and its key there."""
    for key, value in part.items():
        if isinstance(value, dict):
            yield from leaves(value)
        elif isinstance(value, str):
            yield part, key


def mark(record):
    """Markup in every text of a record that may be any text, in names of labels, threads and of a curve."""
    record["provenance"]["labels"][MARK] = MARK
    record["curves"][f"loss_{MARK}"] = record["curves"]["lr"]
    if record["cost"].get("threads"):
        record["cost"]["threads"][MARK] = 1
    for owner, key in [*leaves(record["cost"]), *leaves(record["provenance"])]:
        before, owner[key] = owner[key], MARK
        try:
            Record.from_json(json.dumps(record), "x.json")
        except RkdError:
            owner[key] = before
    assert MARK in (record["cost"]["arithmetic"], record["provenance"]["device_name"])
    return json.dumps(record)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A checkout whose committed results someone has written markup into."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("book", "params", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("work", "teachers"))
    shutil.copy(ROOT / "_config.yml", folder)
    for path in [*folder.glob("results/short/*.json"), *sorted(folder.glob("results/mini/*.json"))[:10]]:
        path.write_text(mark(json.loads(path.read_text())))
    for path in folder.glob("results/bench/*.json"):
        found = json.loads(path.read_text())
        for owner, key in leaves(found):
            if key in ("device_name", "system", "torch", "python", "commit", "note", "sentence"):
                owner[key] = MARK
        path.write_text(json.dumps(found))
    run = dict.fromkeys(("repository", "commit", "file", "note"), MARK)
    run |= {"lines": "table3/full", "epochs": 240, "dataset": "cifar100", "student": "resnet20"}
    run |= {"method": "reviewkd", "last": 70}
    with open(folder / "results" / "others" / f"{AS_FILE}.csv", "w", newline="") as file:
        csv.writer(file).writerows([run.keys(), run.values()])
    return folder


def outputs(notebook, **given):
    """What the cells of a notebook show, as HTML, executed in order with these parameters."""
    shown = []
    names = {"display": lambda *values, **_: shown.extend(values)}
    for cell in cells(notebook):
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, notebook, "exec"), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), notebook, "eval"), names))
            if "parameters" in cell.metadata.get("tags", []):
                names |= given
    for one in shown:
        assert not isinstance(one, Markdown) or "PWN" not in one.data, "text that is no Markdown"
    return "".join(one._repr_html_() or "" for one in shown if hasattr(one, "_repr_html_"))


@pytest.mark.parametrize(
    ("notebook", "given"),
    [
        ("table3", {"parameters": {"on_missing": "skip"}}),
        pytest.param("explorer", {}, marks=pytest.mark.slow),
        pytest.param("modreduce", {"parameters": {"on_missing": "skip"}}, marks=pytest.mark.slow),
        pytest.param("performance", {"recorded": "results/bench/cpu-2-cores-1.json"}, marks=pytest.mark.slow),
    ],
)
def test_what_others_wrote_is_text_in_what_cells_show(home, monkeypatch, notebook, given):
    monkeypatch.setenv("RKD_HOME", str(home))
    monkeypatch.setenv(TOKEN, "of a build")
    monkeypatch.setenv(VARIATION, "v")  # the box of verdicts is the slowest of all
    page = outputs(notebook, **given)
    assert "PWN" in page and alive(page) == []


def test_nothing_else_turns_text_into_markup():
    sources = {path: path.read_text() for path in (ROOT / "rkd").rglob("*.py")}
    escapes = re.compile(r"import (html|escape)\b|html\.escape")
    assert {path.name for path, text in sources.items() if escapes.search(text)} == {"markup.py"}
    written = re.compile(r"HTML\(f[\"']|<(p|div|td|b|strong|code|a) |escape=False")
    for path in (ROOT / "book").glob("*.ipynb"):
        assert not written.search(path.read_text()), path.name


def test_a_frame_is_text_numbers_and_links():
    values = {"<x>": ["", MARK], "n": pd.array([1, None], "Int64"), "v": [1234.5, np.nan]}
    values["f"] = ["a < b", None]
    made = frame(pd.DataFrame(values).set_index("<x>"), MARK, index=True, links={"a < b": "#m"}).data
    assert alive(made) == [] and '<a href="#m">a &lt; b</a>' in made and "&lt;x&gt;" in made
    assert "<td>1,234.50</td>" in made and "<td>1</td>" in made and "nan" not in made and "<NA>" not in made
    assert frame(pd.DataFrame([[MARK, 1.5], ["", 2]], columns=["a", "a"])).data.count("<td") == 4
    assert frame(pd.DataFrame(columns=["a"])).data.count("<th") == 1 + 1, "a head, and nothing below it"
    parts = pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_product([["p"], ["q", "r"]]))
    assert frame(parts, index=True).data.count('<th scope="row"') == 4


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (True, 2, "yes"), (np.bool_(False), None, "no"), (12345, 2, "12,345"), (np.int64(-3), 2, "−3"),
        ((1, 2), 2, "(1, 2)"),
        (-0.123456, None, "−0.1235"), (-0.123456, 2, "−0.12"), (1e5, None, "100000"), (np.nan, 2, ""), (pd.NaT, 2, ""),
        (np.float32(0.5), 0, "0"), (1234.5, 1, "1,234.5"),
    ],
)  # fmt: skip
def test_values_of_a_frame(value, digits, said):
    assert f"<td>{said}</td>" in frame(pd.DataFrame({"v": [value]}, dtype=object), digits=digits).data


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", "b c"], True), (["70.95 ± 0.12", "none"], False), (["-1", "+2"], False), ([None, "x"], True),
        (["73.61 (in one table) and 73.71 (in another)"], True), ([None], False),
    ],
)  # fmt: skip
def test_columns_of_words_stand_on_the_left(values, words):
    made = frame(pd.DataFrame({"v": values})).data
    assert ('<th scope="col" class="text">' in made) == words == ('class="text"' in made)


@pytest.mark.parametrize("text", [MARK, "a\n\n# b", "``` `` `", "", "\n::::\n:::::{raw} html\n", "\ud800"])
def test_markdown_shows_text_as_it_is(text):
    from docutils.core import publish_doctree
    from myst_parser.parsers.docutils_ import Parser

    settings = {"myst_enable_extensions": ["colon_fence", "dollarmath"], "report_level": 5}
    for made in (code(text), f"- {code(text)} x", directive("admonition", "T", code(text, "text"))):
        tree = publish_doctree(made, parser=Parser(), settings_overrides=settings)
        kinds = {node.tagname for node in tree.findall()} - {"#text", "inline"}
        blocks = {"document", "paragraph", "bullet_list", "list_item", "admonition", "title"}
        assert kinds <= {*blocks, "literal", "literal_block"}


@pytest.mark.slow
@pytest.mark.browser
def test_what_others_wrote_is_text_in_the_built_site(home, browser, tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    npz = tmp_path / f"{AS_FILE}.npz"
    np.savez(npz, x_train=x, y_train=y, x_test=x, y_test=y, class_names=np.array([MARK, "b"]))
    profile = tmp_path / f"{AS_FILE[:120]}.yaml"
    smoke = (ROOT / "params" / "smoke.yaml").read_text()
    profile.write_text(smoke.replace("dataset: embedded", f"dataset: {json.dumps(str(npz))}"))
    toc = "format: jb-book\nroot: table3\nchapters: [{file: explorer}, {file: inside}]\n"
    (home / "book" / "_toc.yml").write_text(toc)
    call = [sys.executable, "-m", "rkd", "book", "--profile", str(profile), "--jobs", "1"]
    done = subprocess.run(call, env={**os.environ, "RKD_HOME": str(home)}, capture_output=True, text=True)
    for name in ("table3", "explorer", "inside"):
        page = home / "_build" / "html" / f"{name}.html"
        assert page.is_file() and "chapter failed" not in page.read_text(), done.stderr + done.stdout
        assert "PWN" in page.read_text()
        browser.get(page.as_uri())
        for button in browser.find_elements("css selector", ".dtsb-add, .rkd-button")[:2]:
            browser.execute_script("arguments[0].click()", button)
        assert browser.execute_script(IN_BROWSER) == [], name
