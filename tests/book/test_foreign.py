"""Notebooks that others executed, in the book: nothing of theirs runs, is read from disk or steers the build."""

import json
import re
import shutil

import nbformat
import pytest
from alive import IN_BROWSER, MARK, alive
from test_build import ROOT, papermilled, varied

from rkd.errors import ConfigError
from rkd.experiments.notebooks import read_notebook
from rkd.report.book.foreign import render_plain, sanitise

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' onload='window.PWN=1'><script>window.PWN=1</script><rect/></svg>"
)
MARKDOWN = [
    MARK,
    "---\njupytext: {x: 1}\nmystnb: {execution_mode: force}\n---\n",
    "```{include} SECRET\n```",
    "```{literalinclude} SECRET\n```",
    "::::{figure} SECRET\n::::\n:::{image} SECRET\n:::",
    "```{eval-rst}\n.. raw:: html\n   :file: SECRET\n```",
    "```{raw} html\n<x-pwn></x-pwn>\n```",
    "```{code-cell}\nopen('RAN', 'w')\n```",
    "{download}`here <SECRET>` and {eval}`open('RAN', 'w')`",
    "```{tableofcontents}\n```\n(index)=\n# Another heading",
    "[a]: javascript:PWN\n[x][a] <javascript:PWN> ![](SECRET) ![](attachment:x.png)",
    "<x-pwn></x-pwn>\n\n<script>window.PWN=1</script>\n\n<svg onload=window.PWN=1>",
    "{{ 7 * 7 }} $\\href{javascript:PWN}{x}$ and \\(\\href{javascript:PWN}{y}\\)",
    "$$\\require{html}\\href{javascript:PWN}{z}$$",
    '::::\n<x-pwn></x-pwn>\n\n+++ {"tags": ["x"]}\n\nlast',
]
DATA = [
    {"text/html": MARK, "text/plain": "x"},
    {"text/html": "<iframe srcdoc='<x-pwn>'></iframe><form action=javascript:PWN><button>b</button></form>"},
    {"text/html": "<a href=' java\tscript:PWN'>x</a><a href='file:///etc/passwd'>y</a><base href='//pwn.org'>"},
    {"text/html": "<img src='https://pwn.org/x.png'><link rel=stylesheet href=//pwn.org><meta http-equiv=refresh>"},
    {"text/html": "<math><mtext><table><mglyph><style><img src=x onerror=window.PWN=1></style></math>"},
    {"text/html": "<div style='position:fixed;inset:0' id=searchbox class=bd-header data-kind=plot>over</div>"},
    {"application/javascript": "window.PWN=1", "text/plain": "nothing"},
    {"application/vnd.jupyter.widget-view+json": {"model_id": "a", "version_major": 2}, "text/plain": "w"},
    {"text/markdown": "```{include} SECRET\n```\n<x-pwn></x-pwn> **bold**"},
    {"text/latex": "$\\href{javascript:PWN}{x}$", "text/plain": "x"},
    {"image/svg+xml": SVG, "text/plain": MARK},
    {"image/png": f'{PNG}"><x-pwn>', "text/plain": MARK},
    {"image/png": PNG, "text/plain": MARK},
]  # fmt: skip


def hostile(bench, path):
    """What papermill might have made of the chapter "one", and someone of that."""
    content = papermilled(bench.source / "one.ipynb", path, {"x": 5, "words": [MARK]}, MARK)
    secret = path.with_name("secret")
    secret.write_text("THE-SECRET <x-pwn></x-pwn>")
    new = [nbformat.v4.new_markdown_cell(text.replace("SECRET", str(secret))) for text in MARKDOWN]
    new[-1]["attachments"] = {"x.png": {"text/html": MARK}}
    raw = nbformat.v4.new_raw_cell(MARK, metadata={"raw_mimetype": "text/html"})
    ran = path.with_name("RAN")
    about = {
        "tags": ["colab", "injected-parameters", "remove-cell", MARK],
        "mystnb": {"figure": {"caption": MARK}, "code_prompt_show": MARK},
        "execution": {"shell.execute_reply": "2026-11-21T12:00:00Z"},
    }
    opens, made = f"open({str(ran)!r}, 'w') # {MARK}", nbformat.v4.new_output
    code = [
        nbformat.v4.new_code_cell(opens, outputs=[made("display_data", one)], metadata=about) for one in DATA
    ]
    for cell in code:
        cell["execution_count"] = 9
    content["cells"] += [*new, raw, *code]
    content["metadata"] |= {
        "mystnb": {"execution_mode": "force"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"a": MARK}}},
        "html_meta": {"x": MARK},
        "file_format": "mystnb",
        "rkd": {"chapter": "one"},
    }
    content["nbformat_minor"] = 5
    path.write_text(json.dumps(content))
    return secret, ran


def test_nothing_of_an_added_notebook_is_obeyed(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / f"{MARK.replace('/', '')[:150]}\n\n# a\n.ipynb"
    hostile(bench, made)
    bench.adopt(made, "five")
    staged = bench.staged("one--five")
    assert staged["metadata"].keys() == {"kernelspec", "rkd"}
    ours = [cell["source"] for cell in bench.staged("one")["cells"]]
    for cell in staged["cells"]:
        assert cell["metadata"].keys() <= {"tags", "mystnb"} and MARK not in str(cell["metadata"])
        if cell["cell_type"] == "markdown" and cell["source"] not in ours:
            told = re.fullmatch(r"\*Cell \d+ is not the chapter's\.\*", cell["source"])
            assert told or cell["id"] in ("head", "provenance")
        for output in cell.get("outputs", []):
            assert output["output_type"] == "stream" or output["data"].keys() == {"text/html"}
            assert not alive(output.get("data", {}).get("text/html", ""))
    outputs = [output for cell in staged["cells"] for output in cell.get("outputs", [])]
    shown = "".join(output["data"]["text/html"] for output in outputs if "data" in output)
    assert shown.count("data:image/") == 2
    assert all(words in shown for words in (PNG, "<strong>bold</strong>", "{include}"))
    assert not any(words in shown for words in ("https://pwn.org/x.png", "position", "data-kind"))


def test_cells_that_are_not_the_chapters_are_named(tmp_path):
    bench, made = varied(tmp_path), tmp_path / "out.ipynb"

    def told(change) -> str:
        content = papermilled(bench.source / "one.ipynb", made, {"x": 5})
        change(content["cells"])
        made.write_text(json.dumps(content))
        bench.adopt(made, "five")
        return bench.text("one--five").partition("Its pictures")[0]

    def two(cells) -> None:
        cells[0].update(source="# Chapter one\nMine.")
        cells[3].update(source="x = 6")

    commented = told(lambda cells: cells[3].update(source=[*cells[3]["source"], "\n# so"]))
    assert "its cells are the chapter's" in commented and "**not the chapter's: cells 1, 4" in told(two)
    smuggled = {"source": "x = 5\nprint('more')"}
    assert "not the chapter's: cell 3" in told(lambda cells: cells[2].update(smuggled))  # as papermill's own
    assert "not here: 1 of the chapter's" in told(lambda cells: cells.pop(3))


def test_pictures_tables_and_plain_words_survive():
    table = '<table border="1"><tr style="text-align: right;"><td>1 &lt; 2</td></tr></table>'
    assert '<tr style="text-align:right"><td>1 &lt; 2</td></tr>' in sanitise(table)
    picture = sanitise(f'<img class="rkd-still" alt="a" src="data:image/png;base64,{PNG}">')
    assert f'src="data:image/png;base64,{PNG}"' in picture and 'class="rkd-still"' in picture
    read = render_plain("# A\n\n*b* [c](https://d.org) [e](table4.ipynb#f) $g_1$\n\n|h|\n|-|\n|i|")
    wanted = "<em>b</em>", 'href="https://d.org"', 'href="table4.html#f"', "$g_1$", "<td>i"
    assert [said for said in wanted if said not in read] == []
    assert "\ufffd" in render_plain("\0") and "?" in sanitise("\ud800")


DIED = {"papermill": {"status": "completed", "exception": False}}  # its words where the kernel was killed
ERROR = {"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (3, {"outputs": [ERROR]}, "failed: E: no"),
        (-1, {"execution_count": None}, "not executed to its last cell"),
        (-1, {"metadata": DIED}, "does not say that its last cell ended"),
        (0, {"source": "# Another book"}, "no chapter of this book.*'Another book'"),
        (1, {"outputs": 5}, "not a sound Jupyter notebook"),
        (1, {"execution_count": "x"}, "not a sound"),
        (1, {"source": "(" * 100000}, None),
        (1, {"source": "\0"}, None),
        (None, {"cells": []}, "no chapter of this book"),
        ("metadata", {"rkd": [1]}, None),
        ("metadata", {"papermill": 5}, "no injected parameters"),
        ("papermill", {"parameters": {}}, "no injected parameters"),
        ("papermill", {"parameters": {"device": "cpu"}}, "no parameter that differs"),
        ("papermill", {"parameters": {"x": 5, "profile": "paper"}}, "profile paper; add it with --profile paper"),
        ("papermill", {"duration": "long"}, "does not say when it ended"),
        ("papermill", {"duration": float("inf")}, "does not say when it ended"),
        ("papermill", {"end_time": "0001-01-01T00:00:00+23:00"}, "does not say when"),
    ],
)  # fmt: skip
def test_what_is_no_variation_gets_one_sentence(tmp_path, place, change, words):
    bench, made = varied(tmp_path), tmp_path / "out.ipynb"
    content = papermilled(bench.source / "one.ipynb", made, {"x": 5})
    parts = dict(enumerate(content["cells"])) | {-1: content["cells"][-1], None: content}
    parts |= {"metadata": content["metadata"], "papermill": content["metadata"]["papermill"]}
    parts[place].update(change)
    made.write_text(json.dumps(content))
    if words is None:
        bench.adopt(made, "five")
        return
    with pytest.raises(ConfigError, match=words):
        bench.adopt(made, "five")
    assert bench.book.variations() == []


@pytest.mark.parametrize(
    "content", ["", "[" * 100000, "null", "[]", "\xff", '{"nbformat": 4, "cells": 5}', "1" * 5000]
)
def test_what_is_no_notebook_gets_one_sentence(tmp_path, content):
    (tmp_path / "x.ipynb").write_bytes(content.encode("latin-1"))
    for path in (tmp_path / "x.ipynb", tmp_path, tmp_path / "none.ipynb"):
        with pytest.raises(ConfigError, match=r"not a Jupyter notebook|cannot be read"):
            read_notebook(path)


@pytest.mark.slow
@pytest.mark.browser
def test_nothing_of_an_added_notebook_is_alive_in_the_site(tmp_path, browser):
    bench, made = varied(tmp_path), tmp_path / "out.ipynb"
    _, ran = hostile(bench, made)
    shutil.copy(ROOT / "_config.yml", bench.config)
    shutil.copytree(ROOT / "book" / "_assets", bench.source / "_assets")
    result = bench.adopt(made, "five", html=True)
    page = result.html.with_name("one--five.html")
    assert not ran.exists() and "THE-SECRET" not in page.read_text()
    browser.get(page.as_uri())
    assert browser.execute_script(IN_BROWSER) == []
    assert browser.execute_script("return document.querySelectorAll('main h1').length") >= 1
    text = browser.execute_script("return document.querySelector('main').innerText")
    assert "not the chapter" in text and "{eval-rst}\n" in text and "Another heading" in text
