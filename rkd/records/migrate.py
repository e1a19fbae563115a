"""Early records call their arithmetic "auto": this puts the name of the one they were computed in there.

    python -m rkd.records.migrate results/mini            # says what it would do
    python -m rkd.records.migrate results/mini --write

A run's identity then names its arithmetic and its teacher's, so the record gets another id; its maps, its weights and
committed teachers go with it. A record says itself what it was computed in (`cost.arithmetic`), and its teacher's
record says the teacher's. What cannot be told, is damaged or is in the way is named and stays as it is. Each record is
moved by itself, its old file going last: an interrupted call is taken up by the next, and a second one finds nothing.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rkd import paths
from rkd.errors import ConfigError, RecordError, RkdError
from rkd.files import replacing
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.teachers import WHICH, load_teacher, save_teacher, teacher_file
from rkd.training import RunConfig, checkpoint
from rkd.training.arithmetic import SETTLED

Moves = dict[str, Record]  # old id -> the record under its new one


def plan(store: Store) -> tuple[Moves, dict[str, str]]:
    """What is to be moved, students before their teachers, and why what cannot be stays, by the file's name."""
    bodies: dict[str, Mapping[str, Any]] = {}
    refused: dict[str, str] = {}
    for run in store.ids():
        try:
            body = _body(store.path(run))
            if any(_config(body).open):
                bodies[run] = body
        except RkdError as error:
            refused[f"{run}.json"] = str(error)
    moves: Moves = {}
    for run in sorted(bodies, key=lambda run: bodies[run]["config"]["teacher"] is None):
        try:
            moves[run] = _named(bodies[run], bodies, store)
        except RkdError as error:
            refused[f"{run}.json"] = str(error)
    return moves, refused


def move(store: Store, old: str, record: Record) -> None:
    """Put a record, and what goes with it, under its new id.

    Raises:
        RecordError: the run is being trained again now, its new place is taken, or a file of it is damaged.
    """
    new, text = record.id, record.to_json()
    here, there = store.folder(old), store.folder(new)
    if store.running(old):
        raise RecordError("it is being trained now")
    if store.has(new) and store.path(new).read_text(encoding="utf-8") != text:
        raise RecordError(f"{store.path(new)} is there already and says something else; both stay")
    if here.exists() and there.exists():
        raise RecordError(f"{here} and {there} are both there; delete the one that is not wanted")
    left = []
    if store.maps(old).exists():
        _move_maps(store.maps(old), store.maps(new), new)
        left.append(store.maps(old))
    for which in WHICH:
        if (path := teacher_file(store, old, which)).exists():
            weights, header = load_teacher(path)
            save_teacher(teacher_file(store, new, which), weights, {**header, "run": new})
            left.append(path)
    if here.exists():
        for which in WHICH:
            if (path := here / f"{which}.pt").exists():
                checkpoint.save({**checkpoint.load(path), "run": new}, path)
        os.rename(here, there)
    store.save(record)
    for path in (*left, store.path(old)):
        path.unlink()


def unfinished(store: Store) -> list[str]:
    """Ids of runs with a checkpoint and without a record: nothing there says what they are, or in which arithmetic."""
    found = store.work.glob("*/checkpoint.pt") if store.work.is_dir() else ()
    return sorted(path.parent.name for path in found if not store.has(path.parent.name))


def _body(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(body["config"], dict) or not isinstance(body["cost"], dict):
            raise TypeError("config and cost are no objects")
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"it is damaged, or no record ({type(error).__name__}: {error})") from error
    return body


def _config(body: Mapping[str, Any]) -> RunConfig:
    try:
        config = RunConfig.from_dict(body["config"])
    except (ConfigError, TypeError) as error:
        raise RecordError(f"it holds a config this version cannot read: {error}") from error
    if config.id != body.get("id"):
        raise RecordError(f"it says id {body.get('id')}, but its config has id {config.id}: it was edited")
    return config


def _named(body: Mapping[str, Any], bodies: Mapping[str, Mapping[str, Any]], store: Store) -> Record:
    """The record with names for its arithmetics."""
    config = _config(body)
    own, theirs = config.open
    named = config.settled(
        _computed_in(body) if own else "", _teachers(config, bodies, store) if theirs else ""
    )
    provenance = body.get("provenance", {})
    if (provenance.get("teacher") or {}).get("run"):
        provenance = {**provenance, "teacher": {**provenance["teacher"], "run": named.teacher.run.id}}
    changed = {**body, "config": named.to_dict(), "id": named.id, "provenance": provenance}
    return Record.from_json(json.dumps(changed), named.id)


def _computed_in(body: Mapping[str, Any]) -> str:
    found = body["cost"].get("arithmetic")
    if found not in SETTLED:
        raise RecordError(f"it does not say what it was computed in: cost.arithmetic is {found!r}")
    return found


def _teachers(config: RunConfig, bodies: Mapping[str, Mapping[str, Any]], store: Store) -> str:
    """The arithmetic of a record's teacher: by the teacher's record, here in its old or already in its new form."""
    teacher = config.teacher.run
    if config.teacher.weights == "random":
        return SETTLED[0]
    if teacher.id in bodies:
        return _computed_in(bodies[teacher.id])
    found = [run.precision for run in store.recorded(teacher)]
    if len(found) != 1:
        what = f"recorded in {' and in '.join(found)}" if found else "not recorded here"
        raise RecordError(
            f"which arithmetic its teacher {teacher.id} was trained in is not known: that is {what}"
        )
    return found[0]


def _move_maps(old: Path, new: Path, run: str) -> None:
    try:
        with np.load(old, allow_pickle=False) as file:
            arrays = {**file, "run": np.array(run)}
    except Exception as error:  # zip, pickle and key errors of many kinds
        raise RecordError(f"its maps {old} are damaged: {error}") from error
    with replacing(new) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _store(records: Path, work: Path | None) -> Store:
    if not records.is_dir():
        raise ConfigError(f"{records} is no folder; name one of records, such as results/mini")
    return Store(records, work or _work(records))


def _work(records: Path) -> Path:
    """Where the working files beside a folder of records lie; see `rkd.experiments.workspace`."""
    if records.name == "records":
        return records.parent / "work"
    if records.parent == paths.home() / "results":
        return (
            paths.build() / "explore" / "work"
            if records.name == "explore"
            else paths.home() / "checkpoints" / records.name
        )
    return records / "work"


def main(arguments: Sequence[str] | None = None) -> int:
    """Say, or do, what is to be done; 1 where something stays, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="python -m rkd.records.migrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", type=Path, metavar="FOLDER", help="of records, such as results/mini")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="of its checkpoints and weights (default: where they lie)"
    )
    parser.add_argument("--write", action="store_true", help="do it (default: say what would be done)")
    options = parser.parse_args(arguments)
    try:
        store = _store(options.records.resolve(), options.work)
    except RkdError as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 2
    moves, refused = plan(store)
    moved = 0
    for old, record in moves.items():
        try:
            if options.write:
                move(store, old, record)
        except (RkdError, OSError) as error:
            refused[f"{old}.json"] = str(error)
            continue
        moved += 1
        print(f"{old} -> {record.id}  {record.arithmetic}")
    for name, why in refused.items():
        print(f"{name} stays: {why}")
    if waiting := unfinished(store):
        print(
            f"unfinished runs stay under their names, since a checkpoint does not say in which arithmetic it is; those "
            f'of an "auto" run begin anew: {", ".join(waiting)}'
        )
    print(
        f"{moved} records {'renamed' if options.write else 'to rename; --write does it'} in {store.records}"
    )
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
