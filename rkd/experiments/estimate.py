"""How long the runs that are left will take: their multiply-adds, over the rate that recorded runs reached here."""

import functools
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch.utils.flop_counter import FlopCounterMode

import rkd
from rkd import models, paths
from rkd.data import DataConfig
from rkd.data.sources import reader_of
from rkd.errors import DataError, RecordError
from rkd.experiments.budget import in_words
from rkd.experiments.runner import unfinished
from rkd.experiments.settle import settle_all
from rkd.files import place, sha256
from rkd.methods import Batch, Context, Method, get_method
from rkd.records import Record, Store
from rkd.training import RunConfig, checkpoint

# A backward pass computes two products of the size of the forward one: with respect to input and to weights.
FORWARD_AND_BACKWARD = 3
# Rates are the median over the latest records only: an older commit may have been slower.
LATEST = 16
# A small network leaves a device idle, which launches its kernels and moves its activations all the same: in the order
# of training, no image counts for less than ResNet-20's, although MobileNetV2 has a seventh of its multiply-adds.
LEAST_IMAGE = FORWARD_AND_BACKWARD * 41_000_000
# A method may compare the images of a batch with one another.
DRY_IMAGES = 8


class Sizes(NamedTuple):
    """A data set before any choice of images: numbers of images and classes, height and width in pixels."""

    train: int
    test: int
    classes: int
    pixels: int


# A plan must not wait until 180 MB are read, let alone downloaded.
KNOWN_SIZES = {"cifar10": Sizes(50_000, 10_000, 10, 32), "cifar100": Sizes(50_000, 10_000, 100, 32)}


class Begun(NamedTuple):
    """How far an unfinished run is: finished epochs, images of the next one already done, seconds of training so far,
    and the curves of the finished epochs as in a record."""

    epoch: int
    position: int
    seconds: float
    curves: Mapping[str, list[float]] = {}


class Work(NamedTuple):
    """Multiply-adds of one run.

    Attributes:
        image: of one training image, the run's own share: three times the forward pass of student and extra modules.
        teacher: the teacher's forward pass of one training image, which a group shares; 0 without a teacher.
        evaluation: of scoring the student once on the test images and those held out.
        images: training images of an epoch.
    """

    image: int
    teacher: int
    evaluation: int
    images: int

    def training(self, images: int, company: int = 1) -> float:
        """Of training on so many images in a group of `company` runs, without evaluations."""
        return images * (self.image + self.teacher / company)

    def left(self, config: RunConfig, begun: Begun | None = None) -> float:
        """Of what remains of a run by itself, evaluations included."""
        epoch, position = begun[:2] if begun else (0, 0)
        epochs = config.total_epochs - epoch
        return self.training(epochs * self.images - position) + epochs * self.evaluation


@dataclass(frozen=True)
class Estimate:
    """What is left, and how long it takes if one process does it.

    Attributes:
        seconds: in all; None where some run's time is unknown.
        runs: number of runs left to train.
        each: seconds by run id; None where unknown.
        basis: what the estimate rests on, or why there is none.
    """

    seconds: float | None
    runs: int
    each: dict[str, float | None] = field(default_factory=dict)
    basis: str = ""

    def __str__(self) -> str:
        """ "about 2 h 05 min (rates of ...)", or why that is not known."""
        if self.runs == 0:
            return "nothing is left to train"
        if self.seconds is None:
            return f"unknown until {self.basis}"
        return f"about {in_words(self.seconds)} ({self.basis})"


def begun(store: Store, run: str) -> Begun | None:
    """How far a run that is not recorded has come; None if it has no checkpoint.

    Raises:
        RecordError: the checkpoint is damaged.
    """
    path = store.folder(run) / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        state = checkpoint.load(path)
    except RecordError:
        if path.exists():
            raise
        return None  # another process has just ended the run
    return Begun(state["epoch"], state.get("position", 0), state["seconds"], state["curves"])


@functools.lru_cache(maxsize=64)
def sizes(config: DataConfig, data_root: Path | str) -> Sizes:
    """Of a data set; nothing is downloaded.

    Raises:
        DataError: it is not here.
    """
    if config.name in KNOWN_SIZES:
        return KNOWN_SIZES[config.name]
    source = reader_of(config.name).open(config, Path(data_root), download=False)
    height = source.pixels("train", np.zeros(1, dtype=np.int64)).shape[1]
    return Sizes(len(source.train_y), len(source.test_y), len(source.class_names), height)


def work(config: RunConfig, data: Sizes) -> Work:
    """The multiply-adds of a run on a data set of these sizes."""
    chosen = config.data
    images = chosen.train_images if chosen.train_images is not None else data.train - chosen.holdout
    test = (data.test if chosen.test_images is None else chosen.test_images) + chosen.holdout
    student = _forward(config.network, data.classes, data.pixels)
    teacher = extra = 0
    if config.teacher is not None:
        names = config.network, config.teacher.name
        teacher = _forward(config.teacher.name, data.classes, data.pixels)
        extra = method_macs(*names, config.method, config.options, data.classes, data.pixels)
    return Work(FORWARD_AND_BACKWARD * (student + extra), teacher, test * student, images)


@functools.cache
def method_macs(
    student: str, teacher: str, method: str, options: Any, classes: int = 100, pixels: int = 32
) -> int:
    """Multiply-adds of a method's own modules for one image, counted in a dry pass over a few zero images.

    Every convolution and matrix product counts, also those called as functions. Counts are kept in the build folder:
    those of the paper profile take minutes.
    """
    told = json.dumps([student, teacher, method, repr(options), classes, pixels, _methods_hash()])
    kept = counts_folder() / hashlib.sha256(told.encode()).hexdigest()[:16]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.parent / ".lock"):  # other processes count too
            place(kept, str(_counted(student, teacher, method, options, classes, pixels)).encode())
    return int(kept.read_bytes())


def counts_folder() -> Path:
    """Where `method_macs` keeps its counts, a file each."""
    return paths.build() / "multiply_adds"


@functools.cache
def _methods_hash() -> str:
    """Of the code that decides what a method computes."""
    root = Path(rkd.__file__).parent
    files = sorted(path for part in ("methods", "models", "review") for path in (root / part).rglob("*.py"))
    return hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()


def _counted(student: str, teacher: str, method: str, options: Any, classes: int, pixels: int) -> int:
    ours, theirs = _network(student, classes), _network(teacher, classes)
    module = untrained_method(ours, theirs, student, method, options, classes, pixels).eval()
    labels = torch.arange(DRY_IMAGES) % classes
    with torch.no_grad():
        module.begin_epoch(0)
        images = torch.zeros(DRY_IMAGES, 3, pixels, pixels)
        batch = Batch(ours.taps(images), theirs.taps(images), labels, torch.arange(DRY_IMAGES), images)
        with FlopCounterMode(display=False) as counter:
            module.losses(batch)
    return counter.get_total_flops() // (2 * DRY_IMAGES)  # it counts a multiply-add as two operations


def untrained_method(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    name: str,
    method: str,
    options: Any,
    classes: int = 100,
    pixels: int = 32,
    batch_size: int | None = None,
) -> Method:
    """A method as if for a training set of a few images, to be counted or looked at.

    Args:
        student, teacher: networks on the CPU; `name` is the student's.
        method, options: as in a run's config.
        classes, pixels: of the data set.
        batch_size: images of a step, where a method has modules of that width; None: the few images.
    """
    size = batch_size or DRY_IMAGES
    images = max(size, DRY_IMAGES)
    labels = torch.arange(images) % classes
    context = Context(student, teacher, pixels, classes, images, labels, size, network=name)
    with torch.random.fork_rng(devices=[]):
        return get_method(method).build(context, options)


@functools.lru_cache(maxsize=256)
def _forward(network: str, classes: int, pixels: int) -> int:
    return models.macs(_network(network, classes), pixels)


@functools.lru_cache(maxsize=32)
def _network(name: str, classes: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        return models.build(name, classes).eval()


def estimate(
    runs: Iterable[RunConfig],
    store: Store,
    device_name: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    data_root: Path | str = "data",
) -> Estimate:
    """How long it takes to train what is left of `runs`, their teachers included, in one process.

    Multiply-adds left, over a rate: the median of what the latest records of this device reached in this arithmetic,
    those of the same networks and method where there are some. Where nothing is recorded, the runs begun tell the rate,
    wherever they were begun. Each run counts as if it were trained by itself, on both sides of the division. Loading
    data and saving come on top; so does, on a shared machine, whatever the others take.

    Args:
        runs: wanted; settled first.
        store: of the records and checkpoints.
        device_name: as in a record's provenance.
        device: kind of that device, "cpu" or "cuda": decides what "auto" precision is.
        threads: of this process; on a CPU only records of so many threads tell its rate. None: any, where the number is
            measured while training.
        data_root: folder of the data sets.

    Raises:
        RecordError: a checkpoint is damaged.
    """
    left = unfinished(settle_all(runs, store, torch.device(device)), store)
    if not left:
        return Estimate(0.0, 0)
    each: dict[str, float | None] = {run.id: None for run in left}
    at = {run.id: begun(store, run.id) for run in left}
    sets = {(run.data.name, run.data.sha256) for run in left}
    records, unreadable = _records(store, device_name, threads)
    done = [  # run, images, seconds
        (r.config, r.result["epochs"] * r.provenance["train_images"], r.cost["train_seconds"])
        for r in records
        if (r.config.data.name, r.config.data.sha256) in sets
    ]
    basis = f"the rates of runs recorded on {device_name}"
    try:
        if not done:
            basis = "the rates of the runs begun"
            done = [
                (run, here.epoch * _work(run, data_root).images + here.position, here.seconds)
                for run in left
                if (here := at[run.id])
            ]
        rates = [
            (run, _work(run, data_root).training(images) / time) for run, images, time in done if time > 0
        ]
        for run in left:
            able = [(other, rate) for other, rate in rates if other.precision == run.precision]
            alike = [rate for other, rate in able if _networks(other) == _networks(run)]
            if latest := (alike or [rate for _, rate in able])[-LATEST:]:
                need = _work(run, data_root).left(run, at[run.id])
                each[run.id] = need / statistics.median(latest)
    except DataError as error:
        return Estimate(None, len(left), each, f"the data set is here: {error}")
    if None in each.values():
        lacking = sorted({run.precision for run in left if each[run.id] is None}) if rates else []
        kind = f" in {' and in '.join(lacking)}" if lacking else ""
        return Estimate(None, len(left), each, f"the first run{kind} has been trained on this machine")
    if unreadable:
        basis += f"; {unreadable} unreadable records left aside"
    return Estimate(sum(each.values()), len(left), each, basis)


def costs(left: Iterable[RunConfig], store: Store, data_root: Path | str) -> dict[str, float]:
    """By run id, what runs cost by comparison, whatever the rate: multiply-adds left, small networks rounded up.

    Raises:
        DataError: a data set is not here.
        RecordError: a checkpoint is damaged.
    """
    found = {}
    for run in left:
        need = _work(run, data_root)
        need = need._replace(image=max(need.image, LEAST_IMAGE))
        found[run.id] = need.left(run, begun(store, run.id))
    return found


def _records(store: Store, device_name: str, threads: int | None) -> tuple[list[Record], int]:
    """Those made on this device, the latest last, and how many cannot be read: a damaged one is told of by whoever
    needs it."""
    found, unreadable = [], 0
    for run in store.ids():
        try:
            record = store.load(run)
        except RecordError:
            unreadable += 1
            continue
        made = record.provenance
        same_threads = threads is None or made.get("device") != "cpu" or made.get("threads") == threads
        if made.get("device_name") == device_name and same_threads:
            found.append(record)
    return sorted(found, key=lambda record: str(record.provenance.get("ended"))), unreadable


def _work(run: RunConfig, data_root: Path | str) -> Work:
    return work(run, sizes(run.data, data_root))


def _networks(config: RunConfig) -> tuple[str, str | None, str | None]:
    return config.network, config.teacher.name if config.teacher else None, config.method
