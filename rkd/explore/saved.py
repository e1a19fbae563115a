"""Runs kept under a name, in results/explore."""

import dataclasses
import shutil
from dataclasses import dataclass

from filelock import FileLock

from rkd import paths
from rkd.errors import ConfigError, RecordError
from rkd.explore.choices import Plan, without_distillation
from rkd.files import replacing
from rkd.records import Record, Store

LONGEST = 60  # characters of a name


@dataclass(frozen=True)
class Saved:
    """One kept run.

    Attributes:
        name: given by whoever kept it.
        record: of the distilled run.
        alone: of the same run without distillation; None where its record was removed.
    """

    name: str
    record: Record
    alone: Record | None


def saved_store() -> Store:
    """Where kept records lie; working files stay in the build folder."""
    return Store(paths.home() / "results" / "explore", paths.build() / "explore" / "work")


def saved_runs(store: Store) -> list[Saved]:
    """All kept runs, by name.

    Raises:
        RecordError: a record is damaged.
    """
    records = {record.id: record for record in store}
    found = [
        Saved(labels["name"], record, records.get(without_distillation(record.config).id))
        for record in records.values()
        if "name" in (labels := record.provenance.get("labels", {}))
    ]
    return sorted(found, key=lambda run: run.name.casefold())


def checked_name(name: str, taken: list[str]) -> str:
    """The name as it is kept: without blanks around it.

    Raises:
        ConfigError: empty, longer than 60 characters, with line breaks or the like, or taken.
    """
    name = name.strip()
    if not name:
        raise ConfigError("the name is empty; give the run one, for example: without attention")
    if len(name) > LONGEST:
        raise ConfigError(f"the name has {len(name)} characters; {LONGEST} is the most")
    if not name.isprintable():
        raise ConfigError(f"the name {name!r} holds a line break or another character that cannot be printed")
    if name.casefold() in [other.casefold() for other in taken]:
        raise ConfigError(f"the name {name!r} is taken; give another")
    return name


def save(plan: Plan, name: str, working: Store, kept: Store) -> Record:
    """Keep a finished plan under a name: the distilled run's record and maps, and the record of the same run without
    distillation beside it.

    Raises:
        ConfigError: a name that cannot be taken, or a run that is kept already.
        RecordError: the plan is not trained to its end.
    """
    run = plan.distilled.id
    working.work.mkdir(parents=True, exist_ok=True)
    with FileLock(working.work / "saving.lock"):  # two pages may be open
        there = saved_runs(kept)
        name = checked_name(name, [other.name for other in there])
        for other in there:
            if other.record.id == run:
                raise ConfigError(f"this run is kept already, as {other.name!r}")
        if not all(working.has(config.id) for config in plan.runs):
            raise RecordError("there is no finished run to keep; train it to its end first")
        alone = working.load(plan.alone.id)
        if not kept.has(alone.id):
            kept.save(_labelled(alone, {"alone_of": name}))
        if working.maps(run).exists():
            with replacing(kept.maps(run)) as temporary:
                shutil.copyfile(working.maps(run), temporary)
        record = _labelled(working.load(run), {"name": name})
        kept.save(record)  # last: it is what makes the run a kept one
    return record


def _labelled(record: Record, labels: dict[str, str]) -> Record:
    return dataclasses.replace(record, provenance={**record.provenance, "labels": labels})
