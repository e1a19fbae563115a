"""Capturing a step, by stand-ins for CUDA: trials, proof, failures and what is left of them, streams."""

import contextlib
import itertools
import shutil
from unittest import mock

import pytest
import torch
from conftest import again, assert_same, images_of, make, small, small_plain

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


def test_each_trial_begins_where_the_first_did():
    body, position, total = counting()
    position.fill_(7)  # three images are left: a trial further on would read beyond the end
    replay = capture.checked_capture(body, [position, total], again)
    assert (position.item(), total.item()) == (7, 0.0)
    replay()
    assert (position.item(), total.item()) == (10, 7.0 + 8 + 9)


def test_an_empty_recording_is_found_out():
    body, position, total = counting()
    with pytest.raises(capture.CaptureError, match="left 1 of 2 tensors"):
        capture.checked_capture(body, [position, total], lambda b: lambda: position.add_(3))
    assert (position.item(), total.item()) == (0, 0.0)


def failing(body, at, error, cause=None):
    """`body`, whose call number `at` fails after it has changed all."""
    calls = itertools.count(1)

    def fails():
        body()
        if next(calls) == at:
            raise error from cause

    return fails


@pytest.mark.parametrize("at", [1, 3, 4])
def test_what_a_broken_step_changed_is_put_back(at):
    body, position, total = counting()
    with pytest.raises(RuntimeError, match="broken"):
        capture.checked_capture(failing(body, at, RuntimeError("broken")), [position, total], again)
    assert (position.item(), total.item()) == (0, 0.0)


@pytest.fixture
def cuda(monkeypatch):
    """Enough of CUDA for `cuda_graph` to run through; `log` tells which stream has waited for what."""
    made, device = mock.MagicMock(log=[], streams=[]), mock.MagicMock()
    device.return_value.__exit__.return_value = False  # lets errors through

    def stream(device=None):
        one, event = mock.MagicMock(), f"event {len(made.streams)}"
        one.record_event.side_effect = lambda: made.log.append("taught") or event
        one.wait_event.side_effect = lambda event: made.log.append("wait")
        made.streams.append(one)
        return one

    made.main, made.Stream.side_effect = mock.MagicMock(), stream
    made.current_stream.return_value, made.graph_pool_handle.return_value = made.main, (0, 7)
    made.graph, made.device, made.stream = made.CUDAGraph.return_value, device, device
    used = "Stream CUDAGraph graph_pool_handle synchronize empty_cache current_stream stream device"
    for name in used.split():
        monkeypatch.setattr(torch.cuda, name, getattr(made, name))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.ended, raising=False)
    monkeypatch.setattr(capture, "_streams", {})
    monkeypatch.setattr(capture, "failures", [])
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
    cuda.graph.replay.side_effect = body
    replay = capture.cuda_graph(body, [position, total])
    begin = mock.call.capture_begin(pool=(0, 7), capture_error_mode="thread_local")
    assert cuda.graph.mock_calls[:2] == [begin, mock.call.capture_end()]
    assert position.item() == 0
    replay()
    assert position.item() == 3 and not capture.failures and not cuda.ended.called


class Elsewhere(torch.Tensor):
    device = torch.device("cuda", 1)


def test_a_graph_belongs_to_the_device_of_its_tensors(cuda, monkeypatch):
    """Streams and graphs are of whichever device is current: on another than the first, a recording would be empty."""
    body, position, total = counting()
    current, seen = [], []

    @contextlib.contextmanager
    def device(chosen):
        current.append(chosen)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    cuda.graph.capture_begin.side_effect = lambda **how: seen.append(tuple(current))
    cuda.graph.replay.side_effect = lambda: seen.append(tuple(current)) or body()
    there = [tensor.as_subclass(Elsewhere) for tensor in (position, total)]
    capture.cuda_graph(body, there)()
    assert seen[0] == (Elsewhere.device,) and len(seen) == 3
    assert all(last[-1:] == (Elsewhere.device,) for last in seen) and not current


RECORDED = capture.TRIALS + 1


@pytest.mark.parametrize("ends", [None, RuntimeError("capture was invalidated")])
def test_a_failed_recording_says_why_and_is_left(cuda, ends):
    """The cause stays in front, the recording is ended, the allocator told, and nothing is recorded any more."""
    body, position, total = counting()
    cuda.graph.capture_end.side_effect = ends
    refused = RuntimeError("operation not permitted when stream is capturing")
    refuses = failing(body, RECORDED, refused, ValueError("an .item()"))
    says = r"not permitted.*caused by ValueError: an .item()"
    with pytest.raises(capture.CaptureError, match=says) as caught:
        capture.cuda_graph(refuses, [position, total])
    assert "invalidated" not in str(caught.value)
    assert cuda.graph.mock_calls[-1] == mock.call.capture_end()
    assert cuda.ended.called == bool(ends), "torch ends the allocation where ending the recording succeeds"
    assert (position.item(), total.item()) == (0, 0.0)
    assert "not permitted" in capture.failures[0]
    assert not Engine().captures(torch.device("cuda"))


def test_lack_of_memory_in_a_recording_is_no_failure_of_recording(cuda):
    body, position, total = counting()
    cuda.graph.capture_end.side_effect = RuntimeError("capture was invalidated")
    large = failing(body, RECORDED, RuntimeError("inner"), torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError, match="caused by OutOfMemoryError: CUDA out of memory"):
        capture.cuda_graph(large, [position, total])
    assert not capture.failures


def test_lack_of_memory_is_found_behind_other_errors():
    def behind(cause):
        error = RuntimeError("a")
        error.__cause__ = cause
        return error

    assert capture.out_of_memory(behind(torch.OutOfMemoryError("b")))
    assert capture.out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not capture.out_of_memory(behind(ValueError("b")))
    loop = behind(ValueError("b"))
    loop.__cause__.__context__ = loop
    assert len(capture.error_chain(loop)) == 2


def test_training_goes_on_without_graphs(store, silent, tmp_path, monkeypatch):
    """The first recording fails: said once, with its cause; all numbers are those of a plain run; no other is tried."""
    config = small_plain()
    plain = Runner(store, tmp_path / "a", "cpu", progress=silent).run([config])[config.id]
    tried = []

    def refusing(body, changed):
        tried.append(1)
        capture.checked_capture(body, changed, again)  # trial steps and all
        raise capture.CaptureError("RuntimeError: no; caused by ValueError: because")

    monkeypatch.setattr(capture, "cuda_graph", refusing)
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
    images, (_, teacher) = images_of(configs[0].data), make(configs[0])
    plain, forked = ([make(config)[0] for config in configs] for _ in range(2))
    for state in forked:
        for module, name in ((state.student, "taps"), (state.method, "losses")):
            inner = getattr(module, name)
            told = lambda *given, inner=inner, name=name: cuda.log.append(name) or inner(*given)  # noqa: E731
            setattr(module, name, told)
    steps = [GroupStep(states, images, teacher) for states in (plain, forked)]
    branches = steps[1].branches = [torch.cuda.Stream() for _ in range(4)]
    for step in steps:
        for state in step.states:
            state.begin_epoch()
        step.begin(0)
        step(24)
    for a, b in zip(plain, forked, strict=True):
        assert_same(b, a)
    assert cuda.log == ["taught", "taps", "wait", "losses"] * 2
    assert cuda.main.mock_calls == [mock.call.wait_stream(branch) for branch in branches], "all join"
    waits = [[c.args[0] for c in b.mock_calls if c[0] in ("wait_stream", "wait_event")] for b in branches]
    assert waits == [[cuda.main], [cuda.main, "event 0"], [cuda.main], [cuda.main, "event 2"]]


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
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for engine, said in (
        (Engine(compile=True), r"no C\+\+ compiler"),
        (Engine(graph=True), "CUDA graph was asked for"),
    ):
        with pytest.raises(ConfigError, match=said):
            engine.check(torch.device("cpu"))
