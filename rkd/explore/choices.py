"""What a visitor chooses, turned into runs, and what these runs cost. No widgets here."""

import functools
import time
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F

from rkd import models, paths
from rkd.data import source_names
from rkd.errors import ConfigError, unknown
from rkd.experiments import settings as parameters
from rkd.experiments.budget import in_words
from rkd.experiments.estimate import (
    FORWARD_AND_BACKWARD,
    Work,
    begun,
    estimate,
    method_macs,
    sizes,
    unfinished,
    work,
)
from rkd.experiments.execute import pick_device
from rkd.experiments.recipes import Builder, recipe_names
from rkd.experiments.workspace import data_root
from rkd.records import Store
from rkd.records.provenance import machine_state
from rkd.review import ReviewKD, ReviewOptions, level_weights
from rkd.training import RunConfig, arithmetic

BATCH = 64  # images of a step: small, as the sets chosen here are


@dataclass(frozen=True)
class Choices:
    """Everything the page lets one choose. The defaults train in about a minute on two free CPU cores.

    Attributes:
        teacher, student: names of networks.
        recipe: in params/recipes/.
        loss_weight: of the review loss.
        hcl_levels: sizes HCL compares, as text: "h, 4, 2, 1".
        hcl_weights: one weight per size, as text: "1, 0.5, 0.25, 0.125".
        attention: fuse by attention maps; False adds the maps.
        dataset: "embedded", "cifar10" or "cifar100".
        images, test_images: sizes of the class-balanced subsets.
        epochs, teacher_epochs: lengths of the students' runs and of the teacher's.
        seed: of the students.
    """

    teacher: str = "resnet20"
    student: str = "resnet8"
    recipe: str = "authors"
    loss_weight: float = 1.0
    hcl_levels: str = "h, 4, 2, 1"
    hcl_weights: str = "1, 0.5, 0.25, 0.125"
    attention: bool = True
    dataset: str = "embedded"
    images: int = 1000
    test_images: int = 500
    epochs: int = 8
    teacher_epochs: int = 16
    seed: int = 0

    @classmethod
    def names(cls) -> list[str]:
        """Of all choices."""
        return [f.name for f in fields(cls)]

    @classmethod
    def beginning_with(cls, values: dict[str, Any]) -> "Choices":
        """The defaults, the recipe's own values for the pair, and `values` over both.

        Raises:
            ConfigError: an unknown choice, network or recipe.
        """
        for name in values:
            if name not in cls.names():
                raise unknown("choice", name, cls.names())
        first = cls(**values)
        own = recipe_values(first.recipe, first.teacher, first.student)
        return replace(first, **{name: value for name, value in own.items() if name not in values})


@dataclass(frozen=True)
class Plan:
    """The runs of one set of choices: the student with distillation, and the same run without. The distilled one names
    the teacher's run."""

    choices: Choices
    alone: RunConfig
    distilled: RunConfig

    @property
    def runs(self) -> tuple[RunConfig, RunConfig]:
        """In the order in which they are trained; the teacher comes in between."""
        return self.alone, self.distilled

    @property
    def teacher(self) -> RunConfig:
        """The run of the teacher."""
        return self.distilled.teacher.run

    @property
    def pair(self) -> str:
        """ "ResNet8 ← ResNet20"."""
        names = (self.distilled.network, self.distilled.teacher.name)
        return " ← ".join(map(models.display_name, names))

    def title(self, run: str) -> str:
        """What the run of an id is, in words."""
        student = models.display_name(self.alone.network)
        titles = {
            self.alone.id: f"{student} without distillation",
            self.teacher.id: f"teacher {models.display_name(self.teacher.network)}",
            self.distilled.id: f"{student} with distillation",
        }
        return titles[run]


def dataset_names() -> list[str]:
    """Data sets to choose from."""
    return source_names()


def recipe_values(recipe: str, teacher: str, student: str) -> dict[str, Any]:
    """The choices a recipe makes by itself for a pair.

    Raises:
        ConfigError: unknown recipe or network.
    """
    builder = Builder(parameters.Settings("explore", recipe=recipe))
    review = builder.recipe["review"]
    return {
        "loss_weight": builder.loss_weight(teacher, student),
        "hcl_levels": ", ".join(str(level) for level in review["hcl_levels"]),
        "hcl_weights": ", ".join(f"{weight:g}" for weight in review["hcl_weights"]),
        "attention": review["attention"],
    }


def parse_levels(text: str) -> list[int | str]:
    """Sizes from "h, 4, 2, 1"; brackets and blanks are of no account.

    Raises:
        ConfigError: there is none, or a comma too many.
    """
    return [int(part) if part.isdigit() else part for part in _parts("HCL sizes", text, "h, 4, 2, 1")]


def parse_weights(text: str) -> list[float]:
    """Weights from "1, 0.5, 0.25, 0.125".

    Raises:
        ConfigError: one is not a number, or there is none.
    """
    found = []
    for part in _parts("HCL weights", text, "1, 0.5, 0.25, 0.125"):
        try:
            found.append(float(part))
        except ValueError:
            raise ConfigError(
                f"HCL weights hold {part!r}, which is no number; write for example 1, 0.5, 0.25, 0.125"
            ) from None
    return found


def _parts(what: str, text: str, example: str) -> list[str]:
    parts = [part.strip(" '\"") for part in text.strip(" []()").split(",")]
    if "" in parts:
        raise ConfigError(f"{what} are {text!r}; write them with commas between, for example {example}")
    return parts


def settings_of(choices: Choices, root: str = "data", device: str = "auto") -> parameters.Settings:
    """The settings these choices stand for, in the device's own arithmetic.

    Raises:
        ConfigError: a choice that is not allowed.
    """
    return parameters.resolve(
        "explore",
        {
            "profile": "smoke",
            "budget": {},
            "recipe": choices.recipe,
            "dataset": choices.dataset,
            "data_root": root,
            "teacher": choices.teacher,
            "student": choices.student,
            "train_images": choices.images,
            "test_images": choices.test_images,
            "epochs": choices.epochs,
            "teacher_epochs": choices.teacher_epochs,
            "batch_size": BATCH,
            "precision": arithmetic("auto", pick_device(device)).name,
            "seeds": [choices.seed],
            "loss_weight": choices.loss_weight,
            "hcl_levels": parse_levels(choices.hcl_levels),
            "hcl_weights": parse_weights(choices.hcl_weights),
            "attention": choices.attention,
        },
    )


def plan_of(choices: Choices, root: str = "data", device: str = "auto") -> Plan:
    """The runs of these choices, checked against one another, against the data set and against the maps.

    Raises:
        ConfigError, DataError: a value that is not allowed, or two that contradict each other, in one sentence.
    """
    settings = settings_of(choices, root, device)
    builder = Builder(settings)
    plan = Plan(
        choices,
        builder.plain(choices.student, choices.seed),
        builder.review(choices.teacher, choices.student, choices.seed),
    )
    data = sizes(plan.alone.data, data_root(settings))
    for name, chosen, there in (
        ("training", choices.images, data.train),
        ("test", choices.test_images, data.test),
    ):
        if chosen > there:
            raise ConfigError(f"{chosen:,} {name} images were asked for, but {choices.dataset} has {there:,}")
    if choices.images % BATCH == 1:
        raise ConfigError(
            f"with {choices.images:,} training images the last batch of {BATCH} would be a single one, of which "
            f"BatchNorm has no statistics; take {choices.images - 1:,} or {choices.images + 1:,}"
            if choices.images > 1
            else "one training image is no batch: BatchNorm has no statistics of it; take 2 or more"
        )
    options = plan.distilled.options
    heights = [
        row["teacher_size"] for row in _review(choices.student, choices.teacher, options, data.classes)[0]
    ]
    if options.loss == "hcl" and not any(level_weights(h, options)[0] for h in heights):
        raise ConfigError(
            f"HCL sizes {choices.hcl_levels} fit none of the maps that are compared "
            f"({', '.join(f'{h} x {h}' for h in sorted(set(heights), reverse=True))}); name a smaller size, or h"
        )
    return plan


def without_distillation(config: RunConfig) -> RunConfig:
    """The same run on labels alone."""
    return replace(config, method=None, options=None, teacher=None, ce_weight=1.0)


@dataclass(frozen=True)
class Figures:
    """What the runs of a plan are made of. Multiply-adds are those of a forward pass of one image, except
    `step_macs`, which is all of one step of the distilled run: three forward passes' worth for student and fusion
    modules, one for the teacher.

    Attributes:
        levels: rows of `ReviewKD.describe()`, deep to shallow.
    """

    student_parameters: int
    teacher_parameters: int
    extra_parameters: int
    student_macs: int
    teacher_macs: int
    extra_macs: int
    step_macs: int
    steps: int
    levels: tuple[dict[str, object], ...]


def figures_of(plan: Plan, root: str = "data") -> Figures:
    """Parameters, multiply-adds and levels of a plan's networks; counted, not looked up."""
    config = plan.distilled
    data = sizes(config.data, paths.home() / root)
    levels, extra = _review(config.network, config.teacher.name, config.options, data.classes)
    need = work(config, data)
    student_parameters, student_macs = _size(config.network, data.classes, data.pixels)
    teacher_parameters, teacher_macs = _size(config.teacher.name, data.classes, data.pixels)
    return Figures(
        student_parameters,
        teacher_parameters,
        extra,
        student_macs,
        teacher_macs,
        method_macs(
            config.network, config.teacher.name, config.method, config.options, data.classes, data.pixels
        ),
        min(BATCH, need.images) * (need.image + need.teacher),
        config.epochs * -(-need.images // config.batch_size),
        levels,
    )


@dataclass(frozen=True)
class Time:
    """How long the runs of a plan take on this machine.

    Attributes:
        seconds: by run id, of those that are left to train; a run begun counts from where it is.
        basis: what this rests on.
    """

    seconds: dict[str, float]
    basis: str

    @property
    def total(self) -> float:
        """Of all runs, one after another."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        if not self.seconds:
            return "nothing is left to train"
        return f"about {in_words(max(1.0, self.total))}"


def time_of(plan: Plan, store: Store, device: torch.device, root: str = "data") -> Time:
    """Time of what is left of a plan: from recorded runs of this machine where there are some, else from a short
    measurement.

    Raises:
        RecordError: a checkpoint is damaged.
    """
    name = machine_state(device)["device_name"]
    folder = paths.home() / root
    guess = estimate(plan.runs, store, name, device=device.type, gang=1, data_root=folder)
    if guess.seconds is not None:
        return Time({run: s for run, s in guess.each.items() if s is not None}, guess.basis)
    left = remaining(plan, store, root)
    pace = rate_here(device)
    return Time({run: macs / pace for run, macs in left.items()}, "a short measurement of this machine")


def remaining(plan: Plan, store: Store, root: str = "data") -> dict[str, float]:
    """Multiply-adds left of each run that is not recorded, by id, in the order in which they are trained.

    Raises:
        RecordError: a checkpoint is damaged.
    """
    left = {run.id: run for run in unfinished(plan.runs, store)}
    found = {}
    for run in (plan.alone, plan.teacher, plan.distilled):
        if run.id in left:
            need: Work = work(run, sizes(run.data, paths.home() / root))
            found[run.id] = need.left(run, begun(store, run.id), 1)
    return found


@functools.cache
def rate_here(device: torch.device, network: str = "resnet8") -> float:
    """Multiply-adds per second that steps of a small network reach on this device: a rough guess, in about a second."""
    x = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.random.fork_rng(devices=[]):
        net = models.build(network, 10)
    net = net.to(device=device, memory_format=torch.channels_last).train()
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device)

    def step() -> float:
        F.cross_entropy(net(x), labels).backward()
        return sum(p.grad.sum().item() for p in net.parameters())  # read back: a GPU is waited for

    step()
    started, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - started < 0.3:
        step()
        steps += 1
    seconds = time.perf_counter() - started
    return steps * BATCH * FORWARD_AND_BACKWARD * models.macs(net) / seconds


@functools.lru_cache(maxsize=64)
def _size(network: str, classes: int, pixels: int) -> tuple[int, int]:
    """Parameters and multiply-adds."""
    with torch.random.fork_rng(devices=[]):
        net = models.build(network, classes)
    return models.parameter_count(net), models.macs(net, pixels)


@functools.lru_cache(maxsize=64)
def _review(
    student: str, teacher: str, options: ReviewOptions, classes: int
) -> tuple[tuple[dict[str, object], ...], int]:
    """Levels of a pair, and parameters of its fusion modules."""
    with torch.random.fork_rng(devices=[]):
        review = ReviewKD(_network(student, classes), _network(teacher, classes), options)
    return tuple(review.describe()), models.parameter_count(review)


@functools.lru_cache(maxsize=8)
def _network(name: str, classes: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        return models.build(name, classes)


__all__ = [
    "BATCH",
    "Choices",
    "Figures",
    "Plan",
    "Time",
    "dataset_names",
    "figures_of",
    "parse_levels",
    "parse_weights",
    "plan_of",
    "rate_here",
    "recipe_names",
    "recipe_values",
    "remaining",
    "settings_of",
    "time_of",
    "without_distillation",
]
