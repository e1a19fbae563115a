"""Get the records of a set of runs: load what is recorded, train what is not, teachers first, each run once."""

import datetime
import functools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from rkd import data as datasets
from rkd import models
from rkd.data import DataConfig, ImageSet
from rkd.errors import ConfigError, RecordError, RkdError
from rkd.experiments.progress import Progress, default_progress, epoch_line
from rkd.models.checkpoints import sha256
from rkd.records import Record, Store
from rkd.records.provenance import code_state, machine_state, peak_memory_mb
from rkd.training import FrozenTeacher, Learner, RunConfig, TeacherConfig, accuracy, checkpoint, train
from rkd.training.learner import build_method, build_network
from rkd.training.probe import linear_probe


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


@functools.lru_cache(maxsize=2)
def _images(config: DataConfig, root: Path, device: torch.device) -> ImageSet:
    return datasets.load(config, root).to(device)


def gangs(configs: Iterable[RunConfig], largest: int) -> list[list[RunConfig]]:
    """Runs that can share batches and teacher: they differ in network, method, options, losses or optimiser alone."""
    groups: dict[object, list[RunConfig]] = {}
    for config in configs:
        key = (config.data, config.seed, config.epochs, config.batch_size, config.precision, config.teacher)
        groups.setdefault(key, []).append(config)
    return [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]


def required(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs and the teacher runs they need, teachers first, each once."""
    configs = list(configs)
    teachers = [
        c.teacher.run for c in configs if c.teacher and c.teacher.run and c.teacher.weights != "random"
    ]
    return list({config.id: config for config in [*teachers, *configs]}.values())


@dataclass(frozen=True)
class _Circumstances:
    """What a record says of the steps it shared with its gang."""

    images: ImageSet
    started: datetime.datetime
    teacher: dict[str, object] | None
    gang: int


class Executor:
    """Runs configs against one store.

    Args:
        store: where records and working files lie.
        data_root: folder of the data sets.
        device: see `pick_device`.
        gang: most runs to train in lock-step.
        progress: told what happens; None picks one that suits the place.
        labels: kept in each new record's provenance, for people: profile, recipe, chapter.
    """

    def __init__(
        self,
        store: Store,
        data_root: Path,
        device: str = "auto",
        gang: int = 8,
        progress: Progress | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        self.store = store
        self.data_root = Path(data_root)
        self.device = pick_device(device)
        self.gang = gang
        self._progress = progress
        self.labels = labels or {}

    @property
    def progress(self) -> Progress:
        """Made when first needed, so that nothing is shown where nothing is trained."""
        if self._progress is None:
            self._progress = default_progress()
        return self._progress

    def run(self, configs: Iterable[RunConfig], on_missing: str = "train") -> dict[str, Record]:
        """Records by run id, of all that are recorded in the end.

        Args:
            configs: the runs wanted.
            on_missing: "train" them, "skip" them (absent from the result), or raise.

        Raises:
            MissingRunsError: on_missing is "error" and some run is not recorded.
            RecordError: a record or checkpoint is damaged.
            DataError: the data cannot be had.
        """
        wanted = list({config.id: config for config in configs}.values())
        missing = [config for config in wanted if not self.store.has(config.id)]
        if missing and on_missing == "error":
            listed = ", ".join(config.id for config in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise MissingRunsError(
                f"{len(missing)} of {len(wanted)} runs are not recorded in {self.store.records} ({listed}); "
                "train them (on_missing: train) or show them as missing (on_missing: skip)"
            )
        if missing and on_missing == "train":
            for config in missing:
                datasets.check(config.data, self.data_root)
            teachers = {c.teacher.run.id: c.teacher.run for c in missing if self._needs_training(c.teacher)}
            self._train_all(list(teachers.values()), weights=True)
            self._train_all([config for config in missing if config.id not in teachers])
        return {config.id: self.store.load(config.id) for config in wanted if self.store.has(config.id)}

    def weights_file(self, run: str, which: str) -> Path:
        """Where the "last" or "best" weights of an ended run lie."""
        return self.store.folder(run) / f"{which}.pt"

    def network(self, config: RunConfig, which: str = "last") -> tuple[torch.nn.Module, ImageSet]:
        """An ended run's network with its "last" or "best" weights, on the device, and its data set."""
        images = _images(config.data, self.data_root.resolve(), self.device)
        network = models.build(config.network, images.classes)
        models.load_weights(network, self.weights_file(config.id, which))
        return self._placed(network, config), images

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
        return not (self.store.has(run) and self.weights_file(run, teacher.weights).exists())

    def _train_all(self, configs: Sequence[RunConfig], weights: bool = False) -> None:
        """Train what another process is not training; wait for the rest."""
        for members in gangs(configs, self.gang):
            with ExitStack() as held:
                ours = [c for c in members if held.enter_context(self.store.lock(c.id, wait=False))]
                ours = [c for c in ours if not self._ended(c, weights)]
                if ours:
                    self._train_gang(ours)
        for config in configs:
            if self._ended(config, weights):
                continue
            with self.store.lock(config.id, wait=True):
                # Another process had it, and has now ended it or been killed.
                if not self._ended(config, weights):
                    self._train_gang([config])

    def _ended(self, config: RunConfig, weights: bool) -> bool:
        files = [self.weights_file(config.id, which) for which in ("last", "best")] if weights else []
        return self.store.has(config.id) and all(file.exists() for file in files)

    def _train_gang(self, configs: Sequence[RunConfig]) -> None:
        first = configs[0]
        images = _images(first.data, self.data_root.resolve(), self.device)
        started = datetime.datetime.now(datetime.UTC)
        size = images.train_x.shape[1]
        frozen, teacher_facts = self._load_teacher(first, images.classes)
        learners = []
        for config in configs:
            network = build_network(config, images.classes)
            method = None
            if config.method is not None:
                method = build_method(config, network, frozen, size, images.classes, len(images.train_y))
            learners.append(self._learner(config, network, method))
        teacher = None
        if frozen is not None:
            teacher = FrozenTeacher(self._placed(frozen, first), first.teacher.batch_norm)
        self.progress.begin(_title(configs), first.epochs, len(images.train_y))
        # As the released codes: deterministic kernels. And fp32 means fp32, where cuDNN would take TF32 by itself.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        try:
            with exact:
                train(learners, images, teacher, on_batch=self.progress.batch, on_epoch=self._epoch_ended)
        finally:
            self.progress.end()
        around = _Circumstances(images, started, teacher_facts, len(learners))
        for learner in learners:
            self._finish(learner, around)

    def _learner(
        self, config: RunConfig, network: torch.nn.Module, method: torch.nn.Module | None
    ) -> Learner:
        placed_method = None if method is None else self._placed(method, config)
        learner = Learner(config, self._placed(network, config), placed_method)
        path = self.store.folder(config.id) / "checkpoint.pt"
        if path.exists():
            state = checkpoint.load(path)
            if state.get("run") != config.id:
                raise RecordError(
                    f"checkpoint {path} belongs to run {state.get('run')}; delete it to start again"
                )
            learner.load_state(state)
            self.progress.say(f"{config.id}: resuming after epoch {learner.epoch}")
        return learner

    def _placed(self, module: torch.nn.Module, config: RunConfig) -> torch.nn.Module:
        dtype = torch.float64 if config.precision == "fp64" else torch.float32
        return module.to(device=self.device, dtype=dtype, memory_format=torch.channels_last)

    def _load_teacher(
        self, config: RunConfig, classes: int
    ) -> tuple[torch.nn.Module | None, dict[str, object] | None]:
        teacher = config.teacher
        if teacher is None:
            return None, None
        facts: dict[str, object] = {"network": teacher.name, "weights": teacher.weights}
        if teacher.run is None:
            path = Path(teacher.checkpoint)
            found = sha256(path) if path.is_file() else None
            if found != teacher.sha256:
                what = "does not exist" if found is None else f"has sha256 {found}, not {teacher.sha256}"
                raise RecordError(f"teacher checkpoint {path} {what}")
            network = models.build(teacher.name, classes)
            models.load_weights(network, path)
            return network, {**facts, "sha256": found}
        network = build_network(teacher.run, classes)
        facts["run"] = teacher.run.id
        if teacher.weights == "random":
            return network, facts
        models.load_weights(network, self.weights_file(teacher.run.id, teacher.weights))
        record = self.store.load(teacher.run.id)
        if record.status != "finished":
            raise RecordError(
                f"teacher run {record.id} ended as {record.status!r}; a student cannot learn from it"
            )
        return network, {**facts, "accuracy": record.accuracy(teacher.weights)}

    def _epoch_ended(self, learner: Learner) -> None:
        folder = self.store.folder(learner.config.id)
        checkpoint.save(learner.state(), folder / "checkpoint.pt")
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} {epoch_line(learner)}\n")
        self.progress.epoch(learner)

    def _finish(self, learner: Learner, around: _Circumstances) -> None:
        config, folder = learner.config, self.store.folder(learner.config.id)
        checkpoint.save(
            {"run": config.id, "epoch": learner.epoch, "student": learner.student.state_dict()},
            folder / "last.pt",
        )
        best = learner.best
        checkpoint.save(
            {"run": config.id, "epoch": best["epoch"] + 1, "student": best["student"]}, folder / "best.pt"
        )
        if not self.store.has(config.id):  # weights of a recorded teacher may have been trained again
            self.store.save(self._record(learner, around))
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def _record(self, learner: Learner, around: _Circumstances) -> Record:
        tests = learner.curves["test_accuracy"]
        method, images = learner.method, around.images
        return Record(
            config=learner.config,
            status="diverged" if learner.diverged else "finished",
            curves=learner.curves,
            result={
                "last_accuracy": tests[-1],
                "best_accuracy": tests[learner.best["epoch"]],
                "best_epoch": learner.best["epoch"],
                "epochs": learner.epoch,
            },
            cost={
                "train_seconds": learner.seconds,
                "images_per_second": learner.epoch * len(images.train_y) / learner.seconds,
                "peak_memory_mb": peak_memory_mb(self.device),
                "parameters": models.parameter_count(learner.student),
                "extra_parameters": 0 if method is None else models.parameter_count(method),
                "gang": around.gang,
            },
            provenance={
                **code_state(),
                **machine_state(self.device),
                "labels": self.labels,
                "data_sha256": images.checksum,
                "train_images": len(images.train_y),
                "test_images": len(images.test_y),
                "teacher": around.teacher,
                "started": f"{around.started:%Y-%m-%dT%H:%M:%SZ}",
                "ended": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            },
        )


def _title(configs: Sequence[RunConfig]) -> str:
    first = configs[0]
    pair = models.display_name(first.network)
    if first.teacher is not None:
        pair = f"{pair} <- {models.display_name(first.teacher.name)}"
    company = f", {len(configs)} runs in lock-step" if len(configs) > 1 else ""
    return f"{pair}, seed {first.seed}{company}"


def run(config: RunConfig, store: Store, data_root: Path | str = "data", **options: object) -> Record:
    """The record of one run: loaded if there, else trained (its teacher first, if that is missing too).

    Args:
        config: the run.
        store: where it is recorded.
        data_root: folder of the data sets.
        options: of `Executor`.
    """
    return Executor(store, Path(data_root), **options).run([config])[config.id]
