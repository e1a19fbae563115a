"""The measurement: all variants are built, warmed up and counted, then timed in turn, round after round."""

import contextlib
import datetime
import itertools
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field

from rkd.bench.clock import count, seconds
from rkd.bench.conventional import Conventional, loaders
from rkd.bench.result import EVALUATION_IMAGES, BenchResult, Row
from rkd.bench.steps import ALL, MOST_IMAGES, NOTHING, TEACHER, Steps, Variant, Workload
from rkd.config import PRECISIONS, Count, CountOrAuto, Flag, Positive, frozen
from rkd.devices import Device, pick_device
from rkd.errors import ConfigError, RkdError
from rkd.models import canonical
from rkd.records.provenance import code_state, machine_state
from rkd.training import Engine, accuracy, arithmetic
from rkd.training.capture import device_guard
from rkd.training.threads import Threads, thread_choices

LEAST_ROUNDS, MOST_REPEATS = 3, 200
# Seconds of steps in a row for one timing, long enough to make the clock's own cost negligible.
STRETCH = {"cpu": 0.02, "cuda": 0.2}
BATCH_NORMS = ("running", "batch")
EVALUATION_SHARE = 0.1  # of the time asked for; the rest is for the rounds
QUIET = 0.3  # load average per core up to which a machine counts as quiet

Network = Annotated[str, AfterValidator(canonical)]
Some = Field(min_length=1)


@frozen
class Request:
    """What to measure; `rkd.cli.bench.bench` explains each option (`kernels` is called `batch_norm` there).

    `compile`: "engine" adds to each of our variants one that compiles what `Engine` compiles; "all" adds one with only
    the teacher compiled and one with teacher and students. Precisions of equal arithmetic on the device count once.

    Raises:
        ConfigError: a value is not allowed.
    """

    teacher: Network = "resnet56"
    student: Network = "resnet20"
    batch_size: Count = 128
    device: Device = "auto"
    precision: Annotated[tuple[Literal[PRECISIONS], ...], Some] = ("fp32", "auto")
    teacher_batch_norm: Annotated[tuple[Literal[BATCH_NORMS], ...], Some] = BATCH_NORMS
    group: Count = 1
    compile: Literal["no", "engine", "all"] = "no"
    seconds: Positive = 100.0
    threads: CountOrAuto = "auto"
    kernels: Annotated[tuple[Literal["cudnn", "native"], ...], Some] = ("cudnn",)
    cudnn_benchmark: Flag = False

    def __post_init__(self) -> None:
        if not 2 <= self.batch_size <= MOST_IMAGES:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be between 2 and {MOST_IMAGES}")

    def check(self, device: torch.device) -> None:
        """Raise ConfigError if the request asks for something this machine cannot do."""
        Engine(compile=self.compile != "no", threads=self.threads).check(device)
        asked = {"cudnn_benchmark": self.cudnn_benchmark, "batch_norm native": "native" in self.kernels}
        for name, given in asked.items():
            if given and device.type != "cuda":
                raise ConfigError(
                    f"{name} concerns kernels of cuDNN, and the device is {str(device)!r}; it must be cuda"
                )


def variants(request: Request, device: torch.device) -> list[Variant]:
    """Return all variants to compare: for each teacher mode the conventional loop, then ours in every precision, and
    in the last precision also the group. Compiled variants offer no choice of BatchNorm kernels."""
    whole = ALL if Engine(compile=True).compiles_students(device) else TEACHER
    compiled = {"no": (), "engine": (whole,), "all": (TEACHER, ALL)}[request.compile]
    precisions = list(dict.fromkeys(arithmetic(name, device).name for name in request.precision))
    sizes = [(name, 1) for name in precisions] + [(precisions[-1], request.group)]
    switches = itertools.product(
        sizes, (True, False) if device.type == "cuda" else (False,), (NOTHING, *compiled), request.kernels,
        (False, True) if request.cudnn_benchmark else (False,),
    )  # fmt: skip
    ours = [
        Variant("", precision, False, compile, graph, group, kernels, benchmark)
        for (precision, group), graph, compile, kernels, benchmark in switches
    ]
    ours = [v if v.compile == NOTHING else replace(v, kernels="cudnn") for v in ours]
    return [
        replace(variant, batch_norm=mode)
        for mode in request.teacher_batch_norm
        for variant in dict.fromkeys([Variant("", conventional=True), *ours])
    ]


@dataclass
class Timed:
    """A variant that has made its first step. A value of `times`: mean seconds per step of `repeats` steps in a row."""

    variant: Variant
    made: Steps | Conventional
    cold_seconds: float
    counts: dict[str, int] | None
    repeats: int = 1
    times: list[float] = field(default_factory=list)

    def row(self, images: int) -> Row:
        """Return the row to record; `images` is the batch size."""
        times = tuple(1000 * t / self.variant.group for t in self.times)
        return Row(self.variant, self.variant.precision, images, times, self.cold_seconds, self.counts)

    def time(self, device: torch.device) -> float:
        """Make and time the steps of one round; return the mean seconds per step."""
        with self.made.context():
            self.times.append(seconds(self.made.step, self.repeats, device))
        return self.times[-1]


def measure(request: Request, say: Callable[[str], object] = lambda text: None) -> BenchResult:
    """Measure what `request` asks for, telling `say` what happens. Takes `request.seconds`, or what three rounds need.

    Raises:
        ConfigError: the device or a network does not exist here, or there is no compiler and one was asked for.
    """
    device = pick_device(request.device)
    request.check(device)
    started, began, load_before, notes = time.monotonic(), utc_now(), load_average(), []
    with contextlib.ExitStack() as stack:
        if request.compile != "no":
            from torch._inductor.utils import fresh_cache  # slow to import

            stack.enter_context(fresh_cache())  # so that a cold start really is cold
        stack.enter_context(device_guard(device))
        # One number of threads for all variants, so that they can be compared.
        Threads(thread_choices(request.threads, device), notes.append).take()
        work = Workload(request.teacher, request.student, request.batch_size, device)
        timed = []
        for variant in variants(request, device):
            timed += first_step(work, variant, say, notes)
            if variant.conventional:
                stack.callback(timed[-1].made.close)
        if all(one.variant.conventional for one in timed):
            raise RkdError(f"there is nothing to compare the conventional loop with: {'; '.join(notes)}")
        for one in timed:  # a first round, which is discarded
            wanted = STRETCH[device.type] / max(one.time(device), 1e-9)
            one.repeats = max(1, min(MOST_REPEATS, math.ceil(wanted)))
        say("evaluating")
        evaluation = _evaluate(work, timed, EVALUATION_SHARE * request.seconds)
        made = time_rounds(timed, started + request.seconds, device, say)
    took, cores = time.monotonic() - started, os.cpu_count() or 1
    if took > 1.1 * request.seconds:
        fewest = f": {made} rounds are the fewest that are made" * (made == LEAST_ROUNDS)
        notes.append(f"{request.seconds:g} s were asked for and {took:.0f} s were used{fewest}")
    if load_before is not None and load_before > QUIET * cores:
        before = f"before this began, its load average was {load_before:.2f} on {cores} cores"
        notes.append(f"the machine was not quiet: {before}")
    header = {
        **asdict(request), **code_state(), **machine_state(device), "began": began, "ended": utc_now(), "rounds": made,
        "load_before": load_before, "load_after": load_average(), "train_images": len(work.images.train_y),
        "seconds_used": took,
    }  # fmt: skip
    return BenchResult(header, tuple(one.row(request.batch_size) for one in timed), evaluation, tuple(notes))


def first_step(
    work: Workload, variant: Variant, say: Callable[[str], object], notes: list[str]
) -> list[Timed]:
    """Time building a variant and its first step, and count its second. Empty if it cannot run, which is noted."""
    title = f"{variant.name}, teacher on {variant.batch_norm} statistics"
    say(f"first step: {title}")
    started = time.perf_counter()
    try:
        made = work.begin(variant)
        with made.context():
            seconds(made.step, 1, work.device)
            cold = time.perf_counter() - started
            counts = None if variant.compile != NOTHING else count(made.eagerly)
    except (RuntimeError, RkdError) as error:  # no capture, no compilation, no memory
        if variant.conventional:
            raise
        notes.append(f"{title}: could not run ({str(error).splitlines()[0]})")
        return []
    return [Timed(variant, made, cold, counts)]


def time_rounds(
    timed: Sequence[Timed], end: float, device: torch.device, say: Callable[[str], object]
) -> int:
    """Time rounds until `end` (seconds of the monotonic clock), but at least three; return their number. Every variant
    makes its steps once a round; which one begins changes from round to round."""
    expected = sum(one.repeats * one.times[0] for one in timed)
    for one in timed:
        one.times.clear()
    say(f"timing {len(timed)} variants in turn, about {expected:.1f} s a round")
    order, made = deque(timed), 0
    while made < LEAST_ROUNDS or time.monotonic() + expected < end:
        for one in order:
            one.time(device)
        order.rotate(-1)
        made += 1
    return made


def _evaluate(work: Workload, timed: Sequence[Timed], affordable: float) -> dict[str, Any]:
    """Return test images/s, medians of three measurements each, made in turn. On a CPU, as many test images are used as
    can be scored in `affordable` seconds; on a GPU, as many as CIFAR-100 has, repeating those there are. The loader's
    process is up and has its first batch ready when the clock starts, which hardly matters over a whole test set."""
    conventional = next(one for one in timed if one.variant.conventional)
    ours = next(one for one in timed if not one.variant.conventional)
    images, size, test = work.images, work.batch_size, EVALUATION_IMAGES
    if work.device.type != "cuda":
        test = min(len(images.test_y), max(size, int(affordable / (2 * conventional.times[0] / size))))
    some = torch.arange(test) % len(images.test_y)
    images = replace(images, test_x=images.test_x[some], test_y=images.test_y[some])
    loop, there, (_, loader) = conventional.made, images.to(work.device), loaders(images, size)
    scored = ours.made.states[0].student, there.test_x, there.test_y, images.mean, images.std
    theirs_s, ours_s = [], []
    for _ in range(3):
        batches = iter(loader)
        loop.test_loader = itertools.chain([next(batches)], batches)
        with loop.context():
            theirs_s.append(seconds(loop.evaluate, 1, work.device))
        with ours.made.context():
            ours_s.append(seconds(lambda: accuracy(*scored), 1, work.device))
    rates = {"conventional": test / statistics.median(theirs_s), "ours": test / statistics.median(ours_s)}
    return {"images": test, **rates}


def utc_now() -> str:
    """Return the current time in UTC, as in 2026-01-31T12:00:00Z."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def load_average() -> float | None:
    """Return the mean number of running or waiting processes over the last minute; None if unknown here."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
