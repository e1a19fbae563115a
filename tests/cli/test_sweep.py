"""`rkd sweep` and `rkd run` that are stopped, killed and started together leave the records of an undisturbed sweep."""

import random
import shlex
import shutil
import signal

import pytest
from sweeps import EPOCHS, PROFILE, WHOLE, Sweep, arguments, left_behind, logged, outcomes

from rkd.cli import main, parse
from rkd.cli.declare import parsed_values
from rkd.experiments.budget import Budget
from rkd.records import Store


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "own.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


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


def test_dry_run_lists_runs_trains_nothing_and_tells_times_once_something_is_recorded(
    profile, tmp_path, capsys, finished
):
    assert main(arguments(profile, tmp_path, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "4 runs: 0 recorded, 4 to train (4 missing)" in out
    assert "time: unknown until the first run has been trained on this machine" in out
    assert out.count("\nmissing ") == 4 and not list(tmp_path.rglob("*.json"))
    results = tmp_path / "r"
    shutil.copytree(finished, results)
    victim = sorted(results.glob("*.json"))[0]
    victim.unlink()
    with Store(results, results / "work").lock(victim.stem) as ours:
        assert ours and main(arguments(profile, results, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "3 recorded, 1 to train (1 running)\ntime: about " in out
    assert f"running   {victim.stem}  ResNet-8" in out and "[epoch 0 of 3; about " in out


def test_stopped_three_times_in_mid_epoch_then_finished(profile, tmp_path, capsys, undisturbed, monkeypatch):
    call = arguments(profile, tmp_path, "--budget", "1h", "--group", "2", "-s", "seeds=[0]")
    for asked in (3, 8, 19):
        with monkeypatch.context() as patch:
            stop_after(patch, asked)
            assert main(call) == 1
        out = capsys.readouterr().out.partition("stopped: it is enough\n")[2]
        assert "of 4 runs are recorded" in out and "\nbegun " in out and "runs left (" in out
        command = shlex.split(out.rstrip().rpartition("continue with: ")[2])
        assert command[0] == "rkd" and parsed_values(parse(command[1:])) == parsed_values(parse(call))
        assert asked != 3 or "[epoch 0 of 3 and 50 images]" in out
    assert "time: about" in out, "the run that has ended, or those begun, tell the rate"
    assert main(command[1:]) == 0
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    assert set(map(tuple, logged(tmp_path).values())) == {tuple(WHOLE)}, "no epoch was done twice"


def test_a_run_is_stopped_by_its_budget_and_goes_on(profile, tmp_path, capsys, monkeypatch):
    call = ["run", "--profile", str(profile), "--student", "resnet8", "--results", str(tmp_path)]
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert main([*call, "--budget", "1h"]) == 1
    out = capsys.readouterr().out
    assert "stopped: it is enough; the same call goes on here:\nbegun " in out and "[epoch 1 of 3" in out
    assert main(call) == 0 and "finished: last" in capsys.readouterr().out
    assert list(logged(tmp_path).values()) == [WHOLE]
    assert main([*call, "--budget", "1s", "-s", "epochs=100000", "-s", "decay_epochs=[2]"]) == 1
    assert "stopped: the budget of 1 s is used up" in capsys.readouterr().out


def test_diverged_runs_exit_1_and_are_named(profile, tmp_path, capsys):
    assert main(arguments(profile, tmp_path / "1", "-s", "loss_weight=1.0e+30")) == 1
    out = capsys.readouterr().out
    assert "4 runs are recorded" in out and out.count("\ndiverged ") == 3 and "continue with" not in out
    call = arguments(profile, tmp_path / "2", "-s", "teacher_lr=1.0e+30")
    assert main(call) == 1, "its students cannot learn from a teacher that diverged"
    out, err = capsys.readouterr()
    assert "\ndiverged " in out and "continue with: rkd sweep" in out and "ended as 'diverged'" in err


@pytest.mark.slow
def test_signals_end_a_process_between_batches_and_the_next_call_goes_on(profile, tmp_path, undisturbed):
    for number, reason in ((signal.SIGTERM, "SIGTERM arrived"), (signal.SIGINT, "Ctrl-C (SIGINT) arrived")):
        stopped = Sweep(profile, tmp_path)
        assert stopped.until_an_epoch(after=0.03)
        stopped.kill(number)
        assert f"stopped: {reason}" in stopped.ended(1).out and "\nbegun " in stopped.out
        assert len(outcomes(tmp_path)) < 4
    assert "4 runs are recorded" in Sweep(profile, tmp_path).ended(0).out
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    assert set(map(tuple, logged(tmp_path).values())) == {tuple(WHOLE)}, "no epoch was done twice"


@pytest.mark.slow
def test_killed_five_times_the_records_are_those_of_an_undisturbed_sweep(profile, tmp_path, undisturbed):
    draw = random.Random(7)
    for _ in range(5):
        victim = Sweep(profile, tmp_path, "--gang", "3")
        # At least one run has then gone an epoch on. Saving, recording or the next epoch is under way.
        assert victim.until_an_epoch(after=draw.uniform(0, 0.06)), victim.out
        victim.kill()
        victim.ended(-signal.SIGKILL)
    Sweep(profile, tmp_path).ended(0)
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)


def test_of_two_sweeps_on_one_folder_the_second_goes_on_where_the_first_was_killed(
    profile, tmp_path, undisturbed
):
    first, second = (Sweep(profile, tmp_path, "--group", "1") for _ in range(2))
    assert first.until_an_epoch()
    first.kill()
    first.ended(-signal.SIGKILL)
    second.ended(0)
    assert outcomes(tmp_path) == undisturbed and not left_behind(tmp_path)
    for run, epochs in logged(tmp_path).items():
        assert epochs.count(EPOCHS) == 1, (run, epochs)
        assert run in {r for r, _ in first.epochs} or epochs == WHOLE, "each run is trained by one of them"
