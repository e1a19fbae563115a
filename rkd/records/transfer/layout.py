"""Where the files of a run lie, in an export and in a store; reading them, putting them in place."""

import os
import re
from pathlib import Path

from rkd.files import replacing
from rkd.records.store import Store

KINDS = ("record", "checkpoint", "weights", "maps")
RUN_ID = re.compile(r"[0-9a-f]{12}")


def places(run: str) -> dict[str, str]:
    """The files of a run that can be exported: path in the export -> kind."""
    return {
        f"records/{run}.json": "record",
        f"work/{run}/checkpoint.pt": "checkpoint",
        f"work/{run}/last.pt": "weights",
        f"work/{run}/best.pt": "weights",
        f"maps/{run}.npz": "maps",
        f"work/{run}/maps.npz": "maps",
    }


def local(store: Store, path: str) -> Path:
    """Where a file of an export lies in a store."""
    kind, name, *file = path.split("/")
    if kind == "work":
        return store.folder(name) / file[0]
    return {"records": store.path, "maps": store.maps}[kind](name.partition(".")[0])


def read_bytes(path: Path) -> bytes | None:
    """A file as it is at one moment: files are replaced, never rewritten, so one open file never changes."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def place(path: Path, data: bytes) -> None:
    """Put a file in place atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
