"""Where the project's folders are: params/, book/, results/, and the build folder."""

import os
from pathlib import Path

import rkd
from rkd.errors import ConfigError


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


def params() -> Path:
    """Profiles, recipes and pairs."""
    return home() / "params"


def sources() -> tuple[Path, Path]:
    """What runs and pages are made from besides notebooks and records: the package, params/."""
    return Path(rkd.__file__).parent, params()


def build() -> Path:
    """Everything that can be made again: executed notebooks, HTML, smoke records. Ignored by git."""
    return home() / "_build"
