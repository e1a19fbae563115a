"""The measurement: everything built, warmed up and counted, then timed in rounds, step by step in turn."""

import contextlib
import datetime
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from rkd.bench import clock
from rkd.bench.conventional import Conventional, loaders
from rkd.bench.result import EVALUATION_IMAGES, Result, Row
from rkd.bench.steps import ALL, MOST_IMAGES, NOTHING, TEACHER, Steps, Variant, Workload, variants
from rkd.config import CountOrAuto, check
from rkd.errors import ConfigError, RkdError, unknown
from rkd.experiments.runner import pick_device
from rkd.models import canonical
from rkd.models.frozen import FORMS
from rkd.records.provenance import code_state, machine_state
from rkd.training import Engine, accuracy, arithmetic
from rkd.training.arithmetic import PRECISIONS
from rkd.training.threads import Threads, numbers

LEAST_ROUNDS = 3
# Seconds of steps in a row, so that the clock's own time is lost in them.
STRETCH = {"cpu": 0.02, "cuda": 0.2}
BATCH_NORMS = ("running", "batch")
COMPILE = ("no", "engine", "all")
KERNELS = ("native", "cudnn")
TEACHER_FORMS = ("auto", *FORMS)
EVALUATION_SHARE = 0.1  # of the time asked for; the rest goes into rounds
QUIET = 0.3  # load average per core up to which a machine counts as quiet


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        teacher, student: names of networks.
        batch_size: images of a step.
        device: see `pick_device`.
        precisions: of our steps; names that mean the same arithmetic on the device count once.
        batch_norms: modes of the teacher.
        group: also students trained in lock-step, so many; 1: none.
        compile: "no"; "engine": each of our variants also with what `Engine` compiles (the teacher, and on CUDA the
            students); "all": also with teacher alone and with teacher and students compiled.
        seconds: for all of it. Three rounds are made in any case.
        threads: that compute on a CPU, in all variants; "auto": as runs choose it.
        teacher_forms: of the teacher, see `rkd.models.frozen`; "auto": as runs choose it.
        kernels: of BatchNorm: "cudnn" and "native", see `Variant`.
        cudnn_benchmark: each of our variants also with `torch.backends.cudnn.benchmark`.

    Raises:
        ConfigError: a value that is not allowed.
    """

    teacher: str = "resnet56"
    student: str = "resnet20"
    batch_size: int = 128
    device: str = "auto"
    precisions: tuple[str, ...] = ("fp32", "auto")
    batch_norms: tuple[str, ...] = BATCH_NORMS
    group: int = 1
    compile: str = "no"
    seconds: float = 100.0
    threads: int | str = "auto"
    teacher_forms: tuple[str, ...] = ("auto",)
    kernels: tuple[str, ...] = ("cudnn",)
    cudnn_benchmark: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "threads", check(CountOrAuto, "threads", self.threads))
        for name in ("teacher", "student"):
            object.__setattr__(self, name, canonical(getattr(self, name)))
        for name, right, words in (
            ("batch_size", 2 <= self.batch_size <= MOST_IMAGES, f"between 2 and {MOST_IMAGES}"),
            ("group", self.group >= 1, ">= 1"),
            ("seconds", 0 < self.seconds < math.inf, "a finite number > 0"),
        ):
            if not right:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {words}")
        for kind, given, allowed in (
            ("precision", self.precisions, PRECISIONS),
            ("teacher batch_norm", self.batch_norms, BATCH_NORMS),
            ("compile", (self.compile,), COMPILE),
            ("teacher form", self.teacher_forms, TEACHER_FORMS),
            ("BatchNorm kernels", self.kernels, KERNELS),
        ):
            for name in given or ("",):
                if name not in allowed:
                    raise unknown(kind, name, allowed)

    def check(self, device: torch.device) -> None:
        """Raise ConfigError for what this machine cannot do."""
        Engine(compile=self.compile != "no", threads=self.threads).check(device)
        asked = {
            "cudnn_benchmark": self.cudnn_benchmark,
            f"batch_norm {','.join(self.kernels)}": self.kernels != ("cudnn",),
            "teacher_form fused": "fused" in self.teacher_forms,
        }
        for name in (name for name, given in asked.items() if given and device.type != "cuda"):
            raise ConfigError(
                f"{name} concerns kernels of cuDNN, and the device is {str(device)!r}; it must be cuda"
            )


def measure(request: Request, say: Callable[[str], object] = lambda text: None) -> Result:
    """Make the measurement. Takes `request.seconds`, or what three rounds need.

    Args:
        request: what.
        say: told what happens.

    Raises:
        ConfigError: a device or a network this machine does not have, or no compiler where one was asked for.
    """
    device = pick_device(request.device)
    request.check(device)
    with contextlib.ExitStack() as stack:
        if request.compile != "no":
            from torch._inductor.utils import fresh_cache  # slow to import

            stack.enter_context(fresh_cache())  # so that a cold start is one
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))  # events and graphs belong to the current one
        measurement = Measurement(request, device, say)
        stack.callback(measurement.close)
        return measurement.run()


@dataclass
class Entry:
    """A variant on its way to a row."""

    variant: Variant
    made: Steps | Conventional
    cold_seconds: float
    counts: clock.Counts | None
    repeats: int = 1
    times: tuple[float, ...] = ()  # seconds of a step


class Measurement:
    """One measurement under way; arguments as of `measure`."""

    def __init__(self, request: Request, device: torch.device, say: Callable[[str], object]) -> None:
        self.request, self.device, self.say = request, device, say
        self.started, self.load = time.monotonic(), load()
        self.work = Workload(request.teacher, request.student, request.batch_size, device)
        found: dict[str, str] = {}  # one name for each arithmetic, the first that means it
        for name in request.precisions:
            found.setdefault(arithmetic(name, device).name, name)
        self.precisions = list(found.values())
        self.entries: list[Entry] = []
        self.notes: list[str] = []

    def close(self) -> None:
        """End what runs beside this process."""
        for entry in self.entries:
            entry.made.close()

    def run(self) -> Result:
        """All of it."""
        request, began = self.request, now()
        self.choose_threads()
        for variant in self._variants():
            self.enter(variant)
        self._round()
        for entry in self.entries:  # from this first round, which is not kept
            entry.repeats = clock.repeats(entry.times[0], STRETCH[self.device.type])
        self.say("evaluating")
        evaluation = self._evaluate()
        rounds = self.rounds()
        seconds, cores = time.monotonic() - self.started, os.cpu_count() or 1
        if seconds > 1.1 * request.seconds:
            fewest = f": {rounds} rounds are the fewest that are made" * (rounds == LEAST_ROUNDS)
            self.notes.append(f"{request.seconds:g} s were asked for and {seconds:.0f} s were used{fewest}")
        if self.load is not None and self.load > QUIET * cores:
            self.notes.append(
                f"the machine was not quiet: before this began, its load average was {self.load:.2f} on {cores} cores"
            )
        header = {
            **asdict(request), **header_of(self.device, began, self.load), "seconds_asked": request.seconds,
            "train_images": len(self.work.images.train_y), "seconds_used": seconds, "rounds": rounds,
        }  # fmt: skip
        return Result(header, tuple(map(self._row, self.entries)), evaluation, tuple(self.notes))

    def choose_threads(self) -> None:
        """One number for all variants, so that they can be compared: the one asked for, or as runs choose it."""
        Threads(numbers(self.request.threads, self.device), self.notes.append).take()

    def _variants(self) -> list[Variant]:
        request, students = self.request, Engine(compile=True).compiles_students(self.device)
        compiled = {"no": (), "engine": (ALL if students else TEACHER,), "all": (TEACHER, ALL)}
        switches = {
            "graph": (True, False) if self.device.type == "cuda" else (False,),
            "compile": (NOTHING, *compiled[request.compile]),
            "form": request.teacher_forms, "kernels": request.kernels,
            "cudnn_benchmark": (False, True) if request.cudnn_benchmark else (False,),
        }  # fmt: skip
        return variants(request.batch_norms, self.precisions, request.group, **switches)

    def enter(self, variant: Variant) -> None:
        """Build a variant and make its first step; the second one is counted."""
        title = f"{variant.name(self.work.arithmetic(variant.precision))}, teacher on {variant.batch_norm} statistics"
        self.say(f"first step: {title}")
        started = time.perf_counter()
        try:
            made = self.work.begin(variant)
            with made.context():
                clock.seconds(made.step, 1, self.device)
                cold = time.perf_counter() - started
                counts = None if variant.compile != NOTHING else clock.count(made.eagerly)
        except (RuntimeError, RkdError) as error:  # no capture, no compilation, no memory, no such form
            if variant.conventional:
                raise
            self.notes.append(f"{title}: could not run ({str(error).splitlines()[0]})")
            return
        if self.device.type == "cuda" and not variant.conventional:
            self.notes.append(f"{title}: the teacher is {made.form or 'as it is'}")
        self.entries.append(Entry(variant, made, cold, counts))

    def _round(self, first: int = 0) -> None:
        """Every variant makes its steps, once; who begins changes from round to round."""
        start = first % len(self.entries)
        for entry in self.entries[start:] + self.entries[:start]:
            with entry.made.context():
                took = clock.seconds(entry.made.step, entry.repeats, self.device)
            entry.times = (*entry.times, took)

    def rounds(self) -> int:
        """Time rounds until the seconds are used; returns their number."""
        expected = sum(entry.repeats * entry.times[0] for entry in self.entries)
        for entry in self.entries:
            entry.times = ()
        self.say(f"timing {len(self.entries)} variants in turn, about {expected:.1f} s a round")
        made, end = 0, self.started + self.request.seconds
        while made < LEAST_ROUNDS or time.monotonic() + expected < end:
            self._round(made)
            made += 1
        return made

    def _row(self, entry: Entry) -> Row:
        times = tuple(1000 * t / entry.variant.group for t in entry.times)
        name = self.work.arithmetic(entry.variant.precision)
        return Row(entry.variant, name, self.request.batch_size, times, entry.cold_seconds, entry.counts)

    def _evaluate(self) -> dict[str, float]:
        """Test images/s, three times each in turn; the medians count. On a CPU, as many test images as the share of
        time allows; on a GPU, as many as CIFAR-100 has, the same ones over and over. The loader's process has started
        and has its first batch ready when the clock starts: of a whole test set, that is next to nothing."""
        conventional = next(entry for entry in self.entries if entry.variant.conventional)
        ours = next(entry for entry in self.entries if not entry.variant.conventional)
        images, size = self.work.images, self.request.batch_size
        affordable = int(EVALUATION_SHARE * self.request.seconds / (2 * conventional.times[0] / size))
        test = EVALUATION_IMAGES
        if self.device.type != "cuda":
            test = min(len(images.test_y), max(size, affordable))
        some = torch.arange(test) % len(images.test_y)
        images = replace(images, test_x=images.test_x[some], test_y=images.test_y[some])
        loop, there, (_, loader) = conventional.made, images.to(self.device), loaders(images, size)
        student = ours.made.states[0].student
        theirs_s, ours_s = [], []
        for _ in range(3):
            batches = iter(loader)
            loop.test_loader = itertools.chain([next(batches)], batches)
            with loop.context():
                theirs_s.append(clock.seconds(loop.evaluate, 1, self.device))
            with ours.made.context():
                scored = student, there.test_x, there.test_y, images.mean, images.std
                ours_s.append(clock.seconds(lambda scored=scored: accuracy(*scored), 1, self.device))
        rates = {"conventional": test / statistics.median(theirs_s), "ours": test / statistics.median(ours_s)}
        return {"images": test, **rates}


def header_of(device: torch.device, began: str, load_before: float | None) -> dict[str, Any]:
    """Machine, versions, times and load of a measurement that ends now."""
    times = {"began": began, "ended": now(), "load_before": load_before, "load_after": load()}
    return {**code_state(), **machine_state(device), **times}


def now() -> str:
    """The time, in UTC."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def load() -> float | None:
    """Processes that ran or waited to run, mean over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
