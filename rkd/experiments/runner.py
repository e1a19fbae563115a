"""Get the records of a set of runs: load what is recorded, train what is not, teachers first, each run once."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from rkd.config import SETTLED
from rkd.data import DataConfig, ImageSet
from rkd.devices import pick_device
from rkd.errors import RecordError, RkdError
from rkd.experiments.group import RunGroup, check_teacher_file, load_images, to_device, trained_network
from rkd.experiments.progress import Progress, default_progress
from rkd.experiments.snapshots import has_maps
from rkd.experiments.weights import weights_file
from rkd.models import display_name
from rkd.records import Record, Store
from rkd.records.provenance import code_state
from rkd.training import Engine, RunConfig, TeacherConfig, arithmetic
from rkd.training.build import build_network, load_pretrained, rehearse
from rkd.training.capture import out_of_memory
from rkd.training.threads import Threads, thread_choices

POLL_SECONDS = 0.2  # between checks on runs that another process is training


def run_groups(
    configs: Iterable[RunConfig], largest: int, across_seeds: bool = False
) -> list[list[RunConfig]]:
    """Return groups of runs to train in lock-step, teachers first. The runs of a group differ only in network, method,
    options, losses or optimiser and have the same stages, so they can share batches and the teacher pass.

    Args:
        across_seeds: whether a group may mix seeds, each seed with its own batches and teacher pass. This pays off
            where a single run leaves the device idle, as on a GPU.
    """
    groups: dict[object, list[RunConfig]] = {}
    configs = list(configs)
    teachers = teachers_of(configs)
    for config in sorted(configs, key=lambda config: config.id not in teachers):
        seed = None if across_seeds else config.seed
        key = (
            config.id in teachers, config.data, seed, config.epochs, config.batch_size, config.precision,
            config.teacher, config.drop_last, config.stages,
        )  # fmt: skip
        groups.setdefault(key, []).append(config)
    return [
        sorted(group, key=lambda config: config.seed)[i : i + largest]
        for group in groups.values()
        for i in range(0, len(group), largest)
    ]


def teacher_configs(runs: Iterable[RunConfig]) -> list[TeacherConfig]:
    """Return the teachers of `runs` whose weights are trained in a run of this package."""
    return [t for run in runs if (t := run.teacher) and t.run and t.weights != "random"]


def teachers_of(runs: Iterable[RunConfig]) -> dict[str, RunConfig]:
    """Return the teacher runs of `runs`, by id."""
    return {teacher.run.id: teacher.run for teacher in teacher_configs(runs)}


def required(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Return the runs and the teacher runs they need, teachers first, each once."""
    configs = list(configs)
    return list({run.id: run for run in (*teachers_of(configs).values(), *configs)}.values())


def unfinished(runs: Iterable[RunConfig], store: Store) -> list[RunConfig]:
    """Return what must be trained for settled `runs`: first the missing teachers, then the runs not recorded yet."""
    return with_missing_teachers([run for run in runs if not store.has(run.id)], store)


def with_missing_teachers(missing: Sequence[RunConfig], store: Store) -> list[RunConfig]:
    """Return the runs to be trained, preceded by those of their teachers that are not recorded or whose weights are
    not on this machine; each once."""
    wanted = {run.id for run in missing}
    wanted |= {t.run.id for t in teacher_configs(missing) if weights_file(store, t.run.id, t.weights) is None}
    return [run for run in required(missing) if run.id in wanted or not store.has(run.id)]


def settle(run: RunConfig, store: Store, device: torch.device) -> RunConfig:
    """Return the run with "auto" replaced by a named arithmetic, for the run and for its teacher. Whatever is trained,
    locked, saved and recorded is settled, so no record's identity depends on the machine that reads it.

    A run recorded in the device's own arithmetic is preferred, then one recorded in fp32, fp16 or bf16, in this order.
    A run without a record is to be trained in the device's own arithmetic, with a teacher that is recorded and whose
    weights are on this machine, preferred in the same order; without one, the teacher too takes the device's own.
    """
    if not any(run.open):
        return run
    own = taught = arithmetic("auto", device).name
    if recorded := next(store.recorded(run, own), None):
        return recorded
    if run.teacher and run.teacher.weights == "random":  # initial weights are the same in every arithmetic
        taught = SETTLED[0]
    for teacher in teacher_configs([run]):
        here = (r for r in store.recorded(teacher.run, own) if weights_file(store, r.id, teacher.weights))
        taught = next((r.precision for r in here), own)
    return run.settled(own, taught)


def describe_schedules(runs: Iterable[RunConfig]) -> list[str]:
    """Return in words how long and at which learning rates students and their teachers are trained, one line for each
    distinct pair of schedules. Runs with no teacher and no student are described alone."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    runs = list(runs)
    teachers = teachers_of(runs)
    for run in (run for run in runs if run.id not in teachers):
        of = run.teacher
        taught = of and (
            f"run {of.record}" if of.record
            else f"read from {Path(str(of.checkpoint)).name}" if of.run is None
            else "untrained" if of.weights == "random" else of.run.schedule
        )  # fmt: skip
        teaching, learning = found.setdefault((taught or "", run.schedule), ({}, {}))
        teaching |= dict.fromkeys([display_name(of.name)] if of else [])
        learning |= {display_name(run.network): None}
    return [
        (f"teacher {_few(teachers)}: {taught}; student " if taught else "") + f"{_few(networks)}: {own}"
        for (taught, own), (teachers, networks) in found.items()
    ]


def _few(found: Iterable[str]) -> str:
    names = list(found)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(eq=False)
class Runner:
    """Loads or trains runs against one store.

    Args:
        device: see `rkd.devices.pick_device`.
        group: largest number of runs to train in lock-step.
        progress: where events are reported; None picks one that suits the terminal, notebook or log.
        labels: kept in each new record's provenance, for people: profile, recipe, chapter.
        stop: called throughout training with the seconds the next piece of work is expected to take; True ends
            training with everything saved.
        maps: keep maps of runs while they train. Where missing runs are trained, a run recorded without its maps is
            trained again for them; its record stays as it is.
        sets: data sets already in memory, which are not read from `data_root`.

    Attributes:
        stopped: whether `run` ended because `stop` returned True.
        failed: why a run could not be loaded or trained, by its id: its record or checkpoint, or its teacher's, is
            damaged. This was reported when it was found; nothing was overwritten, and the other runs went on.
    """

    store: Store
    data_root: Path
    device: str | torch.device = "auto"
    group: int = 8
    progress: Progress | None = None
    labels: dict[str, str] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    stop: Callable[[float], bool] = lambda needed: False
    maps: bool = False
    sets: Mapping[DataConfig, ImageSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data_root, self.device = Path(self.data_root), pick_device(self.device)
        self.progress = self.progress or default_progress()
        self.engine.check(self.device)
        self.threads = Threads(thread_choices(self.engine.threads, self.device), self.progress.say)
        self.stopped, self.failed, self._said = False, {}, set[str]()
        self._rehearsed = set[tuple[object, ...]]()

    def images(self, config: DataConfig) -> ImageSet:
        """Return a data set on the device."""
        if config in self.sets:
            return self.sets[config].to(self.device)
        return load_images(config, self.data_root.resolve(), self.device)

    def fail(self, config: RunConfig, error: RecordError) -> None:
        """Note that a run cannot be loaded or trained, and report it once."""
        if config.id not in self.failed:
            self.failed[config.id] = str(error)
            self.progress.say(f"{config.id}: {error}")

    def run(self, configs: Iterable[RunConfig], on_missing: str = "train") -> dict[str, Record]:
        """Return the records of all runs that are recorded in the end, by the id of the run as it was requested.

        Args:
            configs: the runs wanted; those that leave the arithmetic open are settled first (see `settle`).
            on_missing: "train" missing runs, "skip" them (absent from the result), or "error" to raise.

        Raises:
            RkdError: on_missing is "error" and some run is not recorded.
            RecordError: on_missing is "error" and a record is damaged; or a teacher's checkpoint file is missing or is
                not the expected one.
            DataError: the data set is not available.
        """
        asked = {config.id: settle(config, self.store, self.device) for config in configs}
        wanted = list({run.id: run for run in asked.values()}.values())
        missing = [config for config in wanted if not self.store.has(config.id)]
        if missing and on_missing == "error":
            listed = ", ".join(config.id for config in missing[:5]) + ", ..." * (len(missing) > 5)
            raise RkdError(
                f"{len(missing)} of {len(wanted)} runs are not recorded in {self.store.records} ({listed}); "
                "train them (on_missing: train) or show them as missing (on_missing: skip)"
            )
        if on_missing == "train" and (left := [config for config in wanted if not self._ended(config)]):
            self._train(left)
        records = {}
        for run in filter(lambda run: self.store.has(run.id), wanted):
            try:
                records[run.id] = self.store.load(run.id)
            except RecordError as error:
                if on_missing == "error":
                    raise
                self.fail(run, error)
        return {name: records[run.id] for name, run in asked.items() if run.id in records}

    def say_once(self, text: str) -> None:
        """Report a text to `progress` unless it was reported before."""
        if text not in self._said:
            self._said.add(text)
            self.progress.say(text)

    def weights_file(self, run: str, which: str) -> Path | None:
        """Return the path of a finished run's "last" or "best" weights; None if they are not on this machine."""
        return weights_file(self.store, run, which)

    def network(self, config: RunConfig, which: str = "last") -> tuple[torch.nn.Module, ImageSet]:
        """Return a finished run's network with its "last" or "best" weights, on the device, and its data set."""
        config = settle(config, self.store, self.device)
        images = self.images(config.data)
        network, _ = trained_network(config, which, self.store, images.classes)
        return to_device(network, config, self.device), images

    def check(self, missing: Sequence[RunConfig]) -> None:
        """Raise errors that can be found before anything is trained for `missing`; report the runs' schedules."""
        code_state()  # raises if the commit cannot be read
        for teacher in {c.teacher for c in missing if c.teacher and c.teacher.run is None}:
            check_teacher_file(teacher)
        self._rehearse(with_missing_teachers(missing, self.store))
        for line in describe_schedules(missing):
            self.say_once(line)

    def _train(self, missing: Sequence[RunConfig]) -> None:
        """Train the runs that no other process is training, in groups, teachers first, until every run is recorded or
        `stop` returns True. Wait for runs that another process holds, and take them over if that process dies."""
        self.check(missing)
        runs, waited = with_missing_teachers(missing, self.store), False
        teachers = teachers_of(missing)
        while left := [c for c in runs if not self._ended(c, c.id in teachers)]:
            first = [c for c in left if c.id in teachers] or left
            trained = False
            for members in run_groups(first, self.group, across_seeds=self.device.type == "cuda"):
                self.stopped = self.stopped or self.stop(0.0)
                if self.stopped:
                    return
                with ExitStack() as held:
                    ours = [c for c in members if held.enter_context(self.store.lock(c.id))]
                    ours = [c for c in ours if not self._ended(c, c.id in teachers)]
                    trained = trained or bool(ours)
                    self._train_group(ours)
            if not trained:
                if not waited:
                    names = ", ".join(config.id for config in first)
                    self.progress.say(f"waiting for another process, which is training {names}")
                waited = True
                time.sleep(POLL_SECONDS)

    def _rehearse(self, runs: Iterable[RunConfig]) -> None:
        """Raise for runs that cannot be trained before their teachers are, each kind once. Report images left out."""
        kinds = {
            (
                r.data, r.batch_size, r.drop_last, r.network, r.pretrained, r.teacher and r.teacher.name, r.method,
                repr(r.options),
            ): r for r in runs
        }  # fmt: skip
        alone = set()
        for run in (run for kind, run in kinds.items() if kind not in self._rehearsed):
            images = self.images(run.data)
            rehearse(run, images.train_x.shape[1], images.classes, images.train_y)
            begun = (self.store.folder(run.id) / "checkpoint.pt").exists()
            if run.pretrained is not None and not begun:
                self.say_once(load_pretrained(build_network(run, images.classes), run, images.classes))
            if len(images.train_y) % run.batch_size == 1 and not run.drop_last:
                alone.add((len(images.train_y), run.batch_size))
        self._rehearsed |= kinds.keys()
        for images, size in sorted(alone):
            self.say_once(
                f"of {images:,} training images one, another in every epoch, is left out: it would be a last batch of "
                f"its own after those of {size}, and a step takes two images at least"
            )

    def _train_group(self, left: list[RunConfig]) -> None:
        """Train runs whose locks are held. A run group too large for the device's memory is halved and continues from
        its checkpoints."""
        while left and not self.stopped:
            members = left[: self.group]
            try:
                self.stopped = not RunGroup(members, self).train()
                left = left[len(members) :]
                continue
            except RecordError as error:  # the teacher's, which all of them share
                for config in members:
                    self.fail(config, error)
                left = left[len(members) :]
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(members) == 1:
                    raise RkdError(
                        f"run {members[0].id} does not fit into the memory of {self.device}, even alone; "
                        "take a smaller batch_size or another device"
                    ) from error
            gc.collect()  # frees the failed step's tensors, which the error held
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.group = (len(members) + 1) // 2
            self.progress.say(
                f"out of memory with {len(members)} runs in lock-step; going on with {self.group} at a time"
            )

    def _ended(self, config: RunConfig, weights: bool = False) -> bool:
        """Whether nothing is left to do for a run: it has failed; or it is recorded, with its maps where they are
        wanted and, if `weights`, with its last and best weights on this machine."""
        if config.id in self.failed:
            return True
        if not self.store.has(config.id):
            return False
        mapless = self.maps and has_maps(config) and not self.store.maps(config.id).exists()
        if mapless or weights:
            try:
                finished = self.store.load(config.id).status == "finished"
            except RecordError as error:
                self.fail(config, error)
                return True
        if mapless:
            return not finished
        return not weights or all(self.weights_file(config.id, which) for which in ("last", "best"))
