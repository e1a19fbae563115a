"""The live page: widgets, and what they set in motion. Core widgets only, as ipywidgets 7.7.1 and 8 have them."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from rkd import models, paths
from rkd.data import is_there
from rkd.errors import RkdError
from rkd.experiments.execute import pick_device
from rkd.experiments.snapshots import Snapshots, load_snapshots
from rkd.explore import pictures, text
from rkd.explore.choices import (
    Choices,
    Plan,
    dataset_names,
    figures_of,
    plan_of,
    recipe_names,
    recipe_values,
    time_of,
)
from rkd.explore.saved import save, saved_runs, saved_store
from rkd.explore.training import Runner, State, working_store
from rkd.records import Store
from rkd.records.provenance import machine_state

LOOK_EVERY = 0.5  # seconds between looks at a training; curves are drawn anew only when an epoch has ended
ALL = -1  # images; None would be no choice at all
FILL = "auto"  # as wide as the place, margins counted

# Name of a choice, its label, what it means: the page's three groups.
GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Pair and recipe": (
        ("teacher", "teacher", "network whose maps are the target"),
        ("student", "student", "network that is trained"),
        ("recipe", "recipe", "which code's schedule and conventions: see the page on recipes"),
    ),
    "Method": (
        ("loss_weight", "loss weight", "of the review loss against cross-entropy; the recipe's own at first"),
        ("hcl_levels", "HCL sizes", "sizes at which maps are compared: whole numbers, h (in full), h/2, h-1"),
        ("hcl_weights", "HCL weights", "one per size"),
        ("attention", "attention (ABF)", "fuse two maps by learned attention; off: add them"),
    ),
    "Data and length": (
        ("dataset", "data set", "embedded: drawn figures in 100 classes, made on the spot"),
        ("images", "training images", "class-balanced subset"),
        ("test_images", "test images", "class-balanced subset"),
        ("epochs", "epochs", "of the student, with and without distillation"),
        ("teacher_epochs", "teacher epochs", "the teacher is trained once and kept for later runs"),
        ("seed", "seed", "of initialisation, order and augmentation of the student"),
    ),
}
OF_RECIPE = ("loss_weight", "hcl_levels", "hcl_weights", "attention")


class App:
    """The page: `widget` is what is shown.

    Args:
        choices: to begin with.
        working: store of runs that are tried.
        kept: store of runs that are saved under a name.
        root: folder of the data sets.
        device: see `Runner`.

    Raises:
        ConfigError: a choice or device that is not allowed.
    """

    def __init__(
        self, choices: Choices, working: Store, kept: Store, root: str = "data", device: str = "auto"
    ) -> None:
        self.runner = Runner(working, root, device)
        self._working, self._kept, self._root = working, kept, root
        self._lock = threading.RLock()  # handlers and the watcher of a training run in threads of their own
        self._place = machine_state(self.runner.device)["device_name"]
        self._plan: Plan | None = None  # of the choices, where they agree
        self._shown: Plan | None = None  # whose training is shown
        self._drawn: object = None
        self._snapshots: Snapshots | None = None
        self._watcher: threading.Thread | None = None
        self._own = recipe_values(choices.recipe, choices.teacher, choices.student)
        self._filling = False
        self.inputs = {name: _input(name, getattr(choices, name)) for name in Choices.names()}
        self._build()
        for name, box in self.inputs.items():
            box.observe(self._handler(lambda change, name=name: self._changed(name)), names="value")
        self.train_button.on_click(self._handler(lambda button: self.train()))
        self.stop_button.on_click(self._handler(lambda button: self.stop()))
        self.save_button.on_click(self._handler(lambda button: self.save()))
        for box in (self.map_epoch, self.map_image):
            box.observe(self._handler(lambda change: self._show_maps()), names="value")
        self._refresh()
        self._show_saved()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    @property
    def choices(self) -> Choices:
        """As they stand now."""
        return Choices(**{name: box.value for name, box in self.inputs.items()})

    @property
    def figures(self) -> str:
        """The text about sizes and costs."""
        return self._figures.value

    @property
    def problem(self) -> str:
        """Why these choices cannot be trained; empty where they can."""
        return self._problem.value

    def train(self) -> None:
        """Start what the choices say, or go on with it."""
        plan = self._plan
        if plan is None or self.runner.poll().busy:
            return
        self.runner.start(plan)
        self._shown, self._drawn, self._snapshots = plan, None, None
        self._save_message.value = ""
        self._result.layout.display = ""
        self._title.value = text.heading(f"{plan.pair}, {_in_short(plan)}")
        self._maps_box.layout.display = "none"
        self._save_box.layout.display = "none"
        self._show(self.runner.poll())
        self._watcher = threading.Thread(target=self._watch, name="rkd-explore-page", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """End the training after the batch in progress."""
        self.runner.stop()
        self._show(self.runner.poll())

    def save(self) -> None:
        """Keep the finished run under the name that is typed in."""
        try:
            record = save(self._shown, self.name.value, self._working, self._kept)
        except RkdError as error:
            self._save_message.value = text.alert(f"Not saved: {error}.")
            return
        path = self._kept.path(record.id)
        self._save_message.value = text.good(f"Saved as {_short_path(path)}.")
        self.name.value = ""
        self._show_saved()

    def wait(self, seconds: float | None = None) -> State:
        """Until the training under way is over and shown, or the time is."""
        if self._watcher is not None:
            self._watcher.join(seconds)
        return self.runner.poll()

    def close(self) -> None:
        """Stop a training under way, with its checkpoint written, and take the page's widgets away."""
        self.runner.close()
        self.wait(5.0)
        self.widget.close()

    def _changed(self, name: str) -> None:
        if self._filling:
            return
        if name in ("teacher", "student", "recipe"):
            self._follow_recipe()
        self._refresh()

    def _follow_recipe(self) -> None:
        """What the recipe sets follows it, unless it was changed by hand."""
        boxes = self.inputs
        own = recipe_values(boxes["recipe"].value, boxes["teacher"].value, boxes["student"].value)
        self._filling = True
        try:
            for name in OF_RECIPE:
                if boxes[name].value == self._own[name]:
                    boxes[name].value = own[name]
        finally:
            self._filling = False
        self._own = own

    def _refresh(self) -> None:
        """Figures and diagram of the choices, or the sentence that says why there are none."""
        try:
            plan = plan_of(self.choices, self._root, str(self.runner.device))
            figures = figures_of(plan, self._root)
            left = time_of(plan, self._working, self.runner.device, self._root)
        except RkdError as error:
            self._plan = None
            self._problem.value = text.alert(f"{str(error).rstrip('.')}.")
            self._figures.layout.display = self._diagram.layout.display = "none"
        else:
            self._plan = plan
            self._problem.value = ""
            download = not is_there(plan.distilled.data, paths.home() / self._root)
            self._figures.value = text.figures_table(plan, figures) + text.cost(
                plan, figures, left, self._place, download
            )
            self._diagram.value = pictures.review_picture(figures.levels, plan.distilled.options)
            self._figures.layout.display = self._diagram.layout.display = ""
        self._set_buttons(self.runner.poll())

    def _set_buttons(self, state: State) -> None:
        self.train_button.disabled = self._plan is None or state.busy
        self.stop_button.disabled = state.status not in ("starting", "training")

    def _watch(self) -> None:
        """Follow a training until it ends."""
        try:
            while True:
                with self._lock:
                    state = self.runner.poll()
                    self._show(state)
                    if not state.busy:
                        self._ended(state)
                        return
                time.sleep(LOOK_EVERY)
        except Exception as error:  # nobody sees what a thread raises
            traceback.print_exc()
            self._status.value = text.alert(f"The page cannot show the training: {error}.")

    def _show(self, state: State) -> None:
        """One look; only what differs is sent."""
        plan = self._shown
        if plan is None:
            return
        self._bar.value = state.share
        self._bar.bar_style = {"finished": "success", "failed": "danger", "stopped": "warning"}.get(
            state.status, "info"
        )
        if state.status != "finished":
            self._status.value = text.progress(plan, state)
        drawn = {run: len(curves.get("test_accuracy", ())) for run, curves in state.curves.items()}
        if drawn != self._drawn:
            self._drawn = drawn
            for box, picture in zip(
                self._curves.children, pictures.curve_pictures(plan, state.curves), strict=True
            ):
                box.value = picture
        self._set_buttons(state)

    def _ended(self, state: State) -> None:
        plan = self._shown
        if state.status == "finished":
            alone, distilled = (self._working.load(run.id) for run in plan.runs)
            self._status.value = text.outcome(plan, alone, distilled)
            self._snapshots = load_snapshots(self._working, distilled.id, paths.home() / self._root)
            self._offer_maps()
            self._save_box.layout.display = "" if distilled.status == "finished" else "none"
        self._refresh()  # of what is left of the choices, which may be others by now

    def _offer_maps(self) -> None:
        snapshots = self._snapshots
        if snapshots is None:
            return
        self.map_epoch.options = [(str(epoch), epoch) for epoch in snapshots.epochs]
        self.map_epoch.value = snapshots.epochs[-1]
        self.map_image.options = [
            ("all", ALL),
            *((name, i) for i, name in enumerate(snapshots.classes)),
        ]
        self.map_image.value = ALL
        self._show_maps()
        self._maps_box.layout.display = ""

    def _show_maps(self) -> None:
        snapshots, epoch, image = self._snapshots, self.map_epoch.value, self.map_image.value
        if snapshots is None or epoch not in snapshots.epochs:
            return
        picture = pictures.attention_picture(snapshots, epoch, None if image == ALL else image)
        controls = "" if picture else "none"
        self.map_epoch.layout.display = self.map_image.layout.display = controls
        self._maps.value = picture or "<p>This run adds its maps: there is no attention to show.</p>"

    def _show_saved(self) -> None:
        try:
            self._saved.value = text.saved_table(saved_runs(self._kept))
        except RkdError as error:
            self._saved.value = text.alert(str(error))

    def _handler(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        """A handler whose errors are shown in place: a notebook puts them into a log that nobody reads."""

        def handle(event: Any) -> None:
            with self._lock:
                try:
                    act(event)
                except RkdError as error:
                    self._problem.value = text.alert(f"{str(error).rstrip('.')}.")
                except Exception as error:
                    self._problem.value = text.alert(f"The page failed: {type(error).__name__}: {error}.")
                    raise

        return handle

    def _build(self) -> None:
        self._problem, self._figures, self._diagram = _html(), _html(), _html()
        groups = [
            _column([_html(text.heading(title)), *(self.inputs[name] for name, _, _ in entries)])
            for title, entries in GROUPS.items()
        ]
        self.train_button = widgets.Button(
            description="Train", icon="play", button_style="primary", layout=_layout(width="120px")
        )
        self.stop_button = widgets.Button(
            description="Stop", icon="stop", disabled=True, layout=_layout(width="120px")
        )
        self._bar = widgets.FloatProgress(min=0.0, max=1.0, layout=_layout(width=FILL, max_width="640px"))
        self._status, self._title = _html(), _html()
        self._curves = widgets.HBox(
            [_html(flex="1 1 260px", max_width="420px") for _ in range(3)],
            layout=_layout(flex_flow="row wrap"),
        )
        self.map_epoch = widgets.SelectionSlider(
            options=[("1", 1)],
            description="after epoch",
            **_style(),
            layout=_layout(width=FILL, max_width="420px"),
        )
        self.map_image = widgets.Dropdown(
            options=[("all", ALL)],
            description="images",
            **_style(),
            layout=_layout(width=FILL, max_width="420px"),
        )
        self._maps = _html()
        about = (
            "How much of the student's own map and of the residual from the deeper level each position lets through: "
            "dark 0, bright 1."
        )
        self._maps_box = widgets.VBox(
            [_html(text.heading("Attention maps", about)), self.map_epoch, self.map_image, self._maps],
            layout=_layout(display="none"),
        )
        self.name = widgets.Text(
            description="name",
            placeholder="for example: without attention",
            **_style(),
            layout=_layout(flex="1 1 300px", max_width="420px"),
        )
        self.save_button = widgets.Button(description="Save", icon="save", layout=_layout(width="120px"))
        self._save_message, self._saved = _html(), _html()
        self._save_box = widgets.VBox(
            [
                _html(
                    text.heading(
                        "Save this run", "Its record, with curves and maps, goes to results/explore."
                    )
                ),
                widgets.HBox([self.name, self.save_button], layout=_layout(flex_flow="row wrap")),
                self._save_message,
            ],
            layout=_layout(display="none"),
        )
        self._result = widgets.VBox(
            [self._title, self._bar, self._status, self._curves, self._maps_box, self._save_box],
            layout=_layout(display="none"),
        )
        meaning = widgets.VBox(
            [_html(text.heading("What these choices mean")), self._problem, self._figures, self._diagram],
            layout=_layout(flex="1 1 400px", min_width="0"),
        )
        self.widget = widgets.VBox(
            [
                _html(text.STYLE),
                widgets.HBox(
                    [
                        widgets.VBox(
                            groups, layout=_layout(flex="1 1 300px", max_width="430px", margin="0 28px 0 0")
                        ),
                        meaning,
                    ],
                    layout=_layout(flex_flow="row wrap"),
                ),
                widgets.HBox([self.train_button, self.stop_button], layout=_layout(margin="8px 0 0 0")),
                self._result,
                _html(text.heading("Saved runs")),
                self._saved,
            ]
        )
        self.widget.add_class("rkd-explore")


def open_app(values: Mapping[str, Any], root: str, device: str) -> App:
    """The page on the project's own folders. One that this kernel has shown before is closed: its training stops, and
    can be taken up again from the new one.

    Raises:
        ConfigError: an unknown choice or device.
    """
    first = Choices.beginning_with(dict(values))
    pick_device(device)
    while _OPEN:
        _OPEN.pop().close()
    app = App(first, working_store(), saved_store(), root, device)
    _OPEN.append(app)
    return app


_OPEN: list[App] = []  # at most one


def _input(name: str, value: Any) -> widgets.Widget:
    label, meaning = next(entry[1:] for group in GROUPS.values() for entry in group if entry[0] == name)
    options = {"teacher": _network_options, "student": _network_options, "recipe": recipe_names}
    options["dataset"] = dataset_names
    shared = {"description": label, **_style(), **_hint(meaning), "layout": _layout(width=FILL)}
    if name in options:
        return widgets.Dropdown(options=options[name](), value=value, **shared)
    if isinstance(value, bool):
        return widgets.Checkbox(value=value, **shared)
    kind = {int: widgets.IntText, float: widgets.FloatText, str: widgets.Text}[type(value)]
    return kind(value=value, **shared)


def _network_options() -> list[tuple[str, str]]:
    return [(models.display_name(name), name) for name in models.names()]


def _in_short(plan: Plan) -> str:
    c = plan.choices
    plural = "s" if c.epochs != 1 else ""
    return f"{c.recipe}, {c.dataset}, {c.images:,} images, {c.epochs} epoch{plural}, seed {c.seed}"


def _short_path(path: Any) -> str:
    home = paths.home()
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _column(children: list[widgets.Widget]) -> widgets.VBox:
    return widgets.VBox(children, layout=_layout(width="100%"))


def _html(value: str = "", **layout: str) -> widgets.HTML:
    return widgets.HTML(value, layout=_layout(**{"width": "auto", "min_width": "0", **layout}))


def _layout(**values: str) -> widgets.Layout:
    return widgets.Layout(**values)


def _style() -> dict[str, Any]:
    return {"style": {"description_width": "112px"}}


def _hint(meaning: str) -> dict[str, str]:
    """Shown when the mouse rests on a label; the name of the trait changed with ipywidgets 8."""
    return {"tooltip" if int(widgets.__version__.split(".")[0]) >= 8 else "description_tooltip": meaning}
