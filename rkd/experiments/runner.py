"""Get the records of a set of runs: load what is recorded, train what is not, teachers first, each run once."""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from rkd import data as datasets
from rkd import models
from rkd.data import ImageSet
from rkd.errors import ConfigError, RkdError
from rkd.experiments.group import (
    RunGroup,
    Surroundings,
    check_teacher_file,
    load_images,
    load_run_weights,
    place,
    weights_file,
)
from rkd.experiments.progress import Progress, default_progress
from rkd.experiments.settle import settle
from rkd.experiments.snapshots import SnapshotTaker
from rkd.records import Record, Store
from rkd.records.provenance import code_state
from rkd.training import Engine, RunConfig, TeacherConfig, accuracy
from rkd.training.capture import out_of_memory
from rkd.training.probe import linear_probe

POLL_SECONDS = 0.2  # between looks at what another process is training


class MissingRunsError(RkdError):
    """Runs are not recorded and were not to be trained."""


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: a device this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name!r} was asked for, but this machine has no CUDA device; use cpu or auto"
        )
    return device


def run_groups(
    configs: Iterable[RunConfig], largest: int, across_seeds: bool = False
) -> list[list[RunConfig]]:
    """Runs to train in lock-step: they differ in network, method, options, losses or optimiser alone, and have equal
    stages, so that batches and teacher pass serve all of them.

    Args:
        configs: the runs.
        largest: most members of a group.
        across_seeds: runs of several seeds may go together, each seed with its own batches and teacher pass. Worth it
            where a run by itself leaves the device idle: on a GPU.
    """
    groups: dict[object, list[RunConfig]] = {}
    for config in configs:
        seed = None if across_seeds else config.seed
        key = (
            config.data, seed, config.epochs, config.batch_size, config.precision, config.teacher, config.drop_last,
            config.stages,
        )  # fmt: skip
        groups.setdefault(key, []).append(config)
    return [
        sorted(group, key=lambda config: config.seed)[i : i + largest]
        for group in groups.values()
        for i in range(0, len(group), largest)
    ]


def required(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs and the teacher runs they need, teachers first, each once."""
    configs = list(configs)
    teachers = [
        c.teacher.run for c in configs if c.teacher and c.teacher.run and c.teacher.weights != "random"
    ]
    return list({config.id: config for config in [*teachers, *configs]}.values())


class Runner:
    """Runs configs against one store.

    Args:
        store: where records and working files lie.
        data_root: folder of the data sets.
        device: see `pick_device`.
        group: most runs to train in lock-step.
        progress: told what happens; None picks one that suits the place.
        labels: kept in each new record's provenance, for people: profile, recipe, chapter.
        engine: how steps are computed.
        stop: asked, all along, with the seconds the next piece of work is expected to take; True ends training with
            everything saved.

    Attributes:
        stopped: whether `run` ended because `stop` said so.
    """

    def __init__(
        self,
        store: Store,
        data_root: Path,
        device: str = "auto",
        group: int = 8,
        progress: Progress | None = None,
        labels: dict[str, str] | None = None,
        engine: Engine | None = None,
        stop: Callable[[float], bool] = lambda needed: False,
    ) -> None:
        self.store = store
        self.data_root = Path(data_root)
        self.device = pick_device(device)
        self.group = group
        self._progress = progress
        self.labels = labels or {}
        self.engine = engine or Engine()
        self.engine.check(self.device)
        self._threads = self.engine.thread_choice(self.device, lambda text: self.progress.say(text))
        self.stop = stop
        self.stopped = False

    @property
    def progress(self) -> Progress:
        """Made when first needed, so that nothing is shown where nothing is trained."""
        if self._progress is None:
            self._progress = default_progress()
        return self._progress

    def run(
        self,
        configs: Iterable[RunConfig],
        on_missing: str = "train",
        snapshots: SnapshotTaker | None = None,
    ) -> dict[str, Record]:
        """Records by the id of the run that was asked for, of all that are recorded in the end.

        Args:
            configs: the runs wanted; those that leave the arithmetic open are settled first (see `settle`).
            on_missing: "train" them, "skip" them (absent from the result), or raise.
            snapshots: keep maps of these runs while they train; a run that is recorded without its maps is trained
                again for them where missing runs are trained, and its record stays as it is.

        Raises:
            MissingRunsError: on_missing is "error" and some run is not recorded.
            RecordError: a record or checkpoint is damaged.
            DataError: the data cannot be had.
        """
        asked = {config.id: settle(config, self.store, self.device) for config in configs}
        wanted = list({config.id: config for config in asked.values()}.values())
        missing = [config for config in wanted if not self.store.has(config.id)]
        if missing and on_missing == "error":
            listed = ", ".join(config.id for config in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise MissingRunsError(
                f"{len(missing)} of {len(wanted)} runs are not recorded in {self.store.records} ({listed}); "
                "train them (on_missing: train) or show them as missing (on_missing: skip)"
            )
        if on_missing == "train" and snapshots is not None:
            missing = [config for config in wanted if not self._ended(config, snapshots=snapshots)]
        if missing and on_missing == "train":
            code_state()  # a commit that cannot be read is told before anything is trained
            for config in missing:
                datasets.check(config.data, self.data_root)
            for teacher in {c.teacher for c in missing if c.teacher and c.teacher.run is None}:
                check_teacher_file(teacher)
            teachers = {c.teacher.run.id: c.teacher.run for c in missing if self._needs_training(c.teacher)}
            self._train_all(list(teachers.values()), weights=True)
            if not self.stopped:
                others = [config for config in missing if config.id not in teachers]
                self._train_all(others, snapshots=snapshots)
        records = {run.id: self.store.load(run.id) for run in wanted if self.store.has(run.id)}
        return {name: records[run.id] for name, run in asked.items() if run.id in records}

    def weights_file(self, run: str, which: str) -> Path | None:
        """Where the "last" or "best" weights of an ended run lie; None: not on this machine."""
        return weights_file(self.store, run, which)

    def network(self, config: RunConfig, which: str = "last") -> tuple[torch.nn.Module, ImageSet]:
        """An ended run's network with its "last" or "best" weights, on the device, and its data set."""
        config = settle(config, self.store, self.device)
        images = load_images(config.data, self.data_root.resolve(), self.device)
        network = models.build(config.network, images.classes)
        path = self.weights_file(config.id, which)
        if path is None:
            raise RkdError(f"the {which} weights of run {config.id} are not on this machine")
        load_run_weights(network, path)
        return place(network, config, self.device), images

    def evaluate(self, config: RunConfig, which: str = "last") -> float:
        """Test accuracy in percent of an ended run's weights, measured again."""
        network, images = self.network(config, which)
        return accuracy(network, images.test_x, images.test_y, images.mean, images.std)

    def probe(self, config: RunConfig) -> float:
        """Test accuracy in percent of a linear layer refitted on an ended run's features."""
        return linear_probe(*self.network(config))

    def _needs_training(self, teacher: TeacherConfig | None) -> bool:
        if teacher is None or teacher.run is None or teacher.weights == "random":
            return False
        run = teacher.run.id
        return not (self.store.has(run) and self.weights_file(run, teacher.weights))

    def _train_all(
        self,
        configs: Sequence[RunConfig],
        weights: bool = False,
        snapshots: SnapshotTaker | None = None,
    ) -> None:
        """Train what no other process is training, in groups, until every run is recorded or `stop` says so. A run that
        another process holds is waited for, and taken over if that process dies."""
        waited = False
        while left := [config for config in configs if not self._ended(config, weights, snapshots)]:
            trained = False
            for members in run_groups(left, self.group, across_seeds=self.device.type == "cuda"):
                if self.stop(0.0):
                    self.stopped = True
                    return
                with ExitStack() as held:
                    ours = [c for c in members if held.enter_context(self.store.lock(c.id))]
                    ours = [c for c in ours if not self._ended(c, weights, snapshots)]
                    if ours:
                        trained = True
                        if not self._train_group(ours, snapshots):
                            return
            if not trained:
                if not waited:
                    names = ", ".join(config.id for config in left)
                    self.progress.say(f"waiting for another process, which is training {names}")
                waited = True
                time.sleep(POLL_SECONDS)

    def _ended(
        self, config: RunConfig, weights: bool = False, snapshots: SnapshotTaker | None = None
    ) -> bool:
        wanted = ("last", "best") if weights else ()
        if snapshots is not None and snapshots.wants(config):
            diverged = self.store.has(config.id) and self.store.load(config.id).status != "finished"
            if not (diverged or self.store.maps(config.id).exists()):
                return False
        return self.store.has(config.id) and all(self.weights_file(config.id, which) for which in wanted)

    def _train_group(self, configs: Sequence[RunConfig], snapshots: SnapshotTaker | None) -> bool:
        """Train runs whose locks are held; False when stopped. A run group too large for the device's memory is halved,
        and goes on from its checkpoints."""
        left = list(configs)
        while left:
            members, left = left[: self.group], left[self.group :]
            ended = self._attempt(members, snapshots)
            if ended is None:
                gc.collect()  # the failed step's tensors
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.group = (len(members) + 1) // 2
                self.progress.say(
                    f"out of memory with {len(members)} runs in lock-step; going on with {self.group} at a time"
                )
                left = members + left
            elif not ended:
                self.stopped = True
                return False
        return True

    def _attempt(self, configs: Sequence[RunConfig], snapshots: SnapshotTaker | None) -> bool | None:
        """Whether the group was trained to its end (False: stopped); None: it did not fit into memory."""
        around = Surroundings(
            self.store,
            self.data_root,
            self.device,
            self.engine,
            self.progress,
            self.labels,
            self.stop,
            self._threads,
            snapshots,
        )
        try:
            return RunGroup(configs, around).train()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(configs) == 1:
                raise RkdError(
                    f"run {configs[0].id} does not fit into the memory of {self.device}, even alone; "
                    "take a smaller batch_size or another device"
                ) from error
        return None


def run(config: RunConfig, store: Store, data_root: Path | str = "data", **options: object) -> Record:
    """The record of one run: loaded if there, else trained (its teacher first, if that is missing too).

    Args:
        config: the run.
        store: where it is recorded.
        data_root: folder of the data sets.
        options: of `Runner`.
    """
    return Runner(store, Path(data_root), **options).run([config])[config.id]
