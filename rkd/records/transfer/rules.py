"""Merging one file into a store, by kind: what is added, what is here already, what is a conflict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rkd.errors import RecordError
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer.content import progress, read
from rkd.records.transfer.layout import place, read_bytes


def _merge_record(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = read_bytes(path)
    if here == data:
        return False
    record = read("record", run, data)
    if here is None:
        place(path, data)
        (store.folder(run) / "checkpoint.pt").unlink(missing_ok=True)
        return True
    mine, theirs = _outcome(_here(path, "record", run, here)), _outcome(record)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing:
        raise RecordError(f"conflict: the record here has another {' and '.join(differing)}; it stays")
    return False


def _merge_checkpoint(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = read_bytes(path)
    if store.has(run) or here == data:
        return False
    state = read("checkpoint", run, data)
    if here is not None and progress(state) <= progress(_here(path, "checkpoint", run, here)):
        return False
    place(path, data)
    return True


def _merge_weights(store: Store, run: str, path: Path, data: bytes) -> bool:
    here = read_bytes(path)
    if here == data:
        return False
    weights = read("weights", run, data)["student"]
    if here is None:
        place(path, data)
        return True
    if not _same(weights, _here(path, "weights", run, here)["student"]):
        raise RecordError("conflict: the file here has other tensors; it stays")
    return False


def _merge_maps(store: Store, run: str, path: Path, data: bytes) -> bool:
    """Maps of a run trained twice may differ in their last digits: those here stay. Those of a run that is under way
    follow its checkpoint."""
    unfinished = path.is_relative_to(store.work)
    if read_bytes(path) == data or (store.has(run) if unfinished else path.exists()):
        return False
    if unfinished and len(read("maps", run, data)["epochs"]) <= len(_epochs_here(path, run)):
        return False
    read("maps", run, data)
    place(path, data)
    return True


def _epochs_here(path: Path, run: str) -> Any:
    here = read_bytes(path)
    return [] if here is None else _here(path, "maps", run, here)["epochs"]


MERGES: dict[str, Callable[[Store, str, Path, bytes], bool]] = {
    "record": _merge_record,
    "weights": _merge_weights,
    "checkpoint": _merge_checkpoint,
    "maps": _merge_maps,
}


def _here(path: Path, kind: str, run: str, data: bytes) -> Any:
    """The content of a file of this store."""
    try:
        return read(kind, run, data)
    except RecordError as error:
        raise RecordError(
            f"the file here cannot be compared: {error}; delete {path} and import again"
        ) from error


def _outcome(record: Record) -> dict[str, Any]:
    """What two records of one run must agree in. As JSON values, in which an infinite loss equals itself."""
    body = json.loads(record.to_json())
    if body["config"]["teacher"]:
        # The hash names a teacher's file; where it lies differs from machine to machine.
        body["config"]["teacher"]["checkpoint"] = None
    return {name: body[name] for name in ("config", "status", "curves", "result")}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts agree bit for bit, NaN included."""
    return one.keys() == other.keys() and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(_raw(a), _raw(b))
        for a, b in ((one[name], other[name]) for name in one)
    )


def _raw(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)
