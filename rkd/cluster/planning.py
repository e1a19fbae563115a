"""Planning a sweep on a given number of GPUs: run groups in the order in which a sweep hands them out, each lasting as
long as its multiply-adds take at one rate. A simulation gives the makespan, the idle share and the longest chain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pandas as pd
import torch

from rkd import models
from rkd.errors import ConfigError
from rkd.experiments.budget import format_duration
from rkd.experiments.estimate import LEAST_IMAGE, dataset_sizes, recorded_work, run_macs
from rkd.experiments.runner import run_groups, teachers_of
from rkd.experiments.workspace import store_for
from rkd.training import RunConfig

START_SECONDS = 15.0  # to start a group: its process, imports, data and first step
RECORD_BYTES = 20_000
PROFILES = ("mini", "short", "paper")  # their records give a rate
PUSH_SECONDS = 10.0  # between looks for a new checkpoint (see `Storage`)


@dataclass(frozen=True)
class PlannedGroup:
    """A group of runs trained in lock-step."""

    runs: int
    macs: float  # multiply-adds of all runs, scoring included
    before: tuple[int, ...]  # indices of the groups that train its teachers
    epochs: int
    weights: int  # bytes of the students' weights
    pulled: int  # bytes of the teachers' weights, both last and best
    teaches: bool


@dataclass(frozen=True)
class SweepPlan:
    """What is to be trained, and the measurements that tell how long it takes."""

    KIND: ClassVar[str] = "rkd cluster plan"
    FORMAT: ClassVar[int] = 1
    profile: str
    largest: int  # most runs of a group
    groups: tuple[PlannedGroup, ...]
    rate: float  # multiply-adds per second of one device
    source: str  # where the rate comes from
    tasks: tuple[int, float] | None = None  # see `measure_overhead`; None: not measured


@dataclass(frozen=True)
class Schedule:
    """A plan carried out on a given number of devices."""

    devices: int
    spans: tuple[tuple[float, float, int], ...]  # (begin, end, device) of each group, in seconds
    chain: float  # seconds of the longest chain of a teacher and its students, which no number of devices shortens
    idle: float  # share of the devices' time until the end of the sweep
    # Upper bound of the bytes to and from the storage: for every group its teachers' weights, a checkpoint (three times
    # the weights: momentum and best epoch) as often as there can be a new one, its weights and its records.
    traffic: float

    @property
    def seconds(self) -> float:
        """Seconds until all groups have finished."""
        return max(end for _, end, _ in self.spans)


def plan_sweep(
    profile: str,
    runs: Sequence[RunConfig],
    largest: int,
    data_root: Path,
    rate: float | None,
    tasks: Any = None,
) -> SweepPlan:
    """Plan `runs`, teachers first, in groups of at most `largest` that may mix seeds, as on a GPU. `rate` is as in
    `SweepPlan`; None: the median over all runs recorded in this copy of the project.

    Raises:
        ConfigError: no rate is given, and no run is recorded.
        DataError: a data set is not on this machine.
    """
    teachers, place = teachers_of(runs), dict[str, int]()
    found = []
    for members in run_groups(runs, largest, across_seeds=True):
        macs, company = 0.0, len(members)
        for run in members:
            need = run_macs(run, dataset_sizes(run.data, data_root))
            need = need._replace(image=max(need.image, LEAST_IMAGE), teacher=need.teacher / company)
            macs += need.left(run)
        before = teachers_of(members)
        found.append(
            PlannedGroup(
                company, macs, tuple(sorted({place[run] for run in before})), members[0].total_epochs,
                sum(_bytes(run.network) for run in members),
                sum(2 * _bytes(teacher.network) for teacher in before.values()),
                any(run.id in teachers for run in members),
            )
        )  # fmt: skip
        place |= dict.fromkeys((run.id for run in members), len(found) - 1)
    source = "as given"
    if rate is None:
        known = recorded_work((record for name in PROFILES for record in store_for(name)), data_root)
        if known.empty:
            raise ConfigError("no recorded run tells the rate of a device; give --rate, for example 2e13")
        rate = (known["macs"] / known["seconds"]).median()
        source = f"median of {len(known)} recorded runs, {', '.join(sorted({*known['device']}))}"
    return SweepPlan(profile, largest, tuple(found), rate, source, tasks)


def simulate(plan: SweepPlan, devices: int, rate: float | None = None) -> Schedule:
    """Return the schedule when each free device takes the first group, in order, whose teachers have finished."""
    rate = rate or plan.rate
    length = [START_SECONDS + group.macs / rate for group in plan.groups]
    spans, ended, now = dict[int, tuple[float, float, int]](), set[int](), 0.0
    while len(ended) < len(length):
        at_work = spans.keys() - ended
        free = sorted({*range(min(devices, len(length)))} - {spans[number][2] for number in at_work})
        left = [number for number in range(len(length)) if number not in spans]
        ready = (number for number in left if ended.issuperset(plan.groups[number].before))
        for device, number in zip(free, ready, strict=False):
            spans[number] = now, now + length[number], device
        now, number = min((spans[number][1], number) for number in spans.keys() - ended)
        ended.add(number)
    chains, traffic = list[float](), 0.0
    for group, seconds in zip(plan.groups, length, strict=True):
        chains.append(seconds + max((chains[teacher] for teacher in group.before), default=0.0))
        pushes = min(group.epochs, seconds / PUSH_SECONDS)
        traffic += group.pulled + group.weights * (3 * pushes + 2) + group.runs * RECORD_BYTES
    idle = 1 - sum(length) / (devices * now)
    return Schedule(devices, tuple(spans[i] for i in range(len(length))), max(chains), idle, traffic)


def schedule_table(schedules: Sequence[Schedule]) -> pd.DataFrame:
    """Return a table for people to read, with one row for each number of devices."""
    alone = sum(end - begin for begin, end, _ in schedules[0].spans)
    return pd.DataFrame(
        {
            "devices": one.devices,
            "time": format_duration(one.seconds),
            "speed-up": f"{alone / one.seconds:.2f}",
            "idle": f"{100 * one.idle:.1f} %",
            "longest chain": format_duration(one.chain),
            "storage": f"{one.traffic / 1e9:,.0f} GB",
            "on average": f"{one.traffic / one.seconds / 1e6:.2f} MB/s",
        }
        for one in schedules
    )


def measure_overhead(ray: ModuleType, number: int) -> tuple[int, float]:
    """Give the cluster `number` empty tasks at once; return `number` and the seconds until all have finished."""
    task = ray.remote(lambda: None)
    ray.get([task.remote() for _ in range(50)])  # so that the workers have started
    started = time.perf_counter()
    ray.get([task.remote() for _ in range(number)])
    return number, time.perf_counter() - started


def _bytes(network: str) -> int:
    with torch.random.fork_rng(devices=[]):
        return 4 * models.parameter_count(models.build(network, 100))
