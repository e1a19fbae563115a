"""Every fast path against the plain step: precisions, capture, compilation, groups, stops, lack of memory."""

import dataclasses
import shutil
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import (
    StopAfter,
    assert_same,
    first_batch,
    images_of,
    make,
    small,
    small_plain,
    stand_in,
    trained,
    values,
)

from rkd.bench.conventional import PlainReviewKD
from rkd.errors import RkdError
from rkd.experiments import group as group_module
from rkd.experiments.runner import Runner
from rkd.review import ReviewOptions
from rkd.training import RunConfig, SGDConfig, TrainState, arithmetic, train
from rkd.training.build import build_network


def weighted(*weights):
    return [small(ReviewOptions(loss_weight=weight, warmup_epochs=0)) for weight in weights]


def flat(state):
    return torch.cat([p.detach().double().flatten() for p in state.parameters])


def by_hand(config, x, y, steps):
    """How so many steps on one batch change the parameters, of plain modules in float64: no reordering, no folding, no
    autocast; SGD with Nesterov momentum and weight decay on every parameter written out. And the last cross-entropy."""
    config = dataclasses.replace(config, precision="fp64")
    state, _ = make(config)
    teacher = build_network(config.teacher.run, 100).double().requires_grad_(False)
    plain = PlainReviewKD(build_network(config, 100), build_network(config.teacher.run, 100)).double()
    plain.review.load_state_dict(state.method.connector.state_dict())
    plain.train()
    teacher.train(config.teacher.batch_norm == "batch")
    parameters, sgd = list(plain.parameters()), config.optimiser
    before = [p.detach().clone() for p in parameters]
    velocity = [torch.zeros_like(p) for p in parameters]
    for _ in range(steps):
        total, logits = plain.loss(x.double(), y, teacher, config.options.loss_weight)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, torch.autograd.grad(total, parameters), strict=True):
                g = g + sgd.weight_decay * p
                v.mul_(sgd.momentum).add_(g)
                p.sub_(sgd.lr * (g + sgd.momentum * v))
    change = torch.cat([(p - first).detach().flatten() for p, first in zip(parameters, before, strict=True)])
    return change, F.cross_entropy(logits, y).item()


# Relative error of the change by so many steps as a vector, over student and fusion modules, at random initialisation,
# where gradients are worst conditioned: rounding alone gives these.
@pytest.mark.parametrize(
    ("precision", "batch_norm", "steps", "tolerance"),
    [
        ("fp64", "batch", 3, 1e-10), ("fp64", "running", 3, 1e-10), ("fp32", "running", 1, 2e-3),
        ("fp16", "batch", 1, 0.2), ("bf16", "running", 1, 0.5),
    ],
)  # fmt: skip
def test_steps_equal_plain_ones_in_float64(precision, batch_norm, steps, tolerance):
    options = ReviewOptions(loss_weight=0.6, warmup_epochs=0)
    config = small(options, precision=precision, batch_norm=batch_norm)
    (state, teacher), (x, y, index) = make(config), first_batch(config)
    before = flat(state)
    for _ in range(steps):
        state.begin_epoch()  # its meters hold the last step alone
        state.step(x.to(state.arithmetic.master), y, index, teacher.taps(x.to(state.arithmetic.master)))
    change, loss = by_hand(config, x, y, steps)
    assert (flat(state) - before - change).norm() < tolerance * change.norm()
    state.position += 24
    state.end_epoch()
    assert state.curves["loss_ce"][0] == pytest.approx(loss, rel=min(tolerance, 1e-2))


def test_a_recorded_step_serves_every_step():
    """Two epochs with another learning rate, loss weight and loss scale, a short last batch each: two recordings do it
    all."""
    config = small(ReviewOptions(loss_weight=0.6, warmup_epochs=2), precision="fp16")
    capture = mock.Mock(side_effect=stand_in)
    one, two = trained(config), trained(config, capture=capture)
    assert capture.call_count == 2, "one recording for whole batches, one for the short one"
    for name, value in values(one).items():
        torch.testing.assert_close(values(two)[name], value, rtol=2e-2, atol=2e-2, msg=name)
    assert one.curves["lr"] == two.curves["lr"] and len(set(one.curves["lr"])) == 2
    assert two.curves["loss_review"] == pytest.approx(one.curves["loss_review"], rel=2e-2)


def test_a_step_that_moves_no_parameter_is_recorded_too():
    """In the first epoch of a warm-up nothing is learned where cross-entropy and weight decay count nothing."""
    still = {"ce_weight": 0.0, "optimiser": SGDConfig(lr=0.05, weight_decay=0.0)}
    config = small(ReviewOptions(warmup_epochs=1), **still)
    assert_same(trained(config, capture=stand_in), trained(config))


@pytest.mark.parametrize(("capture", "batch_norm"), [(None, "running"), (stand_in, "batch")])
def test_group_across_seeds_equals_solo_in_float64(capture, batch_norm):
    """Each seed keeps its own data order, its own augmentation and its own teacher pass, whatever the company."""
    variants = [
        {"options": ReviewOptions(connector="mechanism", loss="l2", stem=True, warmup_epochs=0)},
        {"options": ReviewOptions(attention=False, warmup_epochs=2), "ce_weight": 0.0},
    ]
    places = [(0, 0), (0, 1), (1, 0)] if capture is None else [(0, 0), (1, 1)]  # seed, variant
    configs = [small(precision="fp64", seed=s, batch_norm=batch_norm, **variants[v]) for s, v in places]
    members = [make(config)[0] for config in configs]
    train(members, images_of(configs[0].data), make(configs[0])[1], capture=capture)
    for config, member in zip(configs, members, strict=True):
        alone = trained(config)
        for name, value in values(alone).items():
            torch.testing.assert_close(values(member)[name], value, rtol=1e-10, atol=1e-12, msg=name)
        assert alone.curves.keys() == member.curves.keys()
        for name, curve in alone.curves.items():
            assert member.curves[name] == pytest.approx(curve, rel=1e-10, abs=1e-12)
    assert members[0].curves["loss_ce"] != members[-1].curves["loss_ce"], "another seed"


def test_group_whose_members_stopped_at_different_batches():
    """One member is a batch ahead, one has ended the epoch: all end as they would have alone."""
    configs = weighted(0.5, 1.0, 2.0)
    members = [trained(c, stop=StopAfter(pieces)) for c, pieces in zip(configs, (0, 1, 3), strict=True)]
    assert [(m.epoch, m.position) for m in members] == [(0, 0), (0, 24), (1, 0)]
    train(members, images_of(configs[0].data), make(configs[0])[1])
    for member, config in zip(members, configs, strict=True):
        assert_same(member, trained(config))


def test_lack_of_memory_halves_the_group_and_is_said(store, silent, tmp_path, monkeypatch):
    """In a step or in its capture: the group is made again from what was saved."""
    configs = weighted(0.5, 1.0, 2.0)
    original, sizes = group_module.train, []

    def short_of_memory(states, *arguments, **named):
        sizes.append(len(states))
        if len(states) > 1:
            train(states, *arguments, **{**named, "stop": lambda needed: states[0].position > 0})
            raise RuntimeError("capture failed") from torch.OutOfMemoryError("CUDA out of memory")
        return original(states, *arguments, **named)

    monkeypatch.setattr(group_module, "train", short_of_memory)
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    records = runner.run(configs)
    assert sizes == [3, 2, 1, 1, 1] and runner.group == 1
    assert [text for text in silent.said if "out of memory with 3 runs" in text]
    for config in configs:
        assert records[config.id].status == "finished"
        for name, curve in trained(config).curves.items():  # the failed attempt left no trace
            assert records[config.id].curves[name] == pytest.approx(curve, rel=1e-5)

    def never_enough(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(group_module, "train", never_enough)
    with pytest.raises(RkdError, match="does not fit into the memory"):
        runner.run([small(seed=5)])


def test_counters_of_batch_norm_are_those_of_torch():
    """BatchNorm with cumulative averages (momentum None) reads its counter in every step, and keeps its own."""
    config = small_plain(epochs=2)  # two batches an epoch
    student = build_network(config, 100)
    student.norms[0].momentum = None
    state = trained(config, TrainState(config, student, None))
    for name in ("norms.0.num_batches_tracked", "norms.1.num_batches_tracked"):
        assert state.student.state_dict()[name] == 4 and state.best["student"][name] in (2, 4)
    state.begin_epoch()
    assert state.state_dict()["student"]["norms.1.num_batches_tracked"] == 4, "shown between steps too"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_compiled_step_equals_the_plain_one():
    config = small(batch_norm="running", epochs=1, batch_size=20)
    one = trained(config)
    two, teacher = make(config, compile=True)
    train([two], images_of(config.data), teacher)
    assert two.curves["loss_ce"] == pytest.approx(one.curves["loss_ce"], rel=1e-4)
    assert two.curves["loss_review"] == pytest.approx(one.curves["loss_review"], rel=1e-3)
    moved = (flat(one) - flat(make(config)[0])).norm()
    assert (flat(one) - flat(two)).norm() < 0.02 * moved


def test_each_arithmetic_has_an_identity():
    config = RunConfig("resnet8", precision="auto")
    named = [config.settled(name, "").id for name in ("fp32", "fp16", "bf16")]
    assert len({config.id, *named}) == 4 and named[0] == RunConfig("resnet8").id
    assert arithmetic("auto", torch.device("cuda")).name == "fp16"
    assert arithmetic("auto", torch.device("cpu")).name in ("bf16", "fp32")
