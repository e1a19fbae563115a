"""Check that a device computes what it should: train every method for a few steps, the fast way and the plain way."""

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from rkd.data import DataConfig
from rkd.experiments.group import RunGroup
from rkd.experiments.progress import Progress
from rkd.experiments.runner import Runner
from rkd.methods import get_method
from rkd.records import Store
from rkd.training import Engine, RunConfig, SGDConfig, TeacherConfig, arithmetic, checkpoint
from rkd.training.build import build_network

# Largest difference between the two ways after the few steps, relative to what the steps changed. Rounding alone stays
# well below it, even in networks as untrained as these; a wrong step is off by about 1.
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-2, "fp16": 0.2, "bf16": 0.5}
# Stages of many epochs and many negatives would make a check long, and a warm-up would leave a loss out.
_SHORT = {"init_epochs": 1, "negatives": 16, "warmup_epochs": 0}
_IMAGES, _BATCH = 20, 12  # a whole batch and a short one
_EPOCHS = 2  # the second replays what the first has captured


class Checked(NamedTuple):
    """One method in one arithmetic, trained the plain way and a fast one.

    Attributes:
        captures: whether the fast way captures steps.
        difference: difference of the weights, relative to what the steps changed; NaN if they could not be compared.
        fault: what is wrong; "" for nothing.
    """

    method: str
    arithmetic: str
    captures: bool
    difference: float = math.nan
    fault: str = ""


class LaunchMode(NamedTuple):
    """How to train on a device: `engine`, and at most `group` runs in lock-step."""

    engine: Engine
    group: int

    def describe(self, device: torch.device) -> str:
        steps = "steps launched kernel by kernel"
        if self.engine.captures(device):
            eager = ", ".join(name or "no teacher" for name in sorted(self.engine.eager))
            steps = "one CUDA graph a step" + (f" (kernel by kernel: {eager})" if eager else "")
        return f"{steps}, at most {self.group} run{'s' if self.group > 1 else ''} in lock-step"


def child_process() -> Executor:
    """Return an executor with a process of its own, so that a failed capture or a dead context ends with it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def check_device(
    device: torch.device,
    methods: Iterable[str | None],
    precision: str,
    way: LaunchMode,
    say: Callable[[Checked], None],
) -> tuple[LaunchMode, dict[str, str]]:
    """Train each method for a few steps on tiny networks and images: one run the plain way, then two seeds in lock-step
    as `way` says; in fp64 and in the runs' own arithmetic.

    A method whose captured steps differ, or cannot be captured, will be trained without capture; if two runs in
    lock-step still differ, all runs will be trained one at a time.

    Args:
        methods: the runs' methods; sums are checked by their parts; None: no teacher.
        say: called with each row.

    Returns:
        The fastest way in which every method that can be trained at all is right, and the methods that cannot be
        trained here, with the reason.
    """
    numbers = sorted({"fp64", arithmetic(precision, device).name}, reverse=True)
    names = sorted({part for method in methods for part in (method or "").split("+")})
    eager, group, broken, place = set(), way.group, {}, None
    for name in names:
        place = place or child_process()  # a new one after a fault, or when it has died
        rows: list[Checked] = []
        try:
            rows = place.submit(_examine, name, numbers, device, way).result()
        except Exception as error:  # the device's or a library's, or the process died: go on with the others
            broken[name] = _first_line(error)
        for row in rows:
            say(row)
            if row.fault and row.captures:
                eager.add(name)
            elif row.fault:
                group = 1
        if name in broken or name == names[-1] or any(row.fault for row in rows):
            place.shutdown()
            place = None
    return LaunchMode(replace(way.engine, eager=frozenset(eager)), group), broken


def _examine(name: str, numbers: Sequence[str], device: torch.device, way: LaunchMode) -> list[Checked]:
    """Compare the ways for one method; raise whatever keeps it from being trained the plain way."""
    engines = [way.engine, replace(way.engine, graph=False)]
    seeds = (0, 1) if way.group > 1 else (0,)
    rows = []
    for number in numbers:
        alone, _ = _train(name, number, (0,), device, Engine(graph=False))
        for engine in engines if way.engine.captures(device) else engines[1:]:
            row = Checked(name, number, engine.captures(device))
            try:
                fast, captured = _train(name, number, seeds, device, engine)
                apart = _difference(name, number, alone, fast)
                fault = "" if captured or not row.captures else "not captured"
                if not apart <= TOLERANCE[number]:  # NaN too
                    fault = "another result"
                row = row._replace(difference=apart, fault=fault)
            except Exception as error:
                row = row._replace(fault=_first_line(error))
            rows.append(row)
            if not row.fault:
                break
    return rows


class _Silent(Progress):
    def say(self, text: str) -> None:
        pass


def _train(
    method: str, precision: str, seeds: Sequence[int], device: torch.device, engine: Engine
) -> tuple[dict[str, torch.Tensor], bool]:
    """Train some seeds of a method in lock-step as a run group; return the weights of the first, and whether the steps
    were captured."""
    configs = [_config(method, precision, seed) for seed in seeds]
    engine = replace(engine, threads=torch.get_num_threads())  # fixed, so that none is chosen by measurement
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "records", Path(folder) / "work")
        for config in configs:
            store.folder(config.id).mkdir(parents=True)
        RunGroup(configs, Runner(store, Path(folder), device, progress=_Silent(), engine=engine)).train()
        last = checkpoint.load(store.folder(configs[0].id) / "last.pt")
        return last["student"], store.load(configs[0].id).cost["graph"]


def _difference(
    method: str, precision: str, plain: dict[str, torch.Tensor], fast: dict[str, torch.Tensor]
) -> float:
    """Return the difference of the weights relative to what the plain way changed; NaN if only one way diverges."""
    start = build_network(_config(method, precision, 0), 100).state_dict()
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    all_three = ([weights[name].double().flatten() for name in names] for weights in (start, plain, fast))
    before, one, other = map(torch.cat, all_three)
    apart = torch.where(one.isnan() & other.isnan(), 0.0, other - one)
    return (apart.norm() / (one - before).nan_to_num().norm()).item()


def _config(method: str, precision: str, seed: int) -> RunConfig:
    """Return the config of a run of a few steps."""
    plain = RunConfig(
        network="resnet8", data=DataConfig("embedded", "embedded", train_images=_IMAGES, test_images=20),
        epochs=_EPOCHS, batch_size=_BATCH, precision=precision, seed=seed,
        optimiser=SGDConfig(lr=0.01, decay_epochs=(1,), decay_when="before"),
    )  # fmt: skip
    if not method:
        return plain
    options = get_method(method).options
    short = {f.name: _SHORT[f.name] for f in fields(options) if f.name in _SHORT}
    teacher = TeacherConfig(run=replace(plain, network="resnet14", seed=0), weights="random")
    return replace(plain, method=method, options=options(**short), teacher=teacher)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
