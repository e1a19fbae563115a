"""What is said of a wrong call before anything is trained, and how a worker is told to stop."""

import sys

import pytest

from rkd.cluster import board
from rkd.cluster.board import Board, BoardReporter
from rkd.cluster.session import Resources
from rkd.errors import ConfigError
from rkd.experiments.budget import Budget

SWEEP, SLURM = "sweep smoke --chapters table5 --device cpu", "cluster slurm params/smoke.yaml"
RAY = f"{SWEEP} --engine ray"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (f"{SWEEP} --engine slurm", "unknown engine 'slurm'"),
        (f"{SWEEP} --address auto", "--address goes with --engine ray"),
        (f"{SWEEP} --storage /tmp", "--storage goes with --engine ray"),
        (f"{SWEEP} --each cpu=2", "--each goes with --engine ray"),
        (f"{RAY} --check", "--check does not go with --engine ray"),
        (f"{RAY} --tensorboard tb", "--tensorboard does not go with --engine ray"),
        (f"{RAY} --each gpu=1.5", "a share of a GPU is below 1"),
        (f"{RAY} --each cpu=0", "cpu is 0; it must be a finite number > 0"),
        (f"{RAY} --each cores=2", "unknown Resources setting 'cores'; allowed: cpu, gpu, memory"),
        (f"{RAY} --each gpu", "--each gpu: there is no value"),
        (f"{RAY} --each gpu=half", "gpu is 'half'; it must be a finite number >= 0"),
        (f"{RAY} --address ray://127.0.0.1:1", "give auto, or host:port of a node"),
        (f"{RAY} --storage http://127.0.0.1/x", "no file can be created exclusively"),
        (f"{RAY} --storage nothing://x", "--storage nothing://x: "),
        (RAY, "Ray is not installed: pip install 'rkd[cluster]'"),
        (f"{SLURM} --time 9m", "a job must be longer than 10 minutes"),
        (f"{SLURM} --time 4h --gpus -1", "--gpus is -1; it must be >= 0"),
        (f"{SLURM} --time 4h --sweep '--budget 3h'", "the job itself says --budget"),
        ("cluster plan smoke --gpus 0", "--gpus is 0"),
        ("cluster plan smoke --gpus two", "--gpus is two"),
        ("cluster plan smoke --rate -1", "--rate is -1"),
    ],
)
def test_a_wrong_call_gets_one_sentence(rkd, tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)
    if call == RAY:
        monkeypatch.setitem(sys.modules, "ray", None)
    sweeps = call.startswith("sweep")
    status, out, err = rkd(call, *(["--results", tmp_path] if sweeps else []))
    assert status == 2 and said in err and err.count("\n") == 1 and (sweeps or not out)
    assert not list(tmp_path.rglob("*.json"))


def test_resources_are_read():
    assert Resources.read("") == Resources()
    assert Resources.read("gpu=0.5,memory=4GB") == Resources(0.5, 1.0, 4 * 10**9)
    with pytest.raises(ConfigError, match="is not a size"):
        Resources.read("memory=much")


def test_a_worker_tells_a_few_times_a_second_and_stops_when_it_is_told_to(monkeypatch):
    now, there, told = [0.0], Board(None), []
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])

    def tell(at, lines):
        told.append((at, lines))
        return there.tell(3, at, lines)

    teller = BoardReporter(tell, "node", Budget(None))
    teller.begin("title", 2, 50)
    assert not teller.stop(1.0)
    teller.batch(1, 25, 50)
    assert not teller.stop(1.0) and len(told) == 1
    there.stop()
    now[0] = board.ASK_SECONDS / 2
    assert not teller.stop(1.0) and len(told) == 1
    now[0] = board.ASK_SECONDS
    assert teller.stop(1.0) and teller.stop(1.0) and told[1:] == [(75, [])]
    assert there.news() == (["node  title: 100 images in all epochs"], {3: 75}) and there.news()[0] == []


def test_a_worker_stops_by_its_own_clock_when_the_budget_is_used_up():
    assert Board(100.0).left() == pytest.approx(100, abs=1)
    teller = BoardReporter(lambda at, lines: False, "node", Budget(20.0))
    assert not teller.stop(1.0) and teller.stop(15.0)
