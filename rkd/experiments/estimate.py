"""How long the runs that are left will take: their multiply-adds, over the rate that recorded runs reached here."""

import functools
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from rkd.experiments.group import weights_file
from rkd.experiments.runner import required, run_groups
from rkd.experiments.settle import settle_all
from rkd.files import replacing, sha256
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


@dataclass(frozen=True)
class Sizes:
    """A data set before any choice of images: numbers of images and classes, height and width in pixels."""

    train: int
    test: int
    classes: int
    pixels: int


# A plan must not wait until 180 MB are read, let alone downloaded.
KNOWN_SIZES = {"cifar10": Sizes(50_000, 10_000, 10, 32), "cifar100": Sizes(50_000, 10_000, 100, 32)}


@dataclass(frozen=True)
class Begun:
    """How far an unfinished run is.

    Attributes:
        epoch: finished epochs.
        position: images of the next epoch already done.
        seconds: training time so far.
        curves: values of the finished epochs, as in a record.
    """

    epoch: int
    position: int
    seconds: float
    curves: Mapping[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
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

    def training(self, images: int, company: int) -> float:
        """Of training on so many images in a group of `company` runs, without evaluations."""
        return images * (self.image + self.teacher / company)

    def done(self, begun: Begun, company: int) -> float:
        """Of the training, without evaluations, of a run that has come so far."""
        return self.training(begun.epoch * self.images + begun.position, company)

    def left(self, config: RunConfig, begun: Begun | None, company: int) -> float:
        """Of what remains of a run, evaluations included."""
        epochs = config.total_epochs - (begun.epoch if begun else 0)
        images = epochs * self.images - (begun.position if begun else 0)
        return self.training(images, company) + epochs * self.evaluation


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


def unfinished(runs: Iterable[RunConfig], store: Store) -> list[RunConfig]:
    """What a sweep over settled `runs` has to train: those not recorded, and recorded teachers of theirs whose weights
    are not on this machine. Teachers first, each once."""
    missing = [run for run in runs if not store.has(run.id)]
    needed = {(r.teacher.run.id, r.teacher.weights) for r in missing if r.teacher and r.teacher.run}
    lost = {run for run, which in needed if which != "random" and weights_file(store, run, which) is None}
    return [run for run in required(missing) if run.id in lost or not store.has(run.id)]


def lockstep(left: Sequence[RunConfig], largest: int, device: str = "cpu") -> list[list[RunConfig]]:
    """The groups in which an runner trains these runs on a device of this kind: teachers before others."""
    teachers = {run.teacher.run.id for run in left if run.teacher and run.teacher.run}
    first = [run for run in left if run.id in teachers]
    rest = [run for run in left if run.id not in teachers]
    across_seeds = torch.device(device).type == "cuda"
    return [group for part in (first, rest) for group in run_groups(part, largest, across_seeds)]


def sizes(config: DataConfig, data_root: Path | str) -> Sizes:
    """Of a data set; nothing is downloaded.

    Raises:
        DataError: it is not here.
    """
    if config.name in KNOWN_SIZES:
        return KNOWN_SIZES[config.name]
    source = reader_of(config.name).open(config, Path(data_root), download=False, progress=False)
    height = source.train.pixels(np.zeros(1, dtype=np.int64)).shape[1]
    return Sizes(len(source.train.labels), len(source.test.labels), len(source.class_names), height)


def work(config: RunConfig, data: Sizes) -> Work:
    """The multiply-adds of a run on a data set of these sizes."""
    chosen = config.data
    images = chosen.train_images if chosen.train_images is not None else data.train - chosen.holdout
    test = (data.test if chosen.test_images is None else chosen.test_images) + chosen.holdout
    student = _forward(config.network, data.classes, data.pixels)
    teacher = extra = 0
    if config.teacher is not None:
        teacher = _forward(config.teacher.name, data.classes, data.pixels)
        extra = method_macs(
            config.network, config.teacher.name, config.method, config.options, data.classes, data.pixels
        )
    return Work(FORWARD_AND_BACKWARD * (student + extra), teacher, test * student, images)


@functools.cache
def method_macs(
    student: str, teacher: str, method: str, options: Any, classes: int = 100, pixels: int = 32
) -> int:
    """Multiply-adds of a method's own modules for one image, counted in a dry pass over a few zero images.

    Every convolution and matrix product counts, also those called as functions. Counts are kept in the build folder:
    those of the paper profile take minutes.

    Args:
        student, teacher: names of networks.
        method: a registered method.
        options: the method's.
        classes: number of classes.
        pixels: height and width of an image.
    """
    told = json.dumps([student, teacher, method, repr(options), classes, pixels, _methods_hash()])
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    counts = _kept_counts()
    if name not in counts:
        found = _counted(student, teacher, method, options, classes, pixels)
        counts_file().parent.mkdir(parents=True, exist_ok=True)
        with FileLock(counts_file().with_suffix(".lock")), replacing(counts_file()) as temporary:
            counts = {**_kept_counts(), name: found}  # other processes count too
            temporary.write_text(json.dumps(counts, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    return counts[name]


def _kept_counts() -> dict[str, int]:
    kept = counts_file()
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}


def counts_file() -> Path:
    """Where `method_macs` keeps its counts."""
    return paths.build() / "multiply_adds.json"


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
        student, teacher: networks on the CPU.
        name: of the student's network.
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


@dataclass(frozen=True)
class Sample:
    """The rate one run reached, in multiply-adds per second.

    Attributes:
        config: the run.
        group: runs it was trained with, itself included.
        arithmetic: name of it.
        compiled: whether its steps were compiled.
        rate: its own share of the work over its share of the time.
        ended: when, as records tell it; "" for a run that goes on.
    """

    config: RunConfig
    group: int
    arithmetic: str
    compiled: bool
    rate: float
    ended: str = ""

    def likeness(self, config: RunConfig, group: int, compiled: bool) -> tuple[int, bool]:
        """How much a run is like this one: 3 the same networks in equal company, 2 the same networks, 1 both with a
        method or both without, 0 neither; and whether both are compiled or neither is."""
        networks = int((self.config.method is None) == (config.method is None))
        if _networks(self.config) == _networks(config):
            networks = 3 if self.group == group else 2
        return networks, self.compiled == compiled


def estimate(
    runs: Iterable[RunConfig],
    store: Store,
    device_name: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    group: int = 8,
    compiled: bool = False,
    data_root: Path | str = "data",
    measured: Sequence[Sample] = (),
) -> Estimate:
    """How long it takes to train what is left of `runs`, their teachers included, in one process.

    Multiply-adds left, over a rate: the median of what the latest records of this device reached in this arithmetic,
    among those most like the run (the same networks in a group of the same size before the same networks before any).
    Where no record tells, a step that was measured here does, else the runs begun, wherever they were begun. Loading
    data and saving come on top; so does, on a shared machine, whatever the others take.

    Args:
        runs: wanted; settled first.
        store: of the records and checkpoints.
        device_name: as in a record's provenance.
        device: kind of that device, "cpu" or "cuda": decides which groups are made, and what "auto" precision is.
        threads: of this process; on a CPU only records of so many threads tell its rate. None: any, where the number is
            measured while training.
        group: most runs trained in lock-step, sharing the teacher's pass. (One across seeds makes a pass for each seed;
            records do not tell how many, so that here it counts as one, on both sides of the division.)
        compiled: whether steps will be compiled.
        data_root: folder of the data sets.
        measured: rates of steps timed by this process.

    Raises:
        RecordError: a checkpoint is damaged.
    """
    left = unfinished(settle_all(runs, store, torch.device(device)), store)
    unknown = {run.id: None for run in left}
    if not left:
        return Estimate(0.0, 0)
    records, unreadable = _records(store)
    here = [r for r in records if _ran_here(r, device_name, threads)]
    positions = {run.id: begun(store, run.id) for run in left}
    if not (here or measured or any(positions.values())):
        return Estimate(None, len(left), unknown, "the first run has been trained on this machine")
    try:
        data = {_set(run): sizes(run.data, data_root) for run in left}
    except DataError as error:
        return Estimate(None, len(left), unknown, f"the data set is here: {error}")
    company = _company(left, group, device)
    need = {run.id: work(run, data[_set(run)]) for run in left}
    used = {run.id: run.precision for run in left}
    basis = f"the rates of runs recorded on {device_name}"
    samples = [_recorded(r, work(r.config, data[_set(r.config)])) for r in here if _set(r.config) in data]
    if not samples and measured:
        basis, samples = "the step measured here", list(measured)
    if not samples:
        basis = "the rates of the runs begun"
        samples = [
            Sample(run, company[run.id], used[run.id], compiled, done / positions[run.id].seconds, "")
            for run in left
            if positions[run.id] and positions[run.id].seconds > 0
            for done in [need[run.id].done(positions[run.id], company[run.id])]
        ]
    each: dict[str, float | None] = {}
    for run in left:
        able = [s for s in samples if s.arithmetic == used[run.id]]
        likeness = [s.likeness(run, company[run.id], compiled) for s in able]
        alike = [s for s, how in zip(able, likeness, strict=True) if how == max(likeness)]
        remaining = need[run.id].left(run, positions[run.id], company[run.id])
        each[run.id] = remaining / _rate(alike) if alike else None
    if None in each.values():
        lacking = sorted({used[run.id] for run in left if each[run.id] is None})
        first = f"the first run in {' and in '.join(lacking)} has been trained on this machine"
        return Estimate(None, len(left), each, first)
    if unreadable:
        basis += f"; {unreadable} unreadable records left aside"
    return Estimate(sum(each.values()), len(left), each, basis)


def costs(
    left: Sequence[RunConfig], store: Store, *, device: str, group: int, data_root: Path | str
) -> dict[str, float]:
    """By run id, what runs cost by comparison, whatever the rate: multiply-adds left, small networks rounded up.

    Args:
        left: see `unfinished`.
        store, device, group, data_root: as of `estimate`.

    Raises:
        DataError: a data set is not here.
        RecordError: a checkpoint is damaged.
    """
    data = {_set(run): sizes(run.data, data_root) for run in left}
    company = _company(left, group, device)
    found = {}
    for run in left:
        need = work(run, data[_set(run)])
        need = replace(need, image=max(need.image, LEAST_IMAGE))
        found[run.id] = need.left(run, begun(store, run.id), company[run.id])
    return found


def measured_sample(
    config: RunConfig, group: int, step_seconds: float, *, device: str, compiled: bool, data_root: Path | str
) -> Sample:
    """The rate of a run in a group of so many whose steps, of a whole batch each, take so long together."""
    need = work(config, sizes(config.data, data_root))
    return Sample(
        config,
        group,
        config.precision,
        compiled,
        need.training(config.batch_size, group) / (step_seconds / group),
    )


def _company(left: Sequence[RunConfig], group: int, device: str) -> dict[str, int]:
    """Size of the group each run will be in."""
    return {run.id: len(group) for group in lockstep(left, group, device) for run in group}


def _records(store: Store) -> tuple[list[Record], int]:
    """Those that can be read, and the number of the others: a damaged one is told of by whoever needs it."""
    found, unreadable = [], 0
    for run in store.ids():
        try:
            found.append(store.load(run))
        except RecordError:
            unreadable += 1
    return found, unreadable


def _ran_here(record: Record, device_name: str, threads: int | None) -> bool:
    made = record.provenance
    same_threads = threads is None or made.get("device") != "cpu" or made.get("threads") == threads
    return made.get("device_name") == device_name and same_threads and record.cost["train_seconds"] > 0


def _set(config: RunConfig) -> tuple[str, str | None]:
    return config.data.name, config.data.sha256


def _networks(config: RunConfig) -> tuple[str, str | None, str | None]:
    return config.network, config.teacher.name if config.teacher else None, config.method


def _recorded(record: Record, need: Work) -> Sample:
    cost = record.cost
    done = need.training(record.result["epochs"] * record.provenance["train_images"], cost["gang"])
    return Sample(
        record.config,
        cost["gang"],
        record.config.precision,
        cost.get("compiled", False),
        done / cost["train_seconds"],
        str(record.provenance.get("ended", "")),
    )


def _rate(samples: Sequence[Sample]) -> float:
    latest = sorted(samples, key=lambda sample: sample.ended)[-LATEST:]
    return statistics.median(sample.rate for sample in latest)
