"""Where the project's folders are (params/, book/, results/ and the build folder), and what a path typed by the user
means."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import rkd
from rkd.errors import ConfigError

STANDS_IN = "RKD_FOLDER"  # the user's folder; set for kernels, which work in the book's folder


def home() -> Path:
    """Return the checkout: $RKD_HOME if it is set; else the working directory or the nearest folder above it that has
    params/recipes/, else the folder that contains the package.

    Raises:
        ConfigError: none of them has params/recipes/.
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
    """Return the folder the user is in: the working directory, or in the book's kernels that of whoever builds it."""
    return Path(os.environ.get(STANDS_IN) or Path.cwd())


def from_user_folder(path: str) -> str:
    """Return a path that the user typed, relative to the user's folder, in the form settings keep: relative to the
    project's root if it lies below that, else absolute."""
    found = Path(os.path.abspath(user_folder() / os.path.expanduser(path)))
    return str(found.relative_to(home()) if found.is_relative_to(home()) else found)


def dataset_candidates(name: str, root: Path) -> Iterator[Path]:
    """Yield where a user's own data set may be, whose name stays as it was given: relative to the user's folder, to the
    data folder and, for names in a profile, to the project's root."""
    yield user_folder() / os.path.expanduser(name)
    yield root / name
    with suppress(ConfigError):  # a data set can be read without a project
        yield home() / name


def params() -> Path:
    """Return the folder of profiles, recipes and pairs."""
    return home() / "params"


def source_paths() -> tuple[Path, Path]:
    """Return what runs and pages are made from besides notebooks and records: the package and params/."""
    return Path(rkd.__file__).parent, params()


def build_folder() -> Path:
    """Return the folder of all that can be made again: executed notebooks, HTML, smoke records. Git ignores it."""
    return home() / "_build"
