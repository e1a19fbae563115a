"""Scoring: in the run's arithmetic after every epoch and in full for the record."""

import itertools
import re

import pytest
import torch
from cases import Tiny
from conftest import StopAfter, accuracy_of, first_batch, make, small, small_plain, tiny_data, trained

from rkd import data, models
from rkd.experiments.runner import Runner
from rkd.methods import make_options
from rkd.methods.crd import Contrasts
from rkd.training import accuracy, arithmetic, checkpoint
from rkd.training import evaluation as evaluation_module
from rkd.training.step import FP16_LOSS_SCALE


def test_accuracy_counts_every_image_once(monkeypatch):
    """A last batch that is short; the network left in its mode."""
    monkeypatch.setattr(evaluation_module, "usual_batch", lambda device, area: 48)
    images = data.load(tiny_data(train_images=100, test_images=110))
    torch.manual_seed(0)
    for network in (Tiny(100), Tiny(100).eval()):
        before = network.training
        found = accuracy(network, images.test_x, images.test_y, images.mean, images.std)
        assert network.training == before
        with torch.no_grad():
            logits = network.eval()(data.normalise(images.test_x, images.mean, images.std))
        assert found == 100 * (logits.argmax(1) == images.test_y).double().mean().item()


def test_fewer_large_images_are_scored_at_a_time():
    for device, sizes in {
        "cpu": {8: 500, 32: 500, 64: 125, 224: 10, 5000: 1},
        "cuda": {32: 2000, 224: 40},
    }.items():
        for size, images in sizes.items():
            assert evaluation_module.usual_batch(torch.device(device), size**2) == images


def test_epochs_are_scored_in_the_runs_arithmetic_and_records_in_full(store, silent, tmp_path):
    config = small(precision="bf16", data=tiny_data(train_images=100, holdout=100), epochs=3)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert record.provenance["scored"] == {"curves": "bf16", "result": "fp32"}
    images = data.load(config.data)
    for which in ("last", "best"):
        network = models.build(config.network)
        network.load_state_dict(checkpoint.load(store.folder(config.id) / f"{which}.pt")["student"])
        network = network.to(memory_format=torch.channels_last)
        full = accuracy(network, images.test_x, images.test_y, images.mean, images.std)
        assert record.accuracy(which) == pytest.approx(full, rel=1e-5)
        epoch = {"last": -1, "best": record.result["best_epoch"]}[which]
        numbers = arithmetic("bf16", torch.device("cpu"))
        low = accuracy(network, images.test_x, images.test_y, images.mean, images.std, numbers=numbers)
        assert record.curves["test_accuracy"][epoch] == pytest.approx(low, rel=1e-5)
    held = record.curves["holdout_accuracy"]
    assert len(held) == 3 and record.result["best_epoch"] == held.index(max(held))
    plain, runner = small_plain(epochs=1), Runner(store, tmp_path, "cpu", progress=silent)
    record = runner.run([plain])[plain.id]
    assert record.accuracy("last") == record.curves["test_accuracy"][-1] == accuracy_of(runner, plain)
    assert record.provenance["scored"] == {"curves": "fp32", "result": "fp32"}
    assert record.cost["graph"] is False and record.cost["compiled"] is False
    assert "left_out_steps" not in record.curves


def test_scores_never_compute_in_tf32():
    seen = []

    class Asking(Tiny):
        def forward(self, x):
            flags = torch.backends.cudnn
            seen.append((flags.allow_tf32, flags.deterministic, flags.benchmark))
            return super().forward(x)

    images = data.load(tiny_data(train_images=110, test_images=50))
    before = torch.backends.cudnn.allow_tf32
    accuracy(Asking(100), images.test_x, images.test_y, images.mean, images.std)
    assert seen == [(False, True, False)] and torch.backends.cudnn.allow_tf32 == before


def overflowing(steps, **how):
    """A state in fp16 whose losses overflow in these of five steps, trained."""
    data = tiny_data(train_images=100, test_images=10)
    state, _ = make(small_plain(precision="fp16", epochs=1, data=data, batch_size=20))
    original, made = state.losses, itertools.count()

    def losses(x, *more):
        found, logits = original(x, *more)
        factor = float("inf") if next(made) in steps else 1.0
        return {name: value * factor for name, value in found.items()}, logits

    state.losses = losses
    state.scaler.set_growth_interval(how.pop("recovery", 2000))
    weights = []
    trained(state.config, state, on_batch=lambda *_: weights.append(state.student.fc.weight.detach().clone()))
    return state, weights


def test_a_step_that_overflows_is_no_part_of_the_epoch():
    state, weights = overflowing({1, 3})
    assert [torch.equal(a, b) for a, b in itertools.pairwise(weights)] == [False, True, False, True, False]
    assert not state.diverged and state.curves["left_out_steps"] == [2]
    assert 0 < state.curves["loss_ce"][0] < 100 and state.scaler.get_scale() == FP16_LOSS_SCALE / 4


@pytest.mark.parametrize(("steps", "diverged"), [({0, 1, 2}, True), (set(range(5)), True), ({0, 4}, False)])
def test_an_epoch_of_overflows_has_diverged(steps, diverged):
    assert overflowing(steps)[0].diverged == diverged


def test_the_loss_scale_recovers_and_goes_no_further():
    assert overflowing({0}, recovery=2)[0].scaler.get_scale() == FP16_LOSS_SCALE


@pytest.mark.parametrize(("method", "options"), [("crd", {"negatives": 40}), ("modreduce", {})])
def test_what_a_method_keeps_is_not_touched_by_a_step_that_is_left_out(method, options):
    """Whose forward pass overflowed, so that all it would write is NaN."""
    config = small(make_options(method, options), method=method, precision="fp16", ce_weight=0.0)
    (state, teacher), (x, y, index) = make(config), first_batch(config)
    state.begin_epoch()

    def after(images):
        state.step(images, y, index, teacher.taps(images))
        kept = re.compile("memory|aggregator|shares|steps")
        return {name: v.clone() for name, v in state.method.state_dict().items() if kept.search(name)}

    first, left_out, second = after(x), after(x * float("inf")), after(x)
    assert state._meters[-1] == 1 and len(first) >= 3
    for name, value in first.items():
        assert torch.equal(left_out[name], value), name
        assert name.endswith(".z") or not torch.equal(second[name], value), name


def test_an_unfinished_run_of_an_earlier_version_goes_on():
    config = small_plain(epochs=1)
    state = trained(config, stop=StopAfter(1)).state_dict()
    state["meters"] = state["meters"][:-2]  # steps left out were not counted
    resumed, _ = make(config)
    resumed.load_state_dict(state)
    assert trained(config, resumed).curves == trained(config).curves


def test_what_an_epoch_begins_with_counts_in_its_time(monkeypatch):
    """CRD draws its negatives between epochs; a clock that stands still but for that shows where the time goes."""
    now, (state, _) = [0.0], make(small_plain())
    monkeypatch.setattr("rkd.training.loop.now", lambda: now[0])
    begin = state.begin_epoch

    def slowly():
        now[0] += 5.0
        begin()

    state.begin_epoch = slowly
    assert trained(state.config, state).seconds == 10.0


def test_negatives_drawn_ahead_are_the_same(monkeypatch):
    labels = torch.arange(60) % 6
    usual, ahead = (Contrasts(labels, 20, seed=3, positive="relax") for _ in range(2))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    ahead._on_gpu = lambda: True
    for epoch in (0, 1, 2, 5, 6):  # also one that was not to be expected
        usual.draw(epoch)
        ahead.draw(epoch)
        assert ahead._ahead[0] == epoch + 1
        for name in ("starts", "table", "mates"):
            assert torch.equal(getattr(usual, name), getattr(ahead, name)), (epoch, name)
