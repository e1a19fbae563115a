"""How long CRD's negatives take: ours, gathered from rows drawn per epoch, against a draw per image with numpy."""

import time
from collections.abc import Callable

import numpy as np
import torch

from rkd.bench import clock
from rkd.bench.measurement import LEAST_ROUNDS, header_of, load, now
from rkd.bench.result import ratio
from rkd.errors import ConfigError
from rkd.experiments.runner import pick_device
from rkd.methods.negatives import Contrasts

KIND = "rkd bench negatives"
OURS, CONVENTIONAL = "ours", "numpy.random.choice"
IMAGES, CLASSES = 50_000, 100  # of balanced synthetic labels


def per_image(labels: np.ndarray, count: int) -> Callable[[list[int]], torch.Tensor]:
    """The conventional way: a data set draws without replacement for each image it returns, and the loader stacks
    images, each its own positive, with their negatives: (B, 1 + K) int64."""
    others = [np.flatnonzero(labels != c) for c in range(labels.max() + 1)]
    draw = np.random.RandomState(0)
    return lambda indices: torch.from_numpy(
        np.stack([np.hstack((i, draw.choice(others[labels[i]], count, replace=False))) for i in indices])
    )


def measure_negatives(count: int, batch_size: int, device: str, seconds: float) -> dict[str, object]:
    """Draw in turn, round by round, until the time is used up, and three times in any case.

    Returns:
        what the file holds: "header"; "times_ms" of a step by name, one per round, ours with its part of an epoch's
        draw; "draw_ms" of an epoch's draw.

    Raises:
        ConfigError: a value that is not allowed, or a device this machine does not have.
    """
    most = IMAGES - IMAGES // CLASSES
    for name, value, top in (("negatives", count, most), ("batch_size", batch_size, IMAGES)):
        if not 1 <= value <= top:
            raise ConfigError(f"{name} is {value}; it must be between 1 and {top}")
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"seconds is {seconds}; it must be a finite number > 0")
    where, before, began, end = pick_device(device), load(), now(), time.monotonic() + seconds
    labels, steps = torch.arange(IMAGES) % CLASSES, -(-IMAGES // batch_size)
    contrasts, drawn = Contrasts(labels, count, seed=0).to(where), per_image(labels.numpy(), count)
    host = torch.arange(batch_size).tolist()
    there = torch.tensor(host, device=where)
    times: dict[str, list[float]] = {CONVENTIONAL: [], OURS: []}
    draws: list[float] = []
    repeats = clock.repeats(max(clock.seconds(lambda: contrasts(there), 1, where) for _ in range(3)), 0.02)
    while len(draws) < LEAST_ROUNDS or time.monotonic() < end:
        draws.append(1000 * clock.seconds(lambda: contrasts.draw(len(draws)), 1, where))
        times[CONVENTIONAL].append(1000 * clock.seconds(lambda: drawn(host).to(where), 1, where))
        step = 1000 * clock.seconds(lambda: contrasts(there), repeats, where)
        times[OURS].append(step + draws[-1] / steps)
    asked = {"negatives": count, "batch_size": batch_size, "seconds": seconds, "steps": steps}
    header = {**header_of(where, began, before), **asked, "rounds": len(draws)}
    return {"header": header, "times_ms": times, "draw_ms": draws}


def report_negatives(found: dict[str, object]) -> str:
    """As plain text."""
    h, times = found["header"], found["times_ms"]
    low, middle, high = ratio(times[OURS], times[CONVENTIONAL])
    call = f"rkd bench --negatives {h['negatives']} --batch-size {h['batch_size']} --device {h['device']}"
    return (
        f"CRD's negatives: {h['negatives']:,} per image, batch {h['batch_size']}, {IMAGES:,} images; "
        f"{h['device_name']}, torch {h['torch']}; {h['began']}, {h['rounds']} rounds\n"
        f"again: {call} --seconds {h['seconds']:g}\n\n"
        f"a step at best: {min(times[CONVENTIONAL]):.3f} ms by {CONVENTIONAL}, image by image in one process (a loader "
        f"with W of them takes 1/W of it at best), {min(times[OURS]):.3f} ms by ours, {middle:.1f} times as quick "
        f"({low:.1f}-{high:.1f})\n"
        f"Ours holds 1/{h['steps']} of an epoch's draw, which takes {min(found['draw_ms']):.1f} ms.\n"
    )
