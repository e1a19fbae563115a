"""The recorded runs that bear on a claim.

Evidence is narrow: records of the profile's own folder, of exactly the runs its chapters ask for, in the published
setting. Whatever else lies there, a short run or one on a subset, supports no verdict.

Records of several arithmetics are never pooled, within a side or across sides: one leads, and alone enters.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rkd.experiments.selectors import Selectors, split
from rkd.experiments.workspace import folders, store_for
from rkd.judge.declared import Claim

if TYPE_CHECKING:
    from rkd.records import Record, Store
    from rkd.training.config import RunConfig

Forms = Mapping[str, "Record"]  # of one run: its records by their own arithmetic, the preferred one first


@dataclass(frozen=True)
class Found:
    """What is recorded of the runs that a claim asks for.

    Attributes:
        groups: finished records that enter its figures, for each of `claim.groups`.
        arithmetic: in which all of these were computed; empty without one.
        others: for each of `claim.groups` a record of each run that finished, but not in this arithmetic.
        missing: ids of runs that are not recorded, teachers included.
        diverged: ids of the runs that ended in NaN.
    """

    groups: list[list[Record]]
    arithmetic: str
    others: list[list[Record]]
    missing: tuple[str, ...]
    diverged: tuple[str, ...]


class Evidence:
    """The records of a profile's runs, each read once.

    Args:
        selectors: the lines of the profile.
        store: of records; None: the profile's own.
        counts: whether a run of a chapter's line under a recipe counts; by default one of the published setting.
    """

    def __init__(
        self,
        selectors: Selectors,
        store: Store | None = None,
        counts: Callable[[RunConfig, str, str], bool] | None = None,
    ) -> None:
        self.selectors, self._store = selectors, store
        self._counts = counts or is_published_setting
        records = folders(selectors.profile)[0] if store is None else store.records
        self._recorded = {path.stem for path in records.glob("*.json")}
        self._read: dict[str, Forms] = {}

    def of(self, claim: Claim) -> Found:
        """What is recorded of a claim's runs."""
        asked: dict[str, Forms] = {}  # with the teachers
        for selector in claim.selectors:
            for run, forms in self._line(selector).items():
                asked[run] = asked.get(run) or forms
        sides = [
            list(dict.fromkeys(run for line in side for run in self.selectors.ids(line)))
            for side in claim.groups
        ]
        finished = {run: {k: r for k, r in f.items() if r.status == "finished"} for run, f in asked.items()}
        leading = _leading([[finished[run] for run in side] for side in sides])
        used = {
            run: record
            for run, forms in asked.items()
            if (record := forms.get(leading) if leading else next(iter(forms.values()), None))
        }
        return Found(
            [[r for run in side if (r := used.get(run)) and r.status == "finished"] for side in sides],
            leading,
            [[r for run in side if run not in used for r in [*finished[run].values()][:1]] for side in sides],
            tuple(run for run, forms in asked.items() if not forms),
            tuple(record.id for record in used.values() if record.status != "finished"),
        )

    def _line(self, selector: str) -> dict[str, Forms]:
        """The records of a line's runs and of their teachers; none where a run is not of the published setting."""
        ids = self.selectors.ids(selector, teachers=True)
        if self._recorded.isdisjoint(itertools.chain(*ids.values())):
            return {run: {} for run in ids}  # without the configs, which take torch
        setting = split(selector)[0], self.selectors.recipe(selector)
        runs = self.selectors.needed([selector]).values()
        return {run.id: self._forms(run) if self._counts(run, *setting) else {} for run in runs}

    def _forms(self, config: RunConfig) -> Forms:
        if config.id not in self._read:
            store = self._store = self._store or store_for(self.selectors.profile)
            forms: dict[str, Record] = {}
            for record in store.read(run.id for run in store.recorded(config)).values():
                forms.setdefault(record.config.precision, record)  # the same with several teachers: the first
            self._read[config.id] = forms
        return self._read[config.id]


def _leading(groups: Sequence[Sequence[Forms]]) -> str:
    """The arithmetic in which the most seeds have finished on all sides; of those the one with runs on the most sides,
    then with the most runs; ties: fp32, fp16, bf16. Empty where none has any."""
    runs = Counter(name for side in groups for forms in side for name in forms)

    def rank(name: str) -> tuple[int, int, int]:
        seeds = [{forms[name].config.seed for forms in side if name in forms} for side in groups]
        return len(set.intersection(*seeds)), sum(map(bool, seeds)), runs[name]

    return max((name for name in _order() if name in runs), key=rank) if runs else ""


@functools.cache
def _order() -> tuple[str, ...]:
    from rkd.training.arithmetic import PRECISIONS, SETTLED

    return (*SETTLED, *(name for name in PRECISIONS if name not in SETTLED))


def is_published_setting(config: RunConfig, chapter: str, recipe: str = "") -> bool:
    """Whether a run, and the run of its teacher, is of the published setting of a chapter's lines: as long as their
    recipe ("": the chapter's), or longer, on the whole of one of the data sets that the chapter is about.

    Raises:
        ConfigError: unknown chapter or recipe.
    """
    teacher = config.teacher.run if config.teacher else None
    whole = is_whole(config, chapter, recipe) and config.pretrained is None
    if not whole or config.epochs < _asked(chapter, recipe)[0]:
        return False
    return teacher is None or is_published_setting(teacher, chapter, recipe)


def is_whole(config: RunConfig, chapter: str, recipe: str = "") -> bool:
    """Whether a run, however long, is on the whole of one of the data sets that a chapter is about."""
    data = config.data
    whole = data.train_images is None and data.test_images is None and not data.holdout
    return whole and data.name in _asked(chapter, recipe)[1]


@functools.cache
def _asked(chapter: str, recipe: str) -> tuple[int, tuple[str, ...]]:
    from rkd.experiments.chapters import get_chapter
    from rkd.experiments.recipes import load_recipe

    found = get_chapter(chapter)
    return load_recipe(recipe or found.recipe).epochs, found.datasets
