"""A sweep whose run groups are tasks of a Ray cluster: each is a local sweep of its few runs on some node.

The store alone decides what is to run and what has run, by the locks and records of a local sweep; Ray decides where,
and restarts a group that was lost with its node, which then continues from its checkpoints.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rkd import data as datasets
from rkd import paths
from rkd.cluster.board import Board, BoardReporter
from rkd.cluster.session import RETRIES, Cluster
from rkd.cluster.storage import Storage
from rkd.data import DataConfig, ImageSet, used_images
from rkd.data.images import TENSORS
from rkd.errors import RkdError, one_line
from rkd.experiments.budget import Budget
from rkd.experiments.runner import Runner, required, run_groups, teachers_of, with_missing_teachers
from rkd.records import Store
from rkd.training import Engine, RunConfig
from rkd.trust import trust, trusted

LOOK_SECONDS = 0.25  # between the driver's looks at the board
SUMMARY_SECONDS = 30.0  # between lines that sum up all groups
LOG = "cluster.log"  # in the store's folder of working files


@dataclass(frozen=True)
class Job:
    """What every worker of a sweep needs to know. Folders are absolute and, without a storage, shared by all nodes."""

    store: Store
    data_root: Path
    device: str
    group: int
    engine: Engine
    labels: Mapping[str, str]
    # For variables that a worker's own environment lacks: the project's folder, and the folder the user is in.
    environment: Mapping[str, str]
    trusted: frozenset[str]
    storage: str | None


@dataclass(eq=False)
class ClusterRunner(Runner):
    """A runner that trains on a cluster. Its own process checks, plans and reports; it needs no GPU."""

    cluster: Cluster | None = None
    limit: Budget | None = None  # a signal it catches stops all nodes
    workers: str = "auto"  # the workers' device
    storage: str | None = None  # URL (see `Storage`); None: the nodes share the store's folders

    def _train(self, missing: Sequence[RunConfig]) -> None:
        ray, root = self.cluster.ray, self.data_root.resolve()
        sets = dict.fromkeys(run.data for run in required(missing))
        self.sets = {config: datasets.load(config, root) for config in sets}
        self.check(missing)
        gpus = self.workers != "cpu" and bool(self.cluster.each.gpu)
        groups = run_groups(with_missing_teachers(missing, self.store), self.group, across_seeds=gpus)
        job = Job(
            Store(self.store.records.resolve(), self.store.work.resolve()), root, self.workers, self.group,
            self.engine, self.labels,
            {"RKD_HOME": str(paths.home().resolve()), paths.STANDS_IN: str(paths.user_folder())}, trusted(),
            self.storage,
        )  # fmt: skip
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(self.limit.left())
        shared = {config: ray.put(_packed(images)) for config, images in self.sets.items()}
        task = self.cluster.task(train_group)
        made: dict[str, Any] = {}  # the task that trains a run, by id
        for number, members in enumerate(groups):
            before = {made[teacher] for teacher in teachers_of(members) if teacher in made}
            needed = {run.data for run in required(members)}
            ref = task.remote(job, members, number, board, {c: shared[c] for c in needed}, *before)
            made |= dict.fromkeys((c.id for c in members), ref)
        self._watch(board, groups, [made[members[0].id] for members in groups])

    def _watch(self, board: Any, groups: Sequence[Sequence[RunConfig]], refs: Sequence[Any]) -> None:
        """Show what the nodes report until all groups have ended; pass on the order to stop."""
        ray, failure, waiting = self.cluster.ray, None, dict(zip(refs, range(len(refs)), strict=True))
        lengths = []
        for first, *_ in groups:
            images = len(self.sets[first.data].train_y)
            lengths.append(first.total_epochs * used_images(images, first.batch_size, first.drop_last))
        self.progress.begin(f"{len(groups)} run groups on {self.cluster.describe()}", 1, sum(lengths))
        at: dict[int, int] = {}
        storage = Storage(self.storage) if self.storage is not None else None
        started = said = time.monotonic()
        ended = set[int]()
        try:
            while waiting:
                done, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=LOOK_SECONDS)
                for ref in done:
                    ended.add(number := waiting.pop(ref))
                    failure = self._result(ref, groups[number]) or failure
                    if storage is not None:
                        storage.match(self.store, [config.id for config in groups[number]], ())
                lines, at = ray.get(board.news.remote())
                self._show(lines)
                come = sum(length if n in ended else at.get(n, 0) for n, length in enumerate(lengths))
                self.progress.batch(0, come, sum(lengths))
                if time.monotonic() - said > SUMMARY_SECONDS:
                    work, said = len(at.keys() - ended), time.monotonic()
                    rate = f"{come / (said - started):,.0f} images/s"
                    self._show([f"{len(ended)} of {len(groups)} groups ended, {work} at work; {rate}"])
                if not self.stopped and (failure or self.stop(0.0)):
                    self.stopped = True
                    ray.get(board.stop.remote())
                    for ref in (ref for ref, number in waiting.items() if number not in at):
                        ray.cancel(ref)
        finally:
            self.progress.end()
        if failure:
            raise failure

    def _result(self, ref: Any, members: Sequence[RunConfig]) -> RkdError | None:
        """Note how a group ended; return the error that ends the sweep, None if there is none."""
        ray, names = self.cluster.ray, ", ".join(config.id for config in members)
        try:
            failed, stopped = ray.get(ref)
        except ray.exceptions.TaskCancelledError:
            return None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RkdError):
                return error.cause
            if isinstance(error.cause, OSError):  # a full disk, or a storage that cannot be reached
                return RkdError(f"a node could not go on with {names}: {one_line(error.cause)}")
            if isinstance(error.cause, ray.exceptions.TaskCancelledError) or self.stopped:
                return None
            raise
        except ray.exceptions.RayError as error:
            if not self.stopped:
                told = type(error).__name__
                self._show([f"lost with their nodes {RETRIES + 1} times, and left: {names} ({told})"])
            return None
        self.failed |= failed
        if stopped:
            self.limit.stop(math.inf)  # the worker found the budget used up
        return None

    def _show(self, lines: Sequence[str]) -> None:
        """Show lines to whoever watches, and write them to the log."""
        if lines:
            self.store.work.mkdir(parents=True, exist_ok=True)
            with open(self.store.work / LOG, "a", encoding="utf-8") as log:
                now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
                log.writelines(f"{now} {line}\n" for line in lines)
        for line in lines:
            self.progress.say(line)


class _Worker(Runner):
    """A worker's runner, for runs that the driver has already checked."""

    def check(self, missing: Sequence[RunConfig]) -> None:
        pass


def train_group(
    job: Job, members: list[RunConfig], number: int, board: Any, sets: dict[DataConfig, Any], *before: Any
) -> tuple[dict[str, str], bool]:
    """Train a group's runs on this node, or wait for whoever trains them; this is the Ray task. `number`: the group's
    on the board; `sets`: references to data sets, which a node fetches once; `before`: what its teachers' tasks
    returned. Returns why runs could not be loaded or trained, by id, and whether training was stopped."""
    import ray

    os.environ.update(job.environment | os.environ)
    trust(job.trusted)
    node = ray.util.get_node_ip_address() + f"/{ray.get_runtime_context().get_node_id()[:4]}"

    def tell(at: int, lines: list[str]) -> bool:
        try:
            return ray.get(board.tell.remote(number, at, lines))
        except ray.exceptions.RayError:
            return True  # the driver is gone

    teller = BoardReporter(tell, node, Budget(ray.get(board.left.remote())))
    if teller.look():
        return {}, True
    images = {config: _unpacked(ray.get(ref)) for config, ref in sets.items()}
    runs, failed, stopped = {config.id: config for config in members}, dict[str, str](), False
    shares: Iterable[tuple[Store, Collection[str], Callable[[], bool]]] = [(job.store, runs, lambda: False)]
    if job.storage is not None:
        committed = job.store.records.parent / "teachers"
        shares = Storage(job.storage).shares(runs, teachers_of(members), teller.stop, committed)
    for store, ours, lost in shares:
        runner = _Worker(
            store, job.data_root, job.device, job.group, teller, dict(job.labels), job.engine,
            lambda needed, lost=lost: lost() or teller.stop(needed), sets=images,
        )  # fmt: skip
        runner.run([run for id, run in runs.items() if id in ours])
        failed |= runner.failed
        stopped |= runner.stopped and not lost()  # a lost lease ends no sweep: another has the run
    stopped = stopped or (job.storage is not None and teller.stop(0.0))
    teller.look()
    return failed, stopped


def _packed(images: ImageSet) -> ImageSet:
    """Return the set with arrays in place of tensors: Ray's object store lets arrays be read in place, uncopied."""
    return replace(images, **{name: getattr(images, name).numpy() for name in TENSORS})


def _unpacked(images: ImageSet) -> ImageSet:
    with warnings.catch_warnings(action="ignore"):  # the arrays are read-only, and nobody writes to them
        return replace(images, **{name: torch.from_numpy(getattr(images, name)) for name in TENSORS})
