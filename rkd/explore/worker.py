"""The process that trains for the live page, so that the notebook's kernel stays free and its random streams untouched.

`python -m rkd.explore.worker` reads one line of JSON, the job, from its standard input; "stop" on a later line, or the
end of the input (the kernel is gone), ends training between two batches with everything saved. It writes one line of
JSON per event to its standard output; whatever else is printed goes to standard error.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkd.errors import RkdError

if TYPE_CHECKING:
    from rkd.training import Learner

EVENTS_APART = 0.2  # seconds between two reports of a run's position
NICENESS = 5  # the notebook's kernel comes first

Tell = Callable[..., None]


def main() -> None:
    """Work through the job."""
    tell = _channel()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    job = json.loads(sys.stdin.readline())
    asked = threading.Event()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    try:
        stopped = _work(job, tell, asked)
    except RkdError as error:
        tell("failed", text=str(error))
    except Exception as error:
        traceback.print_exc()
        tell("failed", text=f"the training process failed: {type(error).__name__}: {error}")
    else:
        tell("ended", stopped=stopped)


def _channel() -> Tell:
    """Keeps the standard output for events alone. Where nobody reads them any more they are dropped: training is to end
    in good order, not by a broken pipe."""
    lines = os.dup(1)
    os.dup2(2, 1)

    def tell(event: str, **values: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(lines, (json.dumps({"event": event, **values}) + "\n").encode())

    return tell


def _listen(asked: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    asked.set()


def _work(job: dict[str, Any], tell: Tell, asked: threading.Event) -> bool:
    """Train the job's runs in turn; True when stopped."""
    from rkd.experiments.execute import Executor
    from rkd.experiments.snapshots import SnapshotTaker
    from rkd.records import Store
    from rkd.training import RunConfig

    store = Store(Path(job["records"]), Path(job["work"]))
    for values in job["runs"]:
        config = RunConfig.from_dict(values)
        executor = Executor(
            store,
            Path(job["data_root"]),
            job["device"],
            progress=_Reports(config, store, tell),
            labels={"page": "explore"},
            stop=lambda needed: asked.is_set(),
        )
        executor.run([config], snapshots=SnapshotTaker())
        if executor.stopped:
            return True
    return False


class _Reports:
    """A progress that tells of the runs as events.

    Args:
        config: the run wanted; its teacher may come first.
        store: of both.
        tell: writes one event.
    """

    def __init__(self, config: "Any", store: "Any", tell: Tell) -> None:
        self._config, self._store, self._tell = config, store, tell
        self._told = 0.0

    def begin(self, title: str, epochs: int, images: int) -> None:
        from rkd.experiments.estimate import unfinished

        left = unfinished([self._config], self._store)  # the teacher first, if it is needed
        run = left[0] if left else self._config  # none: recorded, and trained again for its maps
        self._tell("begin", run=run.id, epochs=epochs, images=images)

    def batch(self, epoch: int, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told > EVENTS_APART or done == total:
            self._told = now
            self._tell("batch", epoch=epoch, done=done)

    def epoch(self, learner: "Learner") -> None:
        self._tell("epoch", run=learner.config.id, epoch=learner.epoch, curves=learner.curves)

    def end(self) -> None:
        pass

    def say(self, text: str) -> None:
        self._tell("say", text=text)


if __name__ == "__main__":
    main()
