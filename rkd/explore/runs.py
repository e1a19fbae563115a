"""A visitor's choices, as parameters of `rkd run`, the runs they stand for, and their training in a process of its own:
the notebook's kernel stays free, its random streams untouched. No widgets.

All that is shown of a training is read from the store and from the last line it logged. It belongs to the kernel's
process group: what interrupts or ends the kernel also ends it, after the batch in progress and with a checkpoint, from
which the same choices go on.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from rkd import models, paths
from rkd.devices import pick_device
from rkd.errors import ConfigError, unknown
from rkd.experiments.estimate import checkpoint_progress, dataset_sizes
from rkd.experiments.recipes import OWN_RECIPES, Builder
from rkd.experiments.runner import settle
from rkd.experiments.settings import Settings, resolve
from rkd.experiments.snapshots import has_maps
from rkd.experiments.workspace import store_for
from rkd.methods import get_method
from rkd.methods.sum import SumOptions
from rkd.records import Record, Store
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
LOOK_EVERY_S = 1.0
CLOSING_S = 20.0  # a process told to stop is killed after this time


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


# --- training ------------------------------------------------------------------------------------------------------


class TrainingStatus(NamedTuple):
    """The state of a training."""

    status: str  # "training", "stopping", "stopped", "finished" or "failed"
    text: str  # the same in a sentence
    share: float  # part of the runs that is done, 0 to 1
    records: dict[str, Record]  # by role; for an unfinished run, its curves and last accuracy so far


class LiveTraining:
    """Training of a plan's unrecorded runs, from the start or where they stopped, while `looks` is iterated."""

    def __init__(self, plan: ChosenRuns) -> None:
        self.plan, self.store, self.running, self._asked = plan, explore_store(), True, False
        self._log = self.store.folder(plan.distilled.id) / "page.log"
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Ask the training to end after the batch in progress, without waiting for it."""
        self._asked = True
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """Stop the training and wait for its process to end; one that does not is killed, which costs no record."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def looks(self) -> Iterator[TrainingStatus]:
        """Train, and yield the state every second and once it has ended."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        runs = {name: run for name, run in self.plan.runs.items() if name != "teacher"}
        for name, run in runs.items():
            if self._asked or self.store.has(run.id):
                continue
            command = [sys.executable, "-m", "rkd", *self.plan.command(name == "with distillation")]
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=paths.home(),
                    env={**os.environ, "RKD_HOME": str(paths.home()), paths.STANDS_IN: str(paths.home())},
                )  # fmt: skip
            if self._asked:  # meanwhile
                self._process.terminate()
            while self._process.poll() is None:
                yield self._look("stopping" if self._asked else "training")
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_EVERY_S)
            if not self.store.has(run.id):
                break
        self.running = False
        stopped = self._asked or b"\nstopped: " in self._log.read_bytes()
        done = len(self.store.read(run.id for run in runs.values())) == len(runs)
        yield self._look("finished" if done else "stopped" if stopped else "failed")

    def _look(self, status: str) -> TrainingStatus:
        records, done = {}, 0.0
        for name, run in self.plan.runs.items():
            if recorded := self.store.read([run.id]):
                records[name], done = recorded[run.id], done + 1
            elif (come := checkpoint_progress(self.store, run.id)) and (
                found := come.curves.get("test_accuracy")
            ):
                result = {"last_accuracy": found[-1], "best_accuracy": max(found), "best_epoch": 0}
                made = {"commit": None, "changed": False}
                records[name] = Record(run, "finished", come.curves, result, {}, made)
                done += come.epoch / run.total_epochs
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2].strip()
        last = last.removeprefix("rkd run: ") or "A process for it is starting"
        for name, run in self.plan.runs.items():
            last = f"{name}{last.removeprefix(run.id)}" if last.startswith(run.id) else last
        if status == "stopped":
            last += ". Nothing is recorded of an unfinished run; Train goes on from its checkpoint"
        return TrainingStatus(status, f"{status.capitalize()}. {last}.", done / len(self.plan.runs), records)
