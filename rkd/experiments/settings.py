"""The parameters a chapter takes, and how they are resolved.

Later layers win: defaults here, the profile's common values, the profile's budget for the chapter, and last what was
given explicitly (papermill, the command line, a notebook's parameters cell). None means "not given".
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from rkd import paths
from rkd.errors import ConfigError, unknown
from rkd.typed import number_or_auto

ON_MISSING = ("train", "skip", "error")


@dataclass(frozen=True)
class Settings:
    """Resolved parameters of one chapter.

    Attributes:
        chapter: the chapter's name.
        profile: "smoke", "mini", "paper" or the path of a YAML file like those in params/.
        recipe: named training recipe in params/recipes/; None: the chapter's own.
        method: distillation method ("at+kd" for a sum) of commands about one run; None: ReviewKD.
        methods: methods of chapters that compare several; None: all of the chapter's.
        dataset: "embedded", "cifar10", "cifar100" or the path of an npz file.
        datasets: the data sets of chapters about several; None: those of the table.
        data_root: folder of the CIFAR files, relative to the project or absolute; no part of a run's identity.
        teacher, student: names of networks (chapters about one pair).
        teacher_checkpoint: weights file of the teacher (RepDistiller, mdistiller, ReviewKD or rkd), relative to the
            project or absolute, in place of a run of our own; "FILE#sha256=DIGEST" names its content too. Mind its
            `normalisation`.
        pairs: [teacher, student] lists (chapters about several); None: those of the table.
        train_images, test_images, holdout: sizes of the class-balanced subset and of the held-out split.
        normalisation: preset of input statistics; None: the recipe's.
        precision: see RunConfig.
        epochs, batch_size, lr, decay_epochs, ce_weight: None: the recipe's. When epochs differ from the
            recipe's and decay_epochs is not given, decay epochs and warm-up are scaled with them.
        teacher_epochs: length of the teacher's run; None: `epochs`.
        seeds: one run per seed and row; teacher_seed: seed of the one teacher they share.
        teacher_batch_norm: "batch" or "running"; None: the recipe's.
        loss_weight: of the method's loss, in every row; None: the recipe's and the row's.
        hcl_levels, hcl_weights, attention, residual: of ReviewKD, in every row that has them; likewise.
        loss_weights: the weights Figure 6 sweeps.
        options: any other option of the method by name; where there are several methods, or a sum, by method:
            {kd: {temperature: 2}}.
        on_missing: "train" what is not recorded, "skip" it (shown as missing), or stop with an "error".
        results: folder of records; None: the profile's own.
        device: "auto", "cpu", "cuda", "cuda:1".
        threads: that compute on a CPU, or "auto": measured while training; no part of a run's identity.
        compile: let torch.compile write the kernels; no part of a run's identity.
        engine: "auto", "eager" or "graph", see rkd.training.Engine; None: $RKD_ENGINE, else "auto"; likewise.
    """

    chapter: str
    profile: str = "smoke"
    recipe: str | None = None
    method: str | None = None
    methods: tuple[str, ...] | None = None
    dataset: str = "cifar100"
    datasets: tuple[str, ...] | None = None
    data_root: str = "data"
    teacher: str = "resnet56"
    student: str = "resnet20"
    teacher_checkpoint: str | None = None
    pairs: tuple[tuple[str, str], ...] | None = None
    train_images: int | None = None
    test_images: int | None = None
    holdout: int = 0
    normalisation: str | None = None
    epochs: int | None = None
    teacher_epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    decay_epochs: tuple[int, ...] | None = None
    ce_weight: float | None = None
    precision: str = "auto"
    seeds: tuple[int, ...] = (0, 1, 2)
    teacher_seed: int = 0
    teacher_batch_norm: str | None = None
    loss_weight: float | None = None
    loss_weights: tuple[float, ...] | None = None
    hcl_levels: tuple[int | str, ...] | None = None
    hcl_weights: tuple[float, ...] | None = None
    attention: bool | None = None
    residual: str | None = None
    options: Mapping[str, Any] | None = None
    on_missing: str = "train"
    results: str | None = None
    device: str = "auto"
    threads: int | str = "auto"
    compile: bool = False
    engine: str | None = None

    def review_options(self) -> dict[str, Any]:
        """The ReviewKD options that were given explicitly."""
        named = {
            name: getattr(self, name)
            for name in ("loss_weight", "hcl_levels", "hcl_weights", "attention", "residual")
            if getattr(self, name) is not None
        }
        return {**(self.options or {}), **named}


_LISTS = {
    "methods",
    "datasets",
    "pairs",
    "decay_epochs",
    "seeds",
    "loss_weights",
    "hcl_levels",
    "hcl_weights",
}
_NUMBERS = {
    "train_images": (int, 1), "test_images": (int, 1), "holdout": (int, 0), "epochs": (int, 1),
    "teacher_epochs": (int, 1), "batch_size": (int, 1), "teacher_seed": (int, 0), "lr": (float, 0),
    "ce_weight": (float, 0), "loss_weight": (float, 0),
}  # fmt: skip
_STRINGS = {
    "profile", "recipe", "method", "dataset", "data_root", "teacher", "student", "teacher_checkpoint", "normalisation",
    "precision", "residual", "teacher_batch_norm", "on_missing", "results", "device", "engine",
}  # fmt: skip


def names() -> list[str]:
    """All parameter names."""
    return [f.name for f in fields(Settings) if f.name != "chapter"]


def resolve(chapter: str, given: Mapping[str, Any]) -> Settings:
    """Settings of a chapter from what was given.

    Args:
        chapter: its name; picks the profile's budget.
        given: parameter name -> value; None means not given. `budget` (the profile's own per-chapter values, as
            papermill injects them from a profile file) is allowed too.

    Raises:
        ConfigError: unknown name, value of the wrong form or out of range, unknown profile.
    """
    given = {name: value for name, value in given.items() if value is not None}
    budget = given.pop("budget", None)
    allowed = names()
    for name in given:
        if name not in allowed:
            raise unknown("parameter", name, [*allowed, "budget"])
    profile = load_profile(str(given.get("profile", "smoke")))
    standing = profile.pop("budget", {})
    budget = standing if budget is None else budget
    layers = {**profile, **budget.get("default", {}), **budget.get(chapter, {}), **given}
    return Settings(
        chapter, **{name: _checked(name, value) for name, value in layers.items() if value is not None}
    )


def profile_names() -> list[str]:
    """Profiles in params/."""
    return sorted(
        path.stem
        for path in paths.params().glob("*.yaml")
        if isinstance(_read(path), dict) and "profile" in _read(path)
    )


def profile_path(profile: str) -> Path:
    """The file of a profile; ConfigError for an unknown one."""
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else paths.params() / f"{profile}.yaml"
    if not path.is_file():
        raise unknown("profile", profile, [*profile_names(), "the path of a YAML file"])
    return path


def load_profile(profile: str) -> dict[str, Any]:
    """A profile's values, checked: names known, and no name both common and in a budget (there would be two truths).

    Raises:
        ConfigError: no such profile, not a mapping, unknown names.
    """
    path = profile_path(profile)
    values = _read(path)
    if not isinstance(values, dict):
        raise ConfigError(f"profile {path} is not a mapping of parameters")
    allowed = names()
    for name in values:
        if name not in allowed and name != "budget":
            raise unknown(f"parameter in {path.name}:", name, [*allowed, "budget"])
    for chapter, entries in (values.get("budget") or {}).items():
        for name in entries:
            if name not in allowed:
                raise unknown(f"parameter in the {chapter} budget of {path.name}:", name, allowed)
            if name in values:
                raise ConfigError(
                    f"{path.name} gives {name} both for all chapters and in the budget of {chapter}"
                )
    return values


def assignments(entries: Iterable[str]) -> dict[str, Any]:
    """Values by name from texts of the form NAME=VALUE, each value as YAML.

    Raises:
        ConfigError: of another form.
    """
    found = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {entry!r} is not of the form NAME=VALUE, for example epochs=5")
        try:
            found[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {entry!r}: the value is not valid YAML") from error
    return found


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


def _checked(name: str, value: Any) -> Any:
    if name in _LISTS:
        if not isinstance(value, list | tuple) or not value:
            raise ConfigError(f"{name} is {value!r}; it must be a list with at least one entry")
        if name in ("methods", "datasets") and not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{name} is {value!r}; it must be a list of names")
        if name == "pairs":
            return tuple(_pair(entry) for entry in value)
        if name in ("seeds", "decay_epochs"):
            return tuple(_number(name, v, int, 0) for v in value)
        if name in ("loss_weights", "hcl_weights"):
            return tuple(_number(name, v, float, 0) for v in value)
        return tuple(value)
    if name in _NUMBERS:
        return _number(name, value, *_NUMBERS[name])
    if name in _STRINGS:
        if not isinstance(value, str):
            raise ConfigError(f"{name} is {value!r}; it must be text")
        if name == "on_missing" and value not in ON_MISSING:
            raise unknown("on_missing", value, ON_MISSING)
        return value
    if name == "threads":
        return number_or_auto(name, value)
    if name in ("attention", "compile") and not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be True or False")
    if name == "options" and not isinstance(value, Mapping):
        raise ConfigError(f"options is {value!r}; it must map names of the method's options to values")
    return value


def _number(name: str, value: Any, kind: type, least: float) -> Any:
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right or (kind is int and value != int(value)) or value < least:
        form = "a whole number" if kind is int else "a finite number"
        raise ConfigError(f"{name} is {value!r}; it must be {form} >= {least}")
    return kind(value)


def _pair(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not all(isinstance(n, str) for n in entry):
        raise ConfigError(
            f"pairs holds {entry!r}; each pair must be [teacher, student], for example [resnet56, resnet20]"
        )
    return entry[0], entry[1]


def given_in(namespace: Mapping[str, Any], own: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters that a notebook's namespace gives: those that are not None.

    Args:
        namespace: `globals()` of the notebook.
        own: names of parameters that this notebook has besides.

    Raises:
        ConfigError: a value under a name that looks like a misspelt parameter; papermill injects such without stopping.
    """
    declared = {*names(), *own, "budget"}
    for name, near in stray(namespace, declared):
        raise ConfigError(f"unknown parameter {name!r}; did you mean {near!r}?")
    return {name: namespace[name] for name in declared if namespace.get(name) is not None}


def stray(namespace: Mapping[str, Any], declared: set[str]) -> list[tuple[str, str]]:
    """Plain values in a notebook's namespace that are no parameter but look like a misspelt one, with the parameter
    they resemble: papermill injects unknown names without stopping."""
    plain = {
        n
        for n, v in namespace.items()
        if not n.startswith("_") and isinstance(v, str | int | float | list | dict)
    }
    found = []
    for name in sorted(plain - declared - {"In", "Out"}):
        near = difflib.get_close_matches(name, declared, n=1, cutoff=0.75)
        if near:
            found.append((name, near[0]))
    return found
