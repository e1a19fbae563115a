"""`rkd status`: list recorded, running, begun and missing runs; `rkd records check`: find damaged files."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rkd import paths
from rkd.cli.declare import Names
from rkd.errors import ConfigError
from rkd.experiments.budget import format_duration
from rkd.experiments.ended import ended
from rkd.experiments.notebooks import notebook_names, read_notebook, tagged_cells
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import resolve
from rkd.experiments.workspace import result_folders, store_of

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
    book = paths.home() / "book"
    chapters = chapters or [
        name for name in notebook_names(book) if tagged_cells(read_notebook(book / f"{name}.ipynb"), "rows")
    ]
    selectors = Selectors(profile, given)  # ids alone, which are cached: importing torch would take seconds
    selectors.check(chapters)
    ids = {name: selectors.every(name) for name in chapters}
    records, work = result_folders(profile, resolve("status", {**given, "profile": profile}).results)
    found = states(records, work, {run: (run, *forms) for own in ids.values() for run, forms in own.items()})
    if verbose:
        from rkd.experiments.estimate import time_left

        settings, runs = Selectors(profile, given, settled=True).plan(chapters)
        list_runs(runs, store := store_of(settings))
        try:
            time = str(time_left(runs, settings, store))
        except ConfigError as error:  # what is recorded can be listed on a machine without the device
            time = f"unknown here: {error}"
    print(f"{'chapter':18}" + "".join(f"{name:>10}" for name in STATES))
    for name, own in {**ids, ALL: found}.items():
        count = Counter(found[run] for run in own)
        print(f"{name:18}" + "".join(f"{count[state]:>10}" for state in STATES))
    print(f"records: {records}")
    if verbose:
        print(f"time left: {time}")
    return 0


def check_records(*, profile: str = "smoke", results: str | None = None, quarantine: bool = False) -> int:
    """Read every record, file of maps, checkpoint and file of weights of a profile, compare checksums, and name what
    is damaged, foreign, or claims more than it proves. With --quarantine, move it to the folder damaged/ beside the
    records, where nothing looks: `rkd sweep` trains what is missing then.

    Args:
        quarantine: move what is damaged to the folder damaged/ beside the records

    Examples:
        rkd records check --profile paper
        rkd records check --results ~/theirs --quarantine

        Exit status: 0 nothing is damaged, 1 something is, 2 wrong call.
    """
    from rkd.records import damage

    store = store_of(resolve("records", {"profile": profile, "results": results}))
    if results is not None and not store.records.is_dir():
        raise ConfigError(f"there is no folder {str(store.records)!r}, so nothing to check")
    total, bad = len(damage.store_files(store)), 0
    for name, path, why in damage.find_damaged(store):
        bad += 1
        print(f"{path}: {why}")
        if quarantine:
            print(f"  moved to {damage.quarantine(store, name, path)}")
    print(f"{bad} of {total} files are damaged; records: {store.records}")
    return 1 if bad else 0


def states(records: Path, work: Path, runs: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return one of STATES by run; `runs` gives the ids of each run in the arithmetics it may be trained in. A run is
    "damaged" if its record cannot be read, "running" if a process is training it, "begun" if it has a checkpoint."""
    read, found = ended(records, dict.fromkeys(form for forms in runs.values() for form in forms)), {}
    for run, forms in runs.items():
        known = [read[form] for form in forms if form in read]
        if known:
            status = known[0].status if known[0] else "damaged"
            found[run] = "recorded" if status == "finished" else status
        else:
            found[run] = _begun(records, work, forms)
    return found


def _begun(records: Path, work: Path, forms: Iterable[str]) -> str:
    if not (begun := [run for run in forms if (work / run).is_dir()]):
        return "missing"
    from rkd.records import Store  # imports torch

    store = Store(records, work)
    if any(store.running(run) for run in begun):
        return "running"
    return "begun" if any((work / run / "checkpoint.pt").exists() for run in begun) else "missing"


def list_runs(runs, store, seconds: Mapping[str, float | None] | None = None) -> None:
    """Print one line per run: state, progress, accuracy, and the time it will take where `seconds` says so."""
    from rkd.experiments.estimate import checkpoint_progress

    runs = list(runs)
    found = states(store.records, store.work, {run.id: [run.id] for run in runs})
    for run in runs:
        state, notes = found[run.id], []
        if state == "recorded":
            notes += [f"{record.accuracy():.2f} %" for record in store.read([run.id]).values()]
        if state in ("begun", "running"):
            come = checkpoint_progress(store, run.id)
            partly = f" and {come.position:,} images" if come and come.position else ""
            notes.append(f"epoch {come.epoch if come else 0} of {run.total_epochs}{partly}")
        if (left := (seconds or {}).get(run.id)) is not None:
            notes.append(f"about {format_duration(left)}")
        told = f"  [{'; '.join(notes)}]" if notes else ""
        print(f"{state:9} {run.id}  {run.describe()}{told}")
