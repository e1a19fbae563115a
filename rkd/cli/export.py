"""Write a profile's results as one tar file in parts with checksums, to be merged elsewhere by `rkd import`: finished
records, checkpoints of unfinished runs, and the weights of finished teachers. A sweep may go on meanwhile. With
--teachers instead, write the teachers in half precision beside the records, small enough to be committed."""

import argparse
import functools
import re
from pathlib import Path

from rkd.cli.common import add_profile, add_settings, given_settings
from rkd.errors import ConfigError

EPILOG = """examples:
  rkd export --out ~/carry --profile paper
  rkd export --out parts --max-part 900kB --profile mini --chapters table3,table4
  rkd export --out parts --results own/results --all-weights
  rkd export --out parts --profile paper --max-files 8    where no more come back: records first, then weights
  rkd export --teachers --profile paper

The folder given to --out holds nothing but an export; one that is there is replaced. Exit status: 0 done, 1 some file
here was left out (damaged, or there was no room for it), 2 wrong call."""

DEFAULT_PART = "15MB"
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_LEAST = 1000  # smaller parts would be more numerous than useful


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the parts and their manifest")
    parser.add_argument(
        "--teachers", action="store_true",
        help="write the finished teachers, in half precision, to the folder teachers/ beside the records",
    )  # fmt: skip
    add_limits(parser)
    add = parser.add_argument
    add("--all-weights", action="store_true", help="weights of every run, not of teachers alone")
    add("--chapters", metavar="A,B", help="chapters whose runs to take (default: all there are)")
    add_profile(parser)
    add_settings(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What an export is limited to."""
    parser.add_argument(
        "--max-part", metavar="SIZE",
        help=f"most bytes of one part: 900kB, 15MB, 1GiB (default {DEFAULT_PART})",
    )  # fmt: skip
    parser.add_argument(
        "--max-files", type=int, metavar="N",
        help="most files, manifest included; what does not fit is named (default: no limit)",
    )  # fmt: skip


def call(options: argparse.Namespace) -> int:
    if (options.out is None) != options.teachers:
        raise ConfigError("name either --out DIR, for the parts, or --teachers, not both and not neither")
    if not options.teachers:
        return _write_parts(options, size(options.max_part or DEFAULT_PART))
    for name in ("max_part", "max_files", "all_weights"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} goes with --out, not with --teachers")
    return _write_teachers(options)


def size(text: str) -> int:
    """Bytes of "15MB", "900kB", "1GiB" or "2000000" (kB, MB, GB: powers of 1000; KiB, MiB, GiB: of 1024).

    Raises:
        ConfigError: of another form, or below 1 kB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    unit = _UNITS.get(match[2] or "b") if match else None
    found = int(float(match[1]) * unit) if unit else 0
    if found < _LEAST:
        raise ConfigError(
            f"{text!r} is not a size of at least 1kB; write a number and B, kB, MB, GB, KiB, MiB or GiB, "
            f"for example {DEFAULT_PART}"
        )
    return found


def _planned(options: argparse.Namespace):
    """The store, the settings, and the configs of the chapters' runs, teachers first."""
    from rkd.cli.plan import chosen_chapters, plan
    from rkd.experiments.runner import required
    from rkd.experiments.workspace import store_of

    settings, chapters = plan(options.profile, chosen_chapters(options.chapters), given_settings(options))
    return store_of(settings), settings, required(run for configs in chapters.values() for run in configs)


def _write_parts(options: argparse.Namespace, max_part: int) -> int:
    from rkd.records import transfer

    store, _, planned = _planned(options)
    # In any arithmetic: what is begun or recorded in others than the planned ones goes along.
    asked = {config.id for config in planned}
    asked |= {r.settled_id(*names) for r in (config.request for config in planned) for names in r.choices()}
    runs = asked if options.chapters else None
    limits = {"max_part": max_part, "max_files": options.max_files, "all_weights": options.all_weights}
    done = transfer.export(store, options.out, runs=runs, planned=planned, **limits)
    show(done, options.out)
    print(f"from {store.records}")
    return 1 if done.left_out or done.no_room else 0


def show(done, folder: Path) -> None:
    """Print what an export holds, and what it does not."""
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
    print(f"{len(done.parts)} parts in {folder}; merge them elsewhere with: rkd import {folder}")


PLURALS = {"record": "records", "checkpoint": "checkpoints", "weights": "weights", "maps": "maps"}


def _write_teachers(options: argparse.Namespace) -> int:
    """The weights that students use of each finished teacher."""
    from rkd import data
    from rkd.errors import RecordError
    from rkd.experiments.runner import pick_device
    from rkd.experiments.workspace import data_root

    store, settings, planned = _planned(options)
    device, root = pick_device(settings.device), data_root(settings)
    load = functools.lru_cache(maxsize=1)(lambda config: data.load(config, root).to(device))
    runs = [*planned, *(() if options.chapters else (record.config for record in store))]
    teachers = [run.teacher for run in runs if run.teacher and run.teacher.run]
    wanted = dict.fromkeys((t.run, t.weights) for t in teachers if t.weights != "random")
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
    """Write a teacher, its accuracy measured again as it is after rounding; returns what to print.

    Raises:
        RecordError: it did not finish, its weights cannot be read or rounded, the data set here is not the one it was
            trained on, or other weights of it are committed already.
    """
    from rkd import models
    from rkd.errors import RecordError
    from rkd.records.teachers import digest, half, load_teacher, save_teacher, teacher_file
    from rkd.training import accuracy, checkpoint

    record = store.load(config.id)
    if record.status != "finished":
        raise RecordError(f"the run ended as {record.status!r}")
    if record.provenance["data_sha256"] != images.checksum:
        raise RecordError(f"the images of {config.data.name} here are not those it was trained on")
    state = checkpoint.load(store.folder(config.id) / f"{which}.pt")
    if state.get("run") != config.id:
        raise RecordError(f"its weights belong to run {state.get('run')}")
    rounded = {name: t.float() if t.is_floating_point() else t for name, t in half(state["student"]).items()}
    path = teacher_file(store, config.id, which)
    if path.exists():
        if digest(load_teacher(path)[0]) == digest(rounded):
            return f"was there ({path})"
        raise RecordError(f"{path} holds other weights of it, and stays; delete it to replace them")
    network = models.build(config.network, images.classes).to(images.test_x.device)
    network.load_state_dict(rounded)
    found = accuracy(network, images.test_x, images.test_y, images.mean, images.std)
    header = {
        "run": config.id, "network": config.network, "weights": which, "epoch": state["epoch"],
        "classes": images.classes, "accuracy": record.accuracy(which),
        "accuracy_fp16": float(f"{found:.6g}"),  # as many digits as a record has
        "data": config.data.name, "data_sha256": images.checksum, "normalisation": config.data.normalisation,
    }  # fmt: skip
    save_teacher(path, rounded, header)
    return f"{record.accuracy(which):.2f} % as trained, {found:.2f} % rounded ({path})"
