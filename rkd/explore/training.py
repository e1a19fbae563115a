"""Trains a plan by `rkd run` in a process of its own: the notebook's kernel stays free, its random streams untouched.

All that is shown of it is read from the store and from the last line it logged. It belongs to the kernel's group of
processes: what interrupts or ends the kernel ends it after the batch in progress, with a checkpoint, from which the
same plan goes on.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import rkd
from rkd import paths
from rkd.experiments.estimate import begun
from rkd.explore.choices import Plan, explored

CLOSING_S = 20.0  # a process told to stop gets so long before it is killed


class Look(NamedTuple):
    """How a training stands."""

    status: str  # "training", "stopping", "stopped", "finished" or "failed"
    text: str  # the same in a sentence
    share: float  # part of the runs that is done, 0 to 1
    curves: Mapping[str, Mapping[str, list[float]]]  # per-epoch values, as in records, by what the run is


class Training:
    """Trains what of a plan is not recorded, from the start or from where it was stopped; begins at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.store, self._asked = plan, explored(), False
        how = ("without", "with")
        self._left = [h for h in how if not self.store.has(plan.runs[f"{h} distillation"].id)]
        self._log = self.store.folder(plan.distilled.id) / "page.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None  # as it stays where nothing is left to train
        if self._left:
            self._next()

    @property
    def running(self) -> bool:
        """Whether its process is."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask the training to end after the batch in progress; returns at once."""
        self._asked = True
        self._left.clear()
        if self.running:
            self._process.terminate()

    def close(self) -> None:
        """Stop, and see the process off; one that does not obey is killed, which costs no record."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def look(self) -> Look:
        """How it stands now; begins the next run where one has ended."""
        running, runs = self.running, self.plan.runs
        curves, done = {}, 0.0
        for name, run in runs.items():
            if self.store.has(run.id):
                curves[name], done = self.store.load(run.id).curves, done + 1
            elif come := begun(self.store, run.id):
                curves[name], done = come.curves, done + come.epoch / run.total_epochs
        said = self._log.read_text(encoding="utf-8").strip()
        last = said.rpartition("\n")[2].strip().removeprefix("rkd run: ")
        for name, run in runs.items():
            last = f"{name}{last.removeprefix(run.id)}" if last.startswith(run.id) else last
        if running:
            status = "stopping" if self._asked else "training"
        elif all(self.store.has(run.id) for run in runs.values()):
            status, last = "finished", ""
        elif self._asked or "\nstopped: " in said:
            status = "stopped"
            last = f"{last}. Nothing is recorded of an unfinished run; Train goes on from its checkpoint"
        elif self._left and self.store.has(runs["without distillation"].id):
            status = "training"
            self._next()
        else:
            status = "failed"
        last = last or "A process for it is starting"
        return Look(status, f"{status.capitalize()}. {last}.", done / len(runs), curves)

    def _next(self) -> None:
        command = [sys.executable, "-m", "rkd", *self.plan.command(self._left.pop(0) == "with")]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=Path(rkd.__file__).parents[1],
                env={**os.environ, "RKD_HOME": str(paths.home())},
            )  # fmt: skip
