"""Training in the background: to the end, stopped, taken up again, failed, left alone."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rkd import paths
from rkd.errors import RkdError
from rkd.experiments.execute import Executor
from rkd.experiments.snapshots import load_snapshots
from rkd.explore.choices import remaining
from rkd.explore.training import Runner
from rkd.records import Store
from rkd.training import checkpoint

pytest_plugins = ["exploring"]
pytestmark = pytest.mark.slow


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def test_result_is_that_of_the_executor(home, working, runner, tmp_path, silent, tiny_plan):
    plan = tiny_plan()
    left = remaining(plan, working)
    assert set(left) == {plan.alone.id, plan.teacher.id, plan.distilled.id}
    runner.start(plan)
    with pytest.raises(RkdError, match="under way; stop it first"):
        runner.start(plan)
    seen = []
    while (state := runner.poll()).busy:
        seen.append(state)
        time.sleep(0.02)
    assert state.status == "finished" and state.share == 1.0, state.note
    shares = [s.share for s in seen]
    assert shares == sorted(shares) and any(0 < share < 1 for share in shares)
    assert [run for run in dict.fromkeys(s.run for s in seen) if run] == [
        plan.alone.id,
        plan.teacher.id,
        plan.distilled.id,
    ]
    assert any(s.rate > 0 for s in seen) and any(s.seconds_left is not None for s in seen)

    other = Store(tmp_path / "records", tmp_path / "work")
    expected = Executor(other, paths.home() / "data", "cpu", progress=silent).run(plan.runs)
    for run in plan.runs:
        record = working.load(run.id)
        assert record.curves == other.load(run.id).curves == expected[run.id].curves
        assert record.result == expected[run.id].result
        # Kept with fewer digits in a record than while it trains.
        assert state.curves[run.id]["test_accuracy"] == pytest.approx(record.curves["test_accuracy"])
    assert working.load(plan.distilled.id).provenance["labels"] == {"page": "explore"}
    assert load_snapshots(working, plan.distilled.id).epochs == (1, 2)
    assert not (home / "results").exists(), "nothing is kept without a name"

    runner.start(plan)
    assert runner.poll().status == "finished", "nothing is left to train: no process is started"


def test_stopped_run_leaves_no_record_and_goes_on(
    home, working, runner, tmp_path, silent, tiny_plan, files_of
):
    plan = tiny_plan(images=600, epochs=5)
    runner.start(plan)
    until(lambda: len(runner.poll().curves.get(plan.distilled.id, {}).get("lr", ())) >= 1)
    runner.stop()
    assert runner.poll().status == "stopping"
    state = runner.wait(60)
    assert state.status == "stopped" and state.run == plan.distilled.id
    assert not working.has(plan.distilled.id) and working.has(plan.alone.id)
    files = files_of(home)
    assert not [name for name in files if name.endswith(".tmp")]
    assert not [name for name in files if plan.distilled.id in name and name.endswith(".json")]
    halfway = checkpoint.load(working.folder(plan.distilled.id) / "checkpoint.pt")
    assert 1 <= halfway["epoch"] < 5
    left = remaining(plan, working)
    assert list(left) == [plan.distilled.id]

    again = Runner(working, device="cpu")  # as after a restart of the kernel
    again.start(plan)
    assert len(again.poll().curves[plan.distilled.id]["lr"]) == halfway["epoch"], (
        "what is known is shown at once"
    )
    assert again.wait(120).status == "finished"
    other = Store(tmp_path / "records", tmp_path / "work")
    whole = Executor(other, paths.home() / "data", "cpu", progress=silent).run(plan.runs)
    assert working.load(plan.distilled.id).curves == whole[plan.distilled.id].curves


def test_stop_before_the_first_batch(working, runner, tiny_plan):
    plan = tiny_plan()
    runner.start(plan)
    runner.stop()
    assert runner.wait(60).status == "stopped"
    assert not working.ids()


def test_failure_is_one_sentence(home, working, runner, tiny_plan):
    (home / "data").write_text("a file where a folder is meant")
    plan = tiny_plan(dataset="cifar100")
    runner.start(plan)
    state = runner.wait(60)
    assert state.status == "failed"
    assert "is a file" in state.note and "\n" not in state.note
    assert not working.ids()


def test_a_killed_process_is_noticed(working, runner, tiny_plan):
    plan = tiny_plan(images=600, epochs=50)
    runner.start(plan)
    until(lambda: runner.poll().status == "training")
    runner._process.kill()
    state = runner.wait(30)
    assert state.status == "failed" and "ended with status -9" in state.note
    runner.start(plan)
    until(lambda: runner.poll().status == "training")
    runner.close()
    assert runner.poll().status == "stopped"


def test_training_ends_with_the_process_that_asked_for_it(home, working, tiny_plan, tiny):
    """A notebook's kernel may be killed: what it started must not go on for ever."""
    plan = tiny_plan(images=600, epochs=500)
    script = (
        "import sys, time\n"
        "from rkd.explore.choices import Choices, plan_of\n"
        "from rkd.explore.training import Runner, working_store\n"
        "runner = Runner(working_store(), device='cpu')\n"
        f"runner.start(plan_of(Choices.beginning_with({ ({**tiny, 'images': 600, 'epochs': 500})!r})))\n"
        "while not runner.poll().done: time.sleep(0.05)\n"
        "print(runner._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    kernel = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ), cwd=home
    )
    try:
        worker = psutil.Process(int(kernel.stdout.readline()))
        assert worker.is_running()
        kernel.send_signal(signal.SIGKILL)
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 30)
    finally:
        kernel.kill()
        kernel.wait()
        kernel.stdout.close()
    assert not working.has(plan.alone.id)
    assert (working.folder(plan.alone.id) / "checkpoint.pt").exists()
