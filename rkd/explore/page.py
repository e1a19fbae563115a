"""The live page: widgets and their handlers. Core widgets only, which ipywidgets 7.7.1 and 8 both have."""

import atexit
import json
import math
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ipywidgets as widgets
import pandas as pd
import yaml

from rkd import models, paths
from rkd.config import docstring_entries
from rkd.data import is_there, source_names
from rkd.errors import ConfigError, RkdError
from rkd.experiments.chapters import Line
from rkd.experiments.estimate import dataset_sizes, pair_cost, run_macs, time_left
from rkd.experiments.recipes import recipe_names
from rkd.experiments.settings import Settings
from rkd.experiments.snapshots import Snapshots, load_snapshots
from rkd.explore.runs import (
    FIRST,
    ChosenRuns,
    LiveTraining,
    TrainingStatus,
    choose_runs,
    explore_store,
    recipe_values,
    review_levels,
    without_distillation,
)
from rkd.methods import get_method, method_names
from rkd.plain_yaml import from_yaml
from rkd.report.interactive.assets import attached
from rkd.report.interactive.curves import curves
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.interactive.path import review_path
from rkd.report.interactive.tiles import attention_tiles
from rkd.report.tables import foldout, frame
from rkd.training import RunConfig

AT_ONCE = 6  # options of a method that are shown without unfolding the others
HINT = "tooltip" if hasattr(widgets, "Stack") else "description_tooltip"  # renamed with ipywidgets 8
TYPED = {bool: widgets.Checkbox, int: widgets.IntText, float: widgets.FloatText}
LABELLED = {"style": {"description_width": "112px"}, "layout": {"width": "auto", "max_width": "430px"}}
WRAPPED = {"layout": {"flex_flow": "row wrap"}}


class LivePage(widgets.VBox):
    """The page, closing the one shown before; arguments and errors are those of `rkd.explore.runs.choose_runs`."""

    shown: "LivePage | None" = None

    def __init__(self, choices: Mapping[str, Any], root: str = "data", device: str = "auto") -> None:
        self.training: LiveTraining | None = None  # the latest
        choose_runs(choices, root, device)  # raises if something is wrong with the call
        self._begin_with, self._places, self._store = dict(choices), (root, device), explore_store()
        self._lock = threading.RLock()  # handlers, and the watcher of a training, run in threads of their own
        self.plan: ChosenRuns | None = None  # of the choices, if they go together
        self._own: dict[str, Any] = {}  # the recipe's values
        self.options: dict[str, widgets.Widget] = {}
        self._snapshots: Snapshots | None = None
        self._build()
        self._refresh()
        self._show_saved()
        if LivePage.shown is not None:
            LivePage.shown.close()
        LivePage.shown = self
        atexit.register(self.close)

    def close(self) -> None:
        """Stop a training under way, with its checkpoint written, and remove the page's widgets."""
        if self.training is not None:
            self.training.close()
            self.watcher.join()
        super().close()

    # --- choices

    def _box(self, name: str, value: Any, like: Any, meant: str, allowed: Sequence | None) -> widgets.Widget:
        """Return a labelled input of the kind that the value `like` needs, or a list of what is `allowed`."""
        label = name.replace("_", " ").replace("hcl", "HCL")
        shared = {"description": label, HINT: meant, **LABELLED}
        if name == "method":  # or a sum of some: at+kd
            box = widgets.Combobox(options=allowed, value=value, continuous_update=False, **shared)
        elif allowed is not None:
            box = widgets.Dropdown(options=allowed, value=value, **shared)
        elif type(like) in TYPED:
            box = TYPED[type(like)](value=value, **shared)
        else:
            box = widgets.Text(value=_text(value), continuous_update=False, **shared)
        box.observe(self._safely(self._refresh), names="value")
        return box

    def _follow_recipe(self, shared: Mapping[str, Any]) -> None:
        """Update what the recipe sets, unless it was changed by hand; for another method, show its options instead."""
        own = recipe_values(shared)
        if own == self._own:
            return
        values = self._changed() if own.keys() == self._own.keys() else {} if self._own else self._begin_with
        of_chapters = Settings.__dataclass_fields__.keys() - {"ce_weight"}
        self._own = {name: own[name] for name in sorted(own, key=lambda name: name not in of_chapters)}
        meant, allowed = docstring_entries(RunConfig), {}
        for method in (methods := shared["method"].split("+")):
            kind, before = get_method(method).options, f"{method}." if len(methods) > 1 else ""
            meant |= {f"{before}{option}": text for option, text in docstring_entries(kind).items()}
            for option, hint in get_type_hints(kind).items():
                if get_origin(hint) is Literal:
                    allowed[f"{before}{option}"] = get_args(hint)
        self.options = {
            name: self._box(name, values.get(name, like), like, meant[name], allowed.get(name))
            for name, like in self._own.items()
        }
        boxes = list(self.options.values())
        self._some.children, self._more.children[0].children = boxes[:AT_ONCE], boxes[AT_ONCE:]
        _display(self._more, len(boxes) > AT_ONCE)

    def _changed(self) -> dict[str, Any]:
        """Return the options that differ from the recipe's; ConfigError for a list that lacks a bracket."""
        found = {}
        for name, box in self.options.items():
            value = box.value
            if isinstance(box, widgets.Text):
                try:
                    value = from_yaml(value, name)
                except ConfigError:
                    like = _text(self._own[name])
                    raise ConfigError(f"{name} is {value!r}; write it as in: {like}") from None
            if value != (list(own) if isinstance(own := self._own[name], tuple) else own):
                found[name] = value
        return found

    def _refresh(self) -> None:
        """Show figures and drawing of the choices, or the sentence that says why there are none."""
        self.plan = None
        try:
            shared = {name: box.value for name, box in self.shared.items()}
            self._follow_recipe(shared)
            chosen = {name: value for name, value in shared.items() if value != FIRST[name]} | self._changed()
            plan = choose_runs(chosen, *self._places)
            self.meaning.value = self._meant(plan, chosen)
            self.plan, self.problem.value = plan, ""
        except RkdError as error:
            self.problem.value = _note(f"{str(error).rstrip('.')}.", "alert")
        _display(self.meaning, self.plan is not None)
        self._set_buttons()

    def _meant(self, plan: ChosenRuns, chosen: Mapping[str, Any]) -> str:
        """Return sizes, cost, review path and commands as HTML."""
        run, root = plan.distilled, paths.home() / self._places[0]
        data = dataset_sizes(run.data, root)
        networks = {"student": run.network, "teacher": run.teacher.name}
        heads = {side: f"{side} {models.display_name(name)}" for side, name in networks.items()}
        heads["extra"] = "method (training only)"
        table = pair_cost(run, data.classes, data.pixels).rename(heads)
        table = table.rename(columns={"multiply-adds": "multiply-adds per image"}).T
        step = run_macs(run, data).training(run.batch_size)
        left = time_left(plan.runs.values(), plan.settings, self._store)
        there = "" if is_there(run.data, root) else " The data set is downloaded first, about 170 MB."
        levels = review_levels(run, self._places[0])
        page = ["papermill", "book/explore.ipynb", "again.ipynb", "-y", json.dumps({"choices": chosen})]
        commands = tag("pre", "\n\n".join(map(shlex.join, (["rkd", *plan.command()], page))))
        taken = tag("b", f"{step / 1e9:.2f} G multiply-adds")
        return join(
            frame(table.map("{:,}".format), index=True).data,
            tag("p", "One step with distillation: ", taken, ". Time to train: ", tag("b", left), ".", there),
            review_path(levels, run.options) if levels else "",
            foldout("The same from a terminal", commands),
        )

    # --- training

    def _train(self) -> None:
        self.training, self.name.value, self._drawn = LiveTraining(self.plan), "", {}
        self._title.value = tag("h4", _in_words(self.plan.distilled))
        _display(self._result, True)
        _display(self._after, False)
        self._set_buttons()
        self.watcher = threading.Thread(target=self._watch, name="rkd-explore", daemon=True)
        self.watcher.start()

    def _watch(self) -> None:
        for look in self.training.looks():
            self._safely(partial(self._show, look))()

    def _stop(self) -> None:
        self.training.stop()
        self.stop_button.disabled = True

    def _set_buttons(self) -> None:
        running = self.training is not None and self.training.running
        self.train_button.disabled = running or self.plan is None
        self.stop_button.disabled = not running

    def _show(self, look: TrainingStatus) -> None:
        """Show how the training stands; curves are sent only if they have changed."""
        self._bar.value = look.share
        self.status.value = _note(look.text, "alert" if look.status == "failed" else "status")
        drawn = {name: len(record.curves["test_accuracy"]) for name, record in look.records.items()}
        if drawn != self._drawn:
            self._drawn = drawn
            records, lines = {record.id: record for record in look.records.values()}, []
            for name, record in look.records.items():
                role = "teacher" if name == "teacher" else "distilled"
                lines.append(Line(name, name, (record.config,), role=role))
            plot = curves(lines, records, "Curves so far", panels="metric")
            self.curves.value = replace(plot, height=300).still()
        if look.status == "finished":
            self._show_result(look)
        if not self.training.running:
            self._refresh()  # the time left for the choices, which may have changed by now

    def _show_result(self, look: TrainingStatus) -> None:
        how = ("with distillation", "without distillation")
        ours, bare = (look.records[name].accuracy() for name in how)  # NaN: it diverged
        said = f"{ours:.2f} % with distillation, {bare:.2f} % without ({ours - bare:+.2f} points)"
        worth = "One seed and a short run: a demonstration, no evidence."
        self.status.value = _note(f"Done. Test accuracy after the last epoch: {said}. {worth}")
        run = self.training.plan.distilled.id
        self._snapshots = found = load_snapshots(self._store, run, paths.home() / self._places[0])
        if found is not None:
            self.map_epoch.options, self.map_epoch.value = found.epochs, found.epochs[-1]
        self._show_maps()
        self._show_saved()
        _display(self._after, True)

    def _show_maps(self) -> None:
        drawn = self._snapshots and attention_tiles(self._snapshots, self.map_epoch.value)
        self.maps.value = drawn or "This run has no attention maps to show."

    def _save(self) -> None:
        """Write the name that was entered into the record of the run shown."""
        made = (record := self._store.load(self.training.plan.distilled.id)).provenance
        labels = {**made["labels"], "name": self.name.value.strip()[:200]}
        self._store.save(replace(record, provenance={**made, "labels": labels}))
        self._show_saved()

    def _show_saved(self) -> None:
        """Show all records as a table, and the curves of those with names."""
        records = {record.id: record for record in self._store}
        rows, named = [], []
        for run, record in records.items():
            if not record.config.method:
                continue
            name, ours = record.provenance["labels"].get("name", ""), record.accuracy()
            alone = [records[r.id].accuracy() for r in without_distillation(record.config) if r.id in records]
            bare = [*alone, math.nan][0]
            rows.append((name, _in_words(record.config), ours, bare, ours - bare, run))
            named += [Line(run, name, (record.config,))] if name else []
        heads = ["name", "run", "with, %", "without, %", "difference", "record"]
        table = pd.DataFrame(sorted(rows), columns=heads)
        self.saved.value = frame(table.astype(object).fillna("–")).data if rows else tag("p", "None yet.")
        if named:
            self.saved.value += curves(named, records, "Test accuracy of the runs with names").still()

    # --- what there is to see

    def _safely(self, act: Callable[[], Any]) -> Callable[..., None]:
        """Wrap `act` in the lock and show its errors on the page: a notebook puts them into a log that nobody reads."""

        def safely(*event: Any) -> None:
            with self._lock:
                try:
                    act()
                except Exception as error:
                    self.problem.value = _note(f"The page failed: {type(error).__name__}: {error}.", "alert")
                    raise

        return safely

    def _button(self, label: str, icon: str, act: Callable[[], None], style: str = "") -> widgets.Button:
        button = widgets.Button(description=label, icon=icon, button_style=style, layout={"width": "120px"})
        button.on_click(self._safely(act))
        return button

    def _build(self) -> None:
        first, meant = (
            {**FIRST, **self._begin_with},
            {**docstring_entries(RunConfig), **docstring_entries(Settings)},
        )
        networks = dict.fromkeys([*models.names(), first["teacher"], first["student"]])  # or some of a family
        named = [(models.display_name(name), name) for name in networks]
        recipes = [("the method's own", ""), *((name, name) for name in recipe_names())]
        lists = {
            "teacher": named, "student": named, "dataset": source_names(), "method": method_names(), "recipe": recipes,
        }  # fmt: skip
        self.shared = {
            name: self._box(name, first[name], like, meant[name], lists.get(name))
            for name, like in FIRST.items()
        }
        self.problem, self.meaning, self._title, self.status = (_html() for _ in range(4))
        self.curves, self.maps, self.saved = (_html() for _ in range(3))
        self._some, self._more = widgets.VBox(), widgets.Accordion([widgets.VBox()], selected_index=None)
        self._more.set_title(0, "Further options of the method")
        boxes = list(self.shared.values())
        left = [
            _html("<h4>Pair and method</h4>"), *boxes[:4], _html("<h4>Loss</h4>"), self._some, self._more,
            _html("<h4>Data and length</h4>"), *boxes[4:],
        ]  # fmt: skip
        right = [_html("<h4>What these choices mean</h4>"), self.problem, self.meaning]
        columns = [
            widgets.VBox(left, layout={"flex": "1 1 280px", "max_width": "430px", "margin": "0 28px 0 0"}),
            widgets.VBox(right, layout={"flex": "1 1 280px", "min_width": "0"}),
        ]
        self.train_button = self._button("Train", "play", self._train, "primary")
        self.stop_button = self._button("Stop", "stop", self._stop)
        self._bar = widgets.FloatProgress(max=1.0, layout={"width": "auto"})
        self.map_epoch = widgets.SelectionSlider(options=[1], description="after epoch", **LABELLED)
        self.map_epoch.observe(self._safely(self._show_maps), names="value")
        self.maps.add_class("rkd-figure")
        about = "How much of its own map and of the residual each position lets through: dark 0, bright 1."
        self.name = widgets.Text(description="name", placeholder="for example: without attention", **LABELLED)
        self.save_button = self._button("Save", "save", self._save)
        maps = [_html(f"<h4>Attention maps</h4><p>{about}</p>"), self.map_epoch, self.maps]
        name = [_html("<h4>Name of this run</h4>"), self.name, self.save_button]
        self._after = widgets.VBox([*maps, *name])
        self._result = widgets.VBox([self._title, self._bar, self.status, self.curves, self._after])
        _display(self._result, False)
        parts = [
            _html(attached(script=False)), widgets.HBox(columns, **WRAPPED),
            widgets.HBox([self.train_button, self.stop_button]), self._result,
            _html("<h4>Recorded runs</h4>"), self.saved,
        ]  # fmt: skip
        super().__init__(parts)
        self.add_class("rkd-explore")


def _text(value: Any) -> str:
    """Return a list, a text or None as it is written into a box: as YAML."""
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]


def _html(value: str = "") -> widgets.HTML:
    return widgets.HTML(value, layout={"width": "auto", "min_width": "0"})


def _note(text: str, role: str = "status") -> Html:
    """Return a sentence that screen readers read out when it changes."""
    return tag("p", text, role=role)


def _in_words(run: RunConfig) -> str:
    return f"{run.describe()}, {run.data.train_images:,} images"


def _display(box: widgets.Widget, on: bool) -> None:
    box.layout.display = None if on else "none"
