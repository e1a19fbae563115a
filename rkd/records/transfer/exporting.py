"""Which files of a store are to be exported, and writing them: the parts, then the manifest, so that a folder with a
manifest is a whole export."""

import filecmp
import hashlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from rkd.errors import ConfigError, RecordError
from rkd.files import place
from rkd.records.record import Record
from rkd.records.store import Store
from rkd.records.transfer.archive import MANIFEST, PART_NAME, Entry, Manifest, Part, TarWriter
from rkd.records.transfer.content import KINDS, local, places, read
from rkd.training import RunConfig

File = tuple[str, str, str, bytes]  # kind, run, path in the export, content


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        files, parts: as in its manifest.
        left_out: why, by path, of each file here that could not be exported: damaged, or foreign.
        without_weights: ids of finished teachers whose weights are not on this machine.
        no_room: paths of sound files that did not fit into `max_files`.
    """

    files: tuple[Entry, ...] = ()
    parts: tuple[Part, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    without_weights: list[str] = field(default_factory=list)
    no_room: list[str] = field(default_factory=list)


def collect(
    store: Store,
    runs: Collection[str] | None,
    planned: Iterable[RunConfig],
    all_weights: bool,
    done: Exported,
) -> Iterator[File]:
    """All files to export, each read once: those of a store are replaced, never rewritten. Arguments as of `export`;
    what is not to be had goes into `done`."""
    asked = {config.id: config for config in planned}
    records: dict[str, Record] = {}
    unknown: list[str] = []  # unfinished runs that learn from some run, and do not say from which

    def sound(run: str, *paths: str) -> list[File]:
        found = []
        for path in paths:
            kind = places(run).get(path, "record")
            try:
                data = local(store, path).read_bytes()
                content = read(kind, run, data)
            except FileNotFoundError:
                continue
            except RecordError as error:
                done.left_out[path] = str(error)
                continue
            found.append((kind, run, path, data))
            if kind == "record":
                records[run] = content
            if kind == "checkpoint" and content.get("method") and run not in asked:
                unknown.append(run)
        return found

    begun = [path.name for path in store.work.iterdir() if places(path.name)] if store.work.is_dir() else []
    for run in sorted({*store.ids(), *begun}):
        if runs is None or run in runs:
            ended, state = f"records/{run}.json", f"work/{run}/checkpoint.pt"
            # Twice: a run that was in training at the first look may have ended.
            yield from sound(run, ended) or sound(run, state) or sound(run, ended)
            yield from sound(run, f"maps/{run}.npz" if run in records else f"work/{run}/maps.npz")
    configs = [*asked.values(), *(record.config for record in records.values())]
    named = [config.teacher for config in configs if config.teacher and config.teacher.run]
    teachers = {teacher.run.id for teacher in named if teacher.weights != "random"}
    for run, record in records.items():
        teaches = run in teachers or (unknown and record.config.teacher is None)
        teaches = teaches and record.status == "finished"
        if teaches or all_weights:
            found = sound(run, f"work/{run}/last.pt", f"work/{run}/best.pt")
            yield from found
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
    """Write records, the checkpoints of unfinished runs, and weights of finished teachers as a tar file in parts.

    The store may be in use: only files that can be read back are written. An export that was in the folder is replaced:
    its parts go once the new manifest stands, so that at any moment the folder holds one whole export. An unchanged
    store gives the same bytes. Of two exports of one store at once the second waits.

    Args:
        store: where from; the parts are written beside its working files and moved when they are complete.
        folder: made if it is not there; holds nothing but an export, or nothing.
        runs: ids; None: all there are.
        planned: runs that may be unfinished, since a checkpoint does not say from which run it learns: weights go
            along of the teachers that these and the records name. Where an unfinished run is not among them, every
            run without a teacher of its own counts as one.
        max_part: most bytes of one part; a file may lie in several.
        all_weights: weights of all recorded runs, not of finished teachers alone.
        max_files: most files in the folder, manifest included, but for the moment in which an export replaces another.
            Records go first then, weights of teachers next, then checkpoints, then maps, each as long as it fits.

    Raises:
        ConfigError: max_part is below 1, or max_files below 2.
        RecordError: the folder holds something else, or cannot be written; there is nothing to export.
    """
    check(folder, max_part, max_files)
    done, desk, entries = Exported(), store.work / ".export", []
    files: Iterable[File] = collect(store, runs, planned, all_weights, done)
    if max_files is not None:
        files = sorted(files, key=lambda file: KINDS.index(file[0]))
    try:
        store.work.mkdir(parents=True, exist_ok=True)
        with FileLock(store.work / ".export.lock"):
            desk.mkdir(exist_ok=True)
            writer = TarWriter(desk, max_part)
            for kind, run, path, data in files:
                if max_files is not None and writer.size_with(len(data)) > (max_files - 1) * max_part:
                    done.no_room.append(path)
                    continue
                digest = hashlib.sha256(data).hexdigest()
                entries.append(Entry(path, kind, run, len(data), digest, writer.add(path, data)))
            if not entries:
                raise RecordError(
                    f"nothing to export: no sound record in {store.records}, no checkpoint in {store.work}"
                )
            writer.close()
            done.files, done.parts = tuple(entries), tuple(writer.parts)
            _replace(folder, desk, Manifest(done.files, done.parts))
            shutil.rmtree(desk, ignore_errors=True)
    except OSError as error:
        raise RecordError(f"the export to {folder} failed: {error}") from error
    return done


def _replace(folder: Path, desk: Path, manifest: Manifest) -> None:
    """Move the parts to the folder, then the manifest; then parts of the export before go."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {part.name for part in manifest.parts}
    for name in names:
        there = folder / name  # as part of the whole export that is being replaced
        if not there.exists() or not filecmp.cmp(desk / name, there, shallow=False):
            shutil.move(desk / name, there)
    place(folder / MANIFEST, manifest.to_json().encode())
    for path in folder.iterdir():
        if PART_NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()


def check(folder: Path, max_part: int, max_files: int | None) -> None:
    """Raise what `export` would of its arguments, or where the folder of an export holds anything else."""
    if max_part < 1:
        raise ConfigError(f"max_part is {max_part}; a part needs at least 1 byte")
    if max_files is not None and max_files < 2:
        raise ConfigError(f"max_files is {max_files}; an export has at least 2, the manifest and a part")
    check_folder(folder, "an export", MANIFEST)
    if (folder / MANIFEST).exists():
        Manifest.read(folder)


def check_folder(folder: Path, what: str, listing: str) -> None:
    """RecordError if a folder, where there is one, holds anything but parts, what lists them, and what a killed process
    left of these."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecordError(f"{folder} is not a folder; name one for {what}, or a new one")
    bare = {path.name: path.name.removeprefix(".").removesuffix(".tmp") for path in folder.iterdir()}
    ours = {name for name in bare if PART_NAME.fullmatch(bare[name]) or bare[name] in (listing, "lock")}
    if others := sorted(bare.keys() - ours):
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise RecordError(
            f"{folder} holds something that is no part of {what} ({listed}); name an empty folder"
        )
