"""From settings and a recipe to complete run configs."""

import copy
import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from rkd import paths
from rkd.data.npz import find
from rkd.errors import ConfigError, unknown
from rkd.experiments.settings import Settings
from rkd.experiments.workspace import data_root
from rkd.files import sha256
from rkd.methods import Options, get_method
from rkd.methods.sum import SumOptions
from rkd.models import canonical, check_name
from rkd.training.config import DataConfig, RunConfig, SGDConfig, TeacherConfig
from rkd.typed import build_dataclass

_KEYS = {
    "description", "epochs", "batch_size", "normalisation", "padding_mode", "drop_last", "optimiser", "lr_override",
    "ce_weight", "teacher", "loss_weights", "review", "methods", "sums", "pairs",
}  # fmt: skip
_OF_RUNS = {"ce_weight", "drop_last"}  # a recipe's values for a method that are no options of it


def recipe_names() -> list[str]:
    """Recipes in params/recipes/."""
    return sorted(path.stem for path in (paths.params() / "recipes").glob("*.yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """A recipe's values; `name` is one in params/recipes/ or the path of a YAML file of the same form.

    Raises:
        ConfigError: no such recipe, or unknown keys in it.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.params() / "recipes" / f"{name}.yaml"
    if not path.is_file():
        raise unknown("recipe", name, [*recipe_names(), "the path of a YAML file"])
    recipe = copy.deepcopy(_read_recipe(path, path.stat().st_mtime_ns))
    for key in recipe:
        if key not in _KEYS:
            raise unknown(f"key in recipe {path.name}:", key, _KEYS)
    return recipe


@functools.lru_cache(maxsize=64)
def _read_recipe(path: Path, changed: int) -> dict[str, Any]:
    """A recipe's file, read again once it has changed (its time in nanoseconds): a chapter asks once per line."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def teacher_file_of(checkpoint: str) -> tuple[str, str]:
    """Path and SHA-256 of a `teacher_checkpoint`, "PATH" or "PATH#sha256=DIGEST".

    With its digest a file need not be there for runs to be named and looked up; what is loaded is checked against it.

    Raises:
        ConfigError: no such file, and no digest; or one that is no SHA-256.
    """
    name, mark, digest = checkpoint.partition("#sha256=")
    if mark:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ConfigError(
                f"teacher_checkpoint {name!r} is given the sha256 {digest!r}; it must be 64 hexadecimal digits"
            )
        return name, digest
    path = paths.home() / name
    if not path.is_file():
        raise ConfigError(f"teacher_checkpoint {name!r} is not a file")
    return name, sha256(path)


class Builder:
    """Builds run configs under one chapter's settings.

    Args:
        settings: of the chapter.
        default_recipe: taken where the settings name none.
    """

    def __init__(self, settings: Settings, default_recipe: str = "authors") -> None:
        self.settings = settings
        self.recipe_name = settings.recipe or default_recipe
        self.recipe = load_recipe(self.recipe_name)

    def plain(self, network: str, seed: int) -> RunConfig:
        """A network trained on labels alone."""
        return RunConfig(**self._common(network, seed, self.epochs))

    def teacher(self, network: str) -> RunConfig:
        """The run of the teacher all seeds share, under the recipe that this one names for teachers, or this one."""
        other = self.recipe["teacher"].get("recipe")
        if other is not None and other != self.recipe_name:
            return Builder(dataclasses.replace(self.settings, recipe=other)).teacher(network)
        epochs = self._either(self.settings.teacher_epochs, self.epochs)
        return RunConfig(**self._common(network, self.settings.teacher_seed, epochs))

    def distilled(
        self,
        teacher: str,
        student: str,
        seed: int,
        method: str = "reviewkd",
        options: Mapping[str, Any] | None = None,
        ce_weight: float | None = None,
        fixed: Collection[str] = (),
        teacher_values: Mapping[str, Any] | None = None,
    ) -> RunConfig:
        """A student distilled by a method.

        Args:
            teacher, student: names of networks.
            seed: of the student.
            method: a registered method, or a sum such as "at+kd".
            options: the method's options of this row (of a sum: by method); what the settings give explicitly wins over
                them.
            ce_weight: of this row; None: the settings', else the recipe's for this method.
            fixed: options of the row that win all the same (a chapter that sweeps them).
            teacher_values: of this row, over the recipe's and the settings': weights, batch_norm.
        """
        if ce_weight is None:
            recipe_ce = self._of_method(method).get("ce_weight", self.recipe["ce_weight"])
            ce_weight = self._either(self.settings.ce_weight, recipe_ce)
        given_teacher = (
            {"batch_norm": self.settings.teacher_batch_norm} if self.settings.teacher_batch_norm else {}
        )
        common = self._common(student, seed, self.epochs)
        common["drop_last"] = self._of_method(method).get("drop_last", common["drop_last"])
        return RunConfig(
            **common,
            ce_weight=ce_weight,
            method=method,
            options=self._options(method, teacher, student, dict(options or {}), fixed),
            teacher=self._teacher_of(
                teacher, {**self.recipe["teacher"], **given_teacher, **(teacher_values or {})}
            ),
        )

    def review(self, teacher: str, student: str, seed: int, *args: Any, **named: Any) -> RunConfig:
        """A student distilled by ReviewKD; further arguments as of `distilled` after the method."""
        return self.distilled(teacher, student, seed, "reviewkd", *args, **named)

    def _options(
        self, method: str, teacher: str, student: str, row: dict[str, Any], fixed: Collection[str]
    ) -> Options:
        given = self.given(method)
        if "+" not in method:
            values = self._method_values(method, teacher, student, row, given, fixed)
            return build_dataclass(get_method(method).options, values)
        names = method.split("+")
        for values in (row, given):
            for name in values:
                if name not in names:
                    raise ConfigError(
                        f"options of the sum {method!r} are given by method, for example "
                        f"{{{names[0]}: {{loss_weight: 1}}}}; {name!r} is none of {', '.join(names)}"
                    )
        parts = []
        for name in names:
            in_sums = self.recipe.get("sums", {}).get(name, {}) | row.get(name, {})
            values = self._method_values(name, teacher, student, in_sums, given.get(name, {}), fixed)
            parts.append({"method": name, "options": build_dataclass(get_method(name).options, values)})
        return SumOptions(parts=tuple(parts))

    def given(self, method: str) -> dict[str, Any]:
        """The options that the settings give explicitly for this method; of a sum, by method."""
        s = self.settings
        given = s.review_options()
        if given and all(isinstance(v, Mapping) for v in given.values()):  # by method
            for name in given:
                get_method(name)
            parts = method.split("+")
            of_parts = {name: dict(values) for name, values in given.items() if name in parts}
            return of_parts if len(parts) > 1 else of_parts.get(method, {})
        if method != "reviewkd":
            for name in ("hcl_levels", "hcl_weights", "attention", "residual"):
                given.pop(name, None)  # of the chapter's rows with ReviewKD
        return given

    def _method_values(
        self,
        method: str,
        teacher: str,
        student: str,
        row: Mapping[str, Any],
        given: Mapping[str, Any],
        fixed: Collection[str],
    ) -> dict[str, Any]:
        """Options of one method: of the recipe, the pair, the row, and given; epochs are scaled, unless given."""
        if method == "reviewkd":
            standing = {**self._scaled_review(), "loss_weight": self.loss_weight(teacher, student)}
        else:
            defaults = get_method(method).options()
            standing = {name: getattr(defaults, name) for name in defaults.in_epochs()}
        recipe = {k: v for k, v in self._of_method(method).items() if k not in _OF_RUNS}
        standing, row = standing | recipe | self._of_pair(method, teacher, student), dict(row)
        if method != "reviewkd":
            for values in (standing, row):
                values |= {n: self._at_least_one(values[n]) for n in defaults.in_epochs() if n in values}
        return {**standing, **row, **given, **{name: row[name] for name in fixed if name in row}}

    def _of_method(self, method: str) -> dict[str, Any]:
        """The recipe's values for a method: options, and what is in `_OF_RUNS`."""
        return self.recipe.get("methods", {}).get(method, {})

    def _of_pair(self, method: str, teacher: str, student: str) -> dict[str, Any]:
        """The recipe's values of a method for one pair."""
        pair = canonical(teacher), canonical(student)
        for entry in self.recipe.get("pairs", []):
            names = {"teacher", "student", "method"}
            if (
                entry["method"] == method
                and (canonical(entry["teacher"]), canonical(entry["student"])) == pair
            ):
                return {k: v for k, v in entry.items() if k not in names}
        return {}

    def _at_least_one(self, epochs: int) -> int:
        """A number of epochs in a run of another length; what was not zero stays so."""
        return max(1, self._scaled(epochs, self.epochs)) if epochs else 0

    def _teacher_of(self, network: str, values: Mapping[str, Any]) -> TeacherConfig:
        values = {k: v for k, v in values.items() if k != "recipe"}
        checkpoint = self.settings.teacher_checkpoint
        untrained = values["weights"] == "random"  # comes from its seed alone
        if checkpoint is None or untrained:
            return TeacherConfig(run=self.teacher(network), **values)
        check_name(network)
        path, digest = teacher_file_of(checkpoint)
        named = {"checkpoint": path, "sha256": digest, "network": canonical(network)}
        return TeacherConfig(**named, batch_norm=values["batch_norm"])

    def loss_weight(self, teacher: str, student: str) -> float:
        """The recipe's loss weight for a pair: its own list, else params/pairs.yaml, else 1."""
        pair = canonical(teacher), canonical(student)
        for entry in [*self.recipe.get("loss_weights", []), *_pairs()]:
            if (canonical(entry["teacher"]), canonical(entry["student"])) == pair:
                return float(entry["loss_weight"])
        return 1.0

    def _common(self, network: str, seed: int, epochs: int) -> dict[str, Any]:
        s, recipe = self.settings, self.recipe
        check_name(network)
        optimiser = dict(recipe["optimiser"])
        for part, lr in recipe["lr_override"].items():
            if part in canonical(network):
                optimiser["lr"] = lr
        if s.lr is not None:
            optimiser["lr"] = s.lr
        if s.decay_epochs is not None:
            optimiser["decay_epochs"] = list(s.decay_epochs)
        else:
            optimiser["decay_epochs"] = [self._scaled(e, epochs) for e in optimiser["decay_epochs"]]
        data = DataConfig(
            name=s.dataset,
            normalisation=s.normalisation
            or ("embedded" if s.dataset == "embedded" else self._normalisation()),
            train_images=s.train_images,
            test_images=s.test_images,
            holdout=s.holdout,
            sha256=sha256(find(s.dataset, data_root(s))) if s.dataset.endswith(".npz") else None,
            padding_mode=recipe.get("padding_mode", "zeros"),
        )
        return {
            "network": network,
            "data": data,
            "seed": seed,
            "epochs": epochs,
            "batch_size": self._either(s.batch_size, recipe["batch_size"]),
            "optimiser": build_dataclass(SGDConfig, optimiser),
            "precision": s.precision,
            "drop_last": recipe.get("drop_last", False),
        }

    def _normalisation(self) -> str:
        """The recipe's preset, which may depend on the data set."""
        preset = self.recipe["normalisation"]
        if isinstance(preset, str):
            return preset
        if self.settings.dataset not in preset:
            raise ConfigError(
                f"recipe {self.recipe_name} has input statistics for {', '.join(preset)}, not for "
                f"{self.settings.dataset!r}; give normalisation"
            )
        return preset[self.settings.dataset]

    @property
    def epochs(self) -> int:
        """Epochs of each run."""
        return self._either(self.settings.epochs, self.recipe["epochs"])

    def _scaled(self, epoch: int, epochs: int) -> int:
        """An epoch of the recipe's schedule in a run of another length."""
        return round(epoch * epochs / self.recipe["epochs"])

    def _scaled_review(self) -> dict[str, Any]:
        review = dict(self.recipe.get("review", {"warmup_epochs": 20}))
        review["warmup_epochs"] = self._scaled(review["warmup_epochs"], self.epochs)
        return review

    @staticmethod
    def _either(value: Any, default: Any) -> Any:
        return default if value is None else value


@functools.cache
def _read_pairs(path: Path) -> tuple[dict[str, Any], ...]:
    pairs = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in pairs:
        if set(entry) != {"teacher", "student", "loss_weight"}:
            raise ConfigError(
                f"{path.name} holds {entry!r}; each entry needs teacher, student and loss_weight"
            )
    return tuple(pairs)


def _pairs() -> tuple[dict[str, Any], ...]:
    return _read_pairs(paths.params() / "pairs.yaml")
