"""The page's widgets, without a browser."""

import os
import signal
import subprocess
import sys
import time

import ipywidgets as widgets
import psutil
import pytest
from evidence import whole

from rkd.errors import ConfigError
from rkd.explore import explore
from rkd.explore.page import LivePage
from rkd.explore.runs import ChosenRuns, explore_store

pytest_plugins = ["exploring"]


@pytest.fixture
def page(home, tiny):
    page = LivePage(tiny, device="cpu")
    yield page
    page.close()


def inner(widget):
    """A widget and everything in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inner(child)


def test_figures_and_drawing_follow_a_choice_at_once(page):
    every = list(inner(page))
    assert {widget._model_module for widget in every} == {"@jupyter-widgets/controls"}, "core widgets alone"
    boxes = [*page.shared.values(), *page.options.values()]
    assert all(w.description for w in every if isinstance(w, widgets.Button) or w in boxes)
    assert all(box.tooltip for box in boxes)
    before = page.meaning.value
    page.options["attention"].value = False
    assert page.meaning.value != before and "&quot;attention&quot;: false" in page.meaning.value
    page.options["attention"].value = True
    assert page.meaning.value == before
    page.shared["teacher"].value = "resnet110"
    assert "ResNet-110" in page.meaning.value and page.plan.runs["teacher"].network == "resnet110"
    page.shared["method"].value = "kd"
    assert list(page.options) == ["loss_weight", "ce_weight", "temperature"]
    page.options["temperature"].value = 2.0
    assert page.plan.distilled.options.temperature == 2.0
    page.shared["method"].value = "at+kd"
    assert {"at.loss_weight", "kd.temperature", "ce_weight"} <= set(page.options)
    page.options["at.loss_weight"].value = 9.0
    assert page.plan.distilled.options.parts[0].options.loss_weight == 9.0

    # Options follow the recipe until they are changed.
    page.shared["method"].value, page.shared["teacher"].value = "reviewkd", "resnet56"
    page.shared["student"].value = "resnet20"
    for recipe, weight in (("authors", 0.6), ("text", 0.7)):
        page.shared["recipe"].value = recipe
        assert page.options["loss_weight"].value == weight
    page.options["loss_weight"].value = 3.0
    page.shared["recipe"].value = "authors"
    assert page.options["loss_weight"].value == 3.0 == page.plan.distilled.options.loss_weight


def test_a_contradiction_is_a_sentence_in_place(page):
    for text, sentence in {
        "[1, 0.5]": "give one weight per size",
        "[1,": "write it as in: [1.0, 0.5, 0.25, 0.125]",
    }.items():
        page.options["hcl_weights"].value = text
        assert sentence in page.problem.value and page.meaning.layout.display == "none"
        assert page.train_button.disabled and page.plan is None
    page.options["hcl_weights"].value = "[1, 0.5, 0.25, 0.125]"
    assert page.problem.value == "" and not page.train_button.disabled and page.meaning.layout.display is None


def test_first_values_are_shown_and_checked(home, tiny):
    first = {"hcl_levels": ["h", 2], "hcl_weights": [1, 0.5], "student": "wrn_10_1"}
    page = explore({**tiny, **first}, device="cpu")
    assert page.options["hcl_levels"].value == "[h, 2]" and page.plan.distilled.network == "wrn_10_1"
    with pytest.raises(ConfigError, match="unknown device 'abacus'"):
        explore(device="abacus")


def finish(plan, **accuracies):
    """Records a plan's runs as if they were trained; their accuracies go up to the numbers given, in percent."""
    for name, run in plan.runs.items():
        last = accuracies.get(name.partition(" ")[0], 5.0)
        rising = [1.0] * (run.epochs - 1) + [last]
        curves = {"test_accuracy": rising, "loss_ce": [4.0] * run.epochs}
        result = {"last_accuracy": last, "best_accuracy": last, "best_epoch": run.epochs - 1}
        explore_store().save(whole(run, curves=curves, result=result, provenance={"commit": "a" * 40}))


def test_what_is_recorded_is_shown_without_training(page):
    finish(page.plan, **{"with": 12.5, "without": 10.0})
    page.train_button.click()
    page.watcher.join(20)
    assert "12.50 % with distillation, 10.00 % without (+2.50 points)" in page.status.value
    assert "no attention maps" in page.maps.value and page._bar.value == 1.0
    run = page.plan.distilled.id
    assert f">{run}</td>" in page.saved.value and "<td>12.50</td>" in page.saved.value
    page.name.value = " <b>one</b> "
    page.save_button.click()
    assert ">&lt;b&gt;one&lt;/b&gt;</td>" in page.saved.value and "<td>2.50</td>" in page.saved.value
    record = explore_store().load(run)
    assert record.provenance["labels"] == {"name": "<b>one</b>"} and record.provenance["commit"] == "a" * 40
    explore_store().path(page.plan.runs["without distillation"].id).unlink()
    page.save_button.click()
    assert "<td>–</td>" in page.saved.value, "its companion is lost"


def test_a_training_that_fails_says_why(page, monkeypatch):
    monkeypatch.setattr(
        ChosenRuns, "command", lambda plan, distilled=True: ["show", "figures", "--table", "Table 99"]
    )
    page.train_button.click()
    page.watcher.join(60)
    assert 'role="alert"' in page.status.value and "Failed. rkd show figures: " in page.status.value
    assert "Table 99" in page.status.value and not page.train_button.disabled


@pytest.mark.slow
def test_train_stop_go_on(page):
    page.shared["epochs"].value = 24  # the page draws the distilled run well before its end
    page.train_button.click()
    assert page.train_button.disabled and not page.stop_button.disabled
    runs, store, deadline = page.training.plan.runs, page.training.store, time.monotonic() + 200
    while "with distillation" not in page._drawn:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    page.stop_button.click()
    page.watcher.join(60)
    assert "Stopped. " in page.status.value and not page.train_button.disabled and 2 / 3 < page._bar.value < 1
    assert [name for name, run in runs.items() if store.has(run.id)] == ["without distillation", "teacher"]
    page.train_button.click()
    page.watcher.join(200)
    assert "Done. Test accuracy" in page.status.value and "; with distillation " in page.curves.value
    maps = page.maps.value
    page.map_epoch.value = 1
    assert "after epoch 1, mean" in page.maps.value and page.maps.value != maps


@pytest.mark.slow
def test_training_ends_with_the_kernel(home, tiny):
    """What the kernel's group of processes is told, as Jupyter does it, ends a training too, with a checkpoint."""
    script = (
        "from rkd.explore.runs import LiveTraining, choose_runs\n"
        f"training = LiveTraining(choose_runs({ {**tiny, 'epochs': 500}!r}, device='cpu'))\n"
        "for look in training.looks():\n"
        "    if look.records: print(training._process.pid, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as kernel:
        training = psutil.Process(int(kernel.stdout.readline()))
        os.killpg(kernel.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs([training], timeout=30)
    explored = home / "results" / "explore"
    assert not alive and not list(explored.glob("*.json")) and list(explored.rglob("checkpoint.pt"))
