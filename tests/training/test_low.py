"""Weights in low precision by one call: the same numbers, fewer casts, and only where autocast would have cast."""

import collections

import pytest
import torch
from conftest import first_batch, make, small, small_plain, values
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rkd.training.low import LowWeights


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def prepared(precision, found):
    """A state in its first epoch with first weights, the weights to be lent found or not yet, and a batch with taps."""
    config = small(precision=precision)
    (state, teacher), (x, y, index) = make(config), first_batch(config)
    step = (x, y, index, teacher.taps(x))
    state.begin_epoch()
    if found:
        kept = [*values(state).values(), *(s["momentum_buffer"] for s in state.optimiser.state.values())]
        first = [tensor.detach().clone() for tensor in kept]
        state.step(*step)
        with torch.no_grad():
            for tensor, value in zip(kept, first, strict=True):
                tensor.copy_(value)
    assert (state._low.copies is not None) == found
    return state, step


def numbers(state):
    return {name: value.clone() for name, value in values(state).items() if "num_batches" not in name}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_copies_change_no_bit_and_casts_of_weights_and_gradients_are_gone(precision):
    made, counts = [], []
    for found in (False, True):
        state, step = prepared(precision, found)
        with Counted() as counted:
            state.step(*step)
        state.step(*step)
        counts.append(counted.counts["aten._to_copy"])
        made.append(numbers(state))
    assert made[0].keys() == made[1].keys() and len(made[0]) > 40
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
    layers = [
        m for part in (state.student, state.method) for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]  # fmt: skip
    # All but the attention's weights, of which each half is a convolution of its own.
    lent = sum(1 + (m.bias is not None) for m in layers) - 3
    assert len(state._low.copies) == lent
    assert counts[0] - counts[1] == 2 * lent, "there and back for each weight"
    assert make(small_plain(precision="fp32"))[0]._low.copies == {}


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
    modules, x = [Mixed(), Mixed()], torch.randn(3, 4)
    modules[1].load_state_dict(modules[0].state_dict())
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
    named = {p: name for name, p in modules[1].named_parameters()}
    assert {named[p] for p in low.copies} == {"low.weight", "low.bias", "both.bias"}


def test_a_step_that_fails_leaves_nothing_behind(monkeypatch):
    """Weights are back in their places, and the next step is what it would have been: wherever it failed."""
    (state, step), (undisturbed, same) = prepared("fp16", True), prepared("fp16", True)
    for where in ((state.method, "losses"), (state._low, "hand_back")):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(*where, lambda *given: 1 / 0)
            state.step(*step)
        found = [p for m in state.student.modules() for p in m._parameters.values() if p is not None]
        assert found and all(isinstance(p, nn.Parameter) for p in found)
    for name, ours in values(state).items():  # what the forward pass had moved
        if "running" in name:
            ours.copy_(values(undisturbed)[name])
    state.step(*step)
    undisturbed.step(*same)
    assert all(torch.equal(value, numbers(undisturbed)[name]) for name, value in numbers(state).items())


def test_weights_that_a_step_does_not_reach_have_no_gradient():
    """As without copies, so that the optimiser leaves them alone: whatever else is reached in their module."""
    both, x = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), torch.ones(2, 4)
    low = LowWeights([both], torch.bfloat16)
    for layers in (both, both[:1]):
        both.zero_grad()
        with low.used(), torch.autocast("cpu", torch.bfloat16):
            loss = sum(layer(x).sum() for layer in layers)
        loss.backward()
        low.hand_back()
    assert both[0].weight.grad is not None and both[1].weight.grad is None
