"""A visitor's choices, as parameters of `rkd run`, and the runs that they stand for. No widgets."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from rkd import models, paths
from rkd.devices import pick_device
from rkd.errors import ConfigError, unknown
from rkd.experiments.estimate import dataset_sizes
from rkd.experiments.recipes import OWN_RECIPES, Builder
from rkd.experiments.runner import settle
from rkd.experiments.settings import Settings, resolve
from rkd.experiments.snapshots import has_maps
from rkd.experiments.workspace import store_for
from rkd.methods import get_method
from rkd.methods.sum import SumOptions
from rkd.records import Store
from rkd.review import ReviewKD
from rkd.training import RunConfig
from rkd.training.build import check_batches

# The choices that all methods share; besides, there are a method's options and the weight of cross-entropy. With these
# values, training takes about a minute on two free CPU cores.
FIRST: dict[str, Any] = {
    "teacher": "resnet20", "student": "resnet8", "method": "reviewkd", "recipe": "", "dataset": "embedded",
    "train_images": 1000, "test_images": 500, "epochs": 8, "teacher_epochs": 16, "batch_size": 64, "seed": 0,
}  # fmt: skip
OF_METHOD = ("teacher", "teacher_epochs", "method", "ce_weight", "options")
RESULTS = "results/explore"  # folder of the records


@dataclass(frozen=True)
class ChosenRuns:
    """The runs of one set of choices, settled, by role and in the order of training: the student without distillation,
    the teacher, the student with distillation. `given`: the choices that `rkd run` gets for the last; `settings`: these
    and what was left to the profile."""

    runs: Mapping[str, RunConfig]
    given: Mapping[str, Any]
    settings: Settings

    @property
    def distilled(self) -> RunConfig:
        """The run with distillation."""
        return self.runs["with distillation"]

    def command(self, distilled: bool = True) -> list[str]:
        """Return the arguments of `rkd` that train the distilled run and its teacher, or else the run without."""
        parts = ["run", "--maps"] if distilled and has_maps(self.distilled) else ["run"]
        for name, value in self.given.items():
            if distilled or not (name in OF_METHOD or name.startswith("teacher")):
                said = value if isinstance(value, str) else json.dumps(value)
                parts += [f"--{name.replace('_', '-')}", said]
        return parts


def explore_store() -> Store:
    """Return the store of what was trained here: records and working files."""
    return store_for("smoke", RESULTS)


def without_distillation(run: RunConfig) -> list[RunConfig]:
    """Return the forms that the same run on labels alone may have: a method may leave out an epoch's last batch where
    the run without it does not."""
    alone = replace(run, method=None, options=None, teacher=None, ce_weight=1.0)
    return [alone, replace(alone, drop_last=False)]


def recipe_values(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weight of cross-entropy and the method's options as the recipe sets them for pair and length; those
    of a sum, such as "at+kd", by names such as "at.loss_weight".

    Raises:
        ConfigError: a value that is not allowed.
    """
    run = _requested(_given(shared))[0]["with distillation"]
    own = vars(run.options)
    if isinstance(run.options, SumOptions):
        parts = [(part.method, vars(part.options)) for part in run.options.parts]
        own = {f"{method}.{name}": value for method, options in parts for name, value in options.items()}
    return {"ce_weight": run.ce_weight, **own}


def choose_runs(chosen: Mapping[str, Any], root: str = "data", device: str = "auto") -> ChosenRuns:
    """Return the runs of these choices, checked against one another, the data set and the sizes of the maps. Choices go
    by the names of `FIRST` and of `recipe_values`, which also provide what is left out.

    Raises:
        ConfigError, DataError: an unknown name, a value that is not allowed, or two that contradict each other.
    """
    shared = {name: chosen.get(name, value) for name, value in FIRST.items()}
    allowed = [*FIRST, *recipe_values(shared)]
    given = _given(shared) | {"data_root": root, "device": device}
    for name, value in chosen.items():
        part, dot, own = name.partition(".")
        if name not in allowed:
            raise unknown("choice", name, allowed)
        if name == "ce_weight":
            given[name] = value
        elif name not in FIRST:  # a sum's options are given by method
            options = given.setdefault("options", {})
            (options.setdefault(part, {}) if dot else options)[own or name] = value
    requests, settings = _requested(given)
    store, on = explore_store(), pick_device(device)
    runs = {name: settle(run, store, on) for name, run in requests.items()}
    _check(runs["with distillation"], root)
    return ChosenRuns({**runs, "teacher": runs["with distillation"].teacher.run}, given, settings)


def _given(shared: Mapping[str, Any]) -> dict[str, Any]:
    recipe = shared["recipe"] or OWN_RECIPES.get(shared["method"], "crd")
    return {**shared, "recipe": recipe, "results": RESULTS}


def _requested(given: Mapping[str, Any]) -> tuple[dict[str, RunConfig], Settings]:
    """Return the runs as `rkd run` makes them, their arithmetic still open, and the settings they are made under."""
    places = {name: str(paths.home() / given[name]) for name in ("results", "data_root") if name in given}
    own = {name: value for name, value in given.items() if name != "seed"}
    settings = resolve("run", {**own, **places, "seeds": [given["seed"]]})
    get_method(settings.method)  # raises for an unknown one
    builder, seed = Builder(settings), settings.seeds[0]
    runs = {
        "without distillation": builder.plain(settings.student, seed),
        "teacher": builder.teacher(settings.teacher),
        "with distillation": builder.distilled(settings.teacher, settings.student, seed, settings.method),
    }
    return runs, settings


def _check(run: RunConfig, root: str) -> None:
    """Raise for what would otherwise fail, or come to nothing, only during training."""
    data, images = dataset_sizes(run.data, paths.home() / root), run.data.train_images
    for what, asked, there in (("training", images, data.train), ("test", run.data.test_images, data.test)):
        if asked > there:
            raise ConfigError(f"{asked:,} {what} images were asked for, but {run.data.name} has {there:,}")
    check_batches(run, images)
    review_levels(run, root)


@functools.lru_cache(maxsize=8)
def review_levels(run: RunConfig, root: str = "data") -> list[dict[str, object]]:
    """Return the rows of `ReviewKD.describe()` for a run's pair; none for another method."""
    if run.method != "reviewkd":
        return []
    with torch.random.fork_rng(devices=[]):
        student, teacher = models.build(run.network), models.build(run.teacher.name)
        return ReviewKD(
            student, teacher, run.options, dataset_sizes(run.data, paths.home() / root).pixels
        ).describe()
