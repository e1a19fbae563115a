"""Weights in low precision by one cast: the same numbers, fewer casts, and only where autocast would have cast."""

import collections

import pytest
import torch
from conftest import make, tiny_data, tiny_plain, tiny_review
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rkd import data
from rkd.training import TrainState, checkpoint
from rkd.training.build import build_network
from rkd.training.low import LowWeights

FEW = {"data": tiny_data(train_images=40, test_images=20), "batch_size": 24}


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def prepared(config, buffers):
    """A state in its first epoch with first weights, its buffers known or not yet, and what to step it with."""
    state, teacher = make(config)
    first = {name: value.clone() for name, value in weights(state).items()}
    images = data.load(config.data)
    x, y, index = next(data.Batches(images, 4, True).epoch(0, 0, 24))
    step = (x, y, index, teacher.taps(x))
    state.begin_epoch()
    if buffers:
        state.step(*step)
        with torch.no_grad():
            for name, value in weights(state).items():
                value.copy_(first[name])
            for kept in state.optimiser.state.values():
                kept["momentum_buffer"].zero_()
    return state, step


def weights(state):
    modules = {"s": state.student, "m": state.method}
    found = {
        f"{m}.{k}": v for m, module in modules.items() for k, v in module.state_dict(keep_vars=True).items()
    }
    return {name: value for name, value in found.items() if "num_batches" not in name}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_buffers_change_no_bit(precision):
    config = tiny_review(precision=precision, **FEW)
    found = []
    for buffers in (False, True):
        state, step = prepared(config, buffers)
        assert state._low.known == buffers
        for _ in range(3):
            state.step(*step)
        found.append({k: v.detach().clone() for k, v in weights(state).items()})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 50
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_casts_of_weights_and_gradients_are_gone():
    config = tiny_review(precision="fp16", **FEW)
    counts = []
    for buffers in (False, True):
        state, step = prepared(config, buffers)
        with Counted() as counted:
            state.step(*step)
        counts.append(counted.counts)
    buffers = state._low._buffers
    lent = sum(len(buffer._slots) for buffer in buffers)
    layers = [
        m
        for part in (state.student, state.method)
        for m in part.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    # All but the attention's weights, of which each half is a convolution of its own.
    assert lent == sum(1 + (m.bias is not None) for m in layers) - 3 and len(buffers) == 2
    # There and back for each weight; with buffers, for each buffer.
    assert counts[0]["aten._to_copy"] - counts[1]["aten._to_copy"] == 2 * (lent - len(buffers))


def test_full_precision_has_no_buffers():
    state, _ = make(tiny_plain(precision="fp32"))
    assert state._low.known and state._low._buffers == []


class Mixed(nn.Module):
    """Layers used in low precision, in full, in both, and twice."""

    def __init__(self):
        super().__init__()
        self.low, self.full, self.both, self.unused = (nn.Linear(4, 4) for _ in range(4))
        self.again = self.low

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.again(self.low(x)) + self.both(x)
        return self.full(x.float()) + x.float() @ self.both.weight


def test_only_what_autocast_alone_reads_takes_part():
    torch.manual_seed(0)
    modules = [Mixed(), Mixed()]
    modules[1].load_state_dict(modules[0].state_dict())
    x = torch.randn(3, 4)
    low = LowWeights([modules[1]], torch.bfloat16)
    for _ in range(3):
        for module in modules:
            module.zero_grad()
        modules[0](x).sum().backward()
        with low.used():
            out = modules[1](x)
        out.sum().backward()
        low.hand_back()
        for (name, a), b in zip(modules[0].named_parameters(), modules[1].parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None) == name.startswith("unused"), name
            assert a.grad is None or torch.equal(a.grad, b.grad), name
    (buffer,) = low._buffers
    named = {id(p): name for name, p in modules[1].named_parameters()}
    assert {named[id(p)] for p in buffer._slots} == {"low.weight", "low.bias", "both.bias"}


def test_weights_come_back_after_an_error():
    config = tiny_review(precision="fp16", **FEW)
    state, step = prepared(config, True)
    state.method.losses = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        state.step(*step)
    assert all(
        isinstance(p, nn.Parameter)
        for m in state.student.modules()
        for p in m._parameters.values()
        if p is not None
    )


def test_a_checkpoint_holds_each_weight_once(tmp_path):
    config = tiny_review(precision="fp16", **FEW)
    sizes = []
    for buffers in (False, True):
        state, _ = prepared(config, buffers)
        checkpoint.save(state.state_dict(), tmp_path / "c.pt")
        sizes.append((tmp_path / "c.pt").stat().st_size)
        again = TrainState(config, build_network(config, 100), make(config)[0].method)
        again.load_state_dict(checkpoint.load(tmp_path / "c.pt"))
        assert all(torch.equal(v, weights(again)[k]) for k, v in weights(state).items())
    assert sizes[1] < 1.05 * sizes[0]


def test_weights_that_a_step_does_not_reach_have_no_gradient():
    """As without buffers, so that the optimiser leaves them alone."""
    reached, other, x = nn.Linear(4, 4), nn.Linear(4, 4), torch.ones(2, 4)
    low = LowWeights([reached, other], torch.bfloat16)
    for both in (True, False):
        for p in (*reached.parameters(), *other.parameters()):
            p.grad = None
        with low.used(), torch.autocast("cpu", torch.bfloat16):
            loss = reached(x).sum() + (other(x).sum() if both else 0)
        loss.backward()
        low.hand_back()
    assert reached.weight.grad is not None and other.weight.grad is None
