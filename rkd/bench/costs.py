"""What the report costs: multiply-adds of its pairs and runs, and the rates that recorded runs reached."""

from collections.abc import Iterable, Mapping

import pandas as pd
import torch

from rkd import models
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.estimate import method_macs, sizes, work
from rkd.experiments.runner import required
from rkd.experiments.settings import resolve
from rkd.records import Record, Store
from rkd.training import RunConfig
from rkd.training.build import build_method

PROFILE = "paper"
REVIEW_RECIPES = ("authors", "reproduction", "text")


def pair_cost(run: RunConfig, classes: int = 100, pixels: int = 32) -> pd.DataFrame:
    """Sizes of a distilled run's pair.

    Returns:
        rows "student", "teacher" and "extra" (the method's own modules, which only training needs); columns
        "parameters" and "multiply-adds" (of one image's forward pass), whole numbers.
    """
    images = max(run.batch_size, 8)
    with torch.random.fork_rng(devices=[]):
        student, teacher = (models.build(name, classes) for name in (run.network, run.teacher.name))
    extra = build_method(run, student, teacher, pixels, classes, torch.arange(images) % classes)
    macs = [models.macs(student, pixels), models.macs(teacher, pixels), method_macs(run, classes, pixels)]
    parameters = [models.parameter_count(part) for part in (student, teacher, extra)]
    return pd.DataFrame(
        {"parameters": parameters, "multiply-adds": macs}, index=["student", "teacher", "extra"]
    )


def paper_runs() -> dict[str, list[RunConfig]]:
    """The runs of each chapter about ReviewKD itself under the paper profile, each once, teachers first: what it takes
    to answer the [Re] report. Chapters of the neighbouring systems have recipes of their own."""
    found = {}
    for name in chapter_names():
        if get_chapter(name).recipe in REVIEW_RECIPES:
            lines = get_chapter(name).lines(resolve(name, {"profile": PROFILE}))
            found[name] = required(run for line in lines for run in line.runs)
    return found


def once(runs: Mapping[str, Iterable[RunConfig]]) -> list[RunConfig]:
    """The runs of all chapters, each once: chapters share some."""
    return list({run.id: run for chapter in runs.values() for run in chapter}.values())


def recorded(runs: Iterable[RunConfig], store: Store) -> dict[str, Record]:
    """The records of runs, by id of the record; of a run in whatever arithmetic all there are."""
    return store.read(found.id for run in runs for found in store.recorded(run))


def rates_of_records(runs: Iterable[RunConfig], store: Store) -> list[dict[str, str | float]]:
    """One per device and arithmetic: the work of the recorded ones among `runs`, over the time it took.

    Returns:
        "source": what it was read from; "device"; "how": arithmetic; "macs_per_second": multiply-adds of training.
    """
    done: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in recorded(runs, store).values():
        if not record.cost["train_seconds"]:
            continue
        images = record.result["epochs"] * record.provenance["train_images"]
        macs = work(record.config, sizes(record.config.data, "data")).training(images, record.cost["gang"])
        key = str(record.provenance["device_name"]), record.config.precision
        done.setdefault(key, []).append((macs, record.cost["train_seconds"]))
    return [
        {
            "source": f"{len(parts)} recorded runs", "device": device, "how": how,
            "macs_per_second": sum(m for m, _ in parts) / sum(s for _, s in parts),
        }
        for (device, how), parts in done.items()
    ]  # fmt: skip


def total_macs(runs: Iterable[RunConfig]) -> float:
    """Of training and scoring all runs, each by itself: a group saves teacher passes on top."""
    return sum(work(run, sizes(run.data, "data")).left(run) for run in runs)
