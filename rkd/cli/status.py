"""`rkd status`: what is recorded, running, begun or missing; and runs in words."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rkd.cli.declare import Names
from rkd.errors import ConfigError

STATES = ("recorded", "diverged", "damaged", "running", "begun", "missing")
ALL = "all, each once"


def status(
    *, chapters: Names | None = None, verbose: bool = False, profile: str = "smoke", **given: Any
) -> int:
    """Count the runs a profile's chapters need: recorded, damaged, running now, partly trained, or missing. With
    --verbose, list them, and say how long the rest will take on this machine.

    Args:
        chapters: chapters to look at (default: all)
        verbose: one line per run, and the time left

    Examples:
        rkd status
        rkd status --profile paper --chapters table3 --verbose

        The time left is what one process takes, loading and compiling aside, at the rates of the runs recorded on
        this device; `rkd sweep` with the same chapters and settings trains what is left.
    """
    from rkd import paths
    from rkd.experiments.notebooks import notebook_names, read_notebook, tagged
    from rkd.experiments.selectors import Selectors
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import folders

    book = paths.home() / "book"
    chapters = chapters or [
        name for name in notebook_names(book) if tagged(read_notebook(book / f"{name}.ipynb"), "rows")
    ]
    selectors = Selectors(profile, given)  # ids alone, which are kept: torch would take seconds
    selectors.check(chapters)
    ids = {name: selectors.every(name) for name in chapters}
    records, work = folders(profile, resolve("status", {**given, "profile": profile}).results)
    with _read_before(records) as read:
        states = {
            run: state(records, work, (run, *forms), read)
            for own in ids.values()
            for run, forms in own.items()
        }
    if verbose:
        time = _verbose(Selectors(profile, given, settled=True), chapters)
    print(f"{'chapter':18}" + "".join(f"{name:>10}" for name in STATES))
    for name, own in {**ids, ALL: states}.items():
        found = [states[run] for run in own]
        print(f"{name:18}" + "".join(f"{found.count(state):>10}" for state in STATES))
    print(f"records: {records}")
    if verbose:
        print(f"time left: {time}")
    return 0


def _verbose(selectors, chapters: Iterable[str]) -> str:
    """Print every run; returns the time left, or why it is unknown: what is recorded can be listed on a machine without
    the device."""
    from rkd.experiments.estimate import time_left
    from rkd.experiments.workspace import store_of

    settings, runs = selectors.plan(chapters)
    store = store_of(settings)
    list_runs(runs, store)
    try:
        return str(time_left(runs, settings, store))
    except ConfigError as error:
        return f"unknown here: {error}"


@contextmanager
def _read_before(records: Path) -> Iterator[dict[str, list[Any]]]:
    """By run: size and time of a record that was read and found sound, and its state. To read one takes torch, which
    takes seconds to import; one that has changed is read again."""
    from rkd import paths
    from rkd.files import digest, place

    file = paths.build() / "status" / f"{digest(str(records.resolve()))[:12]}.json"
    read = json.loads(file.read_bytes()) if file.is_file() else {}
    before = dict(read)
    yield read
    if read != before:
        place(file, json.dumps(read).encode())


def state(records: Path, work: Path, forms: Iterable[str], read: dict[str, list[Any]] | None = None) -> str:
    """One of STATES, of a run that may be trained in several arithmetics, by their ids: "damaged" is one whose record
    cannot be read, "running" one that a process is training now, "begun" one that has a checkpoint. What `read` knows
    of records is taken from there, see `_read_before`."""
    ended = next((run for run in forms if (records / f"{run}.json").exists()), None)
    begun = [run for run in forms if (work / run).is_dir()]
    if not ended and not begun:
        return "missing"
    if ended:
        file = (records / f"{ended}.json").stat()
        key = [file.st_size, file.st_mtime_ns]
        if read and read.get(ended, [])[:2] == key:
            return read[ended][2]
    from rkd.records import Store  # with torch

    store = Store(records, work)
    if ended:
        record = store.read([ended]).get(ended)
        if record is None:
            return "damaged"
        told = "recorded" if record.status == "finished" else record.status
        if read is not None:
            read[ended] = [*key, told]
        return told
    if any(store.running(run) for run in begun):
        return "running"
    return "begun" if any((work / run / "checkpoint.pt").exists() for run in begun) else "missing"


def list_runs(runs, store, seconds: Mapping[str, float | None] | None = None) -> None:
    """Print runs in words: state, how far they are, accuracy, seconds they will take where those are known."""
    from rkd.experiments.budget import in_words
    from rkd.experiments.estimate import begun

    for run in runs:
        found, notes = state(store.records, store.work, (run.id,)), []
        if found == "recorded":
            notes += [f"{record.accuracy():.2f} %" for record in store.read([run.id]).values()]
        if found in ("begun", "running"):
            come = begun(store, run.id)
            partly = f" and {come.position:,} images" if come and come.position else ""
            notes.append(f"epoch {come.epoch if come else 0} of {run.total_epochs}{partly}")
        if (left := (seconds or {}).get(run.id)) is not None:
            notes.append(f"about {in_words(left)}")
        told = f"  [{'; '.join(notes)}]" if notes else ""
        print(f"{found:9} {run.id}  {run.in_words()}{told}")
