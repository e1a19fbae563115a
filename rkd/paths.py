"""Where the project's folders are: params/, book/, results/, and the build folder; and what a path means that somebody
typed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import rkd
from rkd.errors import ConfigError

STANDS_IN = "RKD_FOLDER"  # set for kernels, whose working folder is the book's: where the user stands


def home() -> Path:
    """The checkout: $RKD_HOME, else the nearest folder around the working directory or the package that holds
    params/ and book/.

    Raises:
        ConfigError: none of them does.
    """
    if named := os.environ.get("RKD_HOME"):
        candidates = [Path(named)]
    else:
        here = Path.cwd()
        candidates = [here, *here.parents, Path(rkd.__file__).resolve().parent.parent]
    for folder in candidates:
        if (folder / "params" / "recipes").is_dir():
            return folder
    raise ConfigError(
        "the project's params/ folder was not found; run from inside a checkout, or set RKD_HOME to one"
    )


def user_folder() -> Path:
    """The folder that somebody stands in: the working one, in the book's kernels that of whoever builds it."""
    return Path(os.environ.get(STANDS_IN) or Path.cwd())


def from_user_folder(path: str) -> str:
    """A path as somebody typed it, which starts in the folder they stand in; as settings keep it: from the project's
    top where it lies below that, else absolute."""
    found = Path(os.path.abspath(user_folder() / os.path.expanduser(path)))
    return str(found.relative_to(home()) if found.is_relative_to(home()) else found)


def dataset_candidates(name: str, root: Path) -> Iterator[Path]:
    """Where a data set of one's own may lie, which keeps its name as it was given: from the folder that somebody
    stands in, from the data folder, and, where a profile names it, from the project's top."""
    yield user_folder() / os.path.expanduser(name)
    yield root / name
    with suppress(ConfigError):  # there need be no project to read a data set
        yield home() / name


def params() -> Path:
    """Profiles, recipes and pairs."""
    return home() / "params"


def source_paths() -> tuple[Path, Path]:
    """What runs and pages are made from besides notebooks and records: the package, params/."""
    return Path(rkd.__file__).parent, params()


def build_folder() -> Path:
    """Everything that can be made again: executed notebooks, HTML, smoke records. Ignored by git."""
    return home() / "_build"
