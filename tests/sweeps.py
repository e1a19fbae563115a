"""A small sweep, processes that make it and can be killed, and what it left."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time

from rkd.cli import main
from rkd.experiments import group

EPOCHS = 3
PROFILE = f"""
profile: own
dataset: embedded
train_images: 100
test_images: 50
batch_size: 25
epochs: {EPOCHS}
seeds: [0]
teacher: resnet8
student: resnet8
"""
WHOLE = list(range(1, EPOCHS + 1))  # epochs that a log tells of when none was done twice


def arguments(profile, results, *more):
    """Table 5 of the profile: the undistilled ResNet-8, which is the teacher too, and three distilled ones."""
    where = ["--results", str(results), "--device", "cpu"]
    return ["sweep", str(profile), "--chapters", "table5", *where, *more]


class Sweep:
    """A sweep in a process of its own, forked from a server that has imported all (torch takes seconds), with a
    checkpoint after every epoch however short, so that it can be killed often and still go on."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["rkd.cli.sweep", "rkd.experiments.chapters", "rkd.experiments.runner"])

    def __init__(self, profile, results, *more, first=None):
        results.mkdir(exist_ok=True)
        number = len(list(results.glob("*.out")))
        self._out, self._err = results / f"{number}.out", results / f"{number}.err"
        self._out.touch(), self._err.touch()
        call = arguments(profile, results, *more)
        told = dict(os.environ)  # the server's are those of the moment it was started
        self.process = self.server.Process(
            target=_forked, args=(call, str(self._out), str(self._err), first, told)
        )
        self.process.start()

    @property
    def out(self):
        return self._out.read_text()

    @property
    def epochs(self):
        """(run, epoch) of each epoch this process has finished."""
        lines = [line.split() for line in self._err.read_text().splitlines()]
        return [(w[0], int(w[2].partition("/")[0])) for w in lines if len(w) > 2 and w[1] == "epoch"]

    def until_an_epoch(self, after=0.0):
        """Wait for an epoch to end, and then a moment; False if the process ends before."""
        while not self.epochs and self.process.exitcode is None:
            time.sleep(0.01)
        time.sleep(after)
        return self.process.exitcode is None

    def ended(self, expected):
        self.process.join(600)  # a busy machine takes its time
        assert self.process.exitcode == expected, self.out + self._err.read_text()
        return self

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it may have ended in this very moment
            os.kill(self.process.pid, number)
        self.process.join(600)


def _forked(call, out, err, first, environment):
    os.environ.update(environment)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    if first:
        first()
    group.SAVING_SHARE = 1e9  # a checkpoint after every epoch
    sys.exit(main(call))


def logged(results):
    """Epochs by run, in the order in which the log files tell of them."""
    return {
        log.parent.name: [
            int(line.split(" epoch ")[1].partition("/")[0]) for line in log.read_text().splitlines()
        ]
        for log in (results / "work").glob("*/log.txt")
    }


def outcomes(results):
    """What is in the records apart from cost and provenance, as bytes by file name."""
    found = {}
    for path in results.glob("*.json"):
        body = json.loads(path.read_text(encoding="utf-8"))
        del body["cost"], body["provenance"]
        found[path.name] = json.dumps(body, sort_keys=True).encode()
    return found


def left_behind(results):
    return [p.name for pattern in ("*.tmp", "checkpoint.pt") for p in results.rglob(pattern)]
