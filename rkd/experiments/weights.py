"""What a parameter names that begins with trained weights: a file, a recorded run, or weights that several share."""

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
TEACHERS = "teachers"  # folder, within the data folder, of weights that have a name
_RUN = re.compile("[0-9a-f]{12}")


class Weights(NamedTuple):
    """Weights that were named.

    Attributes:
        path: of the file, from the project's top or absolute.
        sha256: of the file.
        record: of the run that they were trained in, where one was named.
    """

    path: str
    sha256: str
    record: Record | None = None


def is_run_id(text: object) -> bool:
    """Whether it is the id of a run, maybe behind a folder of records and before a digest; a file has such a name too
    if it likes."""
    name = text.partition(MARK)[0] if isinstance(text, str) else ""
    return _RUN.fullmatch(Path(name).name) is not None and not is_file(paths.home() / name)


def find_weights(what: str, text: str, store: Store, root: Path, which: str) -> Weights:
    """The weights that a parameter names: the path of a file, the id of a recorded run (RUN of this profile or of any
    other of the project; FOLDER/RUN of another folder of records), or the name, without suffix, of a file in
    `teachers/` of the data folder. Behind it "#sha256=DIGEST" may name its content: then it need not be there for runs
    to be named and looked up; what is loaded is checked against it.

    Args:
        what: the parameter's name, for messages.
        store: where runs are looked for first.
        root: the data folder.
        which: of a run, "last" or "best".

    Raises:
        ConfigError: it names nothing, several files, or no SHA-256; the run is not recorded, or has diverged; its
            weights are not on this machine.
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
    """The record of the run that a parameter names (see `find_weights`), which ended well.

    Raises:
        ConfigError: it is not recorded, or has diverged.
        RecordError: it is damaged.
    """
    name = text.partition(MARK)[0]
    run = Path(name).name
    record = _recorded(what, name, store)[0].load(run)
    note_origin(foreign_in(record.config.to_dict()), f"the record of run {run}")
    if record.status != "finished":
        raise ConfigError(f"{what} is run {run}, which ended as {record.status!r}")
    return record


def weights_file(store: Store, run: str, which: str) -> Path | None:
    """Where the "last" or "best" weights of an ended run lie: what its training left here, else a committed teacher in
    half precision; None: nowhere."""
    for path in (store.folder(run) / f"{which}.pt", teacher_file(store, run, which)):
        if path.exists():
            return path
    return None


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, changed: int) -> str:
    """Of a file that every run of a table names."""
    return sha256(path)


def _of_run(what: str, name: str, which: str, store: Store, known: bool) -> Path:
    """Where the weights of a recorded run lie; if its content is known, or would lie."""
    run, recorded = Path(name).name, _recorded(what, name, store)
    here = [(found, path) for found in recorded if (path := weights_file(found, run, which))]
    if not here and known:
        return recorded[0].folder(run) / f"{which}.pt"
    if not here:
        raise ConfigError(
            f"{what} is run {run}, whose {which} weights are not on this machine; carry them here (`rkd export "
            f"--all-weights` there, `rkd import` here), or remove {_shown(recorded[0].path(run))} and train it again"
        )
    (first, path), *others = here
    if first != store and any(sha256(path) != sha256(other) for _, other in others):
        places = ", ".join(f"{_shown(found.records)}/{run}" for found, _ in here)
        raise ConfigError(f"{what} is run {run}, of which there are several weights; name one of {places}")
    return path


def _recorded(what: str, name: str, store: Store) -> list[Store]:
    """Where a run is recorded of the folder that is named with it, else of `store` and then those of all profiles;
    ConfigError where it is not. The working files of a folder of records lie in it, or, of a profile's, beside it."""
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
