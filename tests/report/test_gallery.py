"""The gallery has a true card for every method, marks who loses to the student alone, measures costs; and a method of
one's own fits a cell and leaves no trace."""

import dataclasses
import json
import re

import nbformat
import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("IPython", reason="IPython is not installed (pip install -e .[book])")

from evidence import record
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from rkd import models, paths
from rkd.bench.methods import method_costs
from rkd.errors import ConfigError
from rkd.experiments.chapters import get_chapter
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import resolve
from rkd.methods import Context, get_method, method_names
from rkd.methods import base as registry
from rkd.report import gallery
from rkd.report.comparison import Comparison, comparison
from rkd.report.diagrams import STUDENT
from rkd.report.summary import measure
from rkd.report.trial import trial

OURS = [name for name in method_names() if get_method(name).options.__module__.startswith("rkd.")]
CARDS = gallery.load_cards()
TINY = {
    "profile": "smoke", "train_images": 64, "test_images": 50, "batch_size": 32, "epochs": 1, "seeds": [0],
    "teacher": "resnet8",
}  # fmt: skip


def notebook(name):
    return nbformat.read(paths.home() / "book" / f"{name}.ipynb", as_version=4)


def test_every_registered_method_has_a_card_and_no_other():
    assert sorted(CARDS) == sorted(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_card_says_the_default_weight_and_what_is_learned(name):
    card, options = CARDS[name], get_method(name).options()
    assert card.weight == options.loss_weight
    labels = torch.arange(200) % 100
    nets = models.build("resnet8"), models.build("resnet14")
    context = Context(*nets, train_images=200, labels=labels, batch_size=64, network="resnet8")
    trained = [p for p in get_method(name).build(context, options).parameters() if p.requires_grad]
    drawn = card.compares.learns != "none" or card.compares.kind in ("review", "group")
    same_shape = name == "ab"  # its connector is the identity where shapes agree, as in this pair
    assert bool(trained) == drawn or same_shape
    assert card.text.endswith(".") and 100 < len(card.text) < 400 and card.formula
    for line in card.formula:
        assert line.count("{") == line.count("}") and line.count(r"\bigl") == line.count(r"\bigr")


def test_the_notebook_s_headings_name_every_method():
    headings = re.findall(
        r"^## .*: (.*)$", "\n".join(c.source for c in notebook("methods").cells), re.MULTILINE
    )
    named = {name for heading in headings for name in heading.split(", ")}
    assert named == {card.display for card in CARDS.values()}
    shown = [c.source for c in notebook("methods").cells if "page.family(" in c.source]
    assert [re.search(r'"(\w+)"', source)[1] for source in shown] == list(gallery.FAMILIES)


@pytest.mark.parametrize("name", OURS)
def test_a_drawing_names_what_is_compared(name):
    card = CARDS[name]
    drawing = comparison(card.compares, card.display)
    (axes,) = drawing.figure.axes
    named = {text.get_text() for text in axes.texts}
    for tap in (*card.compares.student, *card.compares.teacher):
        words = f"stage {tap}" if tap.isdigit() else tap
        assert words in named and words in drawing.alt
    assert drawing.alt.startswith(card.display)
    coloured = [
        p
        for p in axes.patches
        if isinstance(p, Rectangle) and to_hex(p.get_facecolor(), True) == f"{STUDENT}ff"
    ]
    copies, cells = (
        (3 if card.compares.kind == "group" else 1),
        (4 if card.compares.kind == "relation" else 0),
    )
    # A matrix of images has four cells of the full colour.
    assert len(coloured) == len(card.compares.student) * (copies + cells)


def test_drawings_refuse_what_they_do_not_know():
    for values, word in (
        ({"kind": "sideways"}, "sideways"),
        ({"student": ("4",)}, "'4'"),
        ({"learns": "me"}, "'me'"),
    ):
        with pytest.raises(ConfigError, match=word):
            Comparison(**{"kind": "direct", "student": ("logits",), **values})


def measured_lines(accuracies):
    settings = resolve("methods", {**TINY, "student": "resnet8", "methods": ["kd", "at", "sp"]})
    lines = get_chapter("methods").lines(settings)
    records = {
        line.runs[0].id: record(line.runs[0], accuracies[line.key])
        for line in lines
        if line.key in accuracies
    }
    return lines, {line.key: measure(line, records) for line in lines}


def test_who_ends_below_the_student_is_marked_and_named():
    lines, measured = measured_lines({"student": 50.0, "kd": 51.0, "at": 49.9, "sp": 50.0})
    assert [line.key for line in gallery.losers(lines, measured)] == ["at"]
    marked = {line.key: line.note for line in gallery.mark_losers(lines, measured)}
    assert "below the student alone" in marked["at"] and "below" not in marked["kd"] + marked["sp"]
    assert "1 of the 3 methods measured here ends below" in gallery.losers_sentence(lines, measured)
    assert "AT" in gallery.losers_sentence(lines, measured)
    lines, measured = measured_lines(
        {"student": 50.0, "kd": 51.0}
    )  # two are missing: nothing is said of them
    assert gallery.losers(lines, measured) == []
    assert "None of the 1 methods" in gallery.losers_sentence(lines, measured)
    lines, measured = measured_lines({"kd": 51.0})
    assert gallery.losers_sentence(lines, measured) == "" and gallery.losers(lines, measured) == []


def test_the_chapter_has_every_method_and_three_sums_under_one_recipe():
    lines = get_chapter("methods").lines(resolve("methods", {"profile": "paper"}))
    keys = [line.key for line in lines]
    assert set(OURS) <= set(keys) and {"at+kd", "crd+kd", "reviewkd+kd"} < set(keys)
    runs = [run for line in lines for run in line.runs if line.role == "distilled"]
    assert {(r.network, r.teacher.name, r.epochs, r.batch_size, r.optimiser.lr) for r in runs} == {
        ("resnet20", "resnet56", 240, 64, 0.05)
    }
    said = {line.key: {p.value for p in line.published} for line in lines}
    assert said["crd"] == {71.16, 71.72} and said["kd"] == {70.66} and said["reviewkd"] == {71.79}


def test_costs_grow_with_the_work_and_count_what_is_trained():
    settings = resolve("methods", {**TINY, "student": "resnet8"})
    builder = Builder(settings, "crd")
    runs = {m: builder.distilled("resnet8", "resnet8", 0, m) for m in ("kd", "reviewkd", "ab", "srrl")}
    costs = method_costs(runs, builder.plain("resnet8", 0), torch.device("cpu"), rounds=3)
    assert all(cost.ms > 0 and cost.relative > 0 for cost in costs.values())
    assert (
        costs["reviewkd"].relative > costs["kd"].relative
    )  # fusion modules and pyramids against one softmax
    extra = {name: cost.extra_parameters for name, cost in costs.items()}
    assert extra == {"kd": 0, "reviewkd": 114_278, "ab": 0, "srrl": 64 * 64 + 2 * 64}


@pytest.fixture
def cosine():
    """The method of the notebook's cell, registered for the length of a test."""
    cell = next(c for c in notebook("own_method").cells if "own-method" in c.metadata.get("tags", []))
    before = dict(registry._METHODS)
    exec(compile(cell.source, "cell", "exec"), {"__name__": "own_method_cell"})
    yield cell.source
    registry._METHODS.clear()
    registry._METHODS.update(before)


def test_a_method_of_one_s_own_takes_fewer_than_25_lines(cosine):
    assert len(cosine.splitlines()) < 25 and "@register_method(" in cosine
    assert set(registry._METHODS) - set(OURS) >= {"cosine"}


def test_a_trial_trains_and_leaves_nothing_behind(cosine, tmp_path, monkeypatch):
    results = paths.home() / "results"
    before = {p for p in results.rglob("*")}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = trial({**TINY, "student": "resnet8", "precision": "fp32"}, ["kd", "cosine", "cosine+kd"])
    assert {p for p in results.rglob("*")} == before and not list(tmp_path.iterdir())
    assert [line.label for line in done.lines[1:]] == ["ResNet-8 alone", "KD", "Cosine", "Cosine + KD"]
    table = done.table().data
    assert (
        table.count("n = 1") == 10
        and re.search(r"cosine \d\.\d+ → ", table)
        and "Nothing of this is recorded" in table
    )
    run = done.lines[3].runs[0]
    assert json.loads(json.dumps(run.to_dict()))["options"] == {"loss_weight": 2.0}
    assert dataclasses.replace(run, options=dataclasses.replace(run.options, loss_weight=1.0)).id != run.id
