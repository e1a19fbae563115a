"""Estimate how long the remaining training takes, from the runs' multiply-adds and the rates of recorded runs."""

import functools
import statistics
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from rkd import models, paths
from rkd.data import DataConfig
from rkd.data.sources import reader_of
from rkd.devices import pick_device
from rkd.errors import ConfigError, DataError, RecordError, say_once
from rkd.experiments.budget import format_duration
from rkd.experiments.runner import unfinished
from rkd.experiments.settings import Settings
from rkd.experiments.workspace import cached_values, data_root
from rkd.files import digest, sha256
from rkd.methods import Batch, get_method
from rkd.records import Record, Store
from rkd.records.provenance import machine_state
from rkd.training import RunConfig, checkpoint, threads
from rkd.training.build import build_method
from rkd.training.checkpoint import CheckpointProgress

# A backward pass computes two products of the forward pass's size: the gradients of inputs and of weights.
FORWARD_AND_BACKWARD = 3
# Rates are the median over the latest records only: an older commit may have been slower.
LATEST = 16
# A small network leaves the device idle, but its kernels must be launched and its activations moved all the same. When
# runs are ordered, no image counts less than ResNet-20's, although MobileNetV2 has a seventh of its multiply-adds.
LEAST_IMAGE = FORWARD_AND_BACKWARD * 41_000_000
COUNTS = "multiply_adds"  # folder in the build folder where `method_macs` caches its counts, one file each
DRY_IMAGES = 8  # more than one, since a method may compare the images of a batch with one another


class Sizes(NamedTuple):
    """Sizes of a whole data set: numbers of images and classes; height (and width) of an image in pixels."""

    train: int
    test: int
    classes: int
    pixels: int


# Known, so that no plan has to wait until 180 MB are read, let alone downloaded.
KNOWN_SIZES = {"cifar10": Sizes(50_000, 10_000, 10, 32), "cifar100": Sizes(50_000, 10_000, 100, 32)}


class RunMacs(NamedTuple):
    """Multiply-adds of one run.

    Attributes:
        image: per training image, the run's own part: three times the forward pass of student and extra modules.
        teacher: the teacher's forward pass per training image, which a group shares; 0 without a teacher.
        evaluation: for evaluating the student once on the test and the held-out images.
        images: number of training images per epoch.
    """

    image: int
    teacher: int
    evaluation: int
    images: int

    def training(self, images: int, company: int = 1) -> float:
        """Return the multiply-adds of training on `images` images in a group of `company` runs, without evaluations."""
        return images * (self.image + self.teacher / company)

    def left(self, config: RunConfig, begun: CheckpointProgress | None = None) -> float:
        """Return the multiply-adds that remain of a run, trained by itself, evaluations included."""
        epoch, position = (begun.epoch, begun.position) if begun else (0, 0)
        epochs = config.total_epochs - epoch
        return self.training(epochs * self.images - position) + epochs * self.evaluation


@dataclass(frozen=True)
class Estimate:
    """The runs left to train, and how long one process takes for them.

    Attributes:
        each: seconds by id of the runs left; None where unknown.
        basis: what the estimate is based on; or, if there is none, what has to happen first.
    """

    each: dict[str, float | None]
    basis: str

    @property
    def seconds(self) -> float | None:
        """Seconds for all runs together; None if some run's time is unknown."""
        return None if None in self.each.values() else sum(self.each.values())

    def __str__(self) -> str:
        """Return "about 2 h 05 min (rates of ...)", or why the time is not known."""
        if not self.each:
            return "nothing is left to train"
        if self.seconds is None:
            return f"unknown until {self.basis}"
        return f"about {format_duration(self.seconds)} ({self.basis})"


def checkpoint_progress(store: Store, run: str) -> CheckpointProgress | None:
    """Return the progress of a run without a record; None if it has no checkpoint, or a damaged one, which is reported
    once."""
    try:
        found = checkpoint.load_unfinished(store.folder(run) / "checkpoint.pt", run)
    except RecordError as error:
        say_once(str(error))
        return None
    return found and found[1]


@functools.lru_cache(maxsize=64)
def dataset_sizes(config: DataConfig, data_root: Path | str) -> Sizes:
    """Return the sizes of a data set, without downloading it.

    Raises:
        DataError: it is not on this machine.
    """
    if config.name in KNOWN_SIZES:
        return KNOWN_SIZES[config.name]
    source = reader_of(config.name).open(config, Path(data_root), download=False)
    height = source.pixels("train", np.zeros(1, dtype=np.int64)).shape[1]
    return Sizes(len(source.train_y), len(source.test_y), len(source.class_names), height)


def run_macs(config: RunConfig, data: Sizes, modules: bool = True) -> RunMacs:
    """Return the multiply-adds of a run on a data set of these sizes; `modules` says whether to count its method's own
    modules, which takes time."""
    chosen = config.data
    images = min(chosen.train_images or data.train, data.train - chosen.holdout)
    test = min(chosen.test_images or data.test, data.test) + chosen.holdout
    student, teacher, extra = _forward(config.network, data.classes, data.pixels), 0, 0
    if config.teacher is not None:
        teacher = _forward(config.teacher.name, data.classes, data.pixels)
        extra = method_macs(config, data.classes, data.pixels) if modules else 0
    return RunMacs(FORWARD_AND_BACKWARD * (student + extra), teacher, test * student, images)


def method_macs(run: RunConfig, classes: int = 100, pixels: int = 32) -> int:
    """Return the multiply-adds of a method's own modules per image, counted in a dry pass over a few zero images.

    Every convolution and matrix product counts, including functional calls. Counts are cached in the build folder, as
    the paper profile's take minutes; not those of a user's own method or network, whose code may change.
    """
    builders = [get_method(part).builder for part in run.method.split("+")]
    builders += [models.builder_of(name) for name in (run.network, run.teacher.name)]
    if not all(builder.__module__.startswith("rkd.") for builder in builders):
        return _counted(run, classes, pixels)
    told = repr([run.network, run.teacher.name, run.method, run.options, classes, pixels, _methods_hash()])
    with cached_values(f"{COUNTS}/{digest(told)[:16]}") as found:
        if not found:
            found["macs"] = _counted(run, classes, pixels)
        return found["macs"]


def pair_cost(run: RunConfig, classes: int = 100, pixels: int = 32) -> pd.DataFrame:
    """Return the sizes of a distilled run's networks.

    Returns:
        rows "student", "teacher" and "extra" (the method's own modules, which only training needs); columns
        "parameters" and "multiply-adds" (of one image's forward pass), whole numbers.
    """
    images = max(run.batch_size, DRY_IMAGES)
    with torch.random.fork_rng(devices=[]):
        student, teacher = (models.build(name, classes) for name in (run.network, run.teacher.name))
    extra = build_method(run, student, teacher, pixels, classes, torch.arange(images) % classes)
    macs = [models.macs(student, pixels), models.macs(teacher, pixels), method_macs(run, classes, pixels)]
    parameters = [models.parameter_count(part) for part in (student, teacher, extra)]
    parts = ["student", "teacher", "extra"]
    return pd.DataFrame({"parameters": parameters, "multiply-adds": macs}, index=parts)


@functools.cache
def _methods_hash() -> str:
    """Return a hash of the code that determines what a method computes."""
    folders = (paths.source_paths()[0] / part for part in ("methods", "models", "review"))
    return digest(*(sha256(file) for folder in folders for file in sorted(folder.rglob("*.py"))))


def _counted(run: RunConfig, classes: int, pixels: int) -> int:
    student, teacher = _network(run.network, classes), _network(run.teacher.name, classes)
    few, numbers = replace(run, batch_size=DRY_IMAGES), torch.arange(DRY_IMAGES)
    method = build_method(few, student, teacher, pixels, classes, numbers % classes).eval()
    with torch.no_grad():
        method.begin_epoch(0)
        images = torch.zeros(DRY_IMAGES, 3, pixels, pixels)
        batch = Batch(student.taps(images), teacher.taps(images), numbers % classes, numbers, images)
        with FlopCounterMode(display=False) as counter:
            method.losses(batch)
    return counter.get_total_flops() // (2 * DRY_IMAGES)  # a multiply-add counts as two operations there


@functools.lru_cache(maxsize=256)
def _forward(network: str, classes: int, pixels: int) -> int:
    return models.macs(_network(network, classes), pixels)


@functools.lru_cache(maxsize=32)
def _network(name: str, classes: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        return models.build(name, classes).eval()


def remaining_macs(
    left: Iterable[RunConfig], store: Store, data_root: Path | str, least_image: int = 0
) -> dict[str, float]:
    """Return the multiply-adds left by run id, each run by itself; a training image counts at least `least_image`.

    Raises:
        DataError: a data set is not on this machine.
    """
    found = {}
    for run in left:
        its = run_macs(run, dataset_sizes(run.data, data_root))
        found[run.id] = its._replace(image=max(its.image, least_image)).left(
            run, checkpoint_progress(store, run.id)
        )
    return found


def estimate(
    runs: Iterable[RunConfig],
    store: Store,
    device_name: str,
    *,
    threads: int | None = None,
    data_root: Path | str = "data",
) -> Estimate:
    """Estimate how long it takes to train what is left of `runs`, their teachers included, in one process.

    The estimate is the multiply-adds left divided by a rate: the median rate of this device's latest records in the
    same arithmetic, if possible of the same networks and method. If nothing is recorded, the rate is that of the runs
    begun, on whatever machine. Each run counts as if trained by itself, in the work left and in the rate. Loading
    data and saving are not included, nor is the time that others take on a shared machine.

    Args:
        device_name: as in a record's provenance.
        threads: thread count of this process; on a CPU, only records with the same count tell the rate. None: any
            count, where it is chosen by measurement while training.
    """
    left = unfinished(runs, store)
    each: dict[str, float | None] = dict.fromkeys(run.id for run in left)
    if not left:
        return Estimate(each, "")
    rates: dict[object, list[float]] = defaultdict(list)  # by kind of run, and by arithmetic
    try:
        need = remaining_macs(left, store, data_root)
        sets = {(run.data.name, run.data.sha256) for run in left}
        made = [record for record in store if record.provenance["device_name"] == device_name]
        alike = [record for record in made if (record.config.data.name, record.config.data.sha256) in sets]
        alike.sort(key=lambda record: str(record.provenance.get("ended")))
        here = recorded_work(alike, data_root)
        if threads is not None:
            here = here.query("threads in (0, @threads)")
        basis = f"the rates of runs recorded on {device_name}"
        done = here[["run", "alone", "seconds"]].to_numpy().tolist()
        if not done:
            basis = "the rates of the runs begun"
            for run in left:
                if (at := checkpoint_progress(store, run.id)) and at.seconds > 0:
                    its = run_macs(run, dataset_sizes(run.data, data_root))
                    done.append((run, its.training(at.epoch * its.images + at.position), at.seconds))
    except DataError as error:
        return Estimate(each, f"the data set is here: {error}")
    for run, macs, seconds in done:
        for kind in (run.precision, _kind(run)):
            rates[kind].append(macs / seconds)
    for run in left:
        if latest := (rates[_kind(run)] or rates[run.precision])[-LATEST:]:
            each[run.id] = need[run.id] / statistics.median(latest)
    if lacking := sorted({run.precision for run in left if each[run.id] is None}):
        kind = f" in {' and in '.join(lacking)}" if any(rates.values()) else ""
        basis = f"the first run{kind} has been trained on this machine"
    return Estimate(each, basis)


def recorded_work(records: Iterable[Record], data_root: Path | str, modules: bool = True) -> pd.DataFrame:
    """Return what finished runs computed in training, evaluations excluded, and how long it took: a rate is their
    quotient. A record of a network that this package cannot build has no row.

    Args:
        modules: count the methods' own modules too, which takes time unless the counts are cached.

    Returns:
        A row per record: run (its config), device (name), threads (on a CPU; 0 elsewhere), arithmetic, macs
        (multiply-adds, the teacher's pass shared by the runs that trained in lock-step), alone (multiply-adds as if the
        run had been trained by itself), seconds.

    Raises:
        DataError: a data set is not on this machine.
    """
    rows = []
    for record in records:
        run, made, seconds = record.config, record.provenance, record.cost["train_seconds"]
        if record.status == "finished" and seconds > 0:
            images = run.total_epochs * made["train_images"]
            with suppress(ConfigError):
                its = run_macs(run, dataset_sizes(run.data, data_root), modules)
                macs = its.training(images, record.cost["gang"]), its.training(images)
                number = made["threads"] if made["device"] == "cpu" else 0
                rows.append((run, str(made["device_name"]), number, run.precision, *macs, seconds))
    return pd.DataFrame(rows, columns=["run", "device", "threads", "arithmetic", "macs", "alone", "seconds"])


def _kind(run: RunConfig) -> tuple[str | None, ...]:
    """Return what runs of the same rate have in common."""
    return run.precision, run.network, run.teacher.name if run.teacher else None, run.method


def time_left(runs: Iterable[RunConfig], settings: Settings, store: Store) -> Estimate:
    """Return the `estimate` for settled runs, on the device and with the threads that the settings choose."""
    device = pick_device(settings.device)
    name, (number, *more) = (
        machine_state(device)["device_name"],
        threads.thread_choices(settings.threads, device),
    )
    known = None if more else number  # one of several choices is picked by measurement
    return estimate(runs, store, name, threads=known, data_root=data_root(settings))
