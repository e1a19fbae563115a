"""Every chapter executed by papermill as a user would, twice; injected parameters; what the pages say."""

import json
import re

import nbformat
import numpy as np
import pytest
import torch
from cells import execute, outputs, papermill
from papermill import inspect_notebook
from PIL import Image

from rkd import paths
from rkd.errors import ConfigError, RecordError
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.notebooks import read_notebook

BOOK = paths.home() / "book"
TINY = "{train_images: 100, test_images: 100, epochs: 1, seeds: [0], teacher: resnet8, budget: {}}"
PAIR = TINY.replace("teacher: resnet8", "batch_size: 100, pairs: [[resnet14, resnet8]]")
# One of each kind of method: two dozen take minutes.
FEW = TINY[:-1] + ", student: resnet8, methods: [kd, at, sp, crd+kd, fsp]}"


def tiny(chapter, out, results, *more, yaml=None):
    yaml = yaml or (FEW if chapter == "methods" else TINY if get_chapter(chapter).one_pair else PAIR)
    return papermill(
        chapter, out, "-f", paths.params() / "smoke.yaml", "-y", yaml, "-p", "results", results, *more
    )


def test_every_page_looks_at_what_papermill_was_given():
    for path in BOOK.glob("*.ipynb"):
        code = [cell for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]
        given = [i for i, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", [])]
        assert not given or any("globals()" in cell["source"] for cell in code[given[0] + 1 :]), path.name


# One of each kind here; a build of the book executes them all.
KINDS = {"table4", "kdrefine", "modreduce"}


@pytest.mark.parametrize(
    "chapter", [pytest.param(c, marks=[] if c in KINDS else pytest.mark.slow) for c in chapter_names()]
)
def test_chapter_executes_and_a_second_time_trains_nothing(chapter, tmp_path):
    first = tiny(chapter, tmp_path / "1.ipynb", tmp_path / "r")
    assert first.returncode == 0, first.stderr[-2000:]
    text = outputs(tmp_path / "1.ipynb")
    count = int(re.search(r"(\d+) runs: 0 recorded before, \1 trained now, 0 missing", text)[1])
    records = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("*.json")}
    assert len(records) == count >= 3
    second = tiny(chapter, tmp_path / "2.ipynb", tmp_path / "r")
    assert second.returncode == 0
    assert f"{count} runs: {count} recorded before, 0 trained now" in outputs(tmp_path / "2.ipynb")
    assert records == {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("*.json")}

    assert "proves the machinery, not the claim" in text
    assert "<table" in text and "<img" in text and "alt=" in text
    assert all(p.stem in text for p in records), "each record is named in the provenance"
    source = (BOOK / f"{chapter}.ipynb").read_text()
    assert f"# {get_chapter(chapter).title}" in source and "**What is claimed.**" in source


def test_missing_runs_are_shown_as_missing_never_as_zero(tmp_path):
    done = tiny("table6", tmp_path / "o.ipynb", tmp_path / "r", "-p", "on_missing", "skip")
    assert done.returncode == 0, done.stderr[-2000:]
    text = re.sub(r"<script\b.*?</script>", "", outputs(tmp_path / "o.ipynb"), flags=re.DOTALL)
    assert text.count(">missing</td>") >= 6 and "0.00" not in text
    assert not list((tmp_path / "r").glob("*.json"))


def test_the_published_example_line(tmp_path):
    """-p loss_weight 0.9 -p attention False, and own levels: in force in every row, and said on the page."""
    yaml = TINY[:-1] + ", hcl_levels: [h, 2, 1], hcl_weights: [1, 0.5, 0.25]}"
    given = ("-p", "loss_weight", "0.9", "-p", "attention", "False")
    done = tiny("table3", tmp_path / "o.ipynb", tmp_path / "r", *given, yaml=yaml)
    assert done.returncode == 0, done.stderr[-2000:]
    options = [json.loads(p.read_text())["config"]["options"] for p in (tmp_path / "r").glob("*.json")]
    distilled = [o for o in options if o]
    assert len(distilled) == 4, "rows without attention coincide"
    in_force = {(o["loss_weight"], o["attention"], *o["hcl_levels"]) for o in distilled}
    assert in_force == {(0.9, False, "h", 2, 1)}
    text = outputs(tmp_path / "o.ipynb")
    assert "same runs as" in text
    assert re.search(r"loss_weight</th>\s*<td[^>]*>0.9</td>\s*<td[^>]*>given</td>", text)


def test_a_contradiction_stops_papermill_in_the_first_cell_with_one_sentence(tmp_path):
    done = tiny("table3", tmp_path / "o.ipynb", tmp_path / "r", "-p", "zzz", "1")
    assert done.returncode == 1 and not (tmp_path / "r").exists()
    (message,) = done.stderr[done.stderr.index("Exception encountered at") :].strip().splitlines()[1:]
    assert message.startswith("ConfigError: unknown parameter 'zzz'; allowed: ")


VERDICTS = {"margin": 0.5, "alpha": 0.05, "sd": 0.25, "repeats": 40}
UNCERTAINTY = {"alpha": 0.05, "power": 0.8, "repeats": 200}


@pytest.mark.parametrize(
    ("notebook", "given", "sentence"),
    [
        ("table3", {"hcl_levels": ["h", 4, 2, 1], "hcl_weights": [1, 0.5, 0.25]},
         "hcl_levels names 4 sizes ['h', 4, 2, 1] but hcl_weights has 3 values"),
        ("table3", {"teacher": "resnet57"}, "resnet57"),
        ("table3", {"loss_weight": -1}, "loss_weight is -1; it must be a finite number >= 0"),
        ("table3", {"recipe": "paper"}, "unknown recipe 'paper'"),
        ("table3", {"dataset": "mnist"}, "mnist"),
        ("audit", {"sed": 1}, "did you mean 'seed'"),
        ("audit", {"seed": -1}, "seed is -1"),
        ("inside", {"imag": 5}, "unknown parameter 'imag'; did you mean 'image'"),
        ("inside", {"image": 6}, "image is 6; it must be a whole number from 0 to 5"),
        ("inside", {"image": "x"}, "image is 'x'; it must be a whole number >= 0"),
        ("performance", {"secods": 5}, "unknown parameter 'secods'; did you mean 'seconds'?"),
        ("performance", {"seconds": "soon"}, "seconds is 'soon'; it must be a finite number > 0"),
        ("performance", {"group": True}, "group is True; it must be a whole number"),
        ("performance", {"precision": "fp8"}, "unknown precision 'fp8'"),
        ("performance", {"threads": "many"}, "threads is 'many'; it must be auto or a whole number >= 1"),
        ("performance", {"profile": "papr"}, "did you mean 'paper'?"),
        ("performance", {"recorded": "none.json"}, "cannot be read"),
        ("verdicts", {**VERDICTS, "margin": -0.5}, "margin is -0.5"),
        ("verdicts", {**VERDICTS, "alpha": 0.5}, "alpha is 0.5"),
        ("verdicts", {**VERDICTS, "sd": 0.0}, "sd is 0.0"),
        ("verdicts", {**VERDICTS, "repeats": 0}, "repeats is 0"),
        ("verdicts", {**VERDICTS, "profile": "paperr"}, "paperr"),
        ("verdicts", {**VERDICTS, "marginn": 0.4}, "unknown parameter 'marginn'; did you mean 'margin'"),
        ("uncertainty", {**UNCERTAINTY, "power": 1.2}, "power is"),
        ("uncertainty", {**UNCERTAINTY, "repeats": 0}, "repeats is 0"),
        ("uncertainty", {**UNCERTAINTY, "alhpa": 0.1}, "alpha"),
    ],
)  # fmt: skip
def test_bad_parameters_get_one_sentence(notebook, given, sentence):
    """Before anything is trained or drawn: in the first cell that looks at them."""
    opening = {
        "table3": ["open_experiment"],
        "verdicts": ["namespace_parameters", "Claim("],
        "performance": ["Request("],
    }
    with pytest.raises((ConfigError, RecordError), match=re.escape(sentence)):
        execute(notebook, *opening.get(notebook, ["namespace_parameters"]), **{"profile": "smoke", **given})


@pytest.mark.parametrize("chapter", chapter_names())
def test_parameters_are_typed_and_explained(chapter):
    found = inspect_notebook(BOOK / f"{chapter}.ipynb")
    assert 6 <= len(found) <= 12, "what matters to this table"
    assert all(p["inferred_type_name"] != "None" and p["help"] for p in found.values())
    wanted = {"profile", "seeds", "parameters"}
    if get_chapter(chapter).recipe in ("authors", "reproduction"):  # chapters about ReviewKD
        wanted |= {"hcl_levels", "hcl_weights", "attention"}
        wanted.add("loss_weights" if chapter == "figure6" else "loss_weight")
    elif not get_chapter(chapter).one_pair:
        wanted |= {"pairs", "methods"}
    assert wanted <= set(found)


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_short_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    # The audit has a cell or two for each of its findings, and the methods one for each family.
    assert len(code) <= {"audit": 43, "methods": 23}.get(path.stem, 16)
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("chapter", chapter_names())
def test_what_a_page_trained_itself_stands_last_and_folded(chapter):
    cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
    (place,) = (i for i, cell in enumerate(cells) if cell.source.startswith("## Self-test of this copy"))
    after = cells[place + 1 :]
    assert len(after) == 3 and all(cell.metadata["tags"] == ["hide-cell"] for cell in after)


def test_a_changed_row_in_a_copy_runs_by_papermill_alone(tmp_path):
    notebook = nbformat.read(BOOK / "table3.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if "rows" in c.metadata.get("tags", []))
    before, row, after = cell.source.partition('"full": {')
    assert after.count('"attention": True') == 1
    cell.source = before + row + after.replace('"attention": True', '"attention": False')
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    done = tiny(tmp_path / "mine", tmp_path / "o.ipynb", tmp_path / "r", yaml=TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    said = outputs(tmp_path / "o.ipynb")
    assert "7 runs: 0 recorded before, 7 trained now" in said, "two rows coincide now"
    options = [json.loads(p.read_text())["config"]["options"] for p in (tmp_path / "r").glob("*.json")]
    assert not any(o["attention"] for o in options if o and o["loss"] == "hcl")


@pytest.mark.slow
def test_a_folder_goes_in_and_a_student_comes_out(tmp_path):
    """Standing where the folder lies: what is made stands beside it, and is found again."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("one", "two", "three"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / split / name / f"{i}.png")
    given = {"dataset": "mine", "image_size": 32, "epochs": 1, "teacher": "resnet14", "student": "resnet8"}
    words = [word for name, value in given.items() for word in ("-p", name, value)]
    told = []
    for _ in range(2):
        done = papermill("your_own_data", "out.ipynb", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(outputs(tmp_path / "out.ipynb"))
    assert "4 runs: 0 recorded before, 4 trained now" in told[0] and "4 recorded before, 0" in told[1]
    assert "classes          3" in told[0] and "images of mine" in told[0] and str(tmp_path) not in told[0]
    student = torch.jit.load(tmp_path / "mine.results" / "student.ts")
    assert student(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
