"""Where the records and working files of a profile lie."""

from pathlib import Path

from rkd import paths
from rkd.experiments.settings import Settings
from rkd.records import Store


def store_for(profile: str, results: str | None = None) -> Store:
    """The store of a profile, or of a folder of one's own.

    Smoke records prove the machinery, not a claim: they live in the build folder, never beside real ones.
    """
    name = Path(profile).stem
    if results is not None:
        folder = paths.home() / results
        return Store(folder, folder / "work")
    if name == "smoke":
        return Store(paths.build() / "smoke" / "records", paths.build() / "smoke" / "work")
    return Store(paths.home() / "results" / name, paths.home() / "checkpoints" / name)


def store_of(settings: Settings) -> Store:
    """The store a chapter's settings name."""
    return store_for(settings.profile, settings.results)


def data_root(settings: Settings) -> Path:
    """The data folder of a chapter's settings; relative ones start at the project's top."""
    return paths.home() / settings.data_root
