"""Seconds a piece of work takes on a device."""

import math
import time
from collections.abc import Callable

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean seconds of one of `repeats` calls in a row: by events on CUDA, which holds a queue of its own, by the clock
    elsewhere."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - started) / repeats
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000 / repeats


def repeats(one: float, wanted: float, most: int = 200) -> int:
    """How many calls of `one` second each fill `wanted` seconds: at least one, at most `most`."""
    return max(1, min(most, math.ceil(wanted / one)))
