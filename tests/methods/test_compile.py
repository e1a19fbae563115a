"""What torch.compile sees of a step: two graphs, student and losses, whole, and shared by states of one make.

Graphs are run as they are traced ("aot_eager"), so that no C++ compiler is needed and little time."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch
from cases import CASES, VARIANTS
from conftest import images_of, make, train
from test_every_method import config_of
from torch._dynamo.testing import CompileCounterWithBackend

from rkd.review import ReviewOptions
from rkd.training import SGDConfig, TrainState
from rkd.training.step import compiled

REVIEWS = {  # options beside the defaults, precision; the defaults in fp32 are among CASES
    "defaults in bf16": ({}, "bf16"),
    "no connector, l2": ({"connector": "none", "loss": "l2"}, "fp32"),
    "mechanism": ({"connector": "mechanism"}, "fp32"),
    "output, maxima": ({"residual": "output", "hcl_pooling": "max"}, "fp32"),
    "output_direct, no attention": ({"residual": "output_direct", "attention": False}, "fp32"),
}


@pytest.fixture(scope="module")
def graphs():
    """name of a part -> counter of its graphs, for states made with `compile`."""
    counters, compile = {}, torch.compile

    def counted(part, **options):
        counters[part.__name__] = CompileCounterWithBackend("aot_eager")
        return compile(part, backend=counters[part.__name__], fullgraph=True, **options)

    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(recompile_limit=256):
        patch.setattr(torch, "compile", counted)
        compiled.cache_clear()
        yield counters
    compiled.cache_clear()


def counts(graphs):
    return {name: counter.frame_count for name, counter in graphs.items()}


@contextmanager
def one_more(graphs, least=1):
    """Exactly one more graph of losses, and at most one of students: another test may have had that network. With
    `least` 0 that may be so of the losses too."""
    before = counts(graphs)
    yield
    more = {name: count - before.get(name, 0) for name, count in counts(graphs).items()}
    assert least <= more["method_losses"] <= 1 and more["student_taps"] <= 1, more


def pair(config):
    """The same state eager and compiled, at the first epoch of the main training, and a batch with its taps."""
    made, teacher = make(config)
    pair = [made, compiling(make(config)[0])]
    for state in pair:
        state.epoch = config.total_epochs - config.epochs
        state.begin_epoch()
    x = torch.randn(config.batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x, labels = x.to(memory_format=torch.channels_last), torch.arange(config.batch_size)
    return pair, (x, labels, labels, teacher.taps(x))


def compiling(state):
    """The state with its student and losses compiled; its teacher is left alone."""
    return TrainState(state.config, state.student, state.method, compile=True)


def compare(config, tolerance):
    """Losses, logits, gradients, and what is kept for the next step."""
    (eager, compiled), batch = pair(config)
    for state in (eager, compiled):
        losses, _ = state.losses(*batch)
        sum(losses.values()).backward()
        with torch.no_grad():
            state.method.after_step(torch.tensor(True))
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(compiled.losses(*batch), eager.losses(*batch), **close)
    for a, b in zip(compiled.parameters, eager.parameters, strict=True):
        zero = torch.zeros_like(a)
        ours, theirs = (zero if p.grad is None else p.grad for p in (a, b))
        torch.testing.assert_close(ours, theirs, **close)
    for a, b in zip(compiled.tensors(), eager.tensors(), strict=True):
        torch.testing.assert_close(a, b, **close)


LONG = {"kdsvd", *(case for case in CASES if case.startswith("modreduce"))}  # a thousand operations and more


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in LONG)) for c in CASES])
def test_every_method_is_one_graph(case, graphs):
    # A variant may do the same in a step as its method: "crd-relax" draws other images between epochs.
    with one_more(graphs, least=case not in VARIANTS):
        compare(config_of(case, batch_size=8), 1e-5)


@pytest.mark.parametrize("case", REVIEWS)
def test_every_review_is_one_graph(case, graphs):
    values, precision = REVIEWS[case]
    config = config_of("reviewkd", precision=precision, batch_size=4)
    config = dataclasses.replace(config, options=ReviewOptions(warmup_epochs=0, **values))
    with one_more(graphs):
        compare(config, {"fp32": 1e-5, "bf16": 1e-2}[precision])


def test_compiled_steps_take_weights_from_their_buffer(graphs):
    """In low precision the layers are lent pieces of one tensor in place of their parameters; a first step, which is
    watched for it, is an eager one."""
    (eager, compiled), batch = pair(config_of("reviewkd", precision="fp16", batch_size=6))
    before = counts(graphs)
    for step in range(3):
        eager.step(*batch)
        compiled.step(*batch)
        assert step or counts(graphs) == before
    assert counts(graphs)["method_losses"] == before.get("method_losses", 0) + 1
    for a, b in zip(compiled.parameters, eager.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=2e-3)


def test_states_of_one_make_share_their_graphs(graphs):
    """Two that differ in seed, rates and loss weights: one graph of each part for whole batches, one for the short one;
    trained as eager states are."""
    compiled.cache_clear()
    torch._dynamo.reset()
    config = config_of("reviewkd")
    options = dataclasses.replace(config.options, loss_weight=3.0, warmup_epochs=2)
    other = dataclasses.replace(config, seed=1, options=options, optimiser=SGDConfig(lr=0.01))
    eager, graphed = ([make(c)[0] for c in (config, other)] for _ in range(2))
    graphed = [compiling(state) for state in graphed]
    for states in (eager, graphed):
        train(states, images_of(config.data), make(config)[1])
    assert counts(graphs) == {"student_taps": 2, "method_losses": 2}
    for ours, theirs in zip(graphed, eager, strict=True):
        torch.testing.assert_close(ours.tensors(), theirs.tensors(), rtol=1e-4, atol=1e-5)
        assert ours.curves["loss_review"] == pytest.approx(theirs.curves["loss_review"], rel=1e-4)
    assert len({state.curves["loss_ce"][0] for state in graphed}) == 2


def test_another_make_has_graphs_of_its_own(graphs):
    """What a method reads as a plain number is part of the graph: it must not be taken over from another state."""
    for temperature in (4.0, 2.0):
        config = config_of("kd", batch_size=12)
        options = dataclasses.replace(config.options, temperature=temperature)
        with one_more(graphs):
            compare(dataclasses.replace(config, options=options), 1e-5)
