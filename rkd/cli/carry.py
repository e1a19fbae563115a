"""`rkd records export` and `rkd records import`: carry results from one machine to another."""

import functools
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from rkd.cli.declare import Folder, Names, Size
from rkd.devices import pick_device
from rkd.errors import ConfigError, RecordError
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import resolve
from rkd.experiments.workspace import data_root, store_of

PART = 15_000_000  # bytes
PLURALS = {"record": "records", "checkpoint": "checkpoints", "weights": "weights", "maps": "maps"}


def export(
    *,
    out: Folder | None = None,
    teachers: bool = False,
    max_part: Size | None = None,
    max_files: int | None = None,
    all_weights: bool = False,
    chapters: Names | None = None,
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Write a profile's results as a tar file in parts, with a manifest, to be merged elsewhere by `rkd records
    import`: finished records, checkpoints of unfinished runs, and the weights of finished teachers. A sweep may go on
    meanwhile. With --teachers instead, write the teachers in half precision beside the records, small enough to be
    committed.

    Args:
        out: folder for the parts and their manifest
        teachers: write the finished teachers, in half precision, to the folder teachers/ beside the records
        max_part: most bytes of one part: 900kB, 15MB, 1GiB (default 15MB)
        max_files: most files, manifest included; what does not fit is named (default: no limit)
        all_weights: weights of every run, not of teachers alone
        chapters: chapters whose runs to take (default: all there are)

    Examples:
        rkd records export --out ~/carry --profile paper
        rkd records export --out parts --max-part 900kB --profile mini --chapters table3,table4
        rkd records export --out parts --profile paper --max-files 8    where no more come back, records first
        rkd records export --teachers --profile paper

        The folder given to --out holds nothing but an export; one that is there is replaced. Exit status: 0 done, 1
        some file here was left out (damaged, or there was no room for it), 2 wrong call.
    """
    from rkd.records import transfer

    if (out is None) != teachers:
        raise ConfigError("name either --out DIR, for the parts, or --teachers, not both and not neither")
    limits = {"--max-part": max_part, "--max-files": max_files, "--all-weights": all_weights}
    if teachers and (wrong := [name for name, value in limits.items() if value]):
        raise ConfigError(f"{wrong[0]} goes with --out, not with --teachers")
    settings, planned = Selectors(profile, given, settled=True).plan(chapters)
    store = store_of(settings)
    if teachers:
        return _write_teachers(settings, store, planned, bool(chapters))
    # In any arithmetic: runs begun or recorded in another one than planned are exported too.
    asked = {config.id for config in planned}
    asked |= {r.settled_id(*names) for r in (config.request for config in planned) for names in r.choices()}
    done = transfer.export(
        store, out, runs=asked if chapters else None, planned=planned, max_part=max_part or PART,
        max_files=max_files, all_weights=all_weights,
    )  # fmt: skip
    print_export(done, out)
    print(f"from {store.records}")
    return 1 if done.left_out or done.no_room else 0


def import_(folder: Path, *, profile: str = "smoke", results: str | None = None) -> int:
    """Merge what `rkd records export` wrote into the results here: what is missing is added, what is here stays, and
    what is damaged or contradicts what is here is refused by name. Of two checkpoints of a run the one further on
    stays. Doing it twice changes nothing.

    Args:
        folder: folder that rkd records export wrote

    Examples:
        rkd records import ~/carry --profile paper

        Exit status: 0 all of it is here now, 1 something was refused, 2 wrong call or no export.
    """
    from rkd.records import transfer

    store = store_of(resolve("import", {"profile": profile, "results": results}))
    outcomes = transfer.merge(store, folder)
    print(f"{'':11}{'added':>14}{'already here':>14}{'refused':>14}")
    for kind, name in PLURALS.items():
        own = Counter(outcome.state for outcome in outcomes if outcome.kind == kind)
        print(f"{name:11}{own['added']:>14}{own['here']:>14}{own['refused']:>14}")
    refused = [outcome for outcome in outcomes if outcome.state == "refused"]
    for outcome in refused:
        print(f"refused {outcome.path}: {outcome.why}")
    if not any(outcome.state == "added" for outcome in outcomes):
        print("nothing was changed" if refused else "nothing was changed: all of it is here already")
    print(f"records: {store.records}")
    return 1 if refused else 0


def print_export(done, folder: Path) -> None:
    """Print what an export holds, and what was left out."""
    print(f"{'':11}{'files':>8}{'bytes':>16}")
    for kind, name in PLURALS.items():
        sizes = [entry.size for entry in done.files if entry.kind == kind]
        print(f"{name:11}{len(sizes):>8}{sum(sizes):>16,}")
    for path, why in done.left_out.items():
        print(f"left out {path}: {why}")
    for path in done.no_room:
        print(f"left out {path}: no room for it")
    if done.without_weights:
        print(f"weights of these teachers are not on this machine: {', '.join(done.without_weights)}")
    command = shlex.join(["rkd", "records", "import", str(folder)])
    print(f"{len(done.parts)} parts in {folder}; merge them elsewhere with: {command}")


def _write_teachers(settings, store, planned, of_chapters: bool) -> int:
    """Write the weights that students use of each finished teacher; return the exit status."""
    from rkd import data
    from rkd.experiments.runner import teacher_configs

    device, root = pick_device(settings.device), data_root(settings)
    load = functools.lru_cache(maxsize=1)(lambda config: data.load(config, root).to(device))
    runs = [*planned, *(() if of_chapters else (record.config for record in store))]
    wanted = dict.fromkeys((teacher.run, teacher.weights) for teacher in teacher_configs(runs))
    refused = 0
    for config, which in wanted:
        try:
            if not store.has(config.id):
                said = "not recorded"
            elif not (store.folder(config.id) / f"{which}.pt").exists():
                said = f"no {which} weights here"
            else:
                said = _write_teacher(store, config, which, load(config.data))
        except RecordError as error:
            refused += 1
            said = f"refused: {error}"
        print(f"{config.id} {which:4} {config.network}: {said}")
    if not wanted:
        print("no run here learns from another")
    return 1 if refused else 0


def _write_teacher(store, config, which: str, images) -> str:
    """Write a teacher in half precision, with its accuracy measured again after rounding; return what to print.

    Raises:
        RecordError: it did not finish, its weights cannot be read or rounded, the data set here is not the one it was
            trained on, or other weights of it are committed already.
    """
    from rkd.experiments.group import trained_network
    from rkd.records.teachers import load_teacher, save_teacher, teacher_file, to_half, weights_digest
    from rkd.training import accuracy

    record = store.load(config.id)
    if record.status != "finished":
        raise RecordError(f"the run ended as {record.status!r}")
    if record.provenance["data_sha256"] != images.checksum:
        raise RecordError(f"the images of {config.data.name} here are not those it was trained on")
    network, _ = trained_network(config, which, store, images.classes)
    network.load_state_dict(to_half(network.state_dict()))
    rounded, path = network.state_dict(), teacher_file(store, config.id, which)
    if path.exists():
        if weights_digest(load_teacher(path)[0]) == weights_digest(rounded):
            return f"was there ({path})"
        raise RecordError(f"{path} holds other weights of it, and stays; delete it to replace them")
    header = {
        "run": config.id, "network": config.network, "weights": which, "classes": images.classes,
        "epoch": record.result["epochs" if which == "last" else "best_epoch"] + (which == "best"),
        "accuracy": record.accuracy(which), "data": config.data.name, "data_sha256": images.checksum,
        "normalisation": config.data.normalisation,
    }  # fmt: skip
    found = accuracy(network.to(images.test_y.device), images.test_x, images.test_y, images.mean, images.std)
    save_teacher(path, rounded, header | {"accuracy_fp16": float(f"{found:.6g}")})  # digits as in records
    return f"{record.accuracy(which):.2f} % as trained, {found:.2f} % rounded ({path})"
