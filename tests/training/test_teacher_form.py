"""The teacher's forms: equal in float64, the fused one with plain stand-ins for cuDNN's operations, the choice by an
injected clock."""

import math
import types

import pytest
import torch
import torch.nn.functional as F
from test_engine import small
from torch import nn

from rkd import models
from rkd.bench.clock import count
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.models import frozen
from rkd.models.frozen import freeze
from rkd.training import FrozenTeacher, arithmetic
from rkd.training import teacher as teachers
from rkd.training.standin import GPU, standing_in
from rkd.training.teacher import frozen_teacher, quickest

CPU = torch.device("cpu")
SHAPE = (2, 3, 32, 32)


def with_statistics(name):
    torch.manual_seed(0)
    network = models.build(name).double()
    with torch.no_grad():  # running statistics of their own
        network.train()(torch.randn(4, 3, 32, 32, dtype=torch.float64))
    return network.eval()


def same(ours, theirs, tight=1e-10):
    for a, b in zip(teachers._tensors(ours), teachers._tensors(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=tight, atol=tight)


def relu(x, weight, bias, stride, padding, dilation, groups):
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()


def add_relu(x, weight, z, alpha, bias, stride, padding, dilation, groups):
    return (F.conv2d(x, weight, bias, stride, padding, dilation, groups) + alpha * z).relu()


@pytest.fixture
def cudnn(monkeypatch):
    """Plain computations in place of cuDNN's two operations, under their own names and schemas."""
    monkeypatch.setattr(frozen, "FUSED", {"cpu": (torch.float64, torch.float32), "cuda": (torch.float16,)})
    library = torch.library.Library("aten", "IMPL")
    for name, function in (("cudnn_convolution_relu", relu), ("cudnn_convolution_add_relu", add_relu)):
        for key in ("CPU", "Meta"):
            library.impl(name, function, key)
    yield
    library._destroy()


@pytest.mark.parametrize("name", ["resnet8", "shufflenetv1", "vgg8", "represnet20"])
def test_every_form_gives_the_same_taps(name, cudnn):
    network = with_statistics(name)
    x = torch.randn(*SHAPE, dtype=torch.float64)
    made = {form: freeze(network, form=form) for form in frozen.FORMS}
    assert made["unfolded"].folded == 0 and made["fused"].folded == made["folded"].folded > 0
    assert made["fused"].fused > 0 == made["folded"].fused
    with torch.no_grad():
        expected = network.taps(x)
        for one in made.values():
            same(one.taps(x), expected)
        flops = {count(lambda one=one: one.taps(x))["flops"] for one in made.values()}
    assert len(flops) == 1 + (name == "represnet20")


def test_a_residual_network_is_convolutions_with_their_activations(cudnn):
    """ResNet-14: of 13 convolutions and 2 projections, the stem's, six first ones, and three sums within the stages;
    what stands before a stage's last ReLU is a tap."""
    made = freeze(with_statistics("resnet14"), form="fused")
    called = [node.target for node in made.graph_module.graph.nodes if node.op == "call_function"]
    assert called.count(frozen._CONV_RELU) == 7 and called.count(frozen._CONV_ADD_RELU) == made.fused - 7 == 3


def test_what_is_refused():
    network = models.build("resnet8")
    with pytest.raises(
        ConfigError, match="'fused' is for CUDA, in float16 or float32, and this is cpu in bfloat16"
    ):
        freeze(network, torch.bfloat16, "fused")
    with pytest.raises(ConfigError, match="unknown teacher form 'fuse'"):
        freeze(network, form="fuse")
    assert frozen.forms(GPU, torch.float16) == frozen.FORMS
    assert frozen.forms(GPU, torch.bfloat16) == frozen.forms(CPU, torch.float32) == ("unfolded", "folded")


def test_shapes_and_types_on_a_stand_in_for_a_gpu(cudnn):
    network = with_statistics("resnet14").float()
    made = freeze(network, form="fused").half()
    with standing_in([network]) as recorder, torch.no_grad():
        made, network = made.to(GPU), network.to(GPU)
        x = torch.zeros(*SHAPE, device=GPU)
        with recorder.recording():
            ours, theirs = made.taps(x.half()), network.taps(x)
    for a, b in zip(teachers._tensors(ours), teachers._tensors(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == torch.float16 and a.device == b.device
    assert recorder.sentences() == ()  # a CUDA graph can hold it


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((3, 2, 1), "fused"), ((3, 1, 2), "folded"), ((1, 2, 3), "unfolded")]
)
def test_the_quickest_is_taken(seconds, chosen, cudnn):
    network, said, clock = with_statistics("resnet8"), [], iter(seconds)
    numbers = arithmetic("fp64", CPU)
    made = quickest(
        network, "running", numbers, SHAPE, said.append, lambda call, device: call() and next(clock)
    )
    assert made.form == chosen
    assert said == [
        f"teacher's forward pass: unfolded {seconds[0]}000.00 ms, folded {seconds[1]}000.00 ms, "
        f"fused {seconds[2]}000.00 ms; going on {chosen}"
    ]
    x = torch.randn(*SHAPE, dtype=torch.float64)
    same(made.taps(x), network.taps(x))


def test_what_is_wrong_or_impossible_is_left_out(cudnn, monkeypatch):
    """However quick it is."""
    network, said = with_statistics("resnet8").float(), []
    monkeypatch.setattr(frozen, "_fold", lambda module: _spoilt(module))
    monkeypatch.setattr(frozen, "_same", lambda module, network: True)

    def clock(call, device):
        clock.calls += 1
        if clock.calls == 3:
            raise RuntimeError("no engine\nand more")
        return 1.0 / clock.calls

    clock.calls = 0
    made = quickest(network, "running", arithmetic("fp32", CPU), SHAPE, said.append, clock)
    assert made.form == "unfolded"
    assert "folded 500.00 ms but off by" in said[0] and "fused not possible (no engine)" in said[0]
    monkeypatch.undo()
    with pytest.raises(torch.OutOfMemoryError):
        quickest(network, "running", arithmetic("fp32", CPU), SHAPE, said.append, _out_of_memory)


def _spoilt(module):
    layer = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    layer.weight.data.mul_(1.1)
    return 1


def test_what_is_no_number_is_no_agreement():
    exact = [torch.ones(2), torch.ones(2)]
    assert teachers._apart([torch.tensor([1.0, 2.0]), torch.ones(2)], exact) == pytest.approx(0.5**0.5)
    assert math.isnan(teachers._apart([torch.ones(2), torch.tensor([1.0, math.nan])], exact))


def _out_of_memory(call, device):
    raise torch.OutOfMemoryError("none left")


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
    network, numbers = with_statistics("resnet8"), arithmetic("fp64", CPU)
    assert frozen_teacher(network, "running", numbers, False, SHAPE, print).form == "folded"
    assert frozen_teacher(network, "running", numbers, True, SHAPE, print).form == "folded"
    assert FrozenTeacher(network, "batch").form == "unfolded"  # nothing to fold


def test_the_record_names_the_form(store, silent, tmp_path, monkeypatch):
    config = small(batch_norm="running", epochs=1)

    def chosen(network, batch_norm, numbers, compile, batch, say):
        say(f"measured with {batch}")
        return FrozenTeacher(network, batch_norm, numbers, compile, "unfolded")

    monkeypatch.setattr("rkd.experiments.group.frozen_teacher", chosen)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert record.cost["teacher_form"] == "unfolded" and "measured with (24, 3, 32, 32)" in silent.said
