"""The recorded runs that bear on a claim.

Evidence is narrow: records in the profile's own folder, of exactly the runs its chapters ask for, in the published
setting. Whatever else is there, such as a short run or one on a subset, supports no verdict.

Records of several arithmetics are never pooled, within a side or across sides: one leads, and only its records count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rkd.config import PRECISIONS, SETTLED
from rkd.experiments.ended import Ended, ended
from rkd.experiments.selectors import Selectors
from rkd.experiments.workspace import result_folders
from rkd.judge.declared import Claim

Forms = Mapping[str, Ended]  # one run's records by their own arithmetic, the preferred one first


@dataclass(frozen=True)
class RecordedRuns:
    """The recorded runs that a claim needs.

    Attributes:
        groups: for each of `claim.groups`, the finished records that count.
        arithmetic: the one in which all of these were computed; empty if there is none.
        others: for each of `claim.groups`, one record of each run that finished, but not in this arithmetic.
        missing: ids of runs that are not recorded, teachers included.
        diverged: ids of the runs that ended in NaN.
    """

    groups: list[list[Ended]]
    arithmetic: str
    others: list[list[Ended]]
    missing: tuple[str, ...]
    diverged: tuple[str, ...]


class Evidence:
    """The records of a profile's runs.

    Args:
        selectors: the lines of the profile.
        records: the folder of the records; None: the profile's own.
        setting: a key of `rkd.experiments.selectors.SETTINGS`; only runs of this setting count.
    """

    def __init__(self, selectors: Selectors, records: Path | None = None, setting: str = "published") -> None:
        self.selectors, self._setting = selectors, setting
        records = result_folders(selectors.profile)[0] if records is None else records
        found = ended(records, sorted(path.stem for path in records.glob("*.json")))
        self._sound = {run: record for run, record in found.items() if record}

    def of(self, claim: Claim) -> RecordedRuns:
        """Return what is recorded of a claim's runs."""
        asked: dict[str, Forms] = {}  # teachers included
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
        return RecordedRuns(
            [[r for run in side if (r := used.get(run)) and r.status == "finished"] for side in sides],
            leading,
            [[r for run in side if run not in used for r in [*finished[run].values()][:1]] for side in sides],
            tuple(run for run, forms in asked.items() if not forms),
            tuple(record.id for record in used.values() if record.status != "finished"),
        )

    def rows(self, lines: Iterable[str], arithmetic: str) -> list[dict[int, Ended]]:
        """Return the finished runs of several lines in one arithmetic, by seed; lines with the same runs come once, and
        lines without any are left out."""
        found = {}
        for line in lines:
            ids, forms = self.selectors.ids(line), self._line(line)
            records = [r for run in ids if (r := forms[run].get(arithmetic)) and r.status == "finished"]
            found[tuple(ids)] = {record.seed: record for record in records}
        return [row for row in found.values() if row]

    def _line(self, selector: str) -> dict[str, Forms]:
        """Return the records of a line's runs and of their teachers; none for a run of another setting."""
        counting = self.selectors.of_setting(selector, self._setting)
        ids = self.selectors.ids(selector, teachers=True)
        return {run: self._forms(forms) if run in counting else {} for run, forms in ids.items()}

    def _forms(self, ids: Iterable[str]) -> Forms:
        forms: dict[str, Ended] = {}
        for record in filter(None, map(self._sound.get, ids)):
            forms.setdefault(record.precision, record)  # with several teachers' records: the first
        return forms


def _leading(groups: Sequence[Sequence[Forms]]) -> str:
    """Return the arithmetic in which the most seeds have finished on all sides; among equals, the one with runs on the
    most sides, then with the most runs, then the first of fp32, fp16 and bf16. Empty if there are no runs."""
    runs = Counter(name for side in groups for forms in side for name in forms)

    def rank(name: str) -> tuple[int, int, int]:
        seeds = [{forms[name].seed for forms in side if name in forms} for side in groups]
        return len(set.intersection(*seeds)), sum(map(bool, seeds)), runs[name]

    order = dict.fromkeys((*SETTLED, *PRECISIONS))
    return max((name for name in order if name in runs), key=rank) if runs else ""
