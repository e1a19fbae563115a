"""Build complete run configs from settings and a recipe, and keep track of where each value comes from."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from rkd import paths
from rkd.config import Count, Flag, Positive, Weight, from_values, frozen, validate
from rkd.data.normalisation import MEASURED, Statistics
from rkd.data.sources import full_name, is_changing, reader_of
from rkd.errors import ConfigError
from rkd.experiments.settings import PAIRS, Settings, merge_layers, named_file
from rkd.experiments.weights import find_record, find_weights, is_run_id
from rkd.experiments.workspace import data_root, store_of
from rkd.methods import Options, get_method
from rkd.methods.sum import SumOptions
from rkd.models import canonical, display_name
from rkd.plain_yaml import read_yaml
from rkd.records import Store
from rkd.training.config import DataConfig, Pretrained, RunConfig, SGDConfig, TeacherConfig

# Names in a row, and among a recipe's values for a method, that are not options of the method.
OF_RUNS = ("ce_weight", "teacher_weights", "teacher_batch_norm")
_NO_OPTIONS = {"ce_weight", "drop_last", "teacher", "student", "method"}
_OF_DATA = ("train_images", "test_images", "holdout", "image_size", "test_share")  # DataConfig's too
_REVIEW = ("hcl_levels", "hcl_weights", "attention", "residual")  # settings for rows with ReviewKD only
# The recipe of a method's original code, where it is not RepDistiller's.
OWN_RECIPES = {
    "reviewkd": "authors",
    "dkd": "mdistiller",
    "kdrefine": "kdrefine",
    "modreduce": "modreduce",
    "semckd": "semckd",
}
_RENAMED = {"review": "methods: {reviewkd: ...}", "loss_weights": "pairs"}  # keys of recipes
Values = dict[str, Any]


@frozen
class Teachers:
    """A recipe's choices for teachers: `weights` and `batch_norm` as in `TeacherConfig`; `recipe` if they are trained
    under another one."""

    weights: Literal["best", "last", "random"] = "best"
    batch_norm: Literal["batch", "running"] = "batch"
    recipe: str | None = None


@frozen
class Recipe:
    """How a source trains: a file of params/recipes/. Values that are explained nowhere here are as of `RunConfig`.

    Attributes:
        normalisation: preset of input statistics; by data set, where it depends on that.
        lr_override: part of a network's name -> its first learning rate.
        methods: method -> its options, ce_weight and drop_last.
        sums: method -> its options within a sum.
        pairs: entries of teacher, student, method (reviewkd unless named) and options, over those of params/pairs.yaml.

    Raises:
        ConfigError: a name that is none, or a value that is not allowed, at any depth.
    """

    description: str
    epochs: Count
    batch_size: Count
    normalisation: str | dict[str, str]
    optimiser: SGDConfig
    teacher: Teachers
    padding_mode: str = "zeros"
    drop_last: Flag = False
    ce_weight: Weight = 1.0
    lr_override: dict[str, Positive] = Field(default_factory=dict)
    methods: dict[str, Values] = Field(default_factory=dict)
    sums: dict[str, Values] = Field(default_factory=dict)
    pairs: tuple[Values, ...] = ()

    def __post_init__(self) -> None:
        for method, values in self.methods.items():
            validate(Weight, "ce_weight", values.get("ce_weight", 0))
            validate(Flag, "drop_last", values.get("drop_last", False))
            _check_options(method, values, "ce_weight", "drop_last")
        for method, values in self.sums.items():
            _check_options(method, values)
        for entry in self.pairs:
            for name in ("teacher", "student"):
                canonical(entry.get(name))
            _check_options(entry.get("method", "reviewkd"), entry, "teacher", "student", "method")


def _check_options(method: str, values: Values, *others: str) -> None:
    """Raise ConfigError for an unknown method, and for values not named in `others` that its options do not allow."""
    kind = get_method(validate(str, "method", method)).options
    if own := {name: value for name, value in values.items() if name not in others}:
        from_values(kind, own)


def recipe_names() -> list[str]:
    """Return the names of the recipes in params/recipes/."""
    return sorted(path.stem for path in (paths.params() / "recipes").glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Return a recipe by its name in params/recipes/, or by the path of such a YAML file from the project's top.

    Raises:
        ConfigError: no such recipe, or it has keys or values that are not allowed.
    """
    path = named_file("recipe", name, paths.params() / "recipes", paths.home())
    values = read_yaml(path)
    for old, new in _RENAMED.items():
        if isinstance(values, dict) and old in values:
            raise ConfigError(f"recipe {path.name}: {old} is called {new} now; rename it")
    try:
        return from_values(Recipe, values)
    except ConfigError as error:
        raise ConfigError(f"recipe {path.name}: {error}") from error


def _check_taught(named: str, run: RunConfig, network: str, data: DataConfig) -> None:
    """Raise ConfigError if the recorded teacher run has another network or data set than the student's config asks."""
    if run.network != canonical(network):
        raise ConfigError(
            f"teacher_checkpoint {named} is a {display_name(run.network)}, but the teacher is to be "
            f"{display_name(network)}; leave one of them out"
        )
    if run.data.name != data.name and (run.data.sha256 is None or run.data.sha256 != data.sha256):
        raise ConfigError(
            f"teacher_checkpoint {named} was trained on {run.data.name!r} but the student is to be trained on "
            f"{data.name!r}"
        )


class Builder:
    """Builds run configs under one chapter's settings.

    Args:
        default_recipe: used if the settings name none.

    Attributes:
        recipe_name, recipe: the recipe in use.
        origins: where values of the last built run that no settings give come from, by name: a recipe, a file, a row.
        read: names of the settings used for runs so far.
    """

    def __init__(self, settings: Settings, default_recipe: str = "authors") -> None:
        self.settings, self.read = settings, {"recipe"}
        self.recipe_name = settings.recipe or default_recipe
        self.recipe = load_recipe(self.recipe_name)
        self._source = f"recipe {self.recipe_name}"
        of_runs = ("epochs", "batch_size", "lr", "decay_epochs", "normalisation", "ce_weight")
        self.origins = dict.fromkeys(of_runs, self._source)
        self._identities: dict[DataConfig, str | None] = {}  # cached: data folders are read once

    @property
    def epochs(self) -> int:
        """Length of the students' runs."""
        return self._set(self.recipe.epochs, "epochs")

    def plain(self, network: str, seed: int) -> RunConfig:
        """Return the run of a network trained on labels alone."""
        return RunConfig(**self._common(network, seed))

    def teacher(self, network: str) -> RunConfig:
        """Return the run of the teacher that all seeds share, under the recipe named for teachers or else this one."""
        if self._of_teachers is not None:
            return self._of_teachers.teacher(network)
        return RunConfig(**self._common(network, self._get("teacher_seed"), teacher=True))

    @functools.cached_property
    def _of_teachers(self) -> "Builder | None":
        other = self.recipe.teacher.recipe
        if other in (None, self.recipe_name):
            return None
        made = Builder(replace(self.settings, recipe=other))
        if (third := made.recipe.teacher.recipe) not in (None, other):
            raise ConfigError(
                f"recipe {self.recipe_name} has teachers of recipe {other}, but that has those of recipe {third}; name "
                "one that trains its own"
            )
        made.read = self.read
        return made

    def distilled(
        self,
        teacher: str,
        student: str,
        seed: int,
        method: str = "reviewkd",
        row: Mapping[str, Any] | None = None,
        fixed: Collection[str] = (),
    ) -> RunConfig:
        """Return the run of a student distilled by a method.

        Args:
            method: a registered method, or a sum such as "at+kd".
            row: the method's options in this row of a table (for a sum: by method), which the settings override; and
                the names in `OF_RUNS`, which override the settings.
            fixed: options of the row that override the settings too (in a chapter that sweeps them).
        """
        row, of_method = dict(row or {}), self.recipe.methods.get(method, {})
        of_run = {name: row.pop(name) for name in OF_RUNS if name in row}
        run = self._common(student, seed)
        run["drop_last"] = of_method.get("drop_last", run["drop_last"])
        if "ce_weight" in of_run:
            run["ce_weight"] = of_run.pop("ce_weight")
        else:
            run["ce_weight"] = self._set(of_method.get("ce_weight", self.recipe.ce_weight), "ce_weight")
        options = self._options(method, (teacher, student), row, fixed)
        taught = self._taught(teacher, of_run, run["data"])
        return RunConfig(**run, method=method, options=options, teacher=taught)

    def loss_weight(self, teacher: str, student: str) -> float:
        """Return the review loss's weight for a pair: from the recipe's own pairs, else params/pairs.yaml, else 1."""
        return self._of_pair("reviewkd", (teacher, student))[1].get("loss_weight", 1.0)

    def given(self, method: str) -> Values:
        """Return the options that the settings give explicitly for a method; for a sum, by method."""
        s, parts = self.settings, method.split("+")
        named = {name: getattr(s, name) for name in ("loss_weight", *_REVIEW) if getattr(s, name) is not None}
        given = {**(s.options or {}), **named}
        if given and all(isinstance(v, Mapping) for v in given.values()):  # by method
            for name in given:
                get_method(name)
            of_parts = {name: dict(values) for name, values in given.items() if name in parts}
            return of_parts if len(parts) > 1 else of_parts.get(method, {})
        return {name: value for name, value in given.items() if method == "reviewkd" or name not in _REVIEW}

    def _options(self, method: str, pair: tuple[str, str], row: Values, fixed: Collection[str]) -> Options:
        given, names = self.given(method), method.split("+")
        if len(names) == 1:
            return self._options_of(method, pair, row, given, fixed)
        for name in (*row, *given):
            if name not in names:
                raise ConfigError(
                    f"options of the sum {method!r} are given by method, for example "
                    f"{{{names[0]}: {{loss_weight: 1}}}}; {name!r} is none of {', '.join(names)}"
                )
        parts = []
        for name in names:
            within = {**self.recipe.sums.get(name, {}), **row.get(name, {})}
            options = self._options_of(name, pair, within, given.get(name, {}), fixed)
            parts.append({"method": name, "options": options})
        return SumOptions(parts=tuple(parts))

    def _options_of(
        self, method: str, pair: tuple[str, str], row: Values, given: Values, fixed: Collection[str]
    ) -> Options:
        """Return the options of one method, merged from recipe, pair, row and `given`, where later ones win. Numbers of
        epochs are scaled with the run's length, unless given."""
        kind = get_method(method).options
        in_epochs = kind().in_epochs()
        least = 0 if method == "reviewkd" else 1  # a warm-up may vanish, a stage may not
        layers = []
        for origin, layer in (
            ("default", {name: getattr(kind(), name) for name in in_epochs}),
            (self._source, self.recipe.methods.get(method, {})),
            self._of_pair(method, pair),
            ("row", row),
        ):
            own = {name: value for name, value in layer.items() if name not in _NO_OPTIONS}
            own |= {n: max(least, self._scaled(own[n], self.epochs)) for n in in_epochs if own.get(n)}
            layers.append((origin, own))
        of_row = {name: row[name] for name in fixed if name in row}
        values, origins = merge_layers(*layers, ("given", given), ("row", of_row))
        self.origins |= origins
        made = from_values(kind, values)
        asked = given.keys() - of_row.keys() - made.unread()
        self.read |= {name if getattr(self.settings, name, None) is not None else "options" for name in asked}
        return made

    def _of_pair(self, method: str, pair: tuple[str, str]) -> tuple[str, Mapping[str, Any]]:
        """Return where a method's options for a teacher-student pair stand, and the options; both empty if nowhere."""
        return self._pairs.get((method, *map(canonical, pair)), ("", {}))

    @functools.cached_property
    def _pairs(self) -> dict[tuple[str, ...], tuple[str, Values]]:
        found = {}
        for origin, entries in (
            ("params/pairs.yaml", read_yaml(paths.params() / PAIRS)),
            (self._source, self.recipe.pairs),
        ):
            for entry in entries:
                pair = map(canonical, (entry["teacher"], entry["student"]))
                found[entry.get("method", "reviewkd"), *pair] = origin, entry
        return found

    def _taught(self, network: str, of_row: Mapping[str, Any], data: DataConfig) -> TeacherConfig:
        standing = self.recipe.teacher
        batch_norm = self._set(standing.batch_norm, "teacher_batch_norm")
        values = {"weights": standing.weights, "batch_norm": batch_norm}
        values |= {name.removeprefix("teacher_"): value for name, value in of_row.items()}
        # An untrained teacher is determined by its seed alone.
        checkpoint = None if values["weights"] == "random" else self._get("teacher_checkpoint")
        if checkpoint is None:
            run = self.teacher(network)
            return TeacherConfig(
                run=replace(run, pretrained=None) if values["weights"] == "random" else run, **values
            )
        canonical(network)
        found = find_weights(*self._named("teacher_checkpoint"), data_root(self.settings), values["weights"])
        if (record := found.record) is not None:
            _check_taught(checkpoint, record.config, network, data)
        return TeacherConfig(
            checkpoint=found.path, sha256=found.sha256, record=record and record.id, network=canonical(network),
            batch_norm=values["batch_norm"],
        )  # fmt: skip

    def _named(self, name: str) -> tuple[str, str, Store]:
        """Return the name and value of a parameter that names weights, and the store to look for runs in."""
        return name, self._get(name), store_of(self.settings)

    def _common(self, network: str, seed: int, teacher: bool = False) -> Values:
        """Return the values that teachers' and students' configs share; a teacher's own settings come first for it."""
        recipe = self.recipe
        canonical(network)
        epochs = self._set(recipe.epochs, *["teacher_epochs"] * teacher, "epochs")
        of_network = [lr for part, lr in recipe.lr_override.items() if part in canonical(network)]
        standing = of_network[-1] if of_network else recipe.optimiser.lr
        scaled = tuple(self._scaled(epoch, epochs) for epoch in recipe.optimiser.decay_epochs)
        optimiser = replace(
            recipe.optimiser,
            lr=self._set(standing, "teacher_lr" if teacher else "lr"),
            decay_epochs=self._set(scaled, "decay_epochs"),
        )
        name = full_name(self._get("dataset"))
        data = DataConfig(
            name=name,
            normalisation=self._get("normalisation") or self._normalisation(),
            padding_mode=recipe.padding_mode,
            **{setting: self._get(setting) for setting in _OF_DATA},
        )
        if data not in self._identities:
            self._identities[data] = reader_of(name).identity(data, data_root(self.settings))
        data = replace(data, sha256=self._identities[data])
        return {
            "network": network,
            "data": data,
            "seed": seed,
            "epochs": epochs,
            "batch_size": self._set(recipe.batch_size, *["teacher_batch_size"] * teacher, "batch_size"),
            "optimiser": optimiser,
            "precision": self._get("precision"),
            "drop_last": recipe.drop_last,
            "pretrained": self._pretrained("teacher_pretrained" if teacher else "pretrained"),
        }

    def _pretrained(self, name: str) -> Pretrained | None:
        if self._get(name) is None:
            return None
        found = find_weights(*self._named(name), data_root(self.settings), "last")
        return Pretrained(checkpoint=found.path, sha256=found.sha256)

    def _normalisation(self) -> Statistics:
        """Return the input statistics of a recorded teacher run, else those of the data set or the recipe's preset."""
        if is_run_id(self.settings.teacher_checkpoint):
            self.origins["normalisation"] = "the teacher's"
            return find_record(*self._named("teacher_checkpoint")).config.data.normalisation
        preset, dataset = self.recipe.normalisation, self.settings.dataset
        if dataset == "embedded":
            self.origins["normalisation"] = "the data set's own"
            return "embedded"
        if is_changing(dataset):
            self.origins["normalisation"] = "measured on the training images"
            return MEASURED
        if isinstance(preset, str):
            return preset
        if dataset not in preset:
            raise ConfigError(
                f"recipe {self.recipe_name} has input statistics for {', '.join(preset)}, not for {dataset!r}; "
                "give normalisation"
            )
        return preset[dataset]

    def _scaled(self, epoch: int, epochs: int) -> int:
        """Return an epoch of the recipe's schedule scaled to a run of `epochs` epochs."""
        return round(epoch * epochs / self.recipe.epochs)

    def _set(self, standing: Any, *names: str) -> Any:
        """Return the first of these settings that is given, else the recipe's value `standing`."""
        return next((value for name in names if (value := self._get(name)) is not None), standing)

    def _get(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.settings, name)
