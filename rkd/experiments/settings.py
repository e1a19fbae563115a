"""The parameters a chapter takes, and how they are resolved.

Later layers win: the defaults here, the profile's common values, the profile's budget for the chapter, and finally
what was given explicitly (papermill, the command line, a notebook's parameters cell). An explicit None resets a value
to its default, but in a notebook's own parameters cell None means "not given". `Settings.origins` tells which layer
each value comes from.
"""

import ast
import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rkd import paths
from rkd.config import Count, CountOrAuto, Flag, Natural, Share, Weight, abbreviated, from_values, frozen
from rkd.devices import Device, pick_device
from rkd.errors import ConfigError, unknown
from rkd.files import is_file
from rkd.plain_yaml import from_yaml, read_yaml
from rkd.trust import foreign_in, note_origin, trust

# Parameters that change no run.
WHERE = ("data_root", "results", "device", "threads", "compile", "engine", "on_missing", "trust")
COMPUTING = {*WHERE, "profile"} - {"on_missing"}
WEIGHTS = ("teacher_checkpoint", "pretrained", "teacher_pretrained")
# Given paths are relative to the folder the user is in.
PATHS = ("data_root", "results", "recipe", *WEIGHTS)
LAYERED = "budget"  # a profile's values per chapter
PAIRS = "pairs.yaml"  # recipes' options by pair; it lies beside the profiles but is not one
SUFFIXES = (".yaml", ".yml")  # of a profile or recipe that is named by its path
NEVER_LAYERED = ("profile", "trust")
MORE = "parameters"  # holds a notebook's parameters that have no line of their own in its cell


def _pair(entry: Any) -> Any:
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not all(isinstance(n, str) for n in entry):
        raise ConfigError(
            f"pairs holds {entry!r}; each pair must be [teacher, student], for example [resnet56, resnet20]"
        )
    return tuple(entry)


def check_unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a list whose entries are counted, averaged or swept; ValueError if an entry occurs twice."""
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"each entry may stand there once, and {twice[0]!r} stands there twice")
    return values


Some = Field(min_length=1)
Once = AfterValidator(check_unique)
Names = Annotated[tuple[str, ...], Some, Once]
Foreign = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: tuple(re.split(r"[\s,]+", v)) if isinstance(v, str) else v)
]
Pair = Annotated[tuple[str, str], BeforeValidator(_pair)]


@frozen
class Settings:
    """Resolved parameters of one chapter. A path that is given starts in the folder one stands in, one in a profile at
    the project's top; here it is from the project's top, or absolute.

    Attributes:
        chapter: the chapter's name.
        profile: "smoke", "mini", "short", "paper" or the path of a YAML file like those in params/.
        recipe: a training recipe in params/recipes/, or the path of a YAML file like those; None: the chapter's own.
        method: distillation method ("at+kd" for a sum) of commands about one run; None: ReviewKD.
        methods: methods of chapters that compare several; None: all of the chapter's.
        dataset: "embedded", "cifar10", "cifar100", the path of an npz file, of a folder of images (train/ and test/, or
            class folders alone), or "torchvision:STL10" and the like.
        image_size: side in pixels that images of such sets are brought to; None: they are square, and of one size.
        test_share: share of the images that is for tests, where a folder has no part for them, for example 0.2.
        datasets: the data sets of chapters about several; None: those of the table.
        data_root: folder of the CIFAR files; no part of a run's identity.
        teacher: network of the teacher (chapters about one pair).
        student: network of the student, likewise.
        teacher_checkpoint: weights of the teacher, in place of a run that is trained for it: a file (of RepDistiller,
            mdistiller, ReviewKD or rkd; mind its `normalisation`), the id of a recorded run (FOLDER/ID: of another
            folder of records), which says its network and statistics, or the name of a file in `teachers/` of the data
            folder. Behind it, "#sha256=DIGEST" names the content too.
        pretrained: weights that students start from, named as `teacher_checkpoint` is: all of them, but the classifier
            where the file's has another number of classes; None: random ones.
        teacher_pretrained: the same of a teacher that is trained for them.
        pairs: [teacher, student] lists (chapters about several); None: those of the table.
        train_images: size of the class-balanced subset of the training images; None: all. A data set with fewer gives
            all it has, and that is said.
        test_images: the same of the test images.
        holdout: training images held out for choosing the best epoch.
        normalisation: preset of input statistics, or {mean: [..], std: [..]} of pixel values in [0, 1]; None: the
            recipe's, of images of one's own those that their training part has.
        epochs: length of each run, the teacher's too; None: the recipe's. Decay epochs and warm-up scale with it.
        teacher_epochs: length of the teacher's run; None: `epochs`.
        batch_size: images per step, the teacher's too; None: the recipe's.
        teacher_batch_size: images per step of the teacher's run; None: `batch_size`.
        lr: first learning rate of students, not of their teacher; None: the recipe's.
        teacher_lr: first learning rate of the teacher's run; None: the recipe's.
        decay_epochs: 0-based epochs of learning-rate decay, the teacher's too; None: the recipe's, scaled.
        ce_weight: weight of cross-entropy; None: the recipe's.
        precision: auto (the device's fastest), fp32, bf16, fp16 or fp64.
        seeds: one run per seed and row.
        teacher_seed: seed of the one teacher they share.
        teacher_batch_norm: "batch" (statistics of each batch) or "running"; None: the recipe's.
        loss_weight: of the method's loss, in every row; None: the recipe's and the row's.
        loss_weights: the weights Figure 6 sweeps.
        hcl_levels: sizes HCL compares, in every row with ReviewKD, for example [h, 4, 2, 1]; None: the recipe's.
        hcl_weights: one weight per size.
        attention: fuse by attention maps (True) or by addition (False), likewise.
        residual: what a level passes on: mid, output or output_direct, likewise.
        options: any other option of the method by name; where there are several methods, or a sum, by method:
            {kd: {temperature: 2}}.
        on_missing: "train" what is not recorded, "skip" it (shown as missing), or stop with an "error".
        results: folder of records; None: the profile's own.
        device: auto, cpu, cuda or cuda:N.
        threads: that compute on a CPU, or "auto": measured while training; no part of a run's identity.
        compile: let torch.compile write the kernels; no part of a run's identity.
        engine: "auto", "eager" or "graph", see rkd.training.Engine; None: $RKD_ENGINE, else "auto"; likewise.
        trust: names package.module:function of networks and methods that may be imported although they stand in files
            alone, such as records, checkpoints or the profile (which cannot say so itself); a name that is given by
            hand needs it not; likewise.
        origins: where the values come from that are not defaults: "given" or a layer of the profile.
    """

    chapter: str
    profile: str = "smoke"
    recipe: str | None = None
    method: str | None = None
    methods: Names | None = None
    dataset: str = "cifar100"
    image_size: Count | None = None
    test_share: Share | None = None
    datasets: Names | None = None
    data_root: str = "data"
    teacher: str = "resnet56"
    student: str = "resnet20"
    teacher_checkpoint: str | None = None
    pretrained: str | None = None
    teacher_pretrained: str | None = None
    pairs: Annotated[tuple[Pair, ...], Some, Once] | None = None
    train_images: Count | None = None
    test_images: Count | None = None
    holdout: Natural = 0
    normalisation: str | dict[str, Any] | None = None
    epochs: Count | None = None
    teacher_epochs: Count | None = None
    batch_size: Count | None = None
    teacher_batch_size: Count | None = None
    lr: Weight | None = None
    teacher_lr: Weight | None = None
    decay_epochs: Annotated[tuple[Natural, ...], Some, Once] | None = None
    ce_weight: Weight | None = None
    precision: str = "auto"
    seeds: Annotated[tuple[Natural, ...], Some, Once] = (0, 1, 2)
    teacher_seed: Natural = 0
    teacher_batch_norm: str | None = None
    loss_weight: Weight | None = None
    loss_weights: Annotated[tuple[Weight, ...], Some, Once] | None = None
    hcl_levels: Annotated[tuple[int | str, ...], Some, Once] | None = None
    hcl_weights: Annotated[tuple[Weight, ...], Some] | None = None
    attention: Flag | None = None
    residual: str | None = None
    options: dict[str, Any] | None = None
    on_missing: Literal["train", "skip", "error"] = "train"
    results: str | None = None
    device: Device = "auto"
    threads: CountOrAuto = "auto"
    compile: Flag = False
    engine: str | None = None
    trust: Foreign | None = None
    origins: dict[str, str] = field(default_factory=dict, compare=False)


def parameter_names() -> list[str]:
    """Return all parameter names."""
    return [f.name for f in fields(Settings) if f.name not in ("chapter", "origins")]


# Parameters of some tables only, which those tables' notebooks declare.
_OWN = {
    "method", "methods", "datasets", "teacher", "student", "pairs", "loss_weight", "loss_weights", "hcl_levels",
    "hcl_weights", "attention", "options",
}  # fmt: skip
GENERAL = [name for name in parameter_names() if name not in _OWN]


def resolve(chapter: str, given: Mapping[str, Any]) -> Settings:
    """Return the settings of a chapter, resolved from the given parameters.

    Args:
        given: parameter name -> value; None: the default, whatever the profile says. `budget` (the profile's own
            per-chapter values, as papermill injects them from a profile file) is allowed too.

    Raises:
        ConfigError: unknown name, value of the wrong form or out of range, unknown profile, a device that this machine
            lacks (except plain "cuda": what is recorded on another machine can be listed here).
    """
    given, named = dict(given), given.get("profile") or "smoke"
    profile, injected = load_profile(named), given.pop(LAYERED, None)
    standing = profile.pop(LAYERED, None)
    budget = _by_chapter(standing if injected is None else injected, LAYERED)
    _known(given, "parameter")
    words = f"profile {Path(named).stem}"
    of_profile = [
        (words, profile),
        (f"{words}, every chapter", budget.get("default", {})),
        (f"{words}, {chapter}", budget.get(chapter, {})),
    ]
    note_origin(foreign_in([values for _, values in of_profile]), words)
    given |= {name: _placed(name, given[name]) for name in PATHS if isinstance(given.get(name), str)}
    values, origins = merge_layers(*of_profile, ("given", given))
    found = _built(chapter, values | {"origins": origins})
    if found.device not in ("auto", "cpu", "cuda"):
        pick_device(found.device)
    trust(found.trust or ())
    named, taught = (origins.get(name) for name in ("teacher", "teacher_checkpoint"))
    chosen = named is None or (taught == "given" != named)  # else the named teacher must agree
    if found.teacher_checkpoint and chosen:
        from rkd.experiments import weights  # it imports torch
        from rkd.experiments.workspace import store_of

        if weights.is_run_id(found.teacher_checkpoint):  # the teacher is that run's network
            record = weights.find_record("teacher_checkpoint", found.teacher_checkpoint, store_of(found))
            return replace(found, teacher=record.config.network)
    return found


def _placed(name: str, value: str) -> str:
    """Resolve a given path (see `rkd.paths.from_user_folder`); names of recipes, runs and weights stay unchanged."""
    if name == "recipe" and not value.endswith(SUFFIXES):
        return value
    path, mark, digest = value.partition("#sha256=")
    if name in WEIGHTS and "/" not in path and not is_file(paths.user_folder() / path):
        return value  # a run's id, or a shared name
    return paths.from_user_folder(path) + mark + digest


def _built(chapter: str, values: Mapping[str, Any]) -> Settings:
    given = {name: value for name, value in values.items() if value is not None}
    return from_values(Settings, {"chapter": chapter, **given})


def merge_layers(*layers: tuple[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values by name, where later layers win, and the name of the layer each value comes from."""
    values, origins = {}, {}
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    return values, origins


def profile_path(profile: str) -> Path:
    """Return the file of a profile; ConfigError for an unknown one."""
    return named_file("profile", profile, paths.params(), paths.user_folder())


def named_file(kind: str, name: str, folder: Path, start: Path) -> Path:
    """Return a YAML file given by its name in `folder` or its path from `start`; ConfigError if there is none."""
    if not isinstance(name, str):
        raise ConfigError(f"{kind} is {abbreviated(name)}; it must be text")
    path = start / name if name.endswith(SUFFIXES) else folder / f"{name}.yaml"
    if not is_file(path):
        names = [p.stem for p in folder.glob("*.yaml") if p.name != PAIRS]
        raise unknown(kind, name, [*names, "the path of a YAML file"])
    return path


def load_profile(profile: str) -> dict[str, Any]:
    """Return a profile's values by name, those of single chapters under `budget`.

    Raises:
        ConfigError: no such profile, not a mapping, unknown names, or a value of the wrong form.
    """
    path = profile_path(profile)
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"profile {path} is not a mapping of parameters")
    if "trust" in values:
        raise ConfigError(f"{path} gives trust, which no file can: give --trust on the command line")
    _known(values, f"parameter in {path.name}:", LAYERED)
    budget = _by_chapter(values.get(LAYERED), f"the budget of {path.name}")
    common = {**values, **budget.get("default", {})}
    common.pop(LAYERED, None)
    for chapter, own in (budget or {"": {}}).items():
        try:
            _built(chapter, common | own)
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from error
    return values


def _by_chapter(budget: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return a budget's values by chapter; ConfigError for another form or an unknown parameter or chapter."""
    chapters = {path.stem for path in (paths.home() / "book").glob("*.ipynb")}
    found = {}
    for chapter, own in _mapping(budget, where).items():
        if chapters and chapter not in (known := {*chapters, "default", "run"}):
            raise unknown(f"chapter in {where}:", chapter, known)
        found[chapter] = dict(_mapping(own, f"{chapter} in {where}"))
        _known(found[chapter], f"parameter of {chapter} in {where}:", without=NEVER_LAYERED)
    return found


def _mapping(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{where} is {abbreviated(values)}; it must map names to values")
    return values or {}


def _known(entries: Iterable[str], kind: str, *more: str, without: Iterable[str] = ()) -> None:
    allowed = {*parameter_names(), *more}.difference(without)
    for name in entries:
        if name not in allowed:
            raise unknown(kind, name, allowed)


def parse_assignment(entry: str) -> tuple[str, Any]:
    """Return name and value of a text of the form NAME=VALUE, the value as YAML; ConfigError for another form."""
    name, equals, text = entry.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {entry!r} is not of the form NAME=VALUE, for example epochs=5")
    return name.strip(), parse_value(text, f"--set {entry!r}")


def parse_value(text: str, where: str = "") -> Any:
    """Return a parameter's value from its YAML text; ConfigError, naming `where` or the text, if it is not valid."""
    if not text.strip():
        raise ConfigError(f"{where or repr(text)}: there is no value; null puts one back to its default")
    return from_yaml(text, where or f"the value {abbreviated(text)}")


def namespace_parameters(namespace: Mapping[str, Any], own: Iterable[str] = ()) -> dict[str, Any]:
    """Return the parameters given in a notebook's namespace: those that are not None, those set to None through
    papermill, and the values of `parameters`. Names of functions among them are trusted (see `rkd.trust`), except
    those from the profile, unless `trust` says which are.

    Args:
        namespace: `globals()` of the notebook.
        own: names of further parameters of this notebook.

    Raises:
        ConfigError: papermill was given a name that is neither a parameter nor assigned by an earlier cell of the
            notebook; a name looks like a misspelt parameter; a parameter is given twice with different values.
    """
    declared = [*parameter_names(), *own, LAYERED]
    injected, before = _injected(namespace.get("In", ()))
    _spelt_well(namespace, injected - before, [*declared, MORE])
    more = _mapping(namespace.get(MORE), MORE)
    _known(more, "parameter", *own, LAYERED)
    given = {name: found for name in declared if (found := namespace.get(name)) is not None}
    given |= dict.fromkeys(injected.intersection(parameter_names()) - given.keys())
    profile = load_profile(given.get("profile") or "smoke")
    for name in more.keys() & given.keys():  # these replace profile values that papermill injected
        if given[name] not in (more[name], profile.get(name)):
            raise given_twice(name, given[name], more[name])
    given |= more
    # With papermill -f a profile's paths look like given ones; they stay the profile's.
    given = {n: v for n, v in given.items() if n not in PATHS or v != profile.get(n)}
    functions = foreign_in({name: found for name, found in given.items() if found != profile.get(name)})
    typed = _typed(functions, injected)
    note_origin(functions - typed, "a file that papermill was given")
    if (said := given.get("trust")) is None:
        trust(typed)
    elif not_typed := sorted(foreign_in(said) - typed):
        raise ConfigError(f"trust names {not_typed} in a file; no file can say so, but papermill -p trust")
    return given


def _spelt_well(namespace: Mapping[str, Any], injected: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise ConfigError for an injected name that is not allowed, or a name of a plain value that looks like a
    misspelt parameter."""
    plain = {
        n for n, v in namespace.items() if isinstance(v, str | int | float | list | dict) and n[0] != "_"
    }
    for name in sorted(plain - {*allowed, "In", "Out"}):
        if near := difflib.get_close_matches(name, allowed, n=1, cutoff=0.75):
            raise ConfigError(f"unknown parameter {name!r}; did you mean {near[0]!r}?")
    for name in sorted({*injected} - {*allowed}):
        raise unknown("parameter", name, allowed)


def _typed(functions: set[str], injected: set[str]) -> set[str]:
    """Return the function names that a person gave among a notebook's parameters: all of them, or, if the papermill
    command injected parameters, those on its command line only, since the others come from a file that it read."""
    words = _command_above() if injected and functions else []
    if not any(Path(word).name == "papermill" for word in words):
        return functions
    said = {name: re.compile(rf"(?<![\w.:]){re.escape(name)}(?![\w:])") for name in functions}
    return {name for name, form in said.items() if any(map(form.search, words))}


def _command_above() -> list[str]:
    """Return the command line of the parent process, in words; none if that process is gone."""
    import psutil  # a dependency of every Jupyter kernel

    with contextlib.suppress(psutil.Error):
        above = psutil.Process().parent()
        return above.cmdline() if above else []
    return []


def given_twice(name: str, first: object, second: object) -> ConfigError:
    """Return the error for a parameter given with two different values."""
    return ConfigError(f"{name} is given twice, as {first!r} and as {second!r}; leave one of them out")


def _injected(cells: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the names that papermill's cell assigns, and the names that the cells before it assign, among the cells a
    notebook has executed so far."""
    before: set[str] = set()
    for source in cells:
        assigned = set[str]()
        with contextlib.suppress(SyntaxError):  # cells with IPython's own commands
            assigned = {name for name, _ in cell_assignments(source)}
        if source.startswith("# Parameters\n"):  # papermill's mark
            return assigned, before
        before |= assigned
    return set(), set()


def cell_assignments(source: str) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield the names that a cell assigns, with their values; SyntaxError if it is not Python."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            for target in getattr(statement, "targets", None) or [statement.target]:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value


def check_effect(given: Iterable[str], read: Iterable[str], what: str) -> None:
    """Raise ConfigError for the first given parameter that has no effect on `what`: one that is neither in `read` nor
    among those that say where and how runs are computed."""
    for name in given:
        if name not in COMPUTING.union(read):
            raise ConfigError(f"{name} has no effect on {what}; leave it out")
