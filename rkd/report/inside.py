"""What the chapter about attention and pyramid calls: one run of Table 3's full method, and the maps kept of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from IPython.display import display

from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.frames import runs_frame
from rkd.experiments.snapshots import IMAGES, Snapshots, load_snapshots
from rkd.experiments.workspace import data_root, runner_of, store_for
from rkd.judge import is_published_setting
from rkd.records import Record, Store
from rkd.report.experiment import Experiment
from rkd.report.interactive.markup import Html, tag
from rkd.training import RunConfig

CHAPTER, ROW = "table3", "full"
RECORDED = ("paper", "mini")  # profiles whose committed maps are shown beside this execution's


def open_inside(namespace: Mapping[str, Any]) -> "Inside":
    """Open the chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    page = Inside(parameters.given_in(namespace, ("image",)))
    display(page.banner())
    return page


@dataclass(frozen=True)
class Kept:
    """One run and its maps.

    Attributes:
        run: its config.
        title: profile, pair and length in a few words.
        said: what it is and what it is worth.
        fault: why there is nothing to draw; empty where there is.
        snapshots: None where no maps are kept.
        runs: its row, as `runs_frame` gives it.
    """

    run: RunConfig
    title: str
    said: Html
    fault: str
    snapshots: Snapshots | None
    runs: pd.DataFrame


class Inside(Experiment):
    """The executed chapter: Table 3 with its row of the full method alone, and of that the first seed.

    Args:
        given: explicit parameters.

    Attributes:
        image: place of the image that the pyramid shows.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        given = dict(given)
        self.image = given.pop("image", 0)
        if type(self.image) is not int or self.image not in range(IMAGES):
            raise ConfigError(f"image is {self.image!r}; it must be a whole number from 0 to {IMAGES - 1}")
        chapter = get_chapter(CHAPTER)
        super().__init__(replace(chapter, rows={ROW: chapter.rows[ROW]}), given)

    def _settled(self, lines: Iterable[Line], store: Store) -> list[Line]:
        return super()._settled([replace(line, runs=line.runs[:1]) for line in lines], store)

    def run(self) -> list[Kept]:
        """Load the run and its maps, or train it (see `on_missing`); with those on file of other profiles, which come
        first where this execution only proves the machinery."""
        (line,) = self.lines
        (run,) = line.runs
        labels = {"profile": self.settings.profile, "recipe": self.recipe, "chapter": "inside"}
        had = self.store.has(run.id) and self.store.maps(run.id).exists()
        runner = runner_of(self.settings, self.store, labels=labels, maps=True)
        self.records = runner.run([run], self.settings.on_missing)
        print(
            f"run {run.id} {'is missing' if not self.records else 'was recorded' if had else 'was trained now'}"
        )
        here = self._kept("This execution", self.profile, line, self.store, self.records)
        others = []
        for profile in RECORDED:
            (other,), records = self.under(profile)
            store = store_for(profile)
            if other.runs[0] != run and records and store.maps(other.runs[0].id).exists():
                others.append(self._kept("On file", profile, other, store, records))
        return [*others, here] if self.profile == "smoke" else [here, *others]

    def parameters(self) -> pd.DataFrame:
        """As of any experiment, and the image."""
        table = super().parameters()
        table.loc["image"] = [str(self.image), "given" if self.image else "default"]
        return table

    def _kept(self, how: str, profile: str, line: Line, store: Store, records: Mapping[str, Record]) -> Kept:
        (run,), title = line.runs, f"profile {profile}: {self.in_words([line])}"
        record, snapshots = records.get(run.id), load_snapshots(store, run.id, data_root(self.settings))
        fault = "" if snapshots else f"Of run {run.id} no maps were kept."
        if record is None:
            fault = f"Run {run.id} is not recorded; with on_missing: train it is trained."
        elif record.status != "finished":
            fault = f"Run {run.id} ended as {record.status!r}: its maps show nothing."
        worth = "" if is_published_setting(run, CHAPTER) else " A short run: a tendency, no evidence."
        if profile == "smoke":
            worth = " Trained so little, it shows the machinery only."
        said = tag("p", tag("strong", f"{how}, {title}."), worth)
        return Kept(run, title, said, fault, snapshots, runs_frame([line], records, profile))
