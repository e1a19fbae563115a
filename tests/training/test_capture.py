"""Capturing a step, by stand-ins for CUDA: trials, proof, failures and what is left of them, streams."""

import types

import pytest
import torch
from conftest import make
from test_engine import assert_same, small, small_plain

from rkd import data
from rkd.errors import ConfigError, RkdError
from rkd.experiments.runner import Runner
from rkd.training import Engine, capture
from rkd.training.step import GroupStep


def counting():
    """A body that reads as far as its position allows, and what it changes."""
    position, total = torch.zeros((), dtype=torch.int64), torch.zeros(())
    order = torch.arange(10.0)

    def body():
        total.add_(order.index_select(0, torch.arange(3) + position).sum())
        position.add_(3)

    return body, position, total


def again(body):
    body()
    return body


def test_each_trial_begins_where_the_first_did():
    body, position, total = counting()
    position.fill_(7)  # three images are left: a trial further on would read beyond the end
    replay = capture.captured(body, [position, total], [[position], [total]], again)
    assert (position.item(), total.item()) == (7, 0.0)
    replay()
    assert (position.item(), total.item()) == (10, 7.0 + 8 + 9)


def test_an_empty_recording_is_found_out():
    body, position, total = counting()
    with pytest.raises(capture.CaptureError, match="left 1 of 2 groups"):
        capture.captured(body, [position, total], [[position], [total]], lambda b: lambda: position.add_(3))
    assert (position.item(), total.item()) == (0, 0.0)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_what_a_broken_step_changed_is_put_back(fails_at):
    body, position, total = counting()
    calls = []

    def broken():
        body()
        calls.append(1)
        if len(calls) == fails_at:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        capture.captured(broken, [position, total], [[position]], again)
    assert (position.item(), total.item()) == (0, 0.0)


class FakeGraph:
    """Of torch.cuda.CUDAGraph, what a recording uses."""

    def __init__(self, ends=None):
        self.ends, self.log = ends, []

    def capture_begin(self, pool, capture_error_mode):
        self.log.append(("begin", pool, capture_error_mode))

    def capture_end(self):
        self.log.append(("end",))
        if self.ends:
            raise self.ends


@pytest.fixture
def cuda(monkeypatch):
    """Enough of CUDA for `cuda_graph` to run through: streams that know their order, graphs, an allocator."""
    made = types.SimpleNamespace(graphs=[], streams=[], ended=[], log=[], ends=None)

    class Stream:
        def __init__(self, device=None):
            self.device, self.waited = device, []
            made.streams.append(self)

        def wait_stream(self, other):
            self.waited.append(other)

        def wait_event(self, event):
            made.log.append("wait")
            self.waited.append(event)

        def record_event(self):
            made.log.append("taught")
            return f"event {made.streams.index(self)}"

    def graph():
        made.graphs.append(FakeGraph(made.ends))
        made.graphs[-1].replay = lambda: made.replay()
        return made.graphs[-1]

    class nothing:
        def __init__(self, *arguments):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

    main = Stream()
    made.streams.clear()
    made.main = main
    for name, value in {
        "Stream": Stream, "CUDAGraph": graph, "graph_pool_handle": lambda: (0, 7), "synchronize": lambda device: None,
        "empty_cache": lambda: None, "current_stream": lambda device: main, "stream": nothing, "device": nothing,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *a: made.ended.append(a), raising=False)
    monkeypatch.setattr(capture, "_streams", {})
    monkeypatch.setattr(capture, "_failures", [])
    return made


def test_streams_are_made_once_and_apart_from_the_recorder(cuda):
    device = torch.device("cuda", 0)
    first = capture.streams(device, 8)
    again = capture.streams(device, 5)
    assert len(first) == 9 and len(set(map(id, first))) == 9 and again == first[:6]
    many = capture.streams(device, 40)
    assert len(cuda.streams) == capture.MOST_STREAMS and many[0] not in many[1:] and len(many) == 41
    assert capture.streams(torch.device("cuda", 1), 1)[0] not in many


def test_a_recording_ends_and_is_replayed(cuda):
    body, position, total = counting()
    cuda.replay = body
    replay = capture.cuda_graph(body, [position, total], [[position], [total]])
    (graph,) = cuda.graphs
    assert graph.log == [("begin", (0, 7), "thread_local"), ("end",)]
    assert position.item() == 0
    replay()
    assert position.item() == 3 and capture.failure() is None and not cuda.ended


@pytest.mark.parametrize("ends", [None, RuntimeError("capture was invalidated")])
def test_a_failed_recording_says_why_and_is_left(cuda, ends):
    """The cause stays in front, the recording is ended, the allocator told, and nothing is recorded any more."""
    body, position, total = counting()
    cuda.ends = ends
    calls = []

    def refuses():
        calls.append(1)
        body()
        if len(calls) == capture.TRIALS + 1:
            raise RuntimeError("operation not permitted when stream is capturing") from ValueError(
                "an .item()"
            )

    with pytest.raises(
        capture.CaptureError, match=r"not permitted.*caused by ValueError: an .item()"
    ) as caught:
        capture.cuda_graph(refuses, [position, total], [[position]])
    assert "invalidated" not in str(caught.value)
    assert cuda.graphs[0].log[-1] == ("end",)
    assert bool(cuda.ended) == bool(ends), "torch ends the allocation where ending the recording succeeds"
    assert (position.item(), total.item()) == (0, 0.0)
    assert "not permitted" in capture.failure()
    assert not Engine().captures(torch.device("cuda"))


def test_lack_of_memory_in_a_recording_is_no_failure_of_recording(cuda):
    body, position, total = counting()
    cuda.ends = RuntimeError("capture was invalidated")
    calls = []

    def large():
        calls.append(1)
        body()
        if len(calls) == capture.TRIALS + 1:
            raise RuntimeError("inner") from torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="caused by OutOfMemoryError: CUDA out of memory"):
        capture.cuda_graph(large, [position, total], [[position]])
    assert capture.failure() is None


def test_lack_of_memory_is_found_behind_other_errors():
    def chain(*errors):
        for cause, error in zip(errors[1:], errors[:-1], strict=True):
            error.__cause__ = cause
        return errors[0]

    assert capture.out_of_memory(chain(RuntimeError("a"), torch.OutOfMemoryError("b")))
    assert capture.out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not capture.out_of_memory(chain(RuntimeError("a"), ValueError("b")))
    loop = RuntimeError("a")
    loop.__context__ = ValueError("b")
    loop.__context__.__context__ = loop
    assert len(capture.causes(loop)) == 2


def test_training_goes_on_without_graphs(store, silent, tmp_path, monkeypatch):
    """The first recording fails: said once, with its cause; all numbers are those of a plain run; no other is tried."""
    config = small_plain()
    plain = Runner(store, tmp_path / "a", "cpu", progress=silent).run([config])[config.id]
    tried = []

    def failing(body, changed, moving):
        tried.append(1)
        capture.captured(body, changed, moving, again)  # trial steps and all
        raise capture.CaptureError("RuntimeError: no; caused by ValueError: because")

    monkeypatch.setattr(capture, "cuda_graph", failing)
    monkeypatch.setattr(Engine, "captures", lambda self, device, methods=(): True)
    other = type(store)(tmp_path / "r", tmp_path / "w")
    record = Runner(other, tmp_path / "a", "cpu", progress=silent).run([config])[config.id]
    assert len(tried) == 1 and record.cost["graph"] is False
    assert [s for s in silent.said if "one kernel at a time" in s and "because" in s]
    assert record.curves == plain.curves
    third = type(store)(tmp_path / "r3", tmp_path / "w3")
    with pytest.raises(RkdError, match="because"):  # asked for by name, it is a graph or nothing
        monkeypatch.setattr(Engine, "check", lambda self, device: None)
        Runner(third, tmp_path / "a", "cpu", progress=silent, engine=Engine(graph=True)).run([config])
    assert third.ids() == []


def test_students_wait_for_their_teacher_only_before_their_losses(cuda):
    """Teacher and students on branches of their own, for two seeds: the same bits, in an order that waits for nothing
    that is not needed."""
    configs = [small(seed=seed, precision="fp64") for seed in (0, 1)]
    images = data.load(configs[0].data)
    plain, same = zip(*(make(config) for config in configs), strict=True)
    forked, teachers = zip(*(make(config) for config in configs), strict=True)
    for state in forked:
        for module, name in ((state.student, "taps"), (state.method, "losses")):
            told(cuda.log, module, name)
    steps = [GroupStep(plain, images, same[0]), GroupStep(forked, images, teachers[0])]
    steps[1].branches = [torch.cuda.Stream() for _ in range(4)]
    for step, states in zip(steps, (plain, forked), strict=True):
        for state in states:
            state.begin_epoch()
        step.begin(0)
        step(24)
    for a, b in zip(plain, forked, strict=True):
        assert_same(b, a)
    assert cuda.log == ["taught", "taps", "wait", "losses"] * 2
    branches = steps[1].branches
    assert cuda.main.waited == branches, "all join"
    assert [branch.waited for branch in branches] == [
        [cuda.main], [cuda.main, "event 0"], [cuda.main], [cuda.main, "event 2"]
    ]  # fmt: skip


def told(log, module, name):
    """Let calls of a method of a module be logged."""
    inner = getattr(module, name)

    def logged(*arguments):
        log.append(name)
        return inner(*arguments)

    setattr(module, name, logged)


def test_engines_by_name(monkeypatch):
    monkeypatch.delenv("RKD_ENGINE", raising=False)
    cuda = torch.device("cuda")
    assert Engine.named(None).captures(cuda) and Engine.named("graph").captures(cuda)
    held_back = Engine(eager=frozenset({"kd"}))
    assert held_back.captures(cuda, ["crd", None]) and not held_back.captures(cuda, ["crd+kd"])
    assert not Engine.named("eager").captures(cuda) and not Engine.named("auto").captures(torch.device("cpu"))
    monkeypatch.setenv("RKD_ENGINE", "eager")
    assert not Engine.named(None).captures(cuda) and Engine.named("graph").captures(cuda)
    with pytest.raises(ConfigError, match=r"unknown engine 'fast'.*eager"):
        Engine.named("fast")
