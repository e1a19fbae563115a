"""Atomic files for weights and for the state of an unfinished run."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from rkd.errors import RecordError
from rkd.files import replacing


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values) so that a reader sees the old file or the new, never half of one."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU, executing nothing; RecordError where the file is damaged or of another
    kind."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(
            f"checkpoint {path} is damaged ({first_line}); delete it to start that run again"
        ) from error
