"""How long CRD's negatives take: ours, gathered from rows drawn per epoch, against a draw per image with numpy."""

import datetime
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rkd.bench import clock
from rkd.bench.measurement import LEAST_ROUNDS, load
from rkd.bench.result import FORMAT, ratio, read_json
from rkd.bench.text import aligned, machine, versions
from rkd.errors import ConfigError, RecordError
from rkd.experiments.execute import pick_device
from rkd.files import replacing
from rkd.methods.negatives import Contrasts
from rkd.records.provenance import code_state, machine_state

KIND = "rkd bench negatives"
OURS, CONVENTIONAL, NEWER = "ours", "numpy.random.choice", "numpy Generator.choice"
STRETCH = 0.02  # seconds of our steps in a row


@dataclass(frozen=True)
class NegativesRequest:
    """What is to be measured.

    Attributes:
        negatives: K, per image.
        batch_size: images of a step.
        train_images, classes: of balanced synthetic labels.
        device: see `pick_device`.
        seconds: for all of it. Three rounds are made in any case.

    Raises:
        ConfigError: a value that is not allowed.
    """

    negatives: int = 16384
    batch_size: int = 64
    train_images: int = 50_000
    classes: int = 100
    device: str = "auto"
    seconds: float = 10.0

    def __post_init__(self) -> None:
        others = self.train_images - -(-self.train_images // self.classes)
        if not 1 <= self.negatives <= others:
            raise ConfigError(
                f"negatives is {self.negatives}; it must be between 1 and {others}, the images of other classes"
            )
        if not 1 <= self.batch_size <= self.train_images:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it must be between 1 and {self.train_images}"
            )
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"seconds is {self.seconds}; it must be a finite number > 0")

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.train_images // self.batch_size)


@dataclass(frozen=True)
class NegativesResult:
    """One measurement.

    Attributes:
        header: machine, versions, times, load, and what was asked for.
        times_ms: by name, of one step, one value per round. Ours holds an epoch's draw, divided by its steps.
        draw_ms: of an epoch's draw, one value per round.
    """

    header: dict[str, Any]
    times_ms: dict[str, tuple[float, ...]]
    draw_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as quick as `numpy.random.choice` ours is: median over rounds."""
        return ratio(self.times_ms[OURS], self.times_ms[CONVENTIONAL]).median

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        body = {
            "format": FORMAT, "kind": KIND, "header": self.header, "times_ms": self.times_ms,
            "draw_ms": self.draw_ms, "derived": {"ratio": self.ratio},
        }  # fmt: skip
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "NegativesResult":
        """What `save` wrote.

        Raises:
            RecordError: no such file, or not one of these.
        """
        body = read_json(path, KIND)
        try:
            times = {name: tuple(values) for name, values in body["times_ms"].items()}
            return cls(body["header"], times, tuple(body["draw_ms"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__} {error}") from error


class PerImage:
    """The conventional way: a data set draws without replacement for each image it returns, and the loader stacks.

    Args:
        labels: (N,), classes.
        count: K.
        choose: (candidates, K) -> K of them, all different.
    """

    def __init__(
        self, labels: np.ndarray, count: int, choose: Callable[[np.ndarray, int], np.ndarray]
    ) -> None:
        self.labels, self.count, self.choose = labels, count, choose
        self.others = [np.flatnonzero(labels != c) for c in range(labels.max() + 1)]

    def __getitem__(self, index: int) -> np.ndarray:
        """The image itself, its positive, and its negatives: (1 + K,) int64."""
        return np.hstack((index, self.choose(self.others[self.labels[index]], self.count)))

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(B, 1 + K) int64."""
        return torch.from_numpy(np.stack([self[index] for index in indices]))


def measure_negatives(
    request: NegativesRequest, say: Callable[[str], object] = lambda text: None
) -> NegativesResult:
    """Draw in turn, round by round, until the time is used up.

    Raises:
        ConfigError: a device this machine does not have.
    """
    device, before, started = pick_device(request.device), load(), time.monotonic()
    begun = datetime.datetime.now(datetime.UTC)
    labels = torch.arange(request.train_images) % request.classes
    say(f"{request.negatives:,} negatives for each of {request.batch_size} images")
    contrasts = Contrasts(labels, request.negatives, seed=0).to(device)
    legacy, newer = np.random.RandomState(0), np.random.default_rng(0)
    ways = {
        CONVENTIONAL: PerImage(labels.numpy(), request.negatives, lambda a, k: legacy.choice(a, k, False)),
        NEWER: PerImage(labels.numpy(), request.negatives, lambda a, k: newer.choice(a, k, False)),
    }
    order = torch.randperm(request.train_images, generator=torch.Generator().manual_seed(0))
    indices = order[: request.batch_size]
    there, host = indices.to(device), indices.tolist()
    work = {name: lambda way=way: way.batch(host).to(device) for name, way in ways.items()}
    work[OURS] = lambda: contrasts(there)
    for call in work.values():
        call()
    repeats = dict.fromkeys(work, 1)
    repeats[OURS] = clock.repeats(clock.seconds(work[OURS], 3, device), STRETCH)
    times: dict[str, list[float]] = {name: [] for name in work}
    draws: list[float] = []
    while len(draws) < LEAST_ROUNDS or time.monotonic() - started < request.seconds:
        names = list(work)
        names = names[len(draws) % len(names) :] + names[: len(draws) % len(names)]  # who begins changes
        draws.append(1000 * _draw_seconds(contrasts, len(draws), device))
        for name in names:
            times[name].append(1000 * clock.seconds(work[name], repeats[name], device))
        times[OURS][-1] += draws[-1] / request.steps
    header = {
        **code_state(),
        **machine_state(device),
        "began": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
        "ended": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "load_before": before,
        "load_after": load(),
        **asdict(request),
        "steps": request.steps,
        "rounds": len(draws),
    }
    return NegativesResult(header, {name: tuple(found) for name, found in times.items()}, tuple(draws))


def _draw_seconds(contrasts: Contrasts, epoch: int, device: torch.device) -> float:
    """By the clock: it is the host that draws."""
    clock.synchronise(device)
    started = time.perf_counter()
    contrasts.draw(epoch)
    clock.synchronise(device)
    return time.perf_counter() - started


def report_negatives(result: NegativesResult) -> str:
    """As plain text."""
    h = result.header
    rows = []
    for name in (CONVENTIONAL, NEWER, OURS):
        found = result.times_ms[name]
        r = ratio(found, result.times_ms[CONVENTIONAL])
        rows.append(
            [name, f"{statistics.median(found):.3f}", f"{min(found):.3f}", f"{r.median:.1f}",
             f"({r.low:.1f}-{r.high:.1f})"]
        )  # fmt: skip
    lines = [
        f"CRD's negatives: {h['negatives']:,} per image, batch {h['batch_size']}, {h['train_images']:,} images of "
        f"{h['classes']} classes",
        machine(h),
        versions(h),
        f"{h['began']}: {h['rounds']} rounds; again: rkd bench --negatives {h['negatives']} --batch-size "
        f"{h['batch_size']} --device {h['device']} --seconds {h['seconds']:g}",
        "",
        aligned(["a step", "ms median", "best", "times as quick", "(quartiles)"], rows),
        "",
        f"ours holds 1/{h['steps']} of an epoch's draw, which takes {statistics.median(result.draw_ms):.1f} ms.",
        "The others draw image by image in one process; a loader with W of them takes 1/W of the time at best.",
    ]
    return "\n".join(lines) + "\n"
