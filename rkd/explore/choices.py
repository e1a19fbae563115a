"""What a visitor chooses, as the parameters of `rkd run`; the runs these stand for, and what they cost. No widgets."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from rkd import models, paths
from rkd.cli.train import RECIPES
from rkd.errors import ConfigError, unknown
from rkd.experiments.estimate import sizes, untrained_method
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import pick_device
from rkd.experiments.settings import resolve
from rkd.experiments.settle import settle
from rkd.experiments.workspace import store_for
from rkd.methods import get_method
from rkd.methods.sum import SumOptions
from rkd.records import Store
from rkd.review import level_weights
from rkd.training import RunConfig

# What is chosen whatever the method is; besides, there are its options and the weight of cross-entropy. These values
# train in about a minute on two free CPU cores.
FIRST: dict[str, Any] = {
    "teacher": "resnet20", "student": "resnet8", "method": "reviewkd", "recipe": "", "dataset": "embedded",
    "train_images": 1000, "test_images": 500, "epochs": 8, "teacher_epochs": 16, "batch_size": 64, "seed": 0,
}  # fmt: skip
OF_METHOD = ("teacher", "method", "ce_weight", "options")
RESULTS = "results/explore"  # folder of records


@dataclass(frozen=True)
class Plan:
    """The runs of one set of choices, settled: the student with distillation, its teacher, and the same run without.

    Attributes:
        runs: by what they are, in the order in which they are trained.
        given: what `rkd run` is given for the distilled one.
    """

    runs: Mapping[str, RunConfig]
    given: Mapping[str, Any]

    @property
    def distilled(self) -> RunConfig:
        """The run with distillation."""
        return self.runs["with distillation"]

    def command(self, distilled: bool = True) -> list[str]:
        """Arguments of `rkd` that train the distilled run, and its teacher, or else the run without, among this page's
        records."""
        parts = ["run", "--maps"] if distilled else ["run"]
        for name, value in self.given.items():
            if name == "seeds":
                name, value = "seed", value[0]
            if distilled or name not in OF_METHOD:
                parts += [
                    f"--{name.replace('_', '-')}",
                    value if isinstance(value, str) else json.dumps(value),
                ]
        return parts


def without_distillation(run: RunConfig) -> list[RunConfig]:
    """What the same run on labels alone may be: a method may leave out an epoch's last batch where the run without it
    does not."""
    alone = replace(run, method=None, options=None, teacher=None, ce_weight=1.0)
    return [alone, replace(alone, drop_last=False)]


def explored() -> Store:
    """Records and working files of what was trained here."""
    return store_for("smoke", RESULTS)


def recipe_values(shared: Mapping[str, Any]) -> dict[str, Any]:
    """The weight of cross-entropy and the method's options, as the recipe has them for the pair and the length; those
    of a sum, such as "at+kd", by names such as "at.loss_weight".

    Args:
        shared: values by the names of `FIRST`.

    Raises:
        ConfigError: a value that is not allowed.
    """
    run = _requests(_given(shared))["with distillation"]
    if not isinstance(run.options, SumOptions):
        return {"ce_weight": run.ce_weight, **vars(run.options)}
    own = {f"{p.method}.{name}": value for p in run.options.parts for name, value in vars(p.options).items()}
    return {"ce_weight": run.ce_weight, **own}


def plan_of(chosen: Mapping[str, Any], root: str = "data", device: str = "auto") -> Plan:
    """The runs of these choices, checked against one another, against the data set and against the maps.

    Args:
        chosen: values by the names of `FIRST` and of `recipe_values`, which has what is left out.
        root, device: as `explore` takes them.

    Raises:
        ConfigError, DataError: an unknown name, a value that is not allowed, or two that contradict each other, in one
            sentence.
    """
    shared = {name: chosen.get(name, value) for name, value in FIRST.items()}
    options = {name: value for name, value in chosen.items() if name not in FIRST}
    allowed = recipe_values(shared)
    for name in options:
        if name not in allowed:
            raise unknown("choice", name, [*FIRST, *allowed])
    given = _given(shared) | ({"data_root": root} if root != "data" else {})
    given |= {"device": device} if device != "auto" else {}
    given |= {"ce_weight": options.pop("ce_weight")} if "ce_weight" in options else {}
    given |= {"options": _nested(options)} if options else {}
    store = explored()
    runs = {name: settle(run, store, pick_device(device)) for name, run in _requests(given).items()}
    _check(runs["with distillation"], root)
    return Plan({**runs, "teacher": runs["with distillation"].teacher.run}, given)


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """{"at.loss_weight": 9.0} as {"at": {"loss_weight": 9.0}}: a sum's options by method."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        part, dot, own = name.partition(".")
        (found.setdefault(part, {}) if dot else found)[own or name] = value
    return found


def _given(shared: Mapping[str, Any]) -> dict[str, Any]:
    recipe = shared["recipe"] or RECIPES.get(shared["method"], "crd")
    named = {name: value for name, value in shared.items() if name != "seed"}
    return {**named, "recipe": recipe, "seeds": [shared["seed"]], "results": RESULTS}


def _requests(given: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The runs as `rkd run` makes them; their arithmetic is open."""
    settings = resolve("run", given)
    get_method(settings.method)  # an unknown one is told of
    builder, seed = Builder(settings), settings.seeds[0]
    return {
        "without distillation": builder.plain(settings.student, seed),
        "teacher": builder.teacher(settings.teacher),
        "with distillation": builder.distilled(settings.teacher, settings.student, seed, settings.method),
    }


def _check(run: RunConfig, root: str) -> None:
    """What would fail, or come to nothing, only while it trains."""
    data, images = sizes(run.data, paths.home() / root), run.data.train_images
    for what, asked, there in (("training", images, data.train), ("test", run.data.test_images, data.test)):
        if asked > there:
            raise ConfigError(f"{asked:,} {what} images were asked for, but {run.data.name} has {there:,}")
    if images % run.batch_size == 1 and not run.drop_last:
        raise ConfigError(
            f"with {images:,} training images the last batch of {run.batch_size} would be a single one, of which "
            f"BatchNorm has no statistics; take {images + 1:,}"
        )
    if run.method == "reviewkd" and run.options.loss == "hcl":
        heights = sorted({row["teacher_size"] for row in review_levels(run, root)}, reverse=True)
        if not any(level_weights(height, run.options)[0] for height in heights):
            raise ConfigError(
                f"hcl_levels {list(run.options.hcl_levels)} fit none of the maps that are compared "
                f"({', '.join(f'{h} x {h}' for h in heights)}); name a smaller size, or h"
            )


@functools.lru_cache(maxsize=8)
def review_levels(run: RunConfig, root: str = "data") -> list[dict[str, object]]:
    """Rows of `ReviewKD.describe()` of a run's pair; none under another method."""
    if run.method != "reviewkd":
        return []
    data = sizes(run.data, paths.home() / root)
    with torch.random.fork_rng(devices=[]):
        student, teacher = (models.build(name, data.classes) for name in (run.network, run.teacher.name))
        return untrained_method(
            student, teacher, run.network, run.method, run.options, data.classes, data.pixels
        ).describe()
