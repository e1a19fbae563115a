"""The page's widgets, without a browser."""

import subprocess
import sys
import time

import ipywidgets as widgets
import pytest

from rkd.errors import ConfigError
from rkd.explore import explore
from rkd.explore.app import App, open_app
from rkd.explore.choices import Choices
from rkd.report.book import MARKS, TOKEN

pytest_plugins = ["exploring"]


@pytest.fixture
def app(home, working, kept, tiny):
    app = App(Choices.beginning_with(tiny), working, kept, device="cpu")
    yield app
    app.close()


def inner(widget):
    """A widget and everything in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inner(child)


def visible(app, widget):
    """Whether neither the widget nor anything around it is hidden."""

    def path(node):
        if node is widget:
            return [node]
        for child in getattr(node, "children", ()):
            if found := path(child):
                return [node, *found]
        return []

    return all(node.layout.display != "none" for node in path(app.widget))


def test_only_core_widgets_and_no_output(app):
    names = {type(widget).__name__ for widget in inner(app.widget)}
    assert {widget._model_module for widget in inner(app.widget)} == {"@jupyter-widgets/controls"}
    assert not names & {"Output", "Stack"}


def test_every_control_has_a_label_and_says_what_it_is(app):
    for widget in inner(app.widget):
        if isinstance(
            widget, widgets.Button | widgets.Text | widgets.Dropdown | widgets.Checkbox | widgets.IntText
        ):
            assert widget.description
    for box in app.inputs.values():
        assert box.tooltip


def test_figures_and_diagram_follow_a_choice_at_once(app):
    before, drawn = app.figures, app._diagram.value
    app.inputs["attention"].value = False
    assert app.figures != before and app._diagram.value != drawn
    assert "ABF" in drawn and "ABF" not in app._diagram.value
    app.inputs["attention"].value = True
    assert app._diagram.value == drawn
    app.inputs["hcl_levels"].value = "h, 4"
    app.inputs["hcl_weights"].value = "1, 1"
    assert app._diagram.value != drawn and not app.train_button.disabled
    parameters = app.figures
    app.inputs["teacher"].value = "resnet110"
    assert app.figures != parameters and "ResNet-110" in app.figures


def test_nothing_in_the_diagram_pretends_to_answer(app):
    for sign in ("tabindex", 'role="button"', "cursor", "show its details"):
        assert sign not in app._diagram.value


def test_a_contradiction_is_a_sentence_in_place(app):
    app.inputs["hcl_weights"].value = "1, 0.5"
    assert "give one weight per size" in app.problem
    assert app.train_button.disabled and not visible(app, app._figures)
    app.train()
    assert app.runner.poll().status == "idle"
    app.inputs["hcl_weights"].value = "1, 0.5, 0.25, 0.125"
    assert app.problem == "" and not app.train_button.disabled and visible(app, app._figures)


def test_loss_weight_follows_the_recipe_until_it_is_changed(app):
    app.inputs["teacher"].value, app.inputs["student"].value = "resnet56", "resnet20"
    assert app.inputs["loss_weight"].value == 0.6
    app.inputs["recipe"].value = "text"
    assert app.inputs["loss_weight"].value == 0.7
    app.inputs["loss_weight"].value = 3.0
    app.inputs["recipe"].value = "authors"
    assert app.inputs["loss_weight"].value == 3.0


def test_first_values_are_checked(home):
    with pytest.raises(ConfigError, match="unknown choice 'epoch'"):
        explore({"epoch": 3}, device="cpu")
    with pytest.raises(ConfigError, match="unknown device 'abacus'"):
        explore(device="abacus")


@pytest.mark.slow
def test_train_stop_go_on_look_and_save(app, home, working, kept, files_of):
    app.inputs["images"].value, app.inputs["epochs"].value = 600, 4
    assert app.stop_button.disabled and not visible(app, app.name)
    app.train_button.click()
    assert app.train_button.disabled and not app.stop_button.disabled
    run = app._shown.distilled.id
    pictures = set()
    deadline = time.monotonic() + 120
    while not app.runner.poll().curves.get(run):
        assert time.monotonic() < deadline
        pictures.add(app._curves.children[0].value)
        time.sleep(0.1)
    assert len(pictures) >= 3, "the curves grow"
    assert "Run 3 of 3, ResNet-8 with distillation: epoch" in app._status.value and 0 < app._bar.value < 1
    app.stop_button.click()
    app.wait(60)
    assert "Stopped in epoch" in app._status.value and app.stop_button.disabled
    assert not app.train_button.disabled and not visible(app, app.name)
    assert not working.has(run) and not (home / "results").exists()

    app.train_button.click()
    app.wait(120)
    assert "Done. Test accuracy after the last epoch" in app._status.value and app._bar.value == 1.0
    assert working.has(run) and "Train</b> shows them at once" in app.figures

    assert visible(app, app._maps) and app.map_epoch.value == 4
    assert len(app.map_image.options) == 7, "all, and each of six"
    assert app.map_image.label == "all"
    maps = app._maps.value
    assert maps.count("<img") == 1 + 2 * 3, "the images, and two maps at each of three levels that fuse"
    app.map_epoch.value = 1
    assert app._maps.value != maps
    app.map_image.value = 2
    assert app._maps.value.count("<img") == 7

    app.save_button.click()
    assert "the name is empty" in app._save_message.value and not (home / "results").exists()
    app.name.value = "one"
    app.save_button.click()
    assert f"Saved as results/explore/{run}.json" in app._save_message.value
    assert kept.load(run).provenance["labels"] == {"name": "one"}
    assert "one" in app._saved.value and app.name.value == ""
    before = files_of(home / "results")
    app.name.value = "one"
    app.save_button.click()
    assert "is taken" in app._save_message.value and files_of(home / "results") == before


@pytest.mark.slow
def test_without_attention_there_are_no_maps_to_look_at(app):
    app.inputs["attention"].value = False
    app.train_button.click()
    app.wait(120)
    assert "This run adds its maps" in app._maps.value and visible(app, app._maps)
    assert not visible(app, app.map_epoch) and not visible(app, app.map_image)
    assert visible(app, app.name)


@pytest.mark.slow
def test_showing_the_page_again_stops_what_the_first_one_trains(home, tiny):
    first = open_app({**tiny, "images": 600, "epochs": 500}, "data", "cpu")
    first.train_button.click()
    while not first.runner.poll().done:
        time.sleep(0.05)
    second = open_app({**tiny, "images": 600, "epochs": 500}, "data", "cpu")
    assert first.runner.poll().status == "stopped"
    assert "about" in second.figures
    second.close()


@pytest.mark.parametrize("tagged", [True, False])
def test_static_book_shows_a_picture(home, monkeypatch, tagged, tiny):
    monkeypatch.setenv(TOKEN, "token" if tagged else "")
    (home / "book" / "_assets").mkdir(parents=True)
    (home / "book" / "_assets" / "explore.png").write_bytes(b"\x89PNG picture")
    page = explore(tiny, device="cpu")
    if tagged:
        shown = page._repr_html_()
        assert (
            "data:image/png;base64," in shown
            and "Colab" in shown
            and "jupyter lab book/explore.ipynb" in shown
        )
        assert not isinstance(page, App)
    else:
        assert isinstance(page, App)
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("building", [True, False])
def test_notebook_is_executed_safely(home, tmp_path, building, monkeypatch):
    """By the book, and by papermill alone: no training, no waiting."""
    import shutil
    from pathlib import Path

    book = Path(__file__).resolve().parents[2] / "book"
    shutil.copytree(
        book / "_assets", home / "book" / "_assets", ignore=shutil.ignore_patterns("mathjax", "plotly")
    )
    notebook, out = shutil.copy(book / "explore.ipynb", home / "book"), tmp_path / "out.ipynb"
    if building:
        monkeypatch.setenv(TOKEN, "a token")
        monkeypatch.setenv(MARKS, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(out), "-f", str(home / "params" / "smoke.yaml"),
         "--cwd", str(home / "book"), "--no-progress-bar"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    text = out.read_text(encoding="utf-8")
    assert ("application/vnd.jupyter.widget-view+json" in text) is not building
    assert ("data:image/png;base64" in text) is building
    assert (tmp_path / "explore.json").exists() is building
    assert not (home / "_build" / "explore").exists() and not (home / "results").exists()
