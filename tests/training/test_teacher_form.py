"""The choice of the teacher's form by an injected clock."""

import math
import types

import pytest
import torch
from conftest import small, with_statistics
from torch import nn

from rkd.experiments.runner import Runner
from rkd.models import frozen
from rkd.training import FrozenTeacher, arithmetic
from rkd.training import teacher as teachers
from rkd.training.standin import GPU
from rkd.training.teacher import frozen_teacher, quickest

SHAPE = (2, 3, 32, 32)


def numbers(name):
    return arithmetic(name, torch.device("cpu"))


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((3, 2, 1), "fused"), ((3, 1, 2), "folded"), ((1, 2, 3), "unfolded")]
)
def test_the_quickest_is_taken(seconds, chosen, cudnn):
    network, said, clock = with_statistics("resnet8"), [], iter(seconds)
    made = quickest(
        network, "running", numbers("fp64"), SHAPE, said.append, lambda call, on: call() and next(clock)
    )
    assert made.form == chosen
    assert said == [
        f"teacher's forward pass: unfolded {seconds[0]}000.00 ms, folded {seconds[1]}000.00 ms, "
        f"fused {seconds[2]}000.00 ms; going on {chosen}"
    ]
    x = torch.randn(*SHAPE, dtype=torch.float64)
    torch.testing.assert_close(made.taps(x).tensors(), network.taps(x).tensors(), rtol=1e-10, atol=1e-10)


def test_what_is_wrong_or_impossible_is_left_out(cudnn, monkeypatch):
    """However quick it is."""
    network, said, calls = with_statistics("resnet8").float(), [], []

    def spoilt(module):
        next(m for m in module.modules() if isinstance(m, nn.Conv2d)).weight.data.mul_(1.1)
        return 1

    def clock(call, device):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no engine\nand more")
        return 1.0 / len(calls)

    def out_of_memory(call, device):
        raise torch.OutOfMemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(frozen, "_fold", spoilt)
        patch.setattr(frozen, "_same", lambda module, network: True)
        assert quickest(network, "running", numbers("fp32"), SHAPE, said.append, clock).form == "unfolded"
    assert "folded 500.00 ms but off by" in said[0] and "fused not possible (no engine)" in said[0]
    with pytest.raises(torch.OutOfMemoryError):
        quickest(network, "running", numbers("fp32"), SHAPE, said.append, out_of_memory)


def test_what_is_no_number_is_no_agreement():
    exact = [torch.ones(2), torch.ones(2)]
    assert teachers._apart([torch.tensor([1.0, 2.0]), torch.ones(2)], exact) == pytest.approx(0.5**0.5)
    assert math.isnan(teachers._apart([torch.ones(2), torch.tensor([1.0, math.nan])], exact))


def test_the_clock_of_a_gpu_leaves_out_the_first_stretch_and_takes_the_best(monkeypatch):
    took, called = iter((900.0, 30.0, 20.0, 40.0)), []
    event = types.SimpleNamespace(record=lambda: None, elapsed_time=lambda end: next(took))
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: event)
    for name in ("synchronize", "_sleep"):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments: None)
    assert teachers.gpu_seconds(lambda: called.append(1), GPU) == pytest.approx(0.02 / teachers.CALLS)
    assert len(called) == 4 * teachers.CALLS


def test_without_a_gpu_or_with_a_compiler_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(teachers, "quickest", lambda *arguments: pytest.fail("measured"))
    network = with_statistics("resnet8")
    for compile in (False, True):
        assert frozen_teacher(network, "running", numbers("fp64"), compile, SHAPE, print).form == "folded"
    assert FrozenTeacher(network, "batch").form == "unfolded"  # nothing to fold


def test_the_record_names_the_form(store, silent, tmp_path, monkeypatch):
    config = small(batch_norm="running", epochs=1)

    def chosen(network, batch_norm, numbers, compile, batch, say):
        say(f"measured with {batch}")
        return FrozenTeacher(network, batch_norm, numbers, compile, "unfolded")

    monkeypatch.setattr("rkd.experiments.group.frozen_teacher", chosen)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert record.cost["teacher_form"] == "unfolded" and "measured with (24, 3, 32, 32)" in silent.said
