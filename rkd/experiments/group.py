"""Take one run group from configs to records: build or resume its networks and methods, train, save and record them."""

import datetime
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rkd import data as datasets
from rkd import models, paths
from rkd.config import CONTROL
from rkd.data import DataConfig, ImageSet, used_images
from rkd.errors import RecordError
from rkd.experiments import snapshots
from rkd.experiments.progress import epoch_line
from rkd.experiments.weights import weights_file
from rkd.files import known_file, naming_errors
from rkd.files import write_atomic as put
from rkd.records import Record, Store
from rkd.records.provenance import code_state, joules, machine_state, peak_memory_mb
from rkd.records.teachers import load_teacher
from rkd.training import (
    FrozenTeacher,
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
from rkd.training.build import build_method, build_network, load_pretrained

if TYPE_CHECKING:
    from rkd.experiments.runner import Runner

SAVING_SHARE = 0.05  # of the time at most, for checkpoints: writing one takes about as long as a GPU's epoch
SAVE_WITHIN_EPOCH = 30.0  # seconds between saves, at least; epochs may be long, and machines go away
# How far a teacher's accuracy may be from its record's, in test images. Another machine or number of threads changes
# logits by a millionth, half precision (committed teachers, another arithmetic) by a thousandth. That changes the
# prediction for the few images whose two best classes are that close; most such changes cancel out.
MOST_IMAGES_OFF, MOST_SHARE_OFF = 3, 0.005
_MEASURED: set[tuple[object, ...]] = set()  # teachers whose accuracy this process has measured


@functools.lru_cache(maxsize=2)
def load_images(config: DataConfig, root: Path, device: torch.device) -> ImageSet:
    """Return a data set on the device, cached for the next group."""
    return datasets.load(config, root).to(device)


def to_device(module: nn.Module, config: RunConfig, device: torch.device) -> nn.Module:
    """Return the module on the device, in the run's master precision and channels-last memory format."""
    master = arithmetic(config.precision, device).master
    return module.to(device=device, dtype=master, memory_format=torch.channels_last)


def trained_network(run: RunConfig, which: str, store: Store, classes: int) -> tuple[nn.Module, Path]:
    """Return a finished run's network with its "last" or "best" weights, on the CPU, and the file they came from.

    Raises:
        RecordError: the weights are not on this machine.
    """
    path = weights_file(store, run.id, which)
    if path is None:
        raise RecordError(f"the {which} weights of run {run.id} are not on this machine")
    network = build_network(run, classes)
    if path.suffix == ".safetensors":
        network.load_state_dict(load_teacher(path)[0])
    else:
        models.load_weights(network, path)
    return network, path


def check_teacher_file(teacher: TeacherConfig) -> Path:
    """Return the path of the checkpoint file of a teacher given as a file; RecordError if missing or different."""
    remedy = (
        f"put the {models.display_name(teacher.name)} with sha256 {teacher.sha256} there, or name a file of your own "
        "as teacher_checkpoint"
    )
    if teacher.record:
        remedy = f"carry run {teacher.record} here with its weights (`rkd records export` there, `rkd records import`)"
    return known_file(paths.home() / teacher.checkpoint, teacher.sha256, "teacher checkpoint", remedy)


def load_teacher_network(
    teacher: TeacherConfig, store: Store, classes: int
) -> tuple[nn.Module, dict[str, object]]:
    """Return the teacher's network on the CPU, and the facts about it that a student's record keeps.

    Raises:
        RecordError: its file is missing, is not the expected one or holds NaN or infinity, or its run diverged.
    """
    facts: dict[str, object] = {"network": teacher.name, "weights": teacher.weights}
    if teacher.run is None:
        network = models.build(teacher.name, classes)
        models.load_weights(network, check_teacher_file(teacher), finite=True)
        if teacher.record:  # its file is last.pt or ID-last.safetensors (or best)
            facts |= {"run": teacher.record, "weights": Path(teacher.checkpoint).stem.rpartition("-")[2]}
        return network, {**facts, "sha256": teacher.sha256}
    facts["run"] = teacher.run.id
    if teacher.weights == "random":
        return build_network(teacher.run, classes), facts
    record = store.load(teacher.run.id)
    if record.status != "finished":
        raise RecordError(
            f"teacher run {record.id} ended as {record.status!r}; a student cannot learn from it"
        )
    network, path = trained_network(teacher.run, teacher.weights, store, classes)
    stored = "fp16" if path.suffix == ".safetensors" else "fp32"
    return network, {**facts, "stored": stored, "accuracy": record.accuracy(teacher.weights)}


class RunGroup:
    """Runs that this process, which holds their locks, trains in lock-step.

    Args:
        configs: see `runner.run_groups`.
        runner: the runner whose store, device, engine and progress are used.
    """

    def __init__(self, configs: Sequence[RunConfig], runner: "Runner") -> None:
        self.configs, self.runner, self.started = list(configs), runner, _now()
        first, device = configs[0], runner.device
        self.images = runner.images(first.data)
        for note in self.images.notes:
            runner.say_once(note)
        self._epoch_images = used_images(len(self.images.train_y), first.batch_size, first.drop_last)
        frozen = self.teacher = self.teacher_facts = None
        if first.teacher is not None:
            taught_by = first.teacher, runner.store, self.images.classes
            frozen, self.teacher_facts = load_teacher_network(*taught_by)
        self.states: list[TrainState] = []
        for config in configs:
            try:
                self.states.append(self._state(config, frozen))
            except RecordError as error:  # its checkpoint is damaged: the others continue without it
                runner.fail(config, error)
        self.configs = [state.config for state in self.states]
        if frozen is not None and self.states:
            frozen = to_device(frozen, first, device)
            self._measure_teacher(frozen)
            how = first.teacher.batch_norm, self.states[0].arithmetic, runner.engine.compile
            self.teacher = FrozenTeacher(frozen, *how, self.images.train_x.shape[1])
        self._captured = runner.engine.captures(device, [c.method for c in configs])
        self._saved, self._save_seconds = time.monotonic(), 0.0
        self._joules = joules(device)

    def train(self) -> bool:
        """Train and record the runs; return False if training was stopped, with everything saved."""
        if not self.states:
            return True
        runner, first = self.runner, self.configs[0]
        runner.progress.begin(_title(self.configs), first.total_epochs, self._epoch_images)
        try:
            with exact_kernels():
                ended = train(
                    self.states,
                    self.images,
                    self.teacher,
                    capture=self._capture if self._captured else None,
                    batch_seconds=runner.engine.cold_seconds(runner.device),
                    on_batch=self._batch_ended,
                    on_epoch=self._epoch_ended,
                    stop=runner.stop,
                    threads=runner.threads,
                )
        finally:
            runner.progress.end()
        if ended:
            self._count_energy()
        else:
            self._save()
        for state in self.states:
            if state.diverged or state.epoch == state.config.total_epochs:
                self._finish(state)
        return ended

    def _capture(self, body: graphs.Body, changed: Sequence[Tensor]) -> graphs.Body:
        """Return `body` as a CUDA graph, or unchanged once a capture has failed; raise if the engine demands graphs."""
        if not self._captured:
            return body
        try:
            return graphs.cuda_graph(body, changed)
        except graphs.CaptureError as error:
            if self.runner.engine.graph:
                raise
            self._captured = False
            self.runner.progress.say(
                f"no CUDA graph, steps are launched one kernel at a time from here on ({error})"
            )
            return body

    def _measure_teacher(self, network: nn.Module) -> None:
        """Measure a teacher's accuracy, once per process, and compare it with the one in its record or its file.

        Raises:
            RecordError: it differs from the record's.
        """
        teacher, facts, runner = self.configs[0].teacher, self.teacher_facts, self.runner
        if teacher.weights == "random":
            return
        run, name = teacher.run, models.display_name(teacher.name)
        if run is None:
            path, images, where = check_teacher_file(teacher), self.images, "in its file"
            said = models.stated_accuracy(path)
        else:
            path = weights_file(runner.store, run.id, teacher.weights)
            images = runner.images(run.data)
            same = runner.store.load(run.id).provenance["data_sha256"] == images.checksum
            said, where = facts["accuracy"] if same else None, "in its record"
        file = path.stat()
        key = str(path), file.st_mtime_ns, file.st_size, images.checksum, str(runner.device)
        if key in _MEASURED:
            return
        found = accuracy(network, images.test_x, images.test_y, images.mean, images.std)
        told = "" if said is None else f", {said:.2f} % {where}"
        runner.say_once(f"teacher {name}: {found:.2f} % now{told}")
        off = 0.0 if said is None else abs(found - said) / 100 * len(images.test_y)
        if off > max(MOST_IMAGES_OFF, MOST_SHARE_OFF * len(images.test_y)):
            if run is not None:
                raise RecordError(
                    f"teacher {name} has {found:.2f} % now and {said:.2f} % in record {run.id}: the weights {path} are "
                    "not those of that run; delete them, and it is trained again"
                )
            runner.progress.say(
                f"note: {path} states another accuracy; is its normalisation that of the students?"
            )
        _MEASURED.add(key)

    def _state(self, config: RunConfig, teacher: nn.Module | None) -> TrainState:
        runner, images = self.runner, self.images
        network, method = build_network(config, images.classes), None
        path = runner.store.folder(config.id) / "checkpoint.pt"
        found = checkpoint.load_unfinished(path, config.id, config=config, images=self._epoch_images)
        if config.pretrained is not None and not found:
            load_pretrained(network, config, images.classes)
        if config.method is not None:
            sizes = images.train_x.shape[1], images.classes
            method = build_method(config, network, teacher, *sizes, images.train_y)
            method = to_device(method, config, runner.device)
        compiled = runner.engine.compiles_students(runner.device)
        state = TrainState(config, to_device(network, config, runner.device), method, compiled)
        if found:
            saved, come = found
            try:
                state.load_state_dict(saved | {"epoch": come.epoch, "position": come.position})
            except RecordError as error:
                raise RecordError(
                    f"checkpoint {path} cannot be used: {error}; {checkpoint.REMEDY}"
                ) from error
            within = f" and {state.position} images" if state.position else ""
            runner.progress.say(f"{config.id}: resuming after epoch {state.epoch}{within}")
        return state

    def _batch_ended(self, epoch: int, done: int, total: int) -> None:
        self.runner.progress.batch(epoch, done, total)
        self._save_after(SAVE_WITHIN_EPOCH)

    def _epoch_ended(self, state: TrainState) -> None:
        self._save_after(0.0)
        folder = self.runner.store.folder(state.config.id)
        with naming_errors(folder / "log.txt"), open(folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{_now():%Y-%m-%d %H:%M:%S} {epoch_line(state)}\n")
        if self.runner.maps and snapshots.has_maps(state.config) and state.stage is None:
            snapshots.take(state, self.teacher.network, self.images, folder)
        self.runner.progress.epoch(state)

    def _count_energy(self) -> None:
        """Add the energy the GPU has used since the last call, split evenly over the runs of the group."""
        now, before = joules(self.runner.device), self._joules
        for state in self.states if now and before else ():
            state.joules += (now - before) / len(self.states)
        self._joules = now or before

    def _save_after(self, seconds: float) -> None:
        if time.monotonic() - self._saved > max(seconds, self._save_seconds / SAVING_SHARE):
            self._save()

    def _save(self) -> None:
        self._count_energy()
        started = time.monotonic()
        for state in self.states:
            folder = self.runner.store.folder(state.config.id)
            checkpoint.save(state.state_dict(), folder / "checkpoint.pt")
        self._saved = time.monotonic()
        self._save_seconds = self._saved - started

    def _finish(self, state: TrainState) -> None:
        run, store, best = state.config.id, self.runner.store, state.best
        folder = store.folder(run)
        scores = self._scores(state)
        weights = {
            "last": {"run": run, "epoch": state.epoch, "student": state.student.state_dict()},
            "best": {"run": run, "epoch": best["epoch"] + 1, "student": best["student"]},
        }
        for which, kept in weights.items():
            kept["accuracy"] = scores[f"{which}_accuracy"]
        if state.method is not None and state.method.networks(state.student):
            weights["last"]["method"] = state.method.state_dict()  # it holds the method's further networks
        for which, kept in weights.items():
            checkpoint.save(kept, folder / f"{which}.pt")
        maps = folder / "maps.npz"
        if maps.exists():  # before the record, whose presence says that the run is complete
            put(store.maps(run), maps.read_bytes())  # not a rename: the folders may be on different disks
            maps.unlink()
        if not store.has(run):  # a recorded teacher may have been trained again for its weights
            store.save(self._record(state, scores))
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def _scores(self, state: TrainState) -> dict[str, float]:
        """Return the accuracies for the record, in percent, at the last and the best epoch: of the student, and of a
        method's further networks. Where epochs were scored in low precision, last and best weights are scored again in
        full precision, except a further network's best, whose weights are not kept."""
        curves, again, found = state.curves, state.arithmetic.low is not None and not state.diverged, {}
        for suffix, network in state.networks.items():
            scores = curves[f"test_accuracy{suffix}"]
            found[f"last_accuracy{suffix}"] = self._accuracy(network) if again else scores[-1]
            found[f"best_accuracy{suffix}"] = max(scores)
        found["best_accuracy"] = curves["test_accuracy"][state.best["epoch"]]
        if again:
            network = build_network(state.config, self.images.classes)
            network.load_state_dict(state.best["student"])
            found["best_accuracy"] = self._accuracy(to_device(network, state.config, self.runner.device))
        return found

    def _accuracy(self, network: nn.Module) -> float:
        images = self.images
        return accuracy(network, images.test_x, images.test_y, images.mean, images.std)

    def _record(self, state: TrainState, scores: dict[str, float]) -> Record:
        method, images, runner = state.method, self.images, self.runner
        return Record(
            config=state.config,
            status="diverged" if state.diverged else "finished",
            curves=state.curves,
            result=scores | {"best_epoch": state.best["epoch"], "epochs": len(state.curves["test_accuracy"])},
            cost={
                "train_seconds": state.seconds,
                "images_per_second": state.epoch * self._epoch_images / state.seconds,
                "energy_kj": state.joules / 1000 or None,
                "peak_memory_mb": peak_memory_mb(runner.device),
                "parameters": models.parameter_count(state.student),
                "extra_parameters": 0 if method is None else models.parameter_count(method),
                "gang": len(self.states),
                "arithmetic": state.arithmetic.name,
                "compiled": runner.engine.compile,
                "graph": self._captured,
                "threads": state.threads,
                "teacher_form": None if self.teacher is None else self.teacher.form,
            },
            provenance={
                **code_state(),
                **machine_state(runner.device),
                "threads": int(max(state.threads, key=state.threads.get, default=torch.get_num_threads())),
                "labels": {name: CONTROL.sub("?", said) for name, said in runner.labels.items()},
                "data_sha256": images.checksum,
                "train_images": len(images.train_y),
                "test_images": len(images.test_y),
                "teacher": self.teacher_facts,
                "scored": {"curves": state.arithmetic.name, "result": state.arithmetic.full},
                "started": f"{self.started:%Y-%m-%dT%H:%M:%SZ}",
                "ended": f"{_now():%Y-%m-%dT%H:%M:%SZ}",
            },
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _title(configs: Sequence[RunConfig]) -> str:
    first, seeds = configs[0], sorted({config.seed for config in configs})
    networks = [first.network, *([first.teacher.name] if first.teacher else [])]
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    company = f", {len(configs)} runs in lock-step" if len(configs) > 1 else ""
    return f"{' <- '.join(map(models.display_name, networks))}, {named}{company}"
