"""From settings and a recipe to complete run configs, whose values know where they come from."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import Field

from rkd import paths
from rkd.config import Count, Flag, Positive, Weight, build, frozen
from rkd.data.npz import find
from rkd.errors import ConfigError, unknown
from rkd.experiments.settings import Settings, read_yaml
from rkd.experiments.workspace import data_root
from rkd.files import sha256
from rkd.methods import Options, get_method
from rkd.methods.sum import SumOptions
from rkd.models import canonical, check_name
from rkd.training.config import DataConfig, RunConfig, SGDConfig, TeacherConfig

_OF_RUNS = {"ce_weight", "drop_last"}  # a recipe's values for a method that are no options of it
Values = dict[str, Any]
Layers = Iterable[tuple[str, Mapping[str, Any]]]  # (where from, values by name): later ones win


@frozen
class Recipe:
    """How a source trains: a file of params/recipes/.

    Attributes:
        description: in words.
        epochs, batch_size, drop_last, ce_weight: see RunConfig.
        normalisation: preset of input statistics; by data set, where it depends on that.
        padding_mode: see DataConfig.
        optimiser: see SGDConfig.
        lr_override: part of a network's name -> its first learning rate.
        teacher: weights and batch_norm (see TeacherConfig), and `recipe` where teachers are trained under another one.
        loss_weights: of ReviewKD by pair, in place of params/pairs.yaml.
        review: further options of ReviewKD.
        methods: method -> its options, ce_weight and drop_last.
        sums: method -> its options within a sum.
        pairs: entries of teacher, student, method and options.
    """

    description: str
    epochs: Count
    batch_size: Count
    normalisation: str | dict[str, str]
    optimiser: Values
    teacher: Values
    padding_mode: str = "zeros"
    drop_last: Flag = False
    ce_weight: Weight = 1.0
    lr_override: dict[str, Positive] = Field(default_factory=dict)
    loss_weights: tuple[Values, ...] = ()
    review: Values = Field(default_factory=lambda: {"warmup_epochs": 20})
    methods: dict[str, Values] = Field(default_factory=dict)
    sums: dict[str, Values] = Field(default_factory=dict)
    pairs: tuple[Values, ...] = ()


def recipe_names() -> list[str]:
    """Recipes in params/recipes/."""
    return sorted(path.stem for path in (paths.params() / "recipes").glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """A recipe; `name` is one in params/recipes/ or the path of a YAML file of the same form.

    Raises:
        ConfigError: no such recipe, or unknown keys or values that are not allowed in it.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else paths.params() / "recipes" / f"{name}.yaml"
    if not path.is_file():
        raise unknown("recipe", name, [*recipe_names(), "the path of a YAML file"])
    values = read_yaml(path)
    allowed = [f.name for f in fields(Recipe)]
    for key in values:
        if key not in allowed:
            raise unknown(f"key in recipe {path.name}:", key, allowed)
    return build(Recipe, values)


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

    Attributes:
        origins: of the values of the run built last, by name: "given", a profile, a recipe, a file, the row.
    """

    def __init__(self, settings: Settings, default_recipe: str = "authors") -> None:
        self.settings = settings
        self.recipe_name = settings.recipe or default_recipe
        self.recipe = load_recipe(self.recipe_name)
        self.origins: dict[str, str] = {}

    @property
    def epochs(self) -> int:
        """Epochs of each run."""
        return self._set("epochs", self.recipe.epochs)

    def plain(self, network: str, seed: int) -> RunConfig:
        """A network trained on labels alone."""
        return RunConfig(**self._common(network, seed, self.epochs))

    def teacher(self, network: str) -> RunConfig:
        """The run of the teacher all seeds share, under the recipe that this one names for teachers, or this one."""
        other = self.recipe.teacher.get("recipe")
        if other is not None and other != self.recipe_name:
            return Builder(dataclasses.replace(self.settings, recipe=other)).teacher(network)
        epochs = self._set("teacher_epochs", self.epochs)
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
        of_method = self.recipe.methods.get(method, {})
        taught = self._taught(teacher, teacher_values or {})
        common = self._common(student, seed, self.epochs)
        common["drop_last"] = of_method.get("drop_last", common["drop_last"])
        standing = self._set("ce_weight", of_method.get("ce_weight", self.recipe.ce_weight))
        return RunConfig(
            **common,
            ce_weight=standing if ce_weight is None else self._note(ce_weight, "ce_weight", "row"),
            method=method,
            options=self._options(method, teacher, student, dict(options or {}), fixed),
            teacher=taught,
        )

    def review(self, teacher: str, student: str, seed: int, *args: Any, **named: Any) -> RunConfig:
        """A student distilled by ReviewKD; further arguments as of `distilled` after the method."""
        return self.distilled(teacher, student, seed, "reviewkd", *args, **named)

    def loss_weight(self, teacher: str, student: str) -> float:
        """The recipe's weight of the review loss for a pair: its own list, else params/pairs.yaml, else 1."""
        return next((values["loss_weight"] for _, values in self._pair_weights(teacher, student)), 1.0)

    def given(self, method: str) -> Values:
        """The options that the settings give explicitly for this method; of a sum, by method."""
        given = self.settings.review_options()
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

    def _options(
        self, method: str, teacher: str, student: str, row: Values, fixed: Collection[str]
    ) -> Options:
        given = self.given(method)
        if "+" not in method:
            return self._options_of(method, teacher, student, row, given, fixed)
        names = method.split("+")
        for name in (*row, *given):
            if name not in names:
                raise ConfigError(
                    f"options of the sum {method!r} are given by method, for example "
                    f"{{{names[0]}: {{loss_weight: 1}}}}; {name!r} is none of {', '.join(names)}"
                )
        parts = []
        for name in names:
            within = {**self.recipe.sums.get(name, {}), **row.get(name, {})}
            options = self._options_of(name, teacher, student, within, given.get(name, {}), fixed)
            parts.append({"method": name, "options": options})
        return SumOptions(parts=tuple(parts))

    def _options_of(
        self, method: str, teacher: str, student: str, row: Values, given: Values, fixed: Collection[str]
    ) -> Options:
        """Options of one method: of the recipe, the pair, the row, and given. Numbers of epochs are scaled, unless
        given."""
        kind, recipe = get_method(method).options, f"recipe {self.recipe_name}"
        of_method = {k: v for k, v in self.recipe.methods.get(method, {}).items() if k not in _OF_RUNS}
        of_pair = [(recipe, values) for values in self._of_pair(method, teacher, student)]
        fixed_by_row = {name: row[name] for name in fixed if name in row}
        if method == "reviewkd":
            warm_up = self._scaled(self.recipe.review["warmup_epochs"], self.epochs)
            layers = [(recipe, {**self.recipe.review, "warmup_epochs": warm_up})]
            layers += list(self._pair_weights(teacher, student))[:1]
            layers += [(recipe, of_method), *of_pair, ("row", row)]
        else:
            scaled = kind().in_epochs()
            layers = [("default", {name: getattr(kind(), name) for name in scaled}), (recipe, of_method)]
            layers += [*of_pair, ("row", row)]
            layers = [(origin, self._in_proportion(values, scaled)) for origin, values in layers]
        return build(kind, self._layered([*layers, ("given", given), ("row", fixed_by_row)]))

    def _pair_weights(self, teacher: str, student: str) -> Layers:
        """The weights of the review loss for a pair, best first."""
        for origin, entries in (
            (f"recipe {self.recipe_name}", self.recipe.loss_weights),
            ("params/pairs.yaml", _pairs()),
        ):
            for entry in _of(entries, teacher, student):
                yield origin, {"loss_weight": float(entry["loss_weight"])}

    def _of_pair(self, method: str, teacher: str, student: str) -> list[Values]:
        """The recipe's values of a method for one pair, in at most one entry."""
        entries = [entry for entry in _of(self.recipe.pairs, teacher, student) if entry["method"] == method]
        return [
            {k: v for k, v in e.items() if k not in ("teacher", "student", "method")} for e in entries[:1]
        ]

    def _in_proportion(self, values: Mapping[str, Any], names: Collection[str]) -> Values:
        """With numbers of epochs as in a run of this length; what was not zero stays so."""
        scaled = {n: max(1, self._scaled(values[n], self.epochs)) for n in names if values.get(n)}
        return {**values, **scaled}

    def _taught(self, network: str, of_row: Mapping[str, Any]) -> TeacherConfig:
        asked = self.settings.teacher_batch_norm
        given = {} if asked is None else {"batch_norm": asked}
        standing = {name: value for name, value in self.recipe.teacher.items() if name != "recipe"}
        values = {**standing, **given, **of_row}
        checkpoint = self.settings.teacher_checkpoint
        if checkpoint is None or values["weights"] == "random":  # which comes from its seed alone
            taught = TeacherConfig(run=self.teacher(network), **values)
        else:
            check_name(network)
            path, digest = teacher_file_of(checkpoint)
            taught = TeacherConfig(
                checkpoint=path, sha256=digest, network=canonical(network), batch_norm=values["batch_norm"]
            )
        layers = ((f"recipe {self.recipe_name}", standing), ("given", given), ("row", of_row))
        self.origins |= {f"teacher_{name}": origin for origin, layer in layers for name in layer}
        return taught

    def _common(self, network: str, seed: int, epochs: int) -> Values:
        s, recipe = self.settings, self.recipe
        check_name(network)
        optimiser = dict(recipe.optimiser)
        of_network = [lr for part, lr in recipe.lr_override.items() if part in canonical(network)]
        optimiser["lr"] = self._set("lr", of_network[-1] if of_network else optimiser["lr"])
        scaled = [self._scaled(epoch, epochs) for epoch in optimiser["decay_epochs"]]
        optimiser["decay_epochs"] = self._set("decay_epochs", scaled)
        data = DataConfig(
            name=s.dataset,
            normalisation=s.normalisation or self._normalisation(),
            train_images=s.train_images,
            test_images=s.test_images,
            holdout=s.holdout,
            sha256=sha256(find(s.dataset, data_root(s))) if s.dataset.endswith(".npz") else None,
            padding_mode=recipe.padding_mode,
        )
        return {
            "network": network,
            "data": data,
            "seed": seed,
            "epochs": epochs,
            "batch_size": self._set("batch_size", recipe.batch_size),
            "optimiser": build(SGDConfig, optimiser),
            "precision": s.precision,
            "drop_last": recipe.drop_last,
        }

    def _normalisation(self) -> str:
        """The recipe's preset, which may depend on the data set."""
        preset, dataset = self.recipe.normalisation, self.settings.dataset
        if dataset == "embedded":
            return self._note("embedded", "normalisation", "the data set's own")
        if isinstance(preset, Mapping) and dataset not in preset:
            raise ConfigError(
                f"recipe {self.recipe_name} has input statistics for {', '.join(preset)}, not for "
                f"{dataset!r}; give normalisation"
            )
        value = preset if isinstance(preset, str) else preset[dataset]
        return self._note(value, "normalisation", f"recipe {self.recipe_name}")

    def _scaled(self, epoch: int, epochs: int) -> int:
        """An epoch of the recipe's schedule in a run of another length."""
        return round(epoch * epochs / self.recipe.epochs)

    def _set(self, name: str, standing: Any) -> Any:
        """The settings' value, else the recipe's; notes which."""
        value = getattr(self.settings, name)
        if value is None:
            return self._note(standing, name, f"recipe {self.recipe_name}")
        return self._note(value, name, self.settings.origin(name))

    def _note(self, value: Any, name: str, origin: str) -> Any:
        self.origins[name] = origin
        return value

    def _layered(self, layers: Layers) -> Values:
        values: Values = {}
        for origin, layer in layers:
            values |= layer
            self.origins |= dict.fromkeys(layer, origin)
        return values


def _of(entries: Iterable[Mapping[str, Any]], teacher: str, student: str) -> Iterable[Mapping[str, Any]]:
    """The entries about a pair."""
    pair = canonical(teacher), canonical(student)
    return (e for e in entries if (canonical(e["teacher"]), canonical(e["student"])) == pair)


def _pairs() -> list[Values]:
    path = paths.params() / "pairs.yaml"
    pairs = read_yaml(path)
    for entry in pairs:
        if set(entry) != {"teacher", "student", "loss_weight"}:
            raise ConfigError(
                f"{path.name} holds {entry!r}; each entry needs teacher, student and loss_weight"
            )
    return pairs
