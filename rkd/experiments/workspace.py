"""Where the records and working files of a profile lie, the runner that trains or evaluates its runs, and the cache of
values that take long to compute."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from rkd import paths
from rkd.errors import ConfigError
from rkd.files import write_atomic

if TYPE_CHECKING:
    from rkd.experiments.runner import Runner
    from rkd.experiments.settings import Settings
    from rkd.records import Store


def result_folders(profile: str, results: str | None = None) -> tuple[Path, Path]:
    """Return the folders of a profile's records and working files, or those given by `results`, a folder of one's own.

    Smoke records test the machinery, not a claim: they live in the build folder, never beside real ones.

    Raises:
        ConfigError: `results` is a file.
    """
    name = Path(profile).stem
    if results is not None:
        folder = paths.home() / results
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"results is {results!r}, a file; name a folder, which may be new")
        return folder, folder / "work"
    if name == "smoke":
        return paths.build_folder() / "smoke" / "records", paths.build_folder() / "smoke" / "work"
    return paths.home() / "results" / name, paths.home() / "checkpoints" / name


def store_for(profile: str, results: str | None = None) -> "Store":
    """Return the store of a profile, or of `results`, a folder of one's own."""
    from rkd.records import Store  # imports torch, which the folders alone do not need

    return Store(*result_folders(profile, results))


def store_of(settings: "Settings") -> "Store":
    """Return the store that a chapter's settings name."""
    return store_for(settings.profile, settings.results)


def data_root(settings: "Settings") -> Path:
    """Return the data folder of a chapter's settings; relative paths start at the project's top."""
    return paths.home() / settings.data_root


@contextmanager
def cached_values(name: str) -> Iterator[dict[str, Any]]:
    """Yield the values of a JSON file in the build folder, and write back what the block changes in them. The file is
    locked: if several processes need the same values, one computes them and the others wait."""
    file = paths.build_folder() / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        before = file.read_bytes() if file.is_file() else b"{}"
        values = json.loads(before)
        yield values
        if (now := json.dumps(values).encode()) != before:
            write_atomic(file, now)


def runner_of(
    settings: "Settings", store: "Store | None" = None, kind: "type[Runner] | None" = None, **options: Any
) -> "Runner":
    """Return a runner for the settings' device and engine.

    Args:
        store: None: the one the settings name.
        kind: class of the runner; None: `Runner`.
        options: further arguments of the runner.
    """
    from rkd.experiments.runner import Runner
    from rkd.training import Engine

    options.setdefault("engine", Engine.named(settings.engine, settings.compile, settings.threads))
    options.setdefault("device", settings.device)
    return (kind or Runner)(store or store_of(settings), data_root(settings), **options)
