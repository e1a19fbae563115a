"""The files of a run that travel: where they lie, and reading them where they may be damaged or of another run."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, strided

from rkd.errors import RecordError
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.training import checkpoint

KINDS = ("record", "weights", "checkpoint", "maps")  # what cost most to compute first


def places(run: str) -> dict[str, str]:
    """The files of a run that can be exported: path in the export -> kind. None for what is no id of a run."""
    if not re.fullmatch("[0-9a-f]{12}", run):
        return {}
    return {
        f"records/{run}.json": "record",
        f"work/{run}/last.pt": "weights",
        f"work/{run}/best.pt": "weights",
        f"work/{run}/checkpoint.pt": "checkpoint",
        f"work/{run}/maps.npz": "maps",
        f"maps/{run}.npz": "maps",
    }


def local(store: Store, path: str) -> Path:
    """Where a file of an export lies in a store."""
    top, _, rest = path.partition("/")
    return {"records": store.records, "work": store.work, "maps": store.records / "maps"}[top] / rest


def read(kind: str, run: str, data: bytes) -> Any:
    """The content of a file: a Record, or the dict of a checkpoint, of weights or of maps. Nothing is executed.

    Raises:
        RecordError: it cannot be read, or belongs to another run. The message does not name the file.
    """
    try:
        found, content = _READERS[kind](data)
    except Exception as error:  # a file from elsewhere can be wrong anywhere, with any type of error
        cause = error.__cause__ or error
        said = str(cause).partition("\n")[0]
        raise RecordError(f"it is damaged, or no {kind} of a run ({type(cause).__name__}: {said})") from error
    if found != run:
        raise RecordError(f"it belongs to run {found}, not {run}")
    return content


def _record(data: bytes) -> tuple[str, Record]:
    record = Record.from_json(data.decode(), "here")
    record.to_json()  # its values are numbers
    if record.status not in ("finished", "diverged"):
        raise ValueError(f"the unknown status {record.status!r}")
    return record.id, record


def _state(data: bytes) -> tuple[str, dict[str, Any]]:
    state = checkpoint.load(io.BytesIO(data))
    named = state["student"].items()
    if not all(isinstance(name, str) and isinstance(t, Tensor) and t.layout == strided for name, t in named):
        raise TypeError("student holds more than named tensors")
    if not all(isinstance(count, int) and count >= 0 for count in progress(state)):
        raise TypeError("epoch and position are no counts")
    return state["run"], state


def _maps(data: bytes) -> tuple[str, dict[str, Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        content = dict(file)
    progress(content)
    return str(content["run"]), content


_READERS: dict[str, Callable[[bytes], tuple[str, Any]]] = {
    "record": _record,
    "weights": _state,
    "checkpoint": _state,
    "maps": _maps,
}


def progress(content: dict[str, Any]) -> tuple[int, int]:
    """How far a checkpoint or maps are: epochs, and images done of the next."""
    if "student" in content:
        return content["epoch"], content.get("position", 0)
    return len(content["epochs"]), 0
