"""Every chapter executed by papermill as a user would, twice; injected parameters; what the pages say."""

import json
import re
import subprocess
import sys
import time

import nbformat
import pytest

from rkd import paths
from rkd.experiments.chapters import chapter_names, get_chapter

BOOK = paths.home() / "book"
TINY = "{train_images: 100, test_images: 100, epochs: 1, seeds: [0], teacher: resnet8, budget: {}}"
PAIR = (
    "{train_images: 100, test_images: 100, epochs: 1, seeds: [0], pairs: [[resnet14, resnet8]], budget: {}}"
)
# One of each kind of method: two dozen take minutes.
FEW = TINY[:-1] + ", student: resnet8, methods: [kd, at, sp, crd+kd, fsp]}"


def papermill(chapter, out, results, *more, yaml=None):
    yaml = yaml or (FEW if chapter == "methods" else TINY if get_chapter(chapter).one_pair else PAIR)
    call = [
        sys.executable, "-m", "papermill", str(BOOK / f"{chapter}.ipynb"), str(out), "--no-progress-bar",
        "-f", str(paths.params() / "smoke.yaml"), "-y", yaml, "-p", "results", str(results), *more,
    ]  # fmt: skip
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


def outputs(path):
    """HTML and text of all outputs of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found.append(data.get("text/html") or data.get("text/markdown") or output.get("text", ""))
    return "\n".join(found)


# One of each kind here; a build of the book executes them all.
KINDS = {"table4", "kdrefine", "modreduce"}


@pytest.mark.parametrize(
    "chapter", [pytest.param(c, marks=[] if c in KINDS else pytest.mark.slow) for c in chapter_names()]
)
def test_chapter_executes_and_a_second_time_trains_nothing(chapter, tmp_path):
    first = papermill(chapter, tmp_path / "1.ipynb", tmp_path / "r")
    assert first.returncode == 0, first.stderr[-2000:]
    text = outputs(tmp_path / "1.ipynb")
    count = int(re.search(r"(\d+) runs: 0 were recorded, \1 were trained now, 0 are missing", text)[1])
    records = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("*.json")}
    assert len(records) == count >= 3
    second = papermill(chapter, tmp_path / "2.ipynb", tmp_path / "r")
    assert second.returncode == 0
    assert f"{count} runs: {count} were recorded, 0 were trained now" in outputs(tmp_path / "2.ipynb")
    assert records == {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("*.json")}

    assert "proves the machinery, not the claim" in text
    assert "<table" in text and "<img" in text and "alt=" in text
    assert all(p.stem in text for p in records), "each record is named in the provenance"
    source = (BOOK / f"{chapter}.ipynb").read_text()
    assert f"# {get_chapter(chapter).title}" in source and "**What is claimed.**" in source


def test_missing_runs_are_shown_as_missing_never_as_zero(tmp_path):
    done = papermill("table6", tmp_path / "o.ipynb", tmp_path / "r", "-p", "on_missing", "skip")
    assert done.returncode == 0, done.stderr[-2000:]
    text = re.sub(r"<script\b.*?</script>", "", outputs(tmp_path / "o.ipynb"), flags=re.DOTALL)
    assert text.count("<td>missing</td>") >= 6 and "0.00" not in text
    assert not list((tmp_path / "r").glob("*.json"))
    done = papermill("table6", tmp_path / "o.ipynb", tmp_path / "r", "-p", "on_missing", "error")
    assert done.returncode == 1 and "runs are not recorded" in done.stderr


def test_the_published_example_line(tmp_path):
    """-p loss_weight 0.9 -p attention False, and own levels: in force in every row, and said on the page."""
    yaml = TINY[:-1] + ", hcl_levels: [h, 2, 1], hcl_weights: [1, 0.5, 0.25]}"
    done = papermill(
        "table3",
        tmp_path / "o.ipynb",
        tmp_path / "r",
        "-p",
        "loss_weight",
        "0.9",
        "-p",
        "attention",
        "False",
        yaml=yaml,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    options = [json.loads(p.read_text())["config"]["options"] for p in (tmp_path / "r").glob("*.json")]
    distilled = [o for o in options if o]
    assert len(distilled) == 4 and {o["loss_weight"] for o in distilled} == {0.9}, (
        "rows without attention coincide"
    )
    assert {tuple(o["hcl_levels"]) for o in distilled} == {("h", 2, 1)} and not any(
        o["attention"] for o in distilled
    )
    text = outputs(tmp_path / "o.ipynb")
    assert "same runs as" in text
    assert re.search(r"<th>loss_weight</th>\s*<td>0.9</td>\s*<td>given</td>", text)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["-y", "{hcl_levels: [h, 4, 2, 1], hcl_weights: [1, 0.5, 0.25]}"],
         "hcl_levels names 4 sizes ['h', 4, 2, 1] but hcl_weights has 3 values"),
        (["-p", "teacher", "resnet57"], "resnet57"),
        (["-p", "loss_weight", "-1"], "loss_weight is -1; it must be a finite number >= 0"),
        (["-p", "los_weight", "1"], "unknown parameter 'los_weight'; did you mean 'loss_weight'?"),
        (["-p", "recipe", "paper"], "unknown recipe 'paper'"),
        (["-p", "dataset", "mnist"], "mnist"),
    ],
)  # fmt: skip
def test_contradictions_stop_in_the_first_cell_with_one_sentence(more, sentence, tmp_path):
    started = time.monotonic()
    done = papermill("table3", tmp_path / "o.ipynb", tmp_path / "r", *more)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("Exception encountered at") :].strip().splitlines()
    assert len(message) == 2 and sentence in message[1] and message[1].startswith("ConfigError: ")
    assert not (tmp_path / "r").exists() and time.monotonic() - started < 60


@pytest.mark.parametrize("chapter", chapter_names())
def test_parameters_are_typed_and_explained(chapter):
    call = [sys.executable, "-m", "papermill", "--help-notebook", str(BOOK / f"{chapter}.ipynb")]
    text = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Unknown type" not in text
    for name in ("profile: str", "seeds: list", "parameters: dict"):
        assert name in text
    if get_chapter(chapter).recipe in ("authors", "reproduction"):  # chapters about ReviewKD
        for name in ("hcl_levels: list", "hcl_weights: list", "attention: bool"):
            assert name in text
        assert ("loss_weights: list" if chapter == "figure6" else "loss_weight: float") in text
    elif not get_chapter(chapter).one_pair:
        assert "pairs: list" in text and "methods: list" in text
    explained = re.findall(r"^  (\w+): \w+ \(default [^)]*\)\s+(\S.*)", text, re.M)
    assert 6 <= len(explained) <= 12, "what matters to this table"


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_short_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    # The audit has a cell or two for each of its findings, and the methods one for each family.
    assert len(code) <= {"audit": 75, "methods": 21}.get(path.stem, 16)
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_a_changed_row_in_a_copy_runs_by_papermill_alone(tmp_path):
    notebook = nbformat.read(BOOK / "table3.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if "rows" in c.metadata.get("tags", []))
    before, row, after = cell.source.partition('"full": {')
    assert after.count('"attention": True') == 1
    cell.source = before + row + after.replace('"attention": True', '"attention": False')
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    call = [
        sys.executable, "-m", "papermill", str(tmp_path / "mine.ipynb"), str(tmp_path / "o.ipynb"), "--no-progress-bar",
        "-f", str(paths.params() / "smoke.yaml"), "-y", TINY, "-p", "results", str(tmp_path / "r"),
    ]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, cwd=BOOK.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "7 runs: 0 were recorded, 7 were trained now" in outputs(tmp_path / "o.ipynb"), (
        "two rows coincide now"
    )
    options = [json.loads(p.read_text())["config"]["options"] for p in (tmp_path / "r").glob("*.json")]
    assert not any(o["attention"] for o in options if o and o["loss"] == "hcl")
