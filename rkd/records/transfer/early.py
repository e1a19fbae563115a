"""Early records call their arithmetic "auto". An import gives them the name of the one that they were computed in, and
with it another id; what came with them goes along."""

import dataclasses
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from rkd.errors import RkdError
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer.archive import Entry, PartReader
from rkd.records.transfer.content import read
from rkd.training import RunConfig, TeacherConfig
from rkd.training.arithmetic import SETTLED

_WRONG = (RkdError, ValueError, KeyError, TypeError, AttributeError)


def settle_early(entries: Iterable[Entry], parts: PartReader, store: Store) -> dict[str, Record]:
    """The early ones among an export's records by their old ids. One that does not say what it was computed in, or
    whose teacher's record is neither there nor here, is not among them: a merge refuses it by name."""
    bodies: dict[str, tuple[RunConfig, dict[str, Any]]] = {}
    for entry in entries:
        try:
            body = json.loads(parts.read(entry)) if entry.kind == "record" else {"config": None}
            config = RunConfig.from_dict(body["config"])
        except _WRONG:
            continue
        if any(config.open) and config.id == body.get("id"):
            bodies[config.id] = config, body

    def trained_in(teacher: TeacherConfig) -> str:
        if teacher.weights == "random":
            return SETTLED[0]
        if teacher.run.id in bodies:
            return bodies[teacher.run.id][1]["cost"]["arithmetic"]
        (found,) = store.recorded(teacher.run)
        return found.precision

    settled = {}
    for run, (config, body) in bodies.items():
        try:
            own, theirs = config.open
            named = config.settled(
                body["cost"]["arithmetic"] if own else "", trained_in(config.teacher) if theirs else ""
            )
            body = {**body, "config": named.to_dict(), "id": named.id}
            if (body["provenance"].get("teacher") or {}).get("run"):
                body["provenance"]["teacher"]["run"] = named.teacher.run.id
            settled[run] = Record.from_json(json.dumps(body), run)
        except _WRONG:
            continue
    return settled


def renamed(entry: Entry, data: bytes, record: Record) -> tuple[Entry, bytes]:
    """A file of an early run under the name of its record now; RecordError if it is damaged."""
    content = read(entry.kind, entry.run, data) if entry.kind != "record" else record
    file = io.BytesIO()
    if isinstance(content, Record):
        file.write(content.to_json().encode())
    elif entry.kind == "maps":
        np.savez_compressed(file, **{**content, "run": np.array(record.id)})
    else:
        torch.save({**content, "run": record.id}, file)
    path = entry.path.replace(entry.run, record.id)
    return dataclasses.replace(entry, path=path, run=record.id), file.getvalue()
