"""Find the trained weights that a parameter names: a file, a recorded run, or shared weights with a name."""

import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

from rkd import paths
from rkd.errors import ConfigError
from rkd.experiments.workspace import result_folders
from rkd.files import is_file, sha256
from rkd.records import Record, Store
from rkd.records.teachers import teacher_file
from rkd.trust import foreign_in, note_origin

MARK = "#sha256="
TEACHERS = "teachers"  # folder of named weights, within the data folder
_RUN = re.compile("[0-9a-f]{12}")


class Weights(NamedTuple):
    """The weights that a parameter names.

    Attributes:
        path: path of the file, from the project's top or absolute.
        sha256: digest of the file.
        record: record of the run that trained them, if a run was named.
    """

    path: str
    sha256: str
    record: Record | None = None


def is_run_id(text: object) -> bool:
    """Whether `text` is a run's id, optionally preceded by a folder of records and followed by a digest; False if it is
    the path of a file."""
    name = text.partition(MARK)[0] if isinstance(text, str) else ""
    return _RUN.fullmatch(Path(name).name) is not None and not is_file(paths.home() / name)


def find_weights(what: str, text: str, store: Store, root: Path, which: str) -> Weights:
    """Return the weights that a parameter names by the path of a file, the id of a recorded run (RUN of any profile of
    the project, this one first; FOLDER/RUN of another folder of records), or the name, without suffix, of a file in
    `teachers/` of the data folder. A suffix "#sha256=DIGEST" may name the content: then the file need not be there for
    runs to be named and looked up, and what is loaded is checked against the digest.

    Args:
        what: the parameter's name, for messages.
        store: where to look for runs first.
        root: the data folder.
        which: which weights of a run, "last" or "best".

    Raises:
        ConfigError: nothing or several files have this name; the digest is malformed; the run is not recorded, or has
            diverged; its weights are not on this machine.
        RecordError: the record is damaged.
    """
    name, mark, digest = text.partition(MARK)
    if mark and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ConfigError(f"{what} {name!r} is given the sha256 {digest!r}; it must be 64 hexadecimal digits")
    if is_run_id(text):
        record = find_record(what, text, store)
        path = _of_run(what, name, which, store, bool(mark))
    else:
        record, path = None, _file(what, name, root, bool(mark))
    return Weights(_shown(path), digest or _sha256(path, path.stat().st_mtime_ns), record)


def find_record(what: str, text: str, store: Store) -> Record:
    """Return the record of the finished run that a parameter names (see `find_weights`).

    Raises:
        ConfigError: the run is not recorded, or has diverged.
        RecordError: the record is damaged.
    """
    name = text.partition(MARK)[0]
    run = Path(name).name
    record = _recorded(what, name, store)[0].load(run)
    note_origin(foreign_in(record.config.to_dict()), f"the record of run {run}")
    if record.status != "finished":
        raise ConfigError(f"{what} is run {run}, which ended as {record.status!r}")
    return record


def weights_file(store: Store, run: str, which: str) -> Path | None:
    """Return the file of a finished run's "last" or "best" weights: the one its training left here, else a committed
    teacher in half precision; None if there is neither."""
    for path in (store.folder(run) / f"{which}.pt", teacher_file(store, run, which)):
        if path.exists():
            return path
    return None


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, changed: int) -> str:
    """Return the digest of a file, cached because every run of a table may name it."""
    return sha256(path)


def _of_run(what: str, name: str, which: str, store: Store, known: bool) -> Path:
    """Return the path of a recorded run's weights; if their content is `known`, the path may not exist."""
    run, recorded = Path(name).name, _recorded(what, name, store)
    here = [(found, path) for found in recorded if (path := weights_file(found, run, which))]
    if not here and known:
        return recorded[0].folder(run) / f"{which}.pt"
    if not here:
        raise ConfigError(
            f"{what} is run {run}, whose {which} weights are not on this machine; carry them here (`rkd records export "
            f"--all-weights` there, `rkd records import` here), or remove {_shown(recorded[0].path(run))} and train it "
            "again"
        )
    (first, path), *others = here
    if first != store and any(sha256(path) != sha256(other) for _, other in others):
        places = ", ".join(f"{_shown(found.records)}/{run}" for found, _ in here)
        raise ConfigError(f"{what} is run {run}, of which there are several weights; name one of {places}")
    return path


def _recorded(what: str, name: str, store: Store) -> list[Store]:
    """Return the stores that record a run: of the folder named with it, else `store` and then those of all profiles;
    ConfigError if none does. A folder's working files lie within it, a profile's in their own folder beside it."""
    stores, places, run = [], [(paths.home() / name).parent], Path(name).name
    if "/" not in name:
        stores, places = [store], [*sorted((paths.home() / "results").glob("*/")), result_folders("smoke")[0]]
    for records in places:
        beside = (result_folders(profile) for profile in (records.name, "smoke"))
        stores += [Store(records, records / "work"), *(Store(*pair) for pair in beside if pair[0] == records)]
    if found := [each for each in stores if each.has(run)]:
        return found
    looked = ", ".join(dict.fromkeys(_shown(each.records) for each in stores))
    raise ConfigError(f"{what} is {name!r}, but no run {run} is recorded in {looked}")


def _file(what: str, name: str, root: Path, known: bool) -> Path:
    path = paths.home() / name
    shared = [found for found in (root / TEACHERS).glob("*") if found.stem == name and found.is_file()]
    if is_file(path) or (known and not shared):
        return path
    if len(shared) > 1:
        raise ConfigError(f"{what} {name!r} may be any of {', '.join(sorted(p.name for p in shared))}")
    if not shared:
        raise ConfigError(
            f"{what} {name!r} is not a file, nor the id of a recorded run, nor the name of one in "
            f"{_shown(root / TEACHERS)}"
        )
    return shared[0]


def _shown(path: Path) -> str:
    return os.path.relpath(path, paths.home()) if path.is_relative_to(paths.home()) else str(path)
