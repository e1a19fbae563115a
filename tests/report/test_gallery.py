"""The gallery has a true card for every method, marks who loses to the student alone, measures costs; and a method of
one's own fits a cell and leaves no trace."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from cells import cells, execute, source
from conftest import tiny_data
from evidence import record
from matplotlib.colors import to_hex

from rkd import data, models, paths
from rkd.experiments.chapters import get_chapter
from rkd.experiments.frames import runs_frame
from rkd.experiments.settings import resolve
from rkd.methods import Context, get_method, method_names
from rkd.methods import base as registry
from rkd.report import gallery
from rkd.report.diagrams import STUDENT

OURS = [name for name in method_names() if get_method(name).options.__module__.startswith("rkd.")]
CARDS = gallery.load_cards()
FAMILIES = list(dict.fromkeys(card.family for card in CARDS.values()))
TINY = {
    "profile": "smoke", "train_images": 32, "test_images": 50, "batch_size": 16, "epochs": 1, "seeds": [0],
    "teacher": "resnet8",
}  # fmt: skip


def test_every_method_has_a_card_that_says_the_default_weight_and_what_is_learned():
    assert sorted(CARDS) == sorted(OURS)
    labels, nets = torch.arange(200) % 100, (models.build("resnet8"), models.build("resnet14"))
    for name, card in CARDS.items():
        options = get_method(name).options()
        assert card.weight == options.loss_weight, name
        context = Context(*nets, labels=labels, batch_size=64, network="resnet8")
        trained = [p for p in get_method(name).build(context, options).parameters() if p.requires_grad]
        drawn = card.learns != "none" or card.kind in ("review", "group")
        same_shape = name == "ab"  # its connector is the identity where shapes agree, as in this pair
        assert bool(trained) == drawn or same_shape, name
        assert all(line.count("{") == line.count("}") for line in (*card.formula, card.text))


def test_the_notebook_s_headings_name_every_method():
    headings = re.findall(r"^## .*: (.*)$", "\n".join(c.source for c in cells("methods")), re.MULTILINE)
    named = {name for heading in headings for name in heading.split(", ")}
    assert named == {card.display for card in CARDS.values()}
    shown = [c.source for c in cells("methods") if "gallery.family(" in c.source]
    assert [re.search(r'"(\w+)"', source)[1] for source in shown] == FAMILIES


@pytest.mark.parametrize("card", {card.kind: card for card in CARDS.values()}.values(), ids=lambda c: c.kind)
def test_a_drawing_names_what_is_compared(card):
    drawing = gallery.comparison(card)
    (axes,) = drawing.figure.axes
    named = {text.get_text() for text in axes.texts}
    for tap in card.taps:
        words = f"stage {tap}" if tap.isdigit() else tap
        assert words in named and words in drawing.alt
    coloured = [p for p in axes.patches if to_hex(p.get_facecolor(), True) == f"{STUDENT}ff"]
    # A group is drawn three times, and a matrix of images has four cells of the full colour.
    assert len(coloured) == len(card.taps) * {"group": 3, "relation": 1 + 4}.get(card.kind, 1)


def test_the_overview_says_what_each_gains_over_the_student():
    settings = resolve("methods", {**TINY, "student": "resnet8", "methods": ["kd", "at", "sp", "at+kd"]})
    lines = get_chapter("methods").lines(settings)
    accuracies = {"student": 50.0, "kd": 51.0, "at": 49.5, "at+kd": 50.0}  # that of sp is missing
    records = {r.runs[0].id: record(r.runs[0], accuracies[r.key]) for r in lines if r.key in accuracies}
    runs = runs_frame(lines, records, "here")
    by_method = {line.key: line for line in lines if line.role == "distilled"}
    costs = pd.DataFrame({"ms": 1.0, "relative": 1.5, "extra": 8}, index=list(by_method))
    of = SimpleNamespace(is_self_test=False)
    names = {"experiment": of, "runs": runs, "best": None, "lines": by_method, "costs": costs, "pd": pd}
    found = execute("methods", "overview = ", "below = ", **names)
    overview = found["overview"].set_index("method")["above the student alone"]
    assert overview.tolist() == pytest.approx([1.0, -0.5, float("nan"), 0.0], nan_ok=True)
    assert found["below"] == ["AT"] and len(found["measured"]) == 3
    assert found["overview"]["default weight"].tolist()[0] == "1 (0.9)"


def test_costs_grow_with_the_work_and_count_what_is_trained():
    settings = resolve("methods", {**TINY, "student": "resnet8", "methods": ["kd", "reviewkd", "srrl"]})
    chapter = get_chapter("methods").lines(settings)
    lines = {line.key: line for line in chapter if line.role == "distilled"}
    of = SimpleNamespace(settings=settings, lines=chapter, profile="mini")
    costs = execute("methods", "steps = ", experiment=of, lines=lines)["costs"]
    assert (costs["ms"] > 0).all() and (costs["relative"] > 0).all()
    assert costs.relative["reviewkd"] > costs.relative["kd"], "fusion modules against one softmax"
    assert costs["extra"].to_dict() == {"kd": 0, "reviewkd": 114_278, "srrl": 64 * 64 + 2 * 64}
    card = gallery.family("vectors", lines, costs).data
    assert "4,224" in card and f"{costs.relative['srrl']:.2f} × the student" in card


@pytest.fixture
def cosine():
    """The method of the notebook's cell, registered for the length of a test."""
    before = dict(registry._METHODS)
    execute("own_method", "@register_method(")
    yield source("own_method", "@register_method(")
    registry._METHODS.clear()
    registry._METHODS.update(before)


def test_a_trial_of_one_s_own_method_leaves_nothing_behind(cosine, tmp_path, monkeypatch):
    assert len(cosine.splitlines()) < 25 and set(registry._METHODS) - set(OURS) >= {"cosine"}
    results = paths.home() / "results"
    before = {p for p in results.rglob("*")}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = execute("own_method", "trial.run()", **TINY, student="resnet8", precision="fp32")
    assert {p for p in results.rglob("*")} == before and not list(tmp_path.iterdir())
    table = found["table"]
    assert table[""].tolist()[1:] == ["ResNet-8 alone", "KD", "Cosine", "Cosine + KD"]
    assert re.fullmatch(r"cosine \d\.\d+ → .*; kd .*", table.iloc[-1, -1]) and table.iloc[1, -1] == ""
    run = found["trial"].lines[3].runs[0]
    assert json.loads(json.dumps(run.to_dict()))["options"] == {"loss_weight": 2.0}
    assert dataclasses.replace(run, options=dataclasses.replace(run.options, loss_weight=1.0)).id != run.id


def test_answers_are_the_network_s_in_eval_mode_and_gaps_those_of_a_loop():
    images = data.load(tiny_data())
    network, other = models.build("resnet8"), models.build("resnet8")
    roles = "teacher", "student"
    lines = [SimpleNamespace(role=r, key=r, label=r, runs=[SimpleNamespace(id=r)]) for r in roles]
    nets = {"teacher": (network.train(), images), "student": (other, images)}
    runner = SimpleNamespace(weights_file=lambda *run: True, network=lambda run: nets[run.id])
    store = SimpleNamespace(has=lambda run: True)
    of = SimpleNamespace(lines=lines, store=store, runner=lambda: runner, is_self_test=False)
    made = execute("methods", "def answers_of", "def class_means", "import TSNE", experiment=of, pd=pd)
    found = made["answers"]["teacher"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.mean, images.std))
    with torch.no_grad():
        taps = network.eval().taps((images.test_x[:7].permute(0, 3, 1, 2) / 255 - mean) / std)
    assert np.allclose(found.logits[:7], taps.logits, atol=1e-4) and len(found.labels) == 100
    assert np.allclose(found.pooled[:7], taps.pooled, atol=1e-4)
    gap = made["gaps"]["student"]
    logits = [made["answers"][name].logits for name in ("student", "teacher")]
    (two,) = np.flatnonzero(images.test_y == 2)
    assert gap[2, 5] == pytest.approx(abs(logits[0][two, 5] - logits[1][two, 5])) and np.isnan(gap[2, 2])
    assert f"student {np.nanmean(gap):.2f}" in made["show"](made["figure"], made["said"]).alt
    assert len(made["places"]) == 2 and len(made["places"][0]) == 6
