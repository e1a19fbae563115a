"""Find the files of a store that cannot be used, and set them aside."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from rkd.errors import RecordError
from rkd.files import check_regular, unused_path
from rkd.records.store import Store
from rkd.records.teachers import load_teacher
from rkd.records.transfer.archive import comparable_content


def store_files(store: Store) -> dict[str, Path]:
    """Return the paths of the records, maps, checkpoints and weights that runs left in a store, and of committed
    teachers, each under a unique name such as exports use."""
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
    """Yield each file that is damaged, foreign, or claims more than its content proves: its name in `store_files`, its
    path, and what is wrong. Working files of runs in training are skipped."""
    for name, path in store_files(store).items():
        if name.startswith("work/") and store.running(path.parent.name):
            continue
        try:
            check_regular(path)
            if name.startswith("teachers/"):
                load_teacher(path)
            else:
                comparable_content(name, path.read_bytes())
        except FileNotFoundError:  # its run has just ended
            continue
        except (OSError, RecordError) as error:
            yield name, path, error.strerror if isinstance(error, OSError) else str(error)


def quarantine(store: Store, name: str, path: Path) -> Path:
    """Move a file into the folder damaged/ within that of the records; return its new path."""
    target = unused_path(store.records / "damaged" / name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(path, target))
