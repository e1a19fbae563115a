"""Whether a device computes what it should: every method a few steps, in the fast way and in the plain one."""

import dataclasses
import itertools
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor as Worker
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from rkd.data import DataConfig
from rkd.experiments.group import RunGroup, Surroundings
from rkd.methods import get_method
from rkd.records import Record, Store
from rkd.training import Engine, RunConfig, SGDConfig, TeacherConfig, arithmetic, checkpoint
from rkd.training.state import TrainState, build_network

# Largest difference of two ways after the few steps, relative to all that the steps changed: rounding alone stays well
# below, even in networks as untrained as these. A wrong step is off by about 1.
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-2, "fp16": 0.2, "bf16": 0.5}
# What would make a check long: stages of many epochs, many negatives; and a warm-up would leave a loss out.
_SHORT = {"init_epochs": 1, "negatives": 16, "warmup_epochs": 0}
_IMAGES, _BATCH = 20, 12  # a whole batch and a short one
_EPOCHS = 2  # the second repeats what the first has captured


@dataclass(frozen=True)
class Checked:
    """One method in one arithmetic.

    Attributes:
        method: its name; "" for no teacher.
        arithmetic: name of it.
        difference: of the weights, relative to what the steps changed; NaN where they could not be compared.
        plain_ms, fast_ms: milliseconds per step of one run by itself, and of two seeds in lock-step the fast way.
        fault: what is wrong; "" for nothing.
    """

    method: str
    arithmetic: str
    difference: float
    plain_ms: float
    fast_ms: float
    fault: str = ""


@dataclass(frozen=True)
class Way:
    """How to train on a device: `engine`, and at most `group` runs in lock-step."""

    engine: Engine
    group: int

    def words(self, device: torch.device) -> str:
        steps = "one CUDA graph a step" if self.engine.captures(device) else "steps launched kernel by kernel"
        if self.engine.captures(device) and self.engine.eager:
            steps += f" (kernel by kernel: {', '.join(name or 'no teacher' for name in sorted(self.engine.eager))})"
        return f"{steps}, at most {self.group} run{'s' if self.group > 1 else ''} in lock-step"


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes:
        rows: of the way first tried and, for methods that it does not suit, of the same without capture.
        way: the fastest in which every method that can be trained at all is right.
        broken: methods that cannot be trained here, with the reason.
    """

    rows: tuple[Checked, ...]
    way: Way
    broken: dict[str, str]


@dataclass(frozen=True)
class _Examined:
    """What a check found of one method.

    Attributes:
        rows: as of `Findings`.
        broken: why it cannot be trained; "" where it can.
        captured: whether capturing its steps, where that was tried, gives what plain steps give.
        in_company: whether two runs in lock-step do.
        failed: a capture failed, and the process should do no more.
    """

    rows: tuple[Checked, ...] = ()
    broken: str = ""
    captured: bool = True
    in_company: bool = True
    failed: bool = False


def child() -> Worker:
    """A process of its own: what a failed capture or a dead context leaves behind ends with it."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def check_device(
    device: torch.device,
    methods: Iterable[str | None],
    precision: str,
    way: Way,
    say: Callable[[Checked], None],
    worker: Callable[[], Worker] = child,
) -> Findings:
    """Train a few steps of each method, on tiny networks and images, alone and plainly, and then two seeds in lock-step
    the way it is meant to be done; in fp64 and in the runs' own arithmetic.

    A method whose captured steps differ, or cannot be captured, is trained without capture; where two in lock-step
    differ still, all runs are trained one at a time.

    Args:
        device: the one to be used.
        methods: of the runs; sums are checked by their parts; None: no teacher.
        precision: of the runs.
        way: first choice.
        say: told each row.
        worker: makes what a method is examined in; it is made anew after a failed capture, and when it dies.
    """
    names = sorted({part for method in methods for part in (method or "").split("+")})
    numbers = sorted({"fp64", arithmetic(precision, device).name}, reverse=True)
    found: dict[str, _Examined] = {}
    place: Worker | None = None
    for name in names:
        place = place or worker()
        try:
            found[name] = place.submit(_examine, name, numbers, device, way).result()
        except Exception as error:  # it died: a broken context takes its process along
            found[name] = _Examined(broken=_first_line(error), failed=True)
        for row in found[name].rows:
            say(row)
        if found[name].failed:
            place.shutdown()
            place = None
    if place is not None:
        place.shutdown()
    eager = frozenset(name for name, one in found.items() if not one.captured)
    company = all(one.in_company for one in found.values())
    return Findings(
        tuple(row for one in found.values() for row in one.rows),
        Way(dataclasses.replace(way.engine, eager=eager), way.group if company else 1),
        {name: one.broken for name, one in found.items() if one.broken},
    )


def _examine(name: str, numbers: Sequence[str], device: torch.device, way: Way) -> _Examined:
    captures = way.engine.captures(device)
    plain = Way(dataclasses.replace(way.engine, graph=False), way.group)
    rows: list[Checked] = []
    captured = in_company = True
    for number in numbers:
        case = name, number
        try:
            alone = _train(case, (0,), device, Engine(graph=False))
        except Exception as error:  # whatever a device or a library may raise: the others go on
            return _Examined(tuple(rows), _first_line(error), captured, in_company, failed=captures)
        rows.append(_compare(case, alone, device, way, captures))
        if rows[-1].fault and captures:
            captured = False
            rows.append(_compare(case, alone, device, plain, False))
        in_company = in_company and not rows[-1].fault
    return _Examined(tuple(rows), "", captured, in_company, failed=captures and not captured)


@dataclass(frozen=True)
class _Trained:
    """What came out of a training: flat weights of the first seed before and after, milliseconds per step, whether
    the steps were captured."""

    before: torch.Tensor
    after: torch.Tensor
    ms: float
    captured: bool


def _compare(
    case: tuple[str, str], plain: _Trained, device: torch.device, way: Way, captures: bool
) -> Checked:
    try:
        fast = _train(case, (0, 1) if way.group > 1 else (0,), device, way.engine)
    except Exception as error:
        return Checked(*case, math.nan, plain.ms, math.nan, _first_line(error))
    # A run that diverges must do so both ways.
    apart = torch.where(plain.after.isnan() & fast.after.isnan(), 0.0, fast.after - plain.after)
    difference = (apart.norm() / (plain.after - plain.before).nan_to_num().norm()).item()
    fault = ""
    if not difference <= TOLERANCE[case[1]]:
        fault = "another result"
    elif captures and not fast.captured:
        fault = "not captured"
    return Checked(*case, difference, plain.ms, fast.ms, fault)


def _train(case: tuple[str, str], seeds: Collection[int], device: torch.device, engine: Engine) -> _Trained:
    """Some seeds of a method, in lock-step, as any group is trained."""
    configs = [_config(*case, seed) for seed in seeds]
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "records", Path(folder) / "work")
        for config in configs:
            store.folder(config.id).mkdir(parents=True)
        around = Surroundings(store, Path(folder), device, engine, clock, {}, lambda needed: False)
        RunGroup(configs, around).train()
        record: Record = store.load(configs[0].id)
        last = checkpoint.load(store.folder(configs[0].id) / "last.pt")
    before = build_network(configs[0], 100).state_dict()
    names = [name for name, tensor in before.items() if tensor.is_floating_point()]
    flat = [
        torch.cat([state[name].double().flatten() for name in names]) for state in (before, last["student"])
    ]
    return _Trained(*flat, clock.ms(len(configs)), record.cost["graph"])


def _config(method: str, precision: str, seed: int) -> RunConfig:
    """A run of a few steps."""
    data = DataConfig("embedded", "embedded", train_images=_IMAGES, test_images=20)
    plain = RunConfig(
        network="resnet8", data=data, epochs=_EPOCHS, batch_size=_BATCH, precision=precision, seed=seed,
        optimiser=SGDConfig(lr=0.01, decay_epochs=(1,), decay_when="before"),
    )  # fmt: skip
    if not method:
        return plain
    options = get_method(method).options
    short = {f.name: _SHORT[f.name] for f in dataclasses.fields(options) if f.name in _SHORT}
    teacher = TeacherConfig(
        run=dataclasses.replace(plain, network="resnet14", seed=0), weights="random", batch_norm="batch"
    )
    return dataclasses.replace(plain, method=method, options=options(**short), teacher=teacher)


class _Clock:
    """A progress that shows nothing and reads the time of the last epoch's steps."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def begin(self, title: str, epochs: int, images: int) -> None:
        pass

    def batch(self, epoch: int, done: int, total: int) -> None:
        pass

    def epoch(self, state: TrainState) -> None:
        self._seconds.setdefault(state.config.id, []).append(state.seconds)

    def end(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def ms(self, company: int) -> float:
        """Milliseconds of one step of the group, in the last epoch, where nothing is captured any more."""
        seconds = next(iter(self._seconds.values()))
        return 1000 * company * (seconds[-1] - seconds[-2]) / math.ceil(_IMAGES / _BATCH)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


class Pace:
    """A `stop` that asks another one, and ends training itself once it has timed enough steps.

    Args:
        stop: asked as well.
        steps: questions to wait for, the first half of them untimed: a GPU is then as far behind as it gets.
        seconds: after which fewer will do, if there are some.
    """

    def __init__(self, stop: Callable[[float], bool], steps: int = 120, seconds: float = 15.0) -> None:
        self._stop, self._steps, self._limit = stop, steps, seconds
        self._asked: list[float] = []
        self.enough = False

    def __call__(self, needed: float) -> bool:
        self._asked.append(time.perf_counter())
        count, passed = len(self._asked), self._asked[-1] - self._asked[0]
        self.enough = count > self._steps or (count > 8 and passed > self._limit)
        return self._stop(needed) or self.enough

    def step_seconds(self) -> float | None:
        """Median time from one question to the next; None where too few were asked to tell."""
        if len(self._asked) < 4:
            return None
        late = self._asked[len(self._asked) // 2 :]
        gaps = sorted(b - a for a, b in itertools.pairwise(late))
        return gaps[len(gaps) // 2]
