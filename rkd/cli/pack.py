"""Write all that training needs on a machine without network or pip, as numbered pieces of one tar file: the package
and its params, the data sets of the profile, what is recorded and begun, the weights of teachers. The same content
gives the same bytes."""

import argparse
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rkd.cli.common import add_profile
from rkd.cli.export import size
from rkd.errors import ConfigError, DataError, RecordError

EPILOG = """examples:
  rkd pack --out pack --profile paper
  rkd pack --out pack --profile paper --chapters table1,table3 --max-part 20MB

On the other machine, which needs Python with the packages of pyproject.toml's `dependencies`:
  (cd pack && sha256sum -c SHA256SUMS) && mkdir work && cat pack/part-* | tar -x -C work
  cd work && python -m rkd sweep params/paper.yaml --order verdicts --check --budget 28m --out ../carry

What it trains comes back by `rkd import carry`. Exit status: 0 done, 1 some file here is damaged and was left out,
2 wrong call."""

DEFAULT_PART = "60MB"
CHECKSUMS = "SHA256SUMS"
_SOURCE = ("rkd", "params", "pyproject.toml", "README.md", "LICENSE")
_PART = re.compile(r"part-[0-9]{4,}-[0-9a-f]{12}\.bin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for the pieces")
    parser.add_argument(
        "--max-part", metavar="SIZE", default=DEFAULT_PART,
        help=f"most bytes of one piece: 900kB, 15MB, 1GiB (default {DEFAULT_PART})",
    )  # fmt: skip
    parser.add_argument(
        "--chapters", metavar="A,B", help="chapters whose runs are to be trained there (default: all)"
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder of the CIFAR files here (default: data)")
    add_profile(parser, "paper")


def call(options: argparse.Namespace) -> int:
    from rkd.cli.plan import chosen_chapters, plan
    from rkd.experiments.execute import required
    from rkd.experiments.workspace import store_of
    from rkd.records.provenance import code_state

    limit = size(options.max_part)
    given = {} if options.data_root is None else {"data_root": options.data_root}
    settings, chapters = plan(options.profile, chosen_chapters(options.chapters), given)
    runs = required(run for configs in chapters.values() for run in configs)
    _check_folder(options.out)
    left_out: dict[str, str] = {}
    members: dict[str, Path | bytes] = {
        **_source(options.profile),
        **_data(runs, settings),
        **_teachers(runs, store_of(settings)),
        **_results(runs, store_of(settings), left_out),
        **_counts(runs, settings, store_of(settings)),
        **_commit(),
    }
    names = _write(options.out, members, limit)
    for path, why in left_out.items():
        print(f"left out {path}: {why}")
    if code_state()["commit"] is None:
        print("no commit is known here; records made there will name none")
    total = sum((options.out / name).stat().st_size for name in names)
    print(f"{len(members)} files, {total:,} bytes in {len(names)} pieces in {options.out}; unpack them with")
    print(f"  mkdir work && cat {options.out}/part-* | tar -x -C work")
    return 1 if left_out else 0


# --- what goes in: paths in the unpacked folder, which is the project's top there -------------------------------------


def _source(profile: str) -> dict[str, Path | bytes]:
    """The package, the params, and what describes the project."""
    from rkd import paths
    from rkd.experiments.settings import profile_path

    home = paths.home()
    found = [path for name in _SOURCE for path in [home / name, *(home / name).rglob("*")]]
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return {_inside(path): path for path in [*files, profile_path(profile)]}


def _data(runs, settings) -> dict[str, Path | bytes]:
    """The files of the data sets, in the folder data/."""
    from rkd.data.sources import reader_of
    from rkd.experiments.workspace import data_root

    root = data_root(settings)
    found: dict[str, Path | bytes] = {}
    for config in {(run.data.name, run.data.sha256): run.data for run in runs}.values():
        if not reader_of(config.name).is_there(config, root):
            raise DataError(
                f"{config.name} is not in {str(root)!r}; fetch it first: rkd data {config.name} --root {root}"
            )
        for name, path in reader_of(config.name).files(config, root).items():
            if Path(name).is_absolute():
                raise ConfigError(
                    f"data set {name!r} has an absolute path; name it relative to the data folder"
                )
            found[f"data/{name}"] = path
    return found


def _teachers(runs, store) -> dict[str, Path | bytes]:
    """Teacher files that the profile names, and committed teachers of the runs."""
    from rkd.experiments.gang import check_teacher_file
    from rkd.records.teachers import teacher_file

    teachers = [run.teacher for run in runs if run.teacher is not None]
    named = list(dict.fromkeys(check_teacher_file(t) for t in teachers if t.run is None))
    committed = [
        teacher_file(store, t.run.id, t.weights) for t in teachers if t.run and t.weights != "random"
    ]
    return {_inside(path): path for path in [*named, *(path for path in committed if path.exists())]}


def _results(runs, store, left_out: dict[str, str]) -> dict[str, Path | bytes]:
    """Records, checkpoints of unfinished runs and weights of teachers, as an export would take them."""
    from rkd.records.transfer.collecting import Collected, runs_here
    from rkd.records.transfer.layout import local

    wanted = {run.id for run in runs}
    here, foreign = runs_here(store)
    left_out |= foreign
    files = Collected(store, [run for run in here if run in wanted], runs, False, left_out)
    return {_inside(local(store, path)): data for _, path, data in files}


def _counts(runs, settings, store) -> dict[str, Path | bytes]:
    """The counts of multiply-adds that planning needs, which take minutes where they are not kept."""
    from rkd.experiments.estimate import costs, counts_file, unfinished
    from rkd.experiments.workspace import data_root

    costs(unfinished(runs, store), store, device="cpu", gang=1, data_root=data_root(settings))
    return {_inside(path): path for path in [counts_file()] if path.exists()}


def _commit() -> dict[str, Path | bytes]:
    from rkd.records.provenance import COMMIT_FILE, code_state

    code = code_state()
    if code["commit"] is None:
        return {}
    return {COMMIT_FILE: ("+".join(filter(None, (code["commit"], code["changed"]))) + "\n").encode()}


def _inside(path: Path) -> str:
    """A file's path from the project's top, with forward slashes; ConfigError if it lies elsewhere."""
    from rkd import paths

    path, home = path.resolve(), paths.home().resolve()
    if not path.is_relative_to(home):
        raise ConfigError(
            f"{path} lies outside the project, {home}; move it inside, so that it has a place in a pack"
        )
    return path.relative_to(home).as_posix()


# --- the pieces -------------------------------------------------------------------------------------------------------


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise RecordError(f"{folder} is not a folder; name one for the pack, or a new one")
    others = sorted(p.name for p in _contents(folder) if p.name != CHECKSUMS and not _PART.fullmatch(p.name))
    if others:
        raise RecordError(
            f"{folder} holds something that is no part of a pack ({others[0]}); name an empty folder"
        )


def _contents(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _write(folder: Path, members: dict[str, Path | bytes], limit: int) -> list[str]:
    """One tar file in pieces, and their checksums; returns the names of the pieces. A pack that was there goes first:
    all pieces in the folder are unpacked together."""
    from rkd.records.transfer.layout import place
    from rkd.records.transfer.parts import PartWriter

    folder.mkdir(parents=True, exist_ok=True)
    for path in list(_contents(folder)):
        path.unlink()
    writer = PartWriter(folder, limit)
    # A plain stream of zero times and owners: nothing but names, modes and content.
    with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(members):
            content = members[name]
            info = tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
            if isinstance(content, bytes):
                tar.addfile(info, io.BytesIO(content))
            else:
                with open(content, "rb") as file:
                    tar.addfile(info, file)
    parts = writer.close()
    text = "".join(f"{part.sha256}  {part.name}\n" for part in parts)
    place(folder / CHECKSUMS, text.encode())
    return [part.name for part in parts]
