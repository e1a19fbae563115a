"""Every fast path against the plain step: precisions, capture, compilation, groups, stops, lack of memory."""

import dataclasses
import shutil

import pytest
import torch
from conftest import make, stand_in, tiny_data, tiny_plain, tiny_review

from rkd import data
from rkd.bench.conventional import PlainReviewKD
from rkd.errors import ConfigError, RkdError
from rkd.experiments import group as group_module
from rkd.experiments.runner import Runner, run_groups
from rkd.records import Store
from rkd.review import ReviewOptions
from rkd.training import Engine, RunConfig, TrainState, arithmetic, checkpoint, train
from rkd.training.build import build_network

FEW = {"data": tiny_data(train_images=40, test_images=20), "batch_size": 24}


def flat(state):
    modules = [state.student, *([] if state.method is None else [state.method])]
    return torch.cat([p.detach().double().flatten() for m in modules for p in m.parameters()])


def values(state):
    return {**state.student.state_dict(), **{f"m.{k}": v for k, v in state.method.state_dict().items()}}


def reference_update(config):
    """The change of all parameters in one step of plain modules in float64: no reordering, no folding, no autocast."""
    config = dataclasses.replace(config, precision="fp64")
    state, _ = make(config)
    teacher = build_network(config.teacher.run, 100).double()
    plain = PlainReviewKD(build_network(config, 100), build_network(config.teacher.run, 100)).double()
    plain.review.load_state_dict(state.method.connector.state_dict())
    plain.train()
    teacher.train(config.teacher.batch_norm == "batch")
    x, y, _ = batch(config)
    total, logits = plain.loss(x.double(), y, teacher.requires_grad_(False), config.options.loss_weight)
    total.backward()
    loss = torch.nn.functional.cross_entropy(logits, y)
    sgd = config.optimiser
    update = []
    for p in plain.parameters():  # first step: momentum is the gradient
        g = p.grad + sgd.weight_decay * p.detach()
        update.append(-sgd.lr * (1 + sgd.momentum) * g.flatten())
    return torch.cat(update), loss.item()


def batch(config):
    images = data.load(config.data)
    return next(data.Batches(images, config.data.padding, config.data.flip).epoch(0, config.seed, 24))


# Relative error of one step's update as a vector, over student and fusion modules, at random initialisation, where
# gradients are worst conditioned: rounding alone gives these.
TOLERANCE = {"fp64": 1e-10, "fp32": 2e-3, "fp16": 0.2, "bf16": 0.5}


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_one_step_equals_the_plain_float64_step(precision, batch_norm):
    options = ReviewOptions(loss_weight=0.6, warmup_epochs=0)
    config = tiny_review(options, precision=precision, batch_norm=batch_norm, **FEW)
    state, teacher = make(config)
    before = flat(state)
    x, y, index = batch(config)
    state.begin_epoch()
    state.step(x.to(state.arithmetic.master), y, index, teacher.taps(x.to(state.arithmetic.master)))
    update, loss = reference_update(config)
    error = ((flat(state) - before - update).norm() / update.norm()).item()
    assert error < TOLERANCE[precision]
    state.position += 24
    state.end_epoch()
    assert state.curves["loss_ce"][0] == pytest.approx(loss, rel=min(TOLERANCE[precision], 1e-2))


@pytest.mark.parametrize("precision", ["fp64", "fp16"])
def test_a_recorded_step_serves_every_step(precision):
    """Two epochs with another learning rate and loss weight, a short last batch each: two recordings do it all."""
    options = ReviewOptions(loss_weight=0.6, warmup_epochs=2)
    config = tiny_review(options, precision=precision, **FEW)
    images = data.load(config.data)
    recorded = []

    def capture(body, changed, moving):
        recorded.append(len(changed))
        return stand_in(body, changed, moving)

    (one, teacher), (two, same) = make(config), make(config)
    train([one], images, teacher)
    train([two], images, same, capture=capture)
    assert len(recorded) == 3, "one recording for whole batches, one for the short one, one for scoring"
    tight = {"fp64": 1e-11, "fp16": 2e-2}[precision]
    for name, value in values(one).items():
        torch.testing.assert_close(values(two)[name], value, rtol=tight, atol=tight, msg=name)
    assert one.curves["lr"] == two.curves["lr"] and len(set(one.curves["lr"])) == 2
    assert two.curves["loss_review"] == pytest.approx(one.curves["loss_review"], rel=tight)


@pytest.mark.slow
def test_group_across_seeds_equals_solo_in_float64():
    """Each seed keeps its own data order, its own augmentation and its own teacher pass."""
    configs = [
        tiny_review(options, precision="fp64", seed=seed, batch_norm="batch", **FEW)
        for seed in (0, 1)
        for options in (ReviewOptions(warmup_epochs=0), ReviewOptions(attention=False))
    ]
    images = data.load(configs[0].data)
    members, teachers = zip(*(make(config) for config in configs), strict=True)
    train(members, images, teachers[0], capture=stand_in)
    for config, member in zip(configs, members, strict=True):
        alone, teacher = make(config)
        train([alone], images, teacher)
        for name, value in values(alone).items():
            torch.testing.assert_close(values(member)[name], value, rtol=1e-10, atol=1e-12, msg=name)
        assert member.curves["loss_review"] == pytest.approx(alone.curves["loss_review"], rel=1e-10)
    assert members[0].curves["loss_ce"] != members[2].curves["loss_ce"]


def test_groups_go_across_seeds_where_that_helps():
    configs = [tiny_review(seed=seed) for seed in (0, 1, 2)]
    assert [len(g) for g in run_groups(configs, 8)] == [1, 1, 1]
    assert [len(g) for g in run_groups(configs, 8, across_seeds=True)] == [3]
    assert [len(g) for g in run_groups(configs, 2, across_seeds=True)] == [2, 1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_stop_anywhere_then_resume_gives_the_same_bits(after, precision, tmp_path):
    """Stopped before its n-th piece of work (batches of 24 and 16 images, evaluations), saved, loaded, continued."""
    config = tiny_review(precision=precision, **FEW)
    images = data.load(config.data)
    whole, teacher = make(config)
    assert train([whole], images, teacher)
    asked = []

    def stop(needed):
        asked.append(needed)
        return len(asked) > after

    part, same = make(config)
    assert not train([part], images, same, stop=stop)
    assert (part.epoch, part.position) == [(0, 24), (0, 40), (1, 0), (1, 40)][[1, 2, 3, 5].index(after)]
    checkpoint.save(part.state_dict(), tmp_path / "c.pt")
    resumed, again = make(config)
    resumed.load_state_dict(checkpoint.load(tmp_path / "c.pt"))
    assert train([resumed], images, again)
    assert all(torch.equal(values(resumed)[name], value) for name, value in values(whole).items())
    assert resumed.curves == whole.curves


def test_group_whose_members_stopped_at_different_batches(tmp_path):
    """One member is a batch ahead, one has ended the epoch: all end as they would have alone."""
    configs = [tiny_review(ReviewOptions(loss_weight=w, warmup_epochs=0), **FEW) for w in (0.5, 1.0, 2.0)]
    images = data.load(configs[0].data)
    alone = []
    for config in configs:
        state, teacher = make(config)
        train([state], images, teacher)
        alone.append(state)
    members = []
    for config, pieces in zip(configs, (0, 1, 3), strict=True):
        state, teacher = make(config)
        asked = iter(range(100))
        train([state], images, teacher, stop=lambda needed, p=pieces, a=asked: next(a) >= p)
        members.append(state)
    assert [(m.epoch, m.position) for m in members] == [(0, 0), (0, 24), (1, 0)]
    train(members, images, teacher)
    for member, expected in zip(members, alone, strict=True):
        assert all(torch.equal(values(member)[name], value) for name, value in values(expected).items())
        assert member.curves == expected.curves


def test_executor_stops_saves_and_goes_on(store, silent, tmp_path):
    configs = [tiny_review(teacher_weights="last", seed=seed, **FEW) for seed in (0, 1)]
    whole = Runner(store, tmp_path, "cpu", progress=silent).run(configs)
    other = Store(tmp_path / "r2", tmp_path / "w2")
    calls, rounds = 0, 0
    while len(other.ids()) < 3:
        asked = []
        limit = rounds + 3

        def stop(needed, asked=asked, limit=limit):
            asked.append(needed)
            return len(asked) > limit

        runner = Runner(other, tmp_path, "cpu", progress=silent, stop=stop)
        records = runner.run(configs)
        rounds += 1
        calls += runner.stopped
        assert runner.stopped == (len(records) < 2)
        assert rounds < 30
    assert calls >= 3
    for config in configs:
        again = other.load(config.id)
        assert again.curves == store.load(config.id).curves == whole[config.id].curves
        assert again.result == whole[config.id].result
    assert not list(other.work.rglob("checkpoint.pt"))


def test_lack_of_memory_halves_the_group_and_is_said(store, silent, tmp_path, monkeypatch):
    configs = [
        tiny_review(ReviewOptions(loss_weight=w, warmup_epochs=0), **FEW) for w in (0.5, 1.0, 2.0, 3.0)
    ]
    original, sizes = group_module.train, []

    def short_of_memory(states, *arguments, **named):
        sizes.append(len(states))
        if len(states) > 1:
            train(states, *arguments, **{**named, "stop": lambda needed: states[0].position > 0})
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(states, *arguments, **named)

    monkeypatch.setattr(group_module, "train", short_of_memory)
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    records = runner.run(configs)
    assert sizes == [4, 2, 1, 1, 1, 1] and runner.group == 1
    assert [text for text in silent.said if "out of memory with 4 runs" in text]
    assert all(records[c.id].status == "finished" for c in configs)
    for config in configs:
        state, teacher = make(config)
        train([state], data.load(config.data), teacher)
        for name, values in state.curves.items():  # the failed attempt left no trace
            assert records[config.id].curves[name] == pytest.approx(values, rel=1e-5)

    def never_enough(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(group_module, "train", never_enough)
    with pytest.raises(RkdError, match="does not fit into the memory"):
        runner.run([tiny_review(seed=5)])


def test_gradient_overflow_in_fp16_leaves_the_step_out():
    config = tiny_plain(precision="fp16")
    state, _ = make(config)
    state.begin_epoch()
    before, scale = flat(state), state.scaler.get_scale()
    with torch.no_grad():
        state.student.fc.weight.mul_(1e4)
    wild = flat(state)
    x, y, index = batch(config)
    state.step(x * 1e3, y, index, None)
    assert state.scaler.get_scale() == scale / 2
    assert torch.equal(flat(state), wild) and not torch.equal(before, wild)


def test_counters_of_batch_norm_are_those_of_torch():
    config = tiny_plain(epochs=2)  # two batches an epoch
    state, _ = make(config)
    train([state], data.load(config.data), None)
    assert state.student.state_dict()["bn1.num_batches_tracked"] == 4
    assert state.best["student"]["bn1.num_batches_tracked"] in (2, 4)
    state.begin_epoch()
    assert state.state_dict()["student"]["bn1.num_batches_tracked"] == 4, "shown between steps too"


def test_batch_norm_keeps_its_own_counter_where_that_decides():
    """BatchNorm with cumulative averages (momentum None) reads its counter in every step."""
    config = tiny_plain(epochs=1)
    student = build_network(config, 100)
    student.bn1.momentum = None
    state = TrainState(config, student, None)
    state.begin_epoch()
    train([state], data.load(config.data), None)
    assert state.student.bn1.num_batches_tracked == state.student.layer1[0].bn1.num_batches_tracked == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_compiled_step_equals_the_plain_one():
    config = tiny_review(batch_norm="running", epochs=1, **{**FEW, "batch_size": 20})
    images = data.load(config.data)
    (one, teacher), (two, compiled) = make(config), make(config, compile=True)
    train([one], images, teacher)
    train([two], images, compiled)
    assert two.curves["loss_ce"] == pytest.approx(one.curves["loss_ce"], rel=1e-4)
    assert two.curves["loss_review"] == pytest.approx(one.curves["loss_review"], rel=1e-3)
    moved = (flat(one) - flat(make(config)[0])).norm()
    assert (flat(one) - flat(two)).norm() < 0.02 * moved


def test_compile_without_compiler_and_graph_without_gpu_are_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        Engine(compile=True).check(torch.device("cpu"))
    with pytest.raises(ConfigError, match="CUDA graph was asked for"):
        Engine(graph=True).check(torch.device("cpu"))
    assert not Engine().captures(torch.device("cpu")) and Engine().captures(torch.device("cuda"))


def test_auto_is_in_no_record_and_each_arithmetic_has_an_identity():
    config = RunConfig("resnet8", precision="auto")
    named = [config.settled(name, "").id for name in ("fp32", "fp16", "bf16")]
    assert len({config.id, *named}) == 4 and named[0] == RunConfig("resnet8").id
    assert arithmetic("auto", torch.device("cuda")).name == "fp16"
    assert arithmetic("auto", torch.device("cpu")).name in ("bf16", "fp32")
    assert arithmetic("fp16", torch.device("cpu")).inputs == torch.float16


def test_record_says_in_which_arithmetic(store, silent, tmp_path):
    config = tiny_plain(precision="auto", epochs=1)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    used = arithmetic("auto", torch.device("cpu")).name
    assert record.cost["arithmetic"] == record.config.precision == record.arithmetic == used
    assert record.id != config.id
    assert record.cost["graph"] is False and record.cost["compiled"] is False
