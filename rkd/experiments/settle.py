"""From a run in whatever arithmetic to the run with a name for it: before anything is trained, or looked for as one.

A config whose own precision or whose teacher's is "auto" is a request. What is trained, locked, saved and recorded
is always settled, so that no record's identity depends on where it is read. A config without "auto" is settled.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from rkd.experiments.group import weights_file
from rkd.records import Store
from rkd.training import RunConfig, TeacherConfig, arithmetic
from rkd.training.arithmetic import SETTLED

if TYPE_CHECKING:
    from rkd.experiments.chapters import Line


def settle(run: RunConfig, store: Store, device: torch.device) -> RunConfig:
    """The run that a request comes to.

    Recorded in the device's own arithmetic: that run. Else recorded in another: that one, in the order fp32, fp16,
    bf16. Else, to be trained, in the device's own. Its teacher then is one that is recorded and whose weights are
    here, in the same order, else the device's own too.

    Args:
        run: with or without "auto".
        store: of the records.
        device: that would train it.
    """
    if not any(run.open):
        return run
    own = arithmetic("auto", device).name
    recorded = next(store.recorded(run, own), None)
    return recorded or run.settled(own, _teachers(run.teacher, store, own))


def settle_all(runs: Iterable[RunConfig], store: Store, device: torch.device) -> list[RunConfig]:
    """`settle` of each, each once."""
    return list({run.id: run for run in (settle(run, store, device) for run in runs)}.values())


def settle_lines(lines: "Iterable[Line]", store: Store, device: torch.device) -> "list[Line]":
    """Lines of a chapter with their runs settled."""
    return [
        dataclasses.replace(line, runs=tuple(settle(run, store, device) for run in line.runs))
        for line in lines
    ]


def _teachers(teacher: TeacherConfig | None, store: Store, own: str) -> str:
    """The arithmetic of a teacher whose student is to be trained."""
    if teacher is None or teacher.run is None:
        return own
    if teacher.weights == "random":  # first weights are the same in every arithmetic
        return SETTLED[0]
    here = (run for run in store.recorded(teacher.run, own) if weights_file(store, run.id, teacher.weights))
    return next((run.precision for run in here), own)
