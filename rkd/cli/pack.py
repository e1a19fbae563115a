"""`rkd cluster pack`: write all that training needs on a machine without network."""

import shlex
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rkd import paths
from rkd.cli.declare import Folder, Names, Size
from rkd.errors import ConfigError, DataError
from rkd.experiments import workspace
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import profile_path
from rkd.files import write_atomic

PART = 60_000_000  # bytes
CHECKSUMS = "SHA256SUMS"
# Notebooks are included because they declare runs.
_SOURCE = ("rkd/**/*", "params/**/*", "book/*.*", "pyproject.toml", "README.md", "LICENSE")


def pack(
    *,
    out: Folder,
    max_part: Size = PART,
    chapters: Names | None = None,
    data_root: str | None = None,
    profile: str = "paper",
) -> int:
    """Write all that training needs on a machine without network or pip, as numbered pieces of one tar file: the
    package and its params, the data sets of the profile, what is recorded and begun, the weights of teachers. The
    same content gives the same bytes.

    Args:
        out: folder for the pieces
        max_part: most bytes of one piece: 900kB, 15MB, 1GiB (default 60MB)
        chapters: chapters whose runs are to be trained there (default: all)
        data_root: folder of the CIFAR files here (default: data)

    Examples:
        rkd cluster pack --out pack --profile paper

        On the other machine, which needs Python with the packages of pyproject.toml's `dependencies`:
        (cd pack && sha256sum -c SHA256SUMS) && mkdir work && cat pack/part-* | tar -x -C work
        cd work && python -m rkd sweep params/paper.yaml --order verdicts --check --budget 28m --out ../carry

        What it trains comes back by `rkd records import carry`. Exit status: 0 done, 1 some file here is damaged
        and was left out, 2 wrong call.
    """
    from rkd.records.transfer import archive
    from rkd.records.transfer.exporting import ExportResult

    given, results = {} if data_root is None else {"data_root": data_root}, ExportResult()
    settings, runs = Selectors(profile, given, settled=True).plan(chapters)
    archive.check_folder(out, "a pack", rf"part-[0-9]{{4,}}(-[0-9a-f]{{12}})?\.bin|{CHECKSUMS}")
    root, store = workspace.data_root(settings), workspace.store_of(settings)
    members, home = _data(runs, root), paths.home().resolve()
    for path, content in _files(profile, runs, root, store, results):
        if not (inside := path.resolve()).is_relative_to(home):
            raise ConfigError(
                f"{inside} lies outside the project, {home}; move it inside, so that it has a place in a pack"
            )
        members[inside.relative_to(home).as_posix()] = content
    out.mkdir(parents=True, exist_ok=True)
    for path in list(out.iterdir()):  # all pieces in the folder are unpacked together, old ones too
        path.unlink()
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for name in sorted(members):
                content = members[name]
                archive.add_file(tar, name, content.read_bytes() if isinstance(content, Path) else content)
        parts, length = archive.split_parts(whole, out, max_part), whole.tell()
    write_atomic(out / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in parts.items()).encode())
    for path, why in results.left_out.items():
        print(f"left out {path}: {why}")
    print(f"{len(members)} files, {length:,} bytes in {len(parts)} pieces in {out}")
    print(f"unpack them with: mkdir work && cat {out}/part-* | tar -x -C work")
    return 1 if results.left_out else 0


def _files(profile: str, runs, root: Path, store, results) -> Iterator[tuple[Path, Path | bytes]]:
    """Yield the files to pack, each with its path or bytes as content; damaged ones are noted in `results`."""
    from rkd.experiments.estimate import COUNTS, remaining_macs
    from rkd.experiments.group import check_teacher_file
    from rkd.experiments.runner import unfinished
    from rkd.records.provenance import COMMIT_FILE, code_state
    from rkd.records.teachers import teacher_file
    from rkd.records.transfer.archive import local_path
    from rkd.records.transfer.exporting import collect

    # Planning needs counts of multiply-adds, which take minutes to compute where they are not stored.
    remaining_macs(unfinished(runs, store), store, root)
    found = [*(paths.build_folder() / COUNTS).glob("*.json"), profile_path(profile)]
    found += [file for pattern in _SOURCE for file in paths.home().glob(pattern)]
    found += [paths.home() / run.pretrained.checkpoint for run in runs if run.pretrained is not None]
    for teacher in dict.fromkeys(run.teacher for run in runs if run.teacher is not None):
        if teacher.run is None:
            found.append(check_teacher_file(teacher))
        elif teacher.weights != "random":
            found.append(teacher_file(store, teacher.run.id, teacher.weights))
    yield from ((path, path) for path in found if path.is_file() and "__pycache__" not in path.parts)
    code = code_state()
    if code["commit"] is None:
        print("no commit is known here; records made there will name none")
    else:
        told = "+".join(filter(None, (code["commit"], code["changed"])))
        yield paths.home() / COMMIT_FILE, f"{told}\n".encode()
    for path, data in collect(store, {run.id for run in runs}, runs, all_weights=False, done=results):
        yield local_path(store, path), data


def _data(runs, root: Path) -> dict[str, Path]:
    """Return the files of the data sets: their names in the pack, in the folder data/, and their paths here."""
    from rkd.data.sources import reader_of

    found = {}
    for config in {(run.data.name, run.data.sha256): run.data for run in runs}.values():
        if not reader_of(config.name).is_there(config, root):
            fetch = shlex.join(["rkd", "show", "data", config.name, "--root", str(root)])
            raise DataError(f"{config.name} is not in {str(root)!r}; fetch it first: {fetch}")
        for name, path in reader_of(config.name).files(config, root).items():
            if Path(name).is_absolute():
                raise ConfigError(
                    f"data set {name!r} has an absolute path; name it relative to the data folder"
                )
            found[f"data/{name}"] = path
    return found
