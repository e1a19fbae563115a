"""The chapter: blocks and tables say what the findings and measurements hold; executed as a user would."""

import html
import json
import re
import subprocess
import sys

import pandas as pd
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("IPython", reason="IPython is not installed (pip install -e .[book])")
pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd import paths
from rkd.audit import MATTERS, findings, pyramid
from rkd.errors import ConfigError
from rkd.report import audit
from rkd.report.book import TOKEN


def text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", markup))


def test_overview_links_to_every_block():
    listed = audit.overview(findings())
    blocks = "".join(map(audit.block, findings()))
    for f in findings():
        assert f'href="#finding-{f.number}"' in listed
        assert blocks.count(f'id="finding-{f.number}"') == 1
    assert listed.count("<tr>") == 35  # the head and 34 rows; headings of groups have a class
    for matters in MATTERS:
        assert matters in listed


def test_links_within_the_page_have_their_targets():
    blocks = "".join(map(audit.block, findings()))
    targets = set(re.findall(r'id="([^"]+)"', blocks)) | {"the-list"}
    assert set(re.findall(r'href="#([^"]+)"', blocks)) <= targets


def test_a_block_says_both_sides():
    f = next(f for f in findings() if f.number == 9)
    said = text(audit.block(f))
    for part in (f.title, f.how_much, "hcl_duplicates: count", "recipe", "reproduction"):
        assert part.split("`")[0] in said
    assert "Our reading" not in said
    assert "Our reading" in text(audit.block(next(f for f in findings() if f.reading)))


def test_links_are_those_of_the_book_inside_a_build(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert 'href="table3.ipynb"' in audit.link("table3") and 'href="running.md"' in audit.link("running")
    monkeypatch.setenv(TOKEN, "x")
    assert audit.link("table3") == '<a href="table3.html">Table 3</a>'


def test_texts_are_escaped():
    assert audit.words("a < b, `c < d`, **e**, finding 3") == (
        'a &lt; b, <code>c &lt; d</code>, <strong>e</strong>, <a href="#finding-3">finding 3</a>'
    )


def test_arguments_that_are_shown_are_valid():
    import yaml

    for f in findings():
        for side in f.reproduce:
            if side.sets and not side.recipe:
                shown = audit.given(side.sets)
                if shown.startswith("-y"):
                    values = yaml.safe_load(shown.removeprefix("-y '").removesuffix("'"))
                    flat = {**values, **values.pop("options", {})}
                    flat.pop("options", None)
                    assert flat == side.sets
                else:
                    _, name, value = shown.split()
                    assert yaml.safe_load(value) == side.sets[name]


def test_facts_of_frames_dataclasses_and_texts():
    frame = pd.DataFrame({"what": ["a<b"], "count": [12345], "share": [0.123456], "none": [float("nan")]})
    shown = audit.facts("caption", frame, digits=2)
    assert "a&lt;b" in shown and "12,345" in shown and ">0.12<" in shown and ">–<" in shown
    assert ">0.1235<" in audit.facts("caption", frame)
    assert "0.00001" in audit.facts("caption", pd.DataFrame({"x": [1e-5]}))
    outcome = text(audit.facts("caption", pyramid.Outcome(0.5, "no")))
    assert "loss" in outcome and "0.5" in outcome
    assert "<code>x &lt; y</code>" in audit.facts("caption", "x < y")


def test_parameters_are_checked():
    for given, match in (
        ({"sed": 1}, "unknown parameter 'sed'; did you mean 'seed'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"profile": "smok"}, "unknown profile 'smok'"),
    ):
        with pytest.raises(ConfigError, match=match):
            audit.open_audit(given)


@pytest.mark.slow
def test_the_notebook_runs_offline(tmp_path):
    book = paths.home() / "book"
    notebook = json.loads((book / "audit.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) <= 20 and code[-1]["metadata"]["tags"] == ["remove-cell"]
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(book / "audit.ipynb"), str(out), "--no-progress-bar"]
    done = subprocess.run(
        [*command, "--cwd", str(book), "-p", "data_root", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = out.read_text(encoding="utf-8")
    for fact in ("10,304", "114,536", "Target 57 is out of bounds", "did you mean", "output_size", "−1.12"):
        assert fact in shown
    for alternative in ("RM + RLF 69.92", "fed as trained 0.", "with maxima", "codes' at epoch 151"):
        assert alternative in html.unescape(shown)
    assert not [
        o for c in json.loads(shown)["cells"] for o in c.get("outputs", []) if o["output_type"] == "stream"
    ]
