"""Files of a store that cannot be used, and setting them aside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from rkd.errors import RecordError
from rkd.files import check_regular, unused_path
from rkd.records.store import Store
from rkd.records.teachers import load_teacher
from rkd.records.transfer.archive import comparable_content


def store_files(store: Store) -> dict[str, Path]:
    """Where each file of a store lies that a run has left, by a path of its own, as in an export: records, maps,
    checkpoints, weights; committed teachers too."""
    places = {
        "records": store.records.glob("*.json"),
        "maps": (store.records / "maps").glob("*.npz"),
        "work": (path for name in ("*.pt", "maps.npz") for path in store.work.glob(f"[0-9a-f]*/{name}")),
        "teachers": (store.records.parent / "teachers").glob("*.safetensors"),
    }
    return {
        f"{top}/{path.relative_to(store.work) if top == 'work' else path.name}": path
        for top, found in places.items()
        for path in sorted(found)
    }


def find_damaged(store: Store) -> Iterator[tuple[str, Path, str]]:
    """Of each file that is damaged, foreign, or claims what it does not prove: its path in `files`, where it lies, and
    why. What a process is training now is passed over."""
    for name, path in store_files(store).items():
        if name.startswith("work/") and store.running(path.parent.name):
            continue
        try:
            check_regular(path)
            if name.startswith("teachers/"):
                load_teacher(path)
            else:
                comparable_content(name, path.read_bytes())
        except FileNotFoundError:  # a run has just ended
            continue
        except (OSError, RecordError) as error:
            yield name, path, error.strerror if isinstance(error, OSError) else str(error)


def quarantine(store: Store, name: str, path: Path) -> Path:
    """Move a file to the folder damaged/ beside the records; returns where it lies then."""
    target = unused_path(store.records / "damaged" / name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(path, target))
