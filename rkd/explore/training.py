"""Trains a plan in the background: start, stop, look. No widgets here."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rkd
from rkd import paths
from rkd.errors import RkdError
from rkd.experiments.estimate import begun
from rkd.experiments.execute import pick_device
from rkd.explore.choices import Plan, remaining
from rkd.records import Store
from rkd.training import checkpoint

BUSY = ("starting", "training", "stopping")
RATE_WINDOW = 3.0  # seconds over which images/s are measured
SETTLING_S = 2.0  # before the time left is told
CLOSING_S = 20.0  # a worker told to stop gets so long before it is killed

Curves = Mapping[str, list[float]]


@dataclass(frozen=True)
class State:
    """What a look at a runner shows.

    Attributes:
        status: "idle", "starting", "training", "stopping", "stopped", "finished" or "failed".
        run: id of the run under way, or of the last one.
        number, of: that run is the `number`-th of so many that are trained.
        epoch, epochs: finished epochs of that run, and all.
        done, images: images of the epoch in progress that are done, and all of an epoch.
        rate: images per second; 0 while unknown.
        share: part of all the work that is done, 0 to 1, by multiply-adds, from where training was taken up.
        seconds_left: of all runs; None while unknown.
        curves: per-epoch values by run id, as records keep them; recorded runs and those begun earlier included.
        note: what was said last; for "failed" why, in a sentence.
    """

    status: str = "idle"
    run: str = ""
    number: int = 0
    of: int = 0
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    images: int = 0
    rate: float = 0.0
    share: float = 0.0
    seconds_left: float | None = None
    curves: Mapping[str, Curves] = field(default_factory=dict)
    note: str = ""

    @property
    def busy(self) -> bool:
        """Whether a process is at work."""
        return self.status in BUSY


class Runner:
    """Trains one plan at a time in a process of its own, so that whoever asks stays free.

    Stopping ends training between two batches; what is unfinished stays as a checkpoint, without a record, and the
    next `start` of the same plan goes on from there. The process stops by itself, in the same way, when this one ends.

    Args:
        store: of working records and files.
        root: folder of the data sets, relative to the project or absolute.
        device: see `pick_device`.

    Raises:
        ConfigError: a device this machine lacks.
    """

    def __init__(self, store: Store, root: str = "data", device: str = "auto") -> None:
        self.store, self.root, self.device = store, root, pick_device(device)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._state = State()
        self._log: Path | None = None
        self._ending: dict[str, Any] | None = None  # what the process said at last
        self._work: dict[str, float] = {}
        self._passed = 0.0
        self._begun = self._origin = 0.0
        self._seen: list[tuple[float, int]] = []

    def start(self, plan: Plan) -> None:
        """Train what of a plan is not recorded.

        Raises:
            RkdError: a training is under way.
            RecordError: a record or checkpoint is damaged.
        """
        with self._lock:
            if self._state.busy:
                raise RkdError("a training is under way; stop it first")
            self._work = remaining(plan, self.store, self.root)
            self._passed, self._ending = 0.0, None
            state = State("starting", of=len(self._work), curves=self._known(plan))
            if self._complete(plan):
                self._state = replace(state, status="finished", share=1.0, seconds_left=0.0)
                return
            self._log = self.store.folder(plan.distilled.id) / "worker.log"
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "w", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "rkd.explore.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    cwd=paths.home(),
                    env={**os.environ, "PYTHONPATH": _search_path(), "RKD_HOME": str(paths.home())},
                    start_new_session=True,  # an interrupt of the notebook's kernel is not meant for it
                )
            self._state = state
            self._reader = threading.Thread(
                target=self._follow, args=(self._process,), name="rkd-explore", daemon=True
            )
            self._reader.start()
        job = {
            "runs": [run.to_dict() for run in plan.runs],
            "records": str(self.store.records),
            "work": str(self.store.work),
            "data_root": str(paths.home() / self.root),
            "device": str(self.device),
        }
        self._write(json.dumps(job))

    def stop(self) -> None:
        """Ask the training to end after the batch in progress; returns at once, and does nothing when none is under
        way."""
        with self._lock:
            if self._state.status not in ("starting", "training"):
                return
            self._state = replace(self._state, status="stopping")
        self._write("stop")

    def poll(self) -> State:
        """How it stands now."""
        with self._lock:
            state = self._state
            passed = time.monotonic() - self._begun
            if state.status == "training" and state.share > 0 and passed > SETTLING_S:
                state = replace(state, seconds_left=passed / state.share * (1 - state.share))
            return state

    def wait(self, seconds: float = math.inf) -> State:
        """Until nothing is under way, or the time is over."""
        if self._reader is not None:
            self._reader.join(None if math.isinf(seconds) else seconds)
        return self.poll()

    def close(self) -> None:
        """Stop, and see the process off; one that does not obey is killed, which costs no record."""
        self.stop()
        if self._process is None:
            return
        try:
            self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.wait(CLOSING_S)

    def _complete(self, plan: Plan) -> bool:
        """Whether there is nothing to train: recorded, and looked at while it was trained."""
        if self._work:
            return False
        run = plan.distilled.id
        return self.store.maps(run).exists() or self.store.load(run).status != "finished"

    def _write(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, and its last event says how
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _known(self, plan: Plan) -> dict[str, Curves]:
        """Curves of what is recorded or begun."""
        known: dict[str, Curves] = {}
        for run in (plan.teacher, *plan.runs):
            if self.store.has(run.id):
                known[run.id] = self.store.load(run.id).curves
            elif begun(self.store, run.id):
                known[run.id] = checkpoint.load(self.store.folder(run.id) / "checkpoint.pt")["curves"]
        return known

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        """Take in the events of a process until it ends."""
        for line in process.stdout:
            event = json.loads(line)
            with self._lock:
                getattr(self, f"_on_{event.pop('event')}")(**event)
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with self._lock:  # only now: whoever starts anew must find the run's files and locks free
            ending = self._ending or {
                "status": "failed",
                "note": f"the training process ended with status {status}; its last words are in {self._log}",
            }
            self._state = replace(self._state, **ending)

    def _on_begin(self, run: str, epochs: int, images: int) -> None:
        state = self._state
        if state.number:
            self._passed += self._work.get(state.run, 0.0)
        else:
            self._begun = time.monotonic()
        self._origin, self._seen = -1.0, []
        stopping = state.status == "stopping"
        self._state = replace(
            state,
            status="stopping" if stopping else "training",
            run=run,
            number=state.number + 1,
            of=max(state.of, state.number + 1),
            epoch=0,
            epochs=epochs,
            done=0,
            images=images,
            rate=0.0,
            note="",
        )

    def _on_batch(self, epoch: int, done: int) -> None:
        state, now = self._state, time.monotonic()
        position = epoch * state.images + done
        if self._origin < 0:  # a resumed run does not start at zero
            self._origin = max(0.0, position - min(done, 64))
        self._seen = [(t, p) for t, p in self._seen if now - t < RATE_WINDOW] + [(now, position)]
        (first, start), (last, end) = self._seen[0], self._seen[-1]
        rate = (end - start) / (last - first) if last > first else state.rate
        whole = sum(self._work.values())
        part = (position - self._origin) / max(1.0, state.epochs * state.images - self._origin)
        share = (self._passed + part * self._work.get(state.run, 0.0)) / whole if whole else 0.0
        self._state = replace(state, epoch=epoch, done=done, rate=rate, share=min(1.0, share))

    def _on_epoch(self, run: str, epoch: int, curves: Curves) -> None:
        state = self._state
        self._state = replace(state, epoch=epoch, done=0, curves={**state.curves, run: curves})

    def _on_say(self, text: str) -> None:
        self._state = replace(self._state, note=text)

    def _on_failed(self, text: str) -> None:
        self._ending = {"status": "failed", "note": text}

    def _on_ended(self, stopped: bool) -> None:
        done = {"status": "finished", "share": 1.0, "seconds_left": 0.0}
        self._ending = {"status": "stopped"} if stopped else done


def working_store() -> Store:
    """Records and files of what was tried and not kept: in the build folder."""
    return Store(paths.build() / "explore" / "records", paths.build() / "explore" / "work")


def _search_path() -> str:
    """The package's folder before whatever is searched already: a checkout need not be installed."""
    here = str(Path(rkd.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
