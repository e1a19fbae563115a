"""Which files of a store are to be exported, and writing them: the parts, then the manifest, so that a folder with a
manifest is a whole export."""

import re
import shutil
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from rkd.errors import ConfigError, RecordError
from rkd.files import place
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer import archive
from rkd.records.transfer.archive import KINDS, MANIFEST, PART_NAME, Entry, Manifest, PartWriter, kind_and_run
from rkd.training import RunConfig

_OURS = re.compile(rf"\.?({PART_NAME.pattern}|{re.escape(MANIFEST)})(\.tmp)?")


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        files, parts: as in its manifest.
        left_out: why, by path, of each file here that could not be exported: damaged, or foreign.
        without_weights: ids of finished teachers whose weights are not on this machine.
        no_room: paths of sound files that did not fit into `max_files`.
    """

    files: list[Entry] = field(default_factory=list)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    without_weights: list[str] = field(default_factory=list)
    no_room: list[str] = field(default_factory=list)


def collect(
    store: Store,
    runs: Collection[str] | None,
    planned: Iterable[RunConfig],
    all_weights: bool,
    done: Exported,
) -> Iterator[tuple[str, bytes]]:
    """Path in the export and content of all files, each read once: those of a store are replaced, never rewritten.
    Arguments as of `export`; what is not to be had goes into `done`."""
    records: dict[str, Record] = {}

    def sound(*paths: str) -> list[tuple[str, bytes]]:
        found = []
        for path in paths:
            try:
                data = archive.local(store, path).read_bytes()
                kind, run = kind_and_run(path)
                holds, _ = archive.content(kind, run, data)
            except FileNotFoundError:
                continue
            except RecordError as error:
                done.left_out[path] = str(error)
                continue
            found.append((path, data))
            if kind == "record":
                records[run] = holds
        return found

    begun = (path.name for path in store.work.glob("[0-9a-f]*"))
    for run in sorted({*store.ids(), *begun}):
        if runs is None or run in runs:
            ended, state = f"records/{run}.json", f"work/{run}/checkpoint.pt"
            # Twice: a run that was in training at the first look may have ended.
            yield from sound(ended) or sound(state) or sound(ended)
            yield from sound(f"maps/{run}.npz" if run in records else f"work/{run}/maps.npz")
    named = [config.teacher for config in (*planned, *(record.config for record in records.values()))]
    teachers = {t.run.id for t in named if t and t.run and t.weights != "random"}
    for run, record in records.items():
        teaches = run in teachers and record.status == "finished"
        if teaches or all_weights:
            yield from (found := sound(f"work/{run}/last.pt", f"work/{run}/best.pt"))
            if teaches and not found:
                done.without_weights.append(run)


def export(
    store: Store,
    folder: Path,
    *,
    runs: Collection[str] | None = None,
    planned: Iterable[RunConfig] = (),
    max_part: int = 15_000_000,
    all_weights: bool = False,
    max_files: int | None = None,
) -> Exported:
    """Write records, the checkpoints of unfinished runs, and weights of finished teachers as tar files.

    The store may be in use: only files that can be read back are written. At any moment the folder holds one whole
    export, the one before or this one. An unchanged store gives the same bytes.

    Args:
        store: where from; the parts are made beside its working files and copied when they are complete.
        folder: made if it is not there; holds nothing but an export, or nothing.
        runs: ids; None: all there are.
        planned: runs that may be unfinished. A checkpoint does not say from which run it learns: weights go along of
            the teachers that these and the records name.
        max_part: most bytes of one tar file; a file may lie in several.
        all_weights: weights of all recorded runs, not of finished teachers alone.
        max_files: most files in the folder, manifest included, but for the moment in which an export replaces another.
            Records go first then, weights of teachers next, then checkpoints, then maps, each as long as it fits.

    Raises:
        ConfigError: max_part is below 10,240, or max_files below 2.
        RecordError: the folder holds something else, or cannot be written; there is nothing to export.
    """
    check(folder, max_part, max_files)
    done, desk = Exported(), store.work / ".export"
    files: Iterable[tuple[str, bytes]] = collect(store, runs, planned, all_weights, done)
    if max_files is not None:
        files = sorted(files, key=lambda file: KINDS.index(kind_and_run(file[0])[0]))
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        with FileLock(store.work / ".export.lock"):  # of two exports at once the second waits
            shutil.rmtree(desk, ignore_errors=True)
            writer = PartWriter(desk, max_part)
            for path, data in files:
                if max_files is not None and writer.parts_with(len(data)) >= max_files:
                    done.no_room.append(path)
                    continue
                done.files.append(Entry(path, *kind_and_run(path), len(data), writer.add(data)))
            if not done.files:
                raise RecordError(
                    f"nothing to export: no sound record in {store.records}, no checkpoint in {store.work}"
                )
            writer.close()
            done.parts = writer.parts
            for name in done.parts:
                place(folder / name, (desk / name).read_bytes())
            Manifest(files=done.files, parts=done.parts).write(folder)
            for old in folder.glob("*part-*"):
                if old.name not in done.parts:
                    old.unlink()
            shutil.rmtree(desk)
    except OSError as error:
        raise RecordError(f"the export to {folder} failed: {error}") from error
    return done


def check(folder: Path, max_part: int, max_files: int | None) -> None:
    """Raise what `export` would of its arguments, or where the folder of an export holds anything else."""
    if max_part < tarfile.RECORDSIZE:
        raise ConfigError(f"max_part is {max_part}; a tar file has at least {tarfile.RECORDSIZE} bytes")
    if max_files is not None and max_files < 2:
        raise ConfigError(f"max_files is {max_files}; an export has at least 2, the manifest and a part")
    check_folder(folder, "an export", _OURS)
    if (folder / MANIFEST).exists():
        Manifest.read(folder)


def check_folder(folder: Path, what: str, ours: re.Pattern[str]) -> None:
    """RecordError if a folder, where there is one, holds anything but files whose names match."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name one for {what}, or a new one")
    if others := sorted(path.name for path in folder.iterdir() if not ours.fullmatch(path.name)):
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RecordError(
            f"{folder} holds something that is no part of {what} ({listed}); name an empty folder"
        )
