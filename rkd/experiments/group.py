"""One run group from its configs to its records: networks and methods built or resumed, trained, saved, recorded."""

import dataclasses
import datetime
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rkd import data as datasets
from rkd import models, paths
from rkd.data import DataConfig, ImageSet, used_images
from rkd.errors import RecordError
from rkd.experiments.progress import Progress, epoch_line
from rkd.experiments.snapshots import SnapshotTaker
from rkd.files import replacing, sha256
from rkd.records import Record, Store
from rkd.records.energy import EnergyShares
from rkd.records.provenance import code_state, machine_state, peak_memory_mb
from rkd.records.teachers import load_teacher, teacher_file
from rkd.training import (
    RunConfig,
    TeacherConfig,
    TrainState,
    accuracy,
    arithmetic,
    checkpoint,
    train,
)
from rkd.training import capture as graphs
from rkd.training.arithmetic import exact_kernels
from rkd.training.engine import Engine
from rkd.training.loop import scored_networks
from rkd.training.state import build_method, build_network
from rkd.training.teacher import frozen_teacher
from rkd.training.threads import Threads

SAVING_SHARE = 0.05  # of the time may go into checkpoints: epochs on a GPU are hardly longer than writing one
SAVE_WITHIN_EPOCH = 30.0  # seconds at least; epochs may be long, and machines go away


@functools.lru_cache(maxsize=2)
def load_images(config: DataConfig, root: Path, device: torch.device) -> ImageSet:
    """The data set on its device, kept for the next group."""
    return datasets.load(config, root).to(device)


def place(module: nn.Module, config: RunConfig, device: torch.device) -> nn.Module:
    """On the device, in the run's master precision, channels last."""
    master = arithmetic(config.precision, device).master
    return module.to(device=device, dtype=master, memory_format=torch.channels_last)


def weights_file(store: Store, run: str, which: str) -> Path | None:
    """Where the "last" or "best" weights of an ended run lie: what its training left here, else a committed teacher in
    half precision; None: nowhere."""
    for path in (store.folder(run) / f"{which}.pt", teacher_file(store, run, which)):
        if path.exists():
            return path
    return None


def load_run_weights(network: nn.Module, path: Path) -> None:
    """Load what `weights_file` found."""
    if path.suffix == ".safetensors":
        network.load_state_dict(load_teacher(path)[0])
    else:
        models.load_weights(network, path)


def check_teacher_file(teacher: TeacherConfig) -> Path:
    """Where the checkpoint file of a teacher that is no run of ours lies.

    Raises:
        RecordError: it is not there, or is another one.
    """
    path = paths.home() / teacher.checkpoint
    if not path.is_file():
        raise RecordError(
            f"teacher checkpoint {path} does not exist; put the {models.display_name(teacher.name)} with sha256 "
            f"{teacher.sha256} there, or name a file of your own as teacher_checkpoint"
        )
    if (found := sha256(path)) != teacher.sha256:
        raise RecordError(f"teacher checkpoint {path} has sha256 {found}, not {teacher.sha256}")
    return path


def load_teacher_network(
    teacher: TeacherConfig, store: Store, classes: int
) -> tuple[nn.Module, dict[str, object]]:
    """The teacher's network on the CPU, and what a record says of it.

    Raises:
        RecordError: its file is missing or another one, or its run diverged.
    """
    facts: dict[str, object] = {"network": teacher.name, "weights": teacher.weights}
    if teacher.run is None:
        path = check_teacher_file(teacher)
        network = models.build(teacher.name, classes)
        models.load_weights(network, path)
        return network, {**facts, "sha256": teacher.sha256}
    network = build_network(teacher.run, classes)
    facts["run"] = teacher.run.id
    if teacher.weights == "random":
        return network, facts
    record = store.load(teacher.run.id)
    if record.status != "finished":
        raise RecordError(
            f"teacher run {record.id} ended as {record.status!r}; a student cannot learn from it"
        )
    path = weights_file(store, teacher.run.id, teacher.weights)
    if path is None:
        raise RecordError(f"the {teacher.weights} weights of teacher run {record.id} are not on this machine")
    load_run_weights(network, path)
    stored = "fp16" if path.suffix == ".safetensors" else "fp32"
    return network, {**facts, "stored": stored, "accuracy": record.accuracy(teacher.weights)}


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What groups need besides their configs; fields as of `runner.Runner`."""

    store: Store
    data_root: Path
    device: torch.device
    engine: Engine
    progress: Progress
    labels: dict[str, str]
    stop: Callable[[float], bool]
    threads: Threads | None = None
    snapshots: SnapshotTaker | None = None


class RunGroup:
    """Runs that are trained in lock-step by this process, which holds their locks.

    Args:
        configs: see `execute.groups`.
        around: where.
    """

    def __init__(self, configs: Sequence[RunConfig], around: Surroundings) -> None:
        self.configs, self.around = list(configs), around
        self.started = datetime.datetime.now(datetime.UTC)
        first = configs[0]
        self.images = load_images(first.data, around.data_root.resolve(), around.device)
        self._epoch_images = used_images(len(self.images.train_y), first.batch_size, first.drop_last)
        frozen, self.teacher_facts = None, None
        if first.teacher is not None:
            frozen, self.teacher_facts = load_teacher_network(
                first.teacher, around.store, self.images.classes
            )
        self.states = [self._state(config, frozen) for config in configs]
        self.teacher = None
        if frozen is not None:
            self.teacher = frozen_teacher(
                place(frozen, first, around.device),
                first.teacher.batch_norm,
                self.states[0].arithmetic,
                around.engine.compile,
                (first.batch_size, 3, *self.images.train_x.shape[1:3]),
                around.progress.say,
            )
        self._captured = around.engine.captures(around.device, [c.method for c in configs])
        self._saved, self._save_seconds = time.monotonic(), 0.0
        self._energy = EnergyShares(around.device)

    def train(self) -> bool:
        """Train and record; False when it was stopped, with everything saved."""
        first, progress = self.configs[0], self.around.progress
        progress.begin(_title(self.configs), first.total_epochs, self._epoch_images)
        try:
            with exact_kernels():
                ended = train(
                    self.states,
                    self.images,
                    self.teacher,
                    capture=self._capture if self._captured else None,
                    cold_seconds=self.around.engine.cold_seconds(self.around.device),
                    on_batch=self._batch_ended,
                    on_epoch=self._epoch_ended,
                    stop=self.around.stop,
                    threads=self.around.threads,
                )
        finally:
            progress.end()
        if ended:
            self._count_energy()
        else:
            self._save()
        for state in self.states:
            if state.diverged or state.epoch == state.config.total_epochs:
                self._finish(state)
        return ended

    def _capture(
        self, body: graphs.Body, changed: Sequence[Tensor], moving: Sequence[Sequence[Tensor]]
    ) -> graphs.Body:
        """A CUDA graph; the function as it is once one has failed, unless a graph was asked for by name."""
        if self._captured:
            try:
                return graphs.cuda_graph(body, changed, moving)
            except graphs.CaptureError as error:
                if self.around.engine.graph:
                    raise
                self._captured = False
                self.around.progress.say(
                    f"no CUDA graph, steps are launched one kernel at a time from here on ({error})"
                )
        return body

    def _state(self, config: RunConfig, teacher: nn.Module | None) -> TrainState:
        around, images = self.around, self.images
        network = build_network(config, images.classes)
        method = None
        if config.method is not None:
            size = images.train_x.shape[1]
            method = build_method(
                config, network, teacher, size, images.classes, len(images.train_y), images.train_y
            )
            method = place(method, config, around.device)
        compiled = around.engine.compiles_students(around.device)
        state = TrainState(config, place(network, config, around.device), method, compiled)
        path = around.store.folder(config.id) / "checkpoint.pt"
        if path.exists():
            saved = checkpoint.load(path)
            if saved.get("run") != config.id:
                raise RecordError(
                    f"checkpoint {path} belongs to run {saved.get('run')}; delete it to start again"
                )
            state.load_state_dict(saved)
            within = f" and {state.position} images" if state.position else ""
            around.progress.say(f"{config.id}: resuming after epoch {state.epoch}{within}")
        return state

    def _batch_ended(self, epoch: int, done: int, total: int) -> None:
        self.around.progress.batch(epoch, done, total)
        if time.monotonic() - self._saved > max(SAVE_WITHIN_EPOCH, self._save_seconds / SAVING_SHARE):
            self._save()

    def _epoch_ended(self, state: TrainState) -> None:
        if time.monotonic() - self._saved > self._save_seconds / SAVING_SHARE:
            self._save()
        folder = self.around.store.folder(state.config.id)
        with open(folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} {epoch_line(state)}\n")
        if self.around.snapshots is not None and self.teacher is not None and state.stage is None:
            self.around.snapshots.take(state, self.teacher.network, self.images, folder)
        self.around.progress.epoch(state)

    def _count_energy(self) -> None:
        share = self._energy.share(len(self.states))
        for state in self.states:
            state.joules += share

    def _save(self) -> None:
        self._count_energy()
        started = time.monotonic()
        for state in self.states:
            folder = self.around.store.folder(state.config.id)
            checkpoint.save(state.state_dict(), folder / "checkpoint.pt")
        self._saved = time.monotonic()
        self._save_seconds = self._saved - started

    def _finish(self, state: TrainState) -> None:
        config, store = state.config, self.around.store
        folder = store.folder(config.id)
        last = {"run": config.id, "epoch": state.epoch, "student": state.student.state_dict()}
        if state.method is not None and state.method.networks(state.student):
            last["method"] = state.method.state_dict()  # it holds further networks
        checkpoint.save(last, folder / "last.pt")
        best = state.best
        checkpoint.save(
            {"run": config.id, "epoch": best["epoch"] + 1, "student": best["student"]}, folder / "best.pt"
        )
        if (folder / "maps.npz").exists():  # before the record, which says that all of the run is there
            with replacing(
                store.maps(config.id)
            ) as temporary:  # a copy: the folders may be on different disks
                shutil.copyfile(folder / "maps.npz", temporary)
            (folder / "maps.npz").unlink()
        if not store.has(config.id):  # weights of a recorded teacher may have been trained again
            store.save(self._record(state))
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def _scores(self, state: TrainState) -> dict[str, float]:
        """Accuracies for the record, in percent: of the student at the last epoch and at its best, and of a method's
        further networks. Where epochs were scored in low precision, last and best weights are scored again in full; a
        further network's best, whose weights are not kept, stays as it was scored."""
        curves, best = state.curves, state.best["epoch"]
        last = {f"test_accuracy{suffix}": network for suffix, network in scored_networks(state).items()}
        found = {name: curves[name][-1] for name in last}
        found_best = {name: max(curves[name]) for name in last} | {
            "test_accuracy": curves["test_accuracy"][best]
        }
        if state.arithmetic.low is not None and not state.diverged:
            found = {name: self._accuracy(network) for name, network in last.items()}
            network = build_network(state.config, self.images.classes)
            network.load_state_dict(state.best["student"])
            found_best["test_accuracy"] = self._accuracy(place(network, state.config, self.around.device))
        return {
            f"{which}_{name.removeprefix('test_')}": value
            for which, values in (("last", found), ("best", found_best))
            for name, value in values.items()
        }

    def _accuracy(self, network: nn.Module) -> float:
        images = self.images
        return accuracy(network, images.test_x, images.test_y, images.mean, images.std)

    def _record(self, state: TrainState) -> Record:
        method, images, around = state.method, self.images, self.around
        return Record(
            config=state.config,
            status="diverged" if state.diverged else "finished",
            curves=state.curves,
            result={
                **self._scores(state),
                "best_epoch": state.best["epoch"],
                "epochs": len(state.curves["test_accuracy"]),
            },
            cost={
                "train_seconds": state.seconds,
                "images_per_second": state.epoch * self._epoch_images / state.seconds,
                "energy_kj": state.joules / 1000 or None,
                "peak_memory_mb": peak_memory_mb(around.device),
                "parameters": models.parameter_count(state.student),
                "extra_parameters": 0 if method is None else models.parameter_count(method),
                "gang": len(self.states),
                "arithmetic": state.arithmetic.name,
                "compiled": around.engine.compile,
                "graph": self._captured,
                "threads": state.threads,
                "teacher_form": None if self.teacher is None else self.teacher.form,
            },
            provenance={
                **code_state(),
                **machine_state(around.device),
                "threads": int(max(state.threads, key=state.threads.get, default=torch.get_num_threads())),
                "labels": around.labels,
                "data_sha256": images.checksum,
                "train_images": len(images.train_y),
                "test_images": len(images.test_y),
                "teacher": self.teacher_facts,
                "scored": {"curves": state.arithmetic.name, "result": state.arithmetic.full},
                "started": f"{self.started:%Y-%m-%dT%H:%M:%SZ}",
                "ended": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            },
        )


def _title(configs: Sequence[RunConfig]) -> str:
    first = configs[0]
    pair = models.display_name(first.network)
    if first.teacher is not None:
        pair = f"{pair} <- {models.display_name(first.teacher.name)}"
    seeds = sorted({config.seed for config in configs})
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    company = f", {len(configs)} runs in lock-step" if len(configs) > 1 else ""
    return f"{pair}, {named}{company}"
