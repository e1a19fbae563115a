"""`rkd sweep` and `rkd run` that are stopped, killed and started together leave the records of an undisturbed sweep."""

import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rkd.cli import main, parse
from rkd.cli.declare import given
from rkd.experiments import group
from rkd.experiments.budget import Budget
from rkd.records import Store

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


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "own.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def arguments(profile, results, *more):
    """Table 5 of the profile: the undistilled ResNet-8, which is the teacher too, and three distilled ones."""
    where = ["--results", str(results), "--device", "cpu"]
    return ["sweep", str(profile), "--chapters", "table5", *where, *more]


class Sweep:
    """`rkd sweep` in a process of its own, its output in files."""

    def __init__(self, profile, results, *more):
        results.mkdir(exist_ok=True)
        number = len(list(results.glob("*.out")))
        self._out, self._err = results / f"{number}.out", results / f"{number}.err"
        self._out.touch(), self._err.touch()
        self.start(arguments(profile, results, *more))
        self.deadline = time.monotonic() + 120

    def start(self, call):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(self._out, "w") as out, open(self._err, "w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rkd", *call], env=environment, stdout=out, stderr=err
            )

    def status(self):
        """Exit status; None while it runs."""
        return self.process.poll()

    @property
    def out(self):
        return self._out.read_text()

    @property
    def epochs(self):
        """(run, epoch) of each epoch this process has finished."""
        lines = [line.split() for line in self._err.read_text().splitlines()]
        return [(w[0], int(w[2].partition("/")[0])) for w in lines if len(w) > 2 and w[1] == "epoch"]

    def until(self, happened, after=0.0):
        """Wait for `happened()`, and then a moment; False if the process ends before."""
        while not happened():
            if self.status() is not None:
                return False
            assert time.monotonic() < self.deadline, self.out + self._err.read_text()
            time.sleep(0.01)
        time.sleep(after)
        return self.status() is None

    def wait(self, expected):
        self.until(lambda: False)
        assert self.status() == expected, self.out + self._err.read_text()
        return self

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.until(lambda: False)


class Forked(Sweep):
    """The same, forked from a server that has imported all (torch takes seconds), with a checkpoint after every epoch
    however short, so that a sweep can be killed often and still go on."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["rkd.cli.sweep", "rkd.experiments.chapters", "rkd.experiments.runner"])

    def start(self, call):
        self.process = self.server.Process(target=_forked, args=(call, str(self._out), str(self._err)))
        self.process.start()

    def status(self):
        return self.process.exitcode


def _forked(call, out, err):
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
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


@pytest.fixture(scope="module")
def finished(profile, tmp_path_factory):
    """Folder of a sweep that nothing disturbed, in this process."""
    results = tmp_path_factory.mktemp("undisturbed")
    assert main(arguments(profile, results)) == 0
    return results


@pytest.fixture(scope="module")
def undisturbed(finished):
    """What came out of that sweep."""
    found = outcomes(finished)
    assert len(found) == 4 and logged(finished) == {name[:-5]: WHOLE for name in found}
    return found


def stop_after(monkeypatch, asked):
    """Let budgets end at the given question."""
    count = iter(range(10**9))
    monkeypatch.setattr(Budget, "stop", lambda self, needed: next(count) >= asked)
    monkeypatch.setattr(Budget, "reason", "it is enough")


def test_dry_run_lists_runs_and_trains_nothing(profile, tmp_path, capsys):
    assert main(arguments(profile, tmp_path, "--dry-run", "--group", "2")) == 0
    out = capsys.readouterr().out
    assert "4 runs in 1 chapters: 0 recorded, 4 to train (4 missing)" in out
    assert "time: unknown until the first run has been trained on this machine" in out
    assert out.count("\nmissing ") == 4 and not list(tmp_path.rglob("*.json"))


def test_dry_run_tells_times_once_something_is_recorded(profile, tmp_path, capsys, finished):
    results = tmp_path / "r"
    shutil.copytree(finished, results)
    victim = sorted(results.glob("*.json"))[0]
    victim.unlink()
    assert main(arguments(profile, results, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "3 recorded, 1 to train (1 missing)\ntime: about " in out
    assert f"missing   {victim.stem}  ResNet-8" in out and "[about " in out
    assert (
        main(["status", "--profile", str(profile), "--chapters", "table5", "-v", "--results", str(results)])
        == 0
    )
    assert "time left: about " in capsys.readouterr().out


def test_stopped_three_times_in_mid_epoch_then_finished(profile, tmp_path, capsys, undisturbed, monkeypatch):
    call = arguments(profile, tmp_path, "--budget", "1h", "--group", "2", "-s", "seeds=[0]")
    for asked in (3, 8, 19):
        with monkeypatch.context() as patch:
            stop_after(patch, asked)
            assert main(call) == 1
        out = capsys.readouterr().out.partition("stopped: it is enough\n")[2]
        assert "of 4 runs are recorded" in out and " begun, epoch " in out and "runs left (" in out
        command = shlex.split(out.rstrip().rpartition("continue with: ")[2])
        assert command[0] == "rkd" and given(parse(command[1:])) == given(parse(call))
        assert asked != 3 or "epoch 0 of 3 and 50 images" in out
    assert "time: about" in out, "the run that has ended, or those begun, tell the rate"
    assert main(command[1:]) == 0
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    assert set(map(tuple, logged(tmp_path).values())) == {tuple(WHOLE)}, "no epoch was done twice"


def test_a_run_is_stopped_and_goes_on(profile, tmp_path, capsys, monkeypatch):
    call = ["run", "--profile", str(profile), "--student", "resnet8", "--results", str(tmp_path)]
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert main([*call, "--budget", "1h"]) == 1
    out = capsys.readouterr().out
    assert "stopped: it is enough; the same call goes on here:" in out and "resnet8: epoch 1 of 3" in out
    assert main(call) == 0 and "finished: last" in capsys.readouterr().out
    assert list(logged(tmp_path).values()) == [WHOLE]


def test_diverged_runs_exit_1_and_are_named(profile, tmp_path, capsys):
    assert main(arguments(profile, tmp_path, "-s", "loss_weight=1.0e+30")) == 1
    out = capsys.readouterr().out
    assert "4 runs are recorded" in out and out.count(" diverged\n") == 3 and "continue with" not in out


def test_a_diverged_teacher_ends_a_sweep_and_what_is_left_is_told(profile, tmp_path, capsys):
    call = arguments(profile, tmp_path, "-s", "lr=1.0e+30")
    assert main(call) == 2, "its students cannot learn from a teacher that diverged"
    out = capsys.readouterr()
    (run,) = [p.stem for p in tmp_path.glob("*.json")]
    assert f"  {run} diverged" in out.out and "continue with: rkd sweep" in out.out
    assert "ended as 'diverged'" in out.err


def test_what_another_process_trains_is_shown_as_such(profile, tmp_path, capsys):
    assert main(arguments(profile, tmp_path, "--dry-run")) == 0
    run = capsys.readouterr().out.splitlines()[2].split()[1]
    with Store(tmp_path, tmp_path / "work").lock(run) as ours:
        assert ours and main(arguments(profile, tmp_path, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "4 to train (1 being trained by another process, 3 missing)" in out
    assert next(line for line in out.splitlines() if "[epoch 0 of 3]" in line).split()[:2] == ["running", run]


def test_a_budget_ends_a_process_in_time(profile, tmp_path):
    long = ("-s", "epochs=100000", "-s", "decay_epochs=[2]")
    started = time.monotonic()
    Sweep(profile, tmp_path / "long", "--dry-run", *long).wait(0)
    idle = time.monotonic() - started  # what starting and ending a process takes on this machine, now
    started = time.monotonic()
    ended = Sweep(profile, tmp_path / "long", "--budget", "6s", *long).wait(1)
    assert time.monotonic() - started < 6 + 2 * idle + 8
    assert "stopped: the budget of 6 s is used up" in ended.out and "0 of 4 runs are recorded" in ended.out


@pytest.mark.slow
def test_signals_end_a_process_between_batches_and_the_next_call_goes_on(profile, tmp_path, undisturbed):
    for number, reason in ((signal.SIGTERM, "SIGTERM arrived"), (signal.SIGINT, "Ctrl-C (SIGINT) arrived")):
        stopped = Sweep(profile, tmp_path)
        assert stopped.until(lambda s=stopped: s.epochs, after=0.03)
        stopped.signal(number)
        stopped.wait(1)
        assert f"stopped: {reason}" in stopped.out and " begun, epoch " in stopped.out
        assert len(outcomes(tmp_path)) < 4
    last = Sweep(profile, tmp_path).wait(0)
    assert "4 runs are recorded" in last.out
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    assert set(map(tuple, logged(tmp_path).values())) == {tuple(WHOLE)}, "no epoch was done twice"


@pytest.mark.slow
def test_killed_five_times_the_records_are_those_of_an_undisturbed_sweep(profile, tmp_path, undisturbed):
    draw = random.Random(7)
    for _ in range(5):
        victim = Forked(profile, tmp_path, "--gang", "3")
        # At least one run has then gone an epoch on. Saving, recording or the next epoch is under way.
        assert victim.until(lambda v=victim: v.epochs, after=draw.uniform(0, 0.06)), victim.out
        victim.kill()
    Forked(profile, tmp_path).wait(0)
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)


@pytest.mark.parametrize("killed", [False, True])
def test_two_sweeps_on_one_folder_train_each_run_once(killed, profile, tmp_path, undisturbed):
    first, second = (Forked(profile, tmp_path, "--group", "1") for _ in range(2))
    if killed:
        assert first.until(lambda: first.epochs)
        first.kill()
    else:
        first.wait(0)
    second.wait(0)
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    done = first.epochs + second.epochs
    if not killed:
        assert len(done) == len(set(done)) and first.epochs and second.epochs, (
            "both trained, and nothing twice"
        )
    for run, epochs in logged(tmp_path).items():
        assert epochs.count(EPOCHS) == 1, (run, epochs)
        if not killed or run not in {r for r, _ in first.epochs}:
            assert epochs == WHOLE
