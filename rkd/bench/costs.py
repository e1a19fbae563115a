"""What the report costs: multiply-adds of its pairs and runs, time recorded, time projected from measured rates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from rkd import models
from rkd.bench.result import Result
from rkd.bench.steps import Workload
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.estimate import FORWARD_AND_BACKWARD, method_macs, sizes, work
from rkd.experiments.runner import required
from rkd.experiments.settings import resolve
from rkd.records import Record, Store
from rkd.training import RunConfig
from rkd.training.build import build_method

PAIR_CHAPTERS = ("table1", "table2")
PROFILE = "paper"
REVIEW_RECIPES = ("authors", "reproduction", "text")


@dataclass(frozen=True)
class PairCost:
    """Sizes of a pair.

    Attributes:
        teacher, student: names of networks.
        parameters: numbers of them, of "student", "teacher" and "extra": ReviewKD's own modules, which only training
            needs.
        macs: likewise multiply-adds (MACs) of one image's forward pass.
        batch_size: images of a step.
    """

    teacher: str
    student: str
    parameters: dict[str, int]
    macs: dict[str, int]
    batch_size: int

    @property
    def step_macs(self) -> int:
        """Of one training step: forward and backward of student and extra modules, forward of the teacher."""
        learning = FORWARD_AND_BACKWARD * (self.macs["student"] + self.macs["extra"])
        return self.batch_size * (learning + self.macs["teacher"])


def pair_costs(chapters: Sequence[str] = PAIR_CHAPTERS) -> list[PairCost]:
    """Of the pairs of chapters, as the paper profile trains them; each once."""
    lines = (
        line
        for chapter in chapters
        for line in get_chapter(chapter).lines(resolve(chapter, {"profile": PROFILE}))
    )
    runs = [line.runs[0] for line in lines if line.role == "distilled"]
    return [
        pair_cost(run) for run in {(run.teacher.name, run.network): run for run in reversed(runs)}.values()
    ][::-1]


def pair_cost(run: RunConfig, classes: int = 100, pixels: int = 32) -> PairCost:
    """Of a distilled run's pair."""
    images = max(run.batch_size, 8)
    with torch.random.fork_rng(devices=[]):
        student, teacher = (models.build(name, classes) for name in (run.network, run.teacher.name))
    extra = build_method(run, student, teacher, pixels, classes, images, torch.arange(images) % classes)
    parts = {"student": student, "teacher": teacher, "extra": extra}
    macs = {name: models.macs(parts[name], pixels) for name in ("student", "teacher")}
    macs["extra"] = method_macs(run, classes, pixels)
    parameters = {name: models.parameter_count(part) for name, part in parts.items()}
    return PairCost(run.teacher.name, run.network, parameters, macs, run.batch_size)


def report_chapters() -> list[str]:
    """The chapters about ReviewKD itself: what it takes to answer the [Re] report. Those of the neighbouring systems
    have recipes of their own."""
    return [name for name in chapter_names() if get_chapter(name).recipe in REVIEW_RECIPES]


def paper_runs(chapters: Sequence[str] | None = None) -> dict[str, list[RunConfig]]:
    """The runs of each chapter under the paper profile, each once, teachers first; None: of `report_chapters`."""
    found = {}
    for chapter in report_chapters() if chapters is None else chapters:
        lines = get_chapter(chapter).lines(resolve(chapter, {"profile": PROFILE}))
        found[chapter] = required(run for line in lines for run in line.runs)
    return found


def once(runs: Mapping[str, Iterable[RunConfig]]) -> list[RunConfig]:
    """The runs of all chapters, each once: chapters share some."""
    return list({run.id: run for chapter in runs.values() for run in chapter}.values())


@dataclass(frozen=True)
class Spent:
    """Training time of recorded runs.

    Attributes:
        runs: wanted.
        recorded: of them.
        seconds: by device name.
        energy_kj: of the GPUs, in the `energy_runs` recorded runs in which it was counted.
    """

    runs: int
    recorded: int
    seconds: dict[str, float]
    energy_kj: float = 0.0
    energy_runs: int = 0


def spent(runs: Sequence[RunConfig], store: Store) -> Spent:
    """Of those of the runs that are recorded. A run that shared its steps counts its share of their time."""
    seconds: dict[str, float] = {}
    records = list(recorded(runs, store).values())
    for record in records:
        device = str(record.provenance["device_name"])
        seconds[device] = seconds.get(device, 0.0) + record.cost["train_seconds"]
    energies = [e for record in records if (e := record.cost.get("energy_kj")) is not None]
    answered = sum(next(store.recorded(run), None) is not None for run in runs)
    return Spent(len(runs), answered, seconds, sum(energies), len(energies))


@dataclass(frozen=True)
class Rate:
    """A measured speed.

    Attributes:
        source: what it was read from.
        device: name.
        how: arithmetic and engine.
        macs_per_second: multiply-adds of training, per second.
    """

    source: str
    device: str
    how: str
    macs_per_second: float


def recorded(runs: Iterable[RunConfig], store: Store) -> dict[str, Record]:
    """The records of runs, by id of the record; of a run in whatever arithmetic all there are."""
    return {found.id: store.load(found.id) for run in runs for found in store.recorded(run)}


def rates_of_records(runs: Sequence[RunConfig], store: Store) -> list[Rate]:
    """One per device and arithmetic: the work of the recorded ones among `runs`, over the time it took."""
    done: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in recorded(runs, store).values():
        images = record.result["epochs"] * record.provenance["train_images"]
        macs = work(record.config, sizes(record.config.data, "data")).training(images, record.cost["gang"])
        key = str(record.provenance["device_name"]), record.config.precision
        done.setdefault(key, []).append((macs, record.cost["train_seconds"]))
    return [
        Rate(f"{len(parts)} recorded runs", device, how, sum(m for m, _ in parts) / sum(s for _, s in parts))
        for (device, how), parts in done.items()
    ]


def rate_of_result(source: str, result: Result) -> Rate | None:
    """The quickest of our variants in a measurement, with the teacher on batch statistics where that was measured, as
    the paper profile has it; None if none of ours ran."""
    ours = [row for row in result.rows if not row.variant.conventional]
    ours = [row for row in ours if row.variant.batch_norm == "batch"] or ours
    if not ours:
        return None
    row = min(ours, key=lambda row: row.median_ms)
    h, v = result.header, row.variant
    config = Workload(h["teacher"], h["student"], row.images, torch.device("cpu")).config(
        "fp32", v.batch_norm
    )
    macs = row.images * work(config, sizes(config.data, "data")).training(1, v.group)
    how = f"{row.name}; {models.display_name(h['student'])} ← {models.display_name(h['teacher'])}"
    return Rate(source, h["device_name"], how, 1000 * macs / row.median_ms)


def total_macs(runs: Iterable[RunConfig]) -> float:
    """Of training and scoring all runs, each by itself: a group saves teacher passes on top."""
    return sum(work(run, sizes(run.data, "data")).left(run) for run in runs)
