"""The measurement: everything built, warmed up and counted, then timed in rounds, step by step in turn."""

import contextlib
import datetime
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from rkd.bench import clock
from rkd.bench.ceilings import Ceilings, measure_ceilings
from rkd.bench.conventional import loaders
from rkd.bench.counting import Counts, count
from rkd.bench.gradients import agreements
from rkd.bench.result import COMPILED, EVALUATION_IMAGES, Evaluation, Result, Row
from rkd.bench.variants import (
    ALL,
    MOST_IMAGES,
    NOTHING,
    TEACHER,
    Contestant,
    Variant,
    Workload,
    contestant,
    variants,
)
from rkd.errors import ConfigError, unknown
from rkd.experiments.execute import pick_device
from rkd.models import canonical
from rkd.records.provenance import code_state, machine_state
from rkd.training import Engine, accuracy, arithmetic
from rkd.training.arithmetic import PRECISIONS, exact_kernels
from rkd.training.capture import CaptureError
from rkd.training.threads import better, numbers
from rkd.typed import number_or_auto

LEAST_ROUNDS = 3
STRETCH = {
    "cpu": 0.02,
    "cuda": 0.2,
}  # seconds of steps in a row, so that the clock's own time is lost in them
BATCH_NORMS = ("running", "batch")
COMPILE = ("no", "engine", "all")
# Shares of the time asked for; the rest goes into rounds.
EVALUATION_SHARE, GRADIENT_SHARE = 0.1, 0.1
QUIET = 0.3  # load average per core up to which a machine counts as quiet
DOUBLE_SLOWER = 12  # a step in float64, as against the conventional one: no tuned kernels


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        teacher, student: names of networks.
        batch_size: images of a step.
        device: see `pick_device`.
        precisions: of our steps; names that mean the same arithmetic on the device count once.
        batch_norms: modes of the teacher.
        gang: also students trained in lock-step, so many; 1: none.
        compile: "no"; "engine": each of our variants also with what `Engine` compiles (the teacher, and on CUDA the
            students); "all": also with teacher alone and with teacher and students compiled.
        seconds: for all of it. Three rounds are made in any case.
        threads: that compute on a CPU, in all variants; "auto": the number the conventional loop is quickest with.

    Raises:
        ConfigError: a value that is not allowed.
    """

    teacher: str = "resnet56"
    student: str = "resnet20"
    batch_size: int = 128
    device: str = "auto"
    precisions: tuple[str, ...] = ("fp32", "auto")
    batch_norms: tuple[str, ...] = BATCH_NORMS
    gang: int = 1
    compile: str = "no"
    seconds: float = 100.0
    threads: int | str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "threads", number_or_auto("threads", self.threads))
        for name in ("teacher", "student"):
            object.__setattr__(self, name, canonical(getattr(self, name)))
        if not 2 <= self.batch_size <= MOST_IMAGES:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be between 2 and {MOST_IMAGES}")
        if self.gang < 1:
            raise ConfigError(f"gang is {self.gang}; it must be >= 1")
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"seconds is {self.seconds}; it must be a finite number > 0")
        for kind, given, allowed in (
            ("precision", self.precisions, PRECISIONS),
            ("teacher batch_norm", self.batch_norms, BATCH_NORMS),
            ("compile", (self.compile,), COMPILE),
        ):
            if not given:
                raise ConfigError(f"no {kind} was named; allowed: {', '.join(allowed)}")
            for name in given:
                if name not in allowed:
                    raise unknown(kind, name, allowed)


def measure(request: Request, say: Callable[[str], object] = lambda text: None) -> Result:
    """Make the measurement. Takes `request.seconds`, or what three rounds need.

    Args:
        request: what.
        say: told what happens.

    Raises:
        ConfigError: a device or a network this machine does not have, or no compiler where one was asked for.
    """
    device = pick_device(request.device)
    Engine(compile=request.compile != "no", threads=request.threads).check(device)
    precisions = _distinct(request.precisions, device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_cold_compiler())
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))  # events and graphs belong to the current one
        measurement = _Measurement(request, device, precisions, say)
        stack.callback(measurement.close)
        return measurement.run()


def _distinct(precisions: tuple[str, ...], device: torch.device) -> list[str]:
    """One name for each arithmetic, the first that means it."""
    found: dict[str, str] = {}
    for name in precisions:
        found.setdefault(arithmetic(name, device).name, name)
    return list(found.values())


@contextlib.contextmanager
def _cold_compiler() -> Iterator[None]:
    """An empty cache of compiled kernels, so that a cold start is one."""
    name, before = "TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="rkd-bench-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


@dataclass
class _Entry:
    """A variant on its way to a row."""

    variant: Variant
    made: Contestant
    cold_seconds: float
    counts: Counts | None
    repeats: int = 1
    times: tuple[float, ...] = ()  # seconds of a step


class _Measurement:
    def __init__(
        self, request: Request, device: torch.device, precisions: list[str], say: Callable[[str], object]
    ) -> None:
        self.request, self.device, self.precisions, self.say = request, device, precisions, say
        self.started, self.load = time.monotonic(), load()
        self.work = Workload(request.teacher, request.student, request.batch_size, device)
        self.entries: list[_Entry] = []
        self.notes: list[str] = []

    def close(self) -> None:
        for entry in self.entries:
            entry.made.close()

    def run(self) -> Result:
        request = self.request
        begun = datetime.datetime.now(datetime.UTC)
        self.say(f"drawing {len(self.work.images.train_y):,} training images")
        self._choose_threads()
        self.say("measuring what this machine does at best")
        started = time.monotonic()
        ceilings = self._ceilings()
        self._ceiling_seconds = time.monotonic() - started  # they are measured again at the end
        graphs = (True, False) if self.device.type == "cuda" else (False,)
        for variant in variants(request.batch_norms, self.precisions, request.gang, self._compiled(), graphs):
            self._enter(variant)
        self._round()
        self._set_repeats()
        self.say("comparing gradients with float64")
        with exact_kernels():
            gradients = agreements(
                self.work, ["fp32", "bf16", "fp16"], request.batch_norms[0], self._gradient_images()
            )
        self.say("evaluating")
        evaluation = self._evaluate()
        rounds = self._rounds()
        ceilings = ceilings.or_better(self._ceilings())
        used = time.monotonic() - self.started
        if used > 1.1 * request.seconds:
            self.notes.append(
                f"{request.seconds:g} s were asked for and {used:.0f} s were used: {rounds} rounds are the fewest that "
                "are made"
                if rounds == LEAST_ROUNDS
                else f"{request.seconds:g} s were asked for and {used:.0f} s were used"
            )
        cores = os.cpu_count() or 1
        if self.load is not None and self.load > QUIET * cores:
            self.notes.append(
                f"the machine was not quiet: before this began, its load average was {self.load:.2f} on {cores} cores"
            )
        header = {
            **code_state(),
            **machine_state(self.device),
            "began": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
            "ended": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "load_before": self.load,
            "load_after": load(),
            "teacher": request.teacher,
            "student": request.student,
            "batch_size": request.batch_size,
            "dataset": "embedded",
            "train_images": len(self.work.images.train_y),
            "precisions": list(request.precisions),
            "batch_norms": list(request.batch_norms),
            "gang": request.gang,
            "compile": request.compile,
            "seconds_asked": request.seconds,
            "seconds_used": used,
            "rounds": rounds,
            "gradient_batch_norm": request.batch_norms[0],
        }
        rows = tuple(self._row(entry) for entry in self.entries)
        return Result(header, rows, ceilings, evaluation, tuple(gradients), tuple(self.notes))

    def _choose_threads(self) -> None:
        """One number for all variants, so that they can be compared: the one asked for, or the one the conventional
        loop is quickest with, climbing from one; the notes say how long both loops took with each."""
        choice = numbers(self.request.threads, self.device)
        if len(choice) > 1:
            self.say("measuring with how many threads a step is quickest")
        mode, usual, told = self.request.batch_norms[0], math.inf, []
        chosen = choice[0] if choice else None
        for number in choice if len(choice) > 1 else ():
            torch.set_num_threads(number)
            conventional, quicker = self._few_steps(Variant(mode, conventional=True), usual)
            words = f"{number}: {1000 * conventional:,.0f} ms conventional"
            if quicker:
                ours, _ = self._few_steps(Variant(mode, self.precisions[0]), math.inf)
                words += f", {1000 * ours:,.0f} ms ours"
                chosen, usual = number, conventional
            told.append(words)
            if not quicker:
                break
        if chosen is not None:
            torch.set_num_threads(chosen)
        if told:
            self.notes.append(
                f"a step by number of threads, measured first: {'; '.join(told)}. The rest is with {chosen}, "
                "with which the conventional loop was quickest"
            )

    def _few_steps(self, variant: Variant, usual: float) -> tuple[float, bool]:
        """Median seconds of a step without the first one, where there are more, and whether that is better."""
        with contextlib.closing(contestant(variant, self.work)) as made, made.kernels():
            took = [clock.seconds(made.step, 1, self.device)]
            while (quicker := better(took, usual)) is None:
                took.append(clock.seconds(made.step, 1, self.device))
        return statistics.median(took[1:] or took), quicker

    def _ceilings(self) -> Ceilings:
        used = [arithmetic(name, self.device) for name in ("fp32", *self.precisions)]
        dtypes = {a.name: a.low or a.master for a in used}
        probe = min(0.3, 0.01 * self.request.seconds)
        with exact_kernels():
            return measure_ceilings(
                self.device, dtypes, self.work.maps(), self.request.batch_size, seconds=probe
            )

    def _compiled(self) -> tuple[str, ...]:
        students = Engine(compile=True).compiles_students(self.device)
        kinds = {"no": (), "engine": (ALL if students else TEACHER,), "all": (TEACHER, ALL)}
        return (NOTHING, *kinds[self.request.compile])

    def _enter(self, variant: Variant) -> None:
        """Build a variant and make its first step; the second one is counted."""
        named = "conventional" if variant.conventional else f"ours, {variant.precision}"
        extras = COMPILED[variant.compile] + ["CUDA graph"] * variant.graph
        extras += [f"gang of {variant.gang}"] * (variant.gang > 1)
        title = ", ".join([named, *extras, f"teacher on {variant.batch_norm} statistics"])
        self.say(f"first step: {title}")
        started = time.perf_counter()
        try:
            made = contestant(variant, self.work)
            with made.kernels():
                made.step()
                clock.synchronise(self.device)
        except (
            RuntimeError,
            CaptureError,
        ) as error:  # no capture, no compilation, no memory
            if variant.conventional:
                raise
            self.notes.append(f"{title}: could not run ({str(error).splitlines()[0]})")
            return
        cold = time.perf_counter() - started
        with made.kernels():
            counts = None if variant.compile != NOTHING else count(made.eagerly)
        self.entries.append(_Entry(variant, made, cold, counts))

    def _round(self, first: int = 0) -> None:
        """Every variant makes its steps, once; who begins changes from round to round."""
        order = self.entries[first % len(self.entries) :] + self.entries[: first % len(self.entries)]
        for entry in order:
            with entry.made.kernels():
                took = clock.seconds(entry.made.step, entry.repeats, self.device)
            entry.times = (*entry.times, took)

    def _set_repeats(self) -> None:
        """From the first round, which is not kept."""
        for entry in self.entries:
            entry.repeats = clock.repeats(entry.times[0], STRETCH[self.device.type])

    def _rounds(self) -> int:
        expected = sum(entry.repeats * entry.times[0] for entry in self.entries)
        for entry in self.entries:
            entry.times = ()
        self.say(f"timing {len(self.entries)} variants in turn, about {expected:.1f} s a round")
        rounds = 0
        end = self.started + self.request.seconds - self._ceiling_seconds
        while rounds < LEAST_ROUNDS or time.monotonic() + expected < end:
            self._round(rounds)
            rounds += 1
        return rounds

    def _row(self, entry: _Entry) -> Row:
        variant = entry.variant
        return Row(
            variant,
            arithmetic(variant.precision, self.device).name,
            self.request.batch_size,
            tuple(1000 * t / variant.gang for t in entry.times),
            entry.cold_seconds,
            entry.counts,
        )

    def _conventional(self) -> _Entry:
        return next(entry for entry in self.entries if entry.variant.conventional)

    def _gradient_images(self) -> int:
        """As many as the share of time allows, 8 to 64."""
        one = self._conventional().times[0] / self.request.batch_size
        allowed = GRADIENT_SHARE * self.request.seconds / (one * DOUBLE_SLOWER)
        return min(self.request.batch_size, max(8, min(64, int(allowed))))

    def _evaluate(self) -> Evaluation:
        """Three times each in turn; the medians count. On a CPU, as many test images as the share of time allows; on a
        GPU, as many as CIFAR-100 has, the same ones over and over. The loader's process has started and has its first
        batch ready when the clock starts: of a whole test set, that is next to nothing."""
        conventional = self._conventional()
        ours = next(entry for entry in self.entries if not entry.variant.conventional)
        images = self.work.images
        forward = conventional.times[0] / self.request.batch_size / 3
        if self.device.type == "cuda":
            test = EVALUATION_IMAGES
        else:
            affordable = int(EVALUATION_SHARE * self.request.seconds / (6 * forward))
            test = min(len(images.test_y), max(self.request.batch_size, affordable))
        some = torch.arange(test) % len(images.test_y)
        images = replace(images, test_x=images.test_x[some], test_y=images.test_y[some])
        loop, student = conventional.made.loop, ours.made.learners[0].student
        _, loader = loaders(images, self.request.batch_size)
        there = images.to(self.device)

        def score() -> float:
            return accuracy(student, there.test_x, there.test_y, images.mean, images.std)

        theirs_s, ours_s = [], []
        for _ in range(3):
            batches = iter(loader)
            loop.test_loader = itertools.chain([next(batches)], batches)
            with conventional.made.kernels():
                theirs_s.append(clock.seconds(loop.evaluate, 1, self.device))
            with ours.made.kernels():
                ours_s.append(clock.seconds(score, 1, self.device))
        return Evaluation(test, test / statistics.median(theirs_s), test / statistics.median(ours_s))


def load() -> float | None:
    """Processes that ran or waited to run, mean over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
