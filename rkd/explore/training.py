"""Training of a plan by `rkd run` in its own process: the notebook's kernel stays free, its random streams untouched.

All that is shown of it is read from the store and from the last line it logged. It belongs to the kernel's process
group: what interrupts or ends the kernel also ends it, after the batch in progress and with a checkpoint, from which
the same plan goes on.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from rkd import paths
from rkd.experiments.estimate import checkpoint_progress
from rkd.explore.choices import ChosenRuns, explore_store
from rkd.records import Record

LOOK_EVERY_S = 1.0
CLOSING_S = 20.0  # a process told to stop is killed after this time


class TrainingStatus(NamedTuple):
    """The state of a training."""

    status: str  # "training", "stopping", "stopped", "finished" or "failed"
    text: str  # the same in a sentence
    share: float  # part of the runs that is done, 0 to 1
    records: dict[str, Record]  # by role; for an unfinished run, its curves and last accuracy so far


class LiveTraining:
    """Training of a plan's unrecorded runs, from the start or where they stopped, while `looks` is iterated."""

    def __init__(self, plan: ChosenRuns) -> None:
        self.plan, self.store, self.running, self._asked = plan, explore_store(), True, False
        self._log = self.store.folder(plan.distilled.id) / "page.log"
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Ask the training to end after the batch in progress, without waiting for it."""
        self._asked = True
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """Stop the training and wait for its process to end; one that does not is killed, which costs no record."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def looks(self) -> Iterator[TrainingStatus]:
        """Train, and yield the state every second and once it has ended."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        runs = {name: run for name, run in self.plan.runs.items() if name != "teacher"}
        for name, run in runs.items():
            if self._asked or self.store.has(run.id):
                continue
            command = [sys.executable, "-m", "rkd", *self.plan.command(name == "with distillation")]
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=paths.home(),
                    env={**os.environ, "RKD_HOME": str(paths.home()), paths.STANDS_IN: str(paths.home())},
                )  # fmt: skip
            if self._asked:  # meanwhile
                self._process.terminate()
            while self._process.poll() is None:
                yield self._look("stopping" if self._asked else "training")
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_EVERY_S)
            if not self.store.has(run.id):
                break
        self.running = False
        stopped = self._asked or b"\nstopped: " in self._log.read_bytes()
        done = len(self.store.read(run.id for run in runs.values())) == len(runs)
        yield self._look("finished" if done else "stopped" if stopped else "failed")

    def _look(self, status: str) -> TrainingStatus:
        records, done = {}, 0.0
        for name, run in self.plan.runs.items():
            if recorded := self.store.read([run.id]):
                records[name], done = recorded[run.id], done + 1
            elif (come := checkpoint_progress(self.store, run.id)) and (
                found := come.curves.get("test_accuracy")
            ):
                result = {"last_accuracy": found[-1], "best_accuracy": max(found), "best_epoch": 0}
                made = {"commit": None, "changed": False}
                records[name] = Record(run, "finished", come.curves, result, {}, made)
                done += come.epoch / run.total_epochs
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2].strip()
        last = last.removeprefix("rkd run: ") or "A process for it is starting"
        for name, run in self.plan.runs.items():
            last = f"{name}{last.removeprefix(run.id)}" if last.startswith(run.id) else last
        if status == "stopped":
            last += ". Nothing is recorded of an unfinished run; Train goes on from its checkpoint"
        return TrainingStatus(status, f"{status.capitalize()}. {last}.", done / len(self.plan.runs), records)
