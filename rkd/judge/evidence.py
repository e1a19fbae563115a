"""The recorded runs that bear on a claim.

Evidence is narrow: records of the profile's own folder, of exactly the runs its chapters ask for, in the published
setting. Whatever else lies there, a short run or one on a subset, supports no verdict.

Records of several arithmetics are pooled, within a side or across sides, only where a gate on record
(`rkd.bench.gate`, results/bench) shows each two of them equal, for runs as long and on as many images of the same data
set as those of the claim. No gate compares anything but fp32 with a quicker one, so that bf16 and fp16 are pooled only
by a gate between them.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.experiments.selectors import Selectors, split
from rkd.experiments.workspace import folders, store_for
from rkd.judge.declared import BEST, Claim
from rkd.judge.setting import published_setting

if TYPE_CHECKING:
    from rkd.bench.gate import Gate
    from rkd.records import Record, Store
    from rkd.training.config import RunConfig

Forms = Mapping[str, "Record"]  # of one run: its records by their own arithmetic, the preferred one first


class Evidence:
    """The records of a profile's runs, each read once.

    Args:
        selectors: the lines of the profile.
        store: of records; None: the profile's own.
        gates: that decide which arithmetics are pooled; None: those on record.
    """

    def __init__(
        self, selectors: Selectors, store: Store | None = None, gates: Sequence[Gate] | None = None
    ) -> None:
        self.selectors, self._store, self._gates = selectors, store, gates
        records = folders(selectors.profile)[0] if store is None else store.records
        self._recorded = {path.stem for path in records.glob("*.json")}
        self._forms: dict[str, Forms] = {}
        self._pools: dict[str, tuple[str, ...]] = {}

    def forms(self, selectors: Sequence[str], teachers: bool = False) -> dict[str, Forms]:
        """The records of some lines' runs, by the id by which the line asks and by arithmetic; none where the run is
        not of the published setting of its line."""
        found: dict[str, Forms] = {}
        for selector in selectors:
            ids = self.selectors.ids(selector, teachers)
            if self._recorded.isdisjoint(itertools.chain(*ids.values())):
                found = {**{run: {} for run in ids}, **found}
                continue
            setting = published_setting(split(selector)[0], self.selectors.recipe(selector))
            configs = (self.selectors.needed if teachers else self.selectors.runs)([selector])
            for run, config in configs.items():
                found[run] = found.get(run) or (self._read(config) if setting.holds(config) else {})
        return found

    def _read(self, config: RunConfig) -> Forms:
        if config.id not in self._forms:
            store = self._store = self._store or store_for(self.selectors.profile)
            forms: dict[str, Record] = {}
            for run in store.recorded(config):
                if run.precision not in forms:  # the same with several teachers: the first
                    forms[run.precision] = store.load(run.id)
            self._forms[config.id] = forms
        return self._forms[config.id]

    def pool(self, claim: Claim) -> tuple[str, ...]:
        """The arithmetics that enter a claim's figures, the leading one first; empty without a finished run.

        The leading one has runs on the most sides, and of those the most runs over all sides; ties: fp32, fp16, bf16.
        """
        if claim.id not in self._pools:
            self._pools[claim.id] = tuple(self._pooled(claim))
        return self._pools[claim.id]

    def _pooled(self, claim: Claim) -> Iterator[str]:
        groups = [[_finished(forms) for forms in self.forms(side).values()] for side in claim.groups]
        sides = [Counter(name for forms in side for name in forms) for side in groups]
        runs = sum(sides, Counter())
        if not runs:
            return
        settings = {_setting(record) for side in groups for forms in side for record in forms.values()}
        order, chosen = _order(), []
        for name in sorted(
            runs, key=lambda name: (-sum(name in s for s in sides), -runs[name], order.index(name))
        ):
            if all(self._equal({name, other}, setting) for other in chosen for setting in settings):
                chosen.append(name)
                yield name

    def _equal(self, two: set[str], setting: tuple[object, ...]) -> bool:
        """Whether some gate shows two arithmetics equal in a setting, and none, in the same setting, does not."""
        if self._gates is None:
            from rkd.bench.gate import committed

            self._gates = committed()
        of = [gate for gate in self._gates if gate.setting == setting and gate.arithmetics == two]
        return bool(of) and all(gate.equal for gate in of)

    def finished(self, claim: Claim, selectors: Sequence[str]) -> list[Record]:
        """Records of some lines' runs that enter a claim's figures."""
        found = [_taken(forms, self.pool(claim)) for forms in self.forms(selectors).values()]
        return [record for record in found if record and record.status == "finished"]

    def others(self, claim: Claim) -> list[Record]:
        """A record of each run that ended, but in no arithmetic of the claim's."""
        chosen = self.pool(claim)
        left = [forms for forms in self.forms(claim.selectors).values() if not _taken(forms, chosen)]
        return [next(iter(found.values())) for forms in left if (found := _finished(forms))]

    def missing(self, claim: Claim) -> tuple[str, ...]:
        """Ids of the runs that it still needs, teachers included."""
        forms = self.forms(claim.selectors, teachers=True)
        return tuple(run for run, each in forms.items() if not each)

    def diverged(self, claim: Claim) -> tuple[str, ...]:
        """Ids of the runs that ended in NaN."""
        forms = self.forms(claim.selectors, teachers=True).values()
        ended = [_taken(each, self.pool(claim) or _order()) for each in forms if each]
        return tuple(record.id for record in ended if record and record.status != "finished")

    def groups(self, claim: Claim, which: str) -> list[np.ndarray]:
        """Accuracies in percent at the "last" or "best" epoch: an array for each of `claim.groups`."""
        return [
            np.array([accuracy(record, which, claim) for record in self.finished(claim, selectors)])
            for selectors in claim.groups
        ]


def accuracy(record: Record, which: str, claim: Claim) -> float:
    """Test accuracy in percent at the "last" or "best" epoch: of the run's network or, where it trains several
    students, of the one the claim is about."""
    if not claim.which_student or record.config.method != "modreduce":
        return record.accuracy(which)
    from rkd.methods.modreduce import student_accuracies

    found = student_accuracies(record, which)
    return max(found.values()) if claim.which_student == BEST else found[claim.which_student]


def _finished(forms: Forms) -> Forms:
    """Without the runs that diverged."""
    return {name: record for name, record in forms.items() if record.status == "finished"}


def _taken(forms: Forms, chosen: Sequence[str]) -> Record | None:
    """The record of a run that enters: in the first of the chosen arithmetics it is recorded in."""
    return next((forms[name] for name in chosen if name in forms), None)


@functools.cache
def _order() -> tuple[str, ...]:
    from rkd.training.arithmetic import PRECISIONS, SETTLED

    return (*SETTLED, *(name for name in PRECISIONS if name not in SETTLED))


def _setting(record: Record) -> tuple[object, ...]:
    """What a gate must share with a run to be about it; see `Gate.setting`."""
    data = record.config.data
    images = record.provenance.get("train_images", data.train_images)
    return Path(data.name).stem, record.config.epochs, images
