"""Reading records, checkpoints and weights that may be damaged or of another run."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from rkd.errors import RecordError
from rkd.records.record import Record
from rkd.training import checkpoint


def read(kind: str, run: str, data: bytes) -> Any:
    """The content of a file: a Record, or the dict of a checkpoint, of weights or of maps.

    Raises:
        RecordError: it cannot be read, or belongs to another run. The message does not name the file.
    """
    content = _READERS[kind](run, data)
    found = content.id if kind == "record" else content["run"]
    if found != run:
        raise RecordError(f"it belongs to run {found}, not {run}")
    return content


# A file from elsewhere can be wrong anywhere in its structure, with any type of error.


def _read_record(run: str, data: bytes) -> Record:
    try:
        record = Record.from_json(data.decode(), run)
        record.to_json()
    except RecordError:
        raise
    except Exception as error:
        raise RecordError(f"record {run} is damaged ({type(error).__name__}: {error})") from error
    if record.status not in ("finished", "diverged"):
        raise RecordError(f"record {run} has the unknown status {record.status!r}")
    return record


def _read_state(run: str, data: bytes) -> dict[str, Any]:
    try:
        state = checkpoint.load(io.BytesIO(data))
        if not isinstance(state["run"], str):
            raise TypeError("run is no text")
        if not all(isinstance(tensor, Tensor) for tensor in state["student"].values()):
            raise TypeError("student holds more than tensors")
        if not all(isinstance(count, int) and count >= 0 for count in progress(state)):
            raise TypeError("epoch and position are no counts")
    except Exception as error:
        cause = error.__cause__ or error
        first = (str(cause).splitlines() or [""])[0]
        raise RecordError(f"it is damaged, or no file of a run ({type(cause).__name__}: {first})") from error
    return state


def _read_maps(run: str, data: bytes) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(file) | {"run": str(file["run"])}
    except Exception as error:
        raise RecordError(f"it is damaged, or holds no maps ({type(error).__name__}: {error})") from error


_READERS: dict[str, Callable[[str, bytes], Any]] = {
    "record": _read_record,
    "checkpoint": _read_state,
    "weights": _read_state,
    "maps": _read_maps,
}


def progress(state: dict[str, Any]) -> tuple[int, int]:
    """How far a checkpoint is: epochs finished, images done of the next."""
    return state["epoch"], state.get("position", 0)
