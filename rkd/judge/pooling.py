"""Which records of a claim may be judged together: those computed in one arithmetic, and those shown equal to them.

Records of several arithmetics are pooled, within a side or across sides, only where a gate on record
(`rkd.bench.gate`, results/bench) shows each two of them equal, for runs as long and on as many images of the same data
set as those of the claim. No gate compares anything but fp32 with a quicker one, so that bf16 and fp16 are pooled only
by a gate between them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rkd.bench.gate import Gate
from rkd.records import Record
from rkd.training.arithmetic import PRECISIONS, SETTLED

Forms = Mapping[str, Record]  # of one run: its records by their own arithmetic, the preferred one first
ORDER = (*SETTLED, *(name for name in PRECISIONS if name not in SETTLED))


def pool(groups: Sequence[Sequence[Forms]], gates: Sequence[Gate]) -> tuple[str, ...]:
    """The arithmetics a claim is judged in, the leading one first; empty without a finished run.

    The leading one has runs on the most sides, and of those the most runs over all sides; ties: fp32, fp16, bf16.

    Args:
        groups: the runs of each side.
        gates: on record.
    """
    sides = [Counter(name for forms in side for name in finished(forms)) for side in groups]
    runs = sum(sides, Counter())
    settings = {_setting(record) for side in groups for forms in side for record in finished(forms).values()}
    shown = [_equal(setting, gates) for setting in settings]
    chosen: tuple[str, ...] = ()
    for name in sorted(
        runs, key=lambda name: (-sum(name in s for s in sides), -runs[name], ORDER.index(name))
    ):
        if not chosen or all({name, other} in equal for other in chosen for equal in shown):
            chosen += (name,)
    return chosen


def finished(forms: Forms) -> Forms:
    """Without the runs that diverged."""
    return {name: record for name, record in forms.items() if record.status == "finished"}


def taken(forms: Forms, chosen: Sequence[str]) -> Record | None:
    """The record of a run that enters: in the first of the chosen arithmetics it is recorded in."""
    return next((forms[name] for name in chosen if name in forms), None)


def _equal(setting: tuple[object, ...], gates: Sequence[Gate]) -> list[frozenset[str]]:
    """Pairs of arithmetics that some gate shows equal in a setting, and none, in the same setting, does not."""
    of = [gate for gate in gates if gate.setting == setting]
    return [gate.arithmetics for gate in of if all(g.equal for g in of if g.arithmetics == gate.arithmetics)]


def _setting(record: Record) -> tuple[object, ...]:
    """What a gate must share with a run to be about it; see `Gate.setting`."""
    data = record.config.data
    images = record.provenance.get("train_images", data.train_images)
    return Path(data.name).stem, record.config.epochs, images
