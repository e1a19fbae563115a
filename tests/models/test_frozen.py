"""Frozen networks give the same taps."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from cases import Tiny
from conftest import small, small_plain, tiny_data, with_statistics
from torch import nn

from rkd import models
from rkd.bench.clock import count
from rkd.experiments.runner import Runner
from rkd.models.frozen import freeze
from rkd.training import TeacherConfig

# BatchNorm layers that directly follow a convolution: all of a ResNet's, one a block of a pre-activation WRN's.
FOLDED = {"resnet8": (9, 9), "wrn_16_1": (6, 13), "shufflenetv1": (49, 49), "vgg8": (5, 5)}


def norms(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def assert_same_taps(ours, theirs):
    torch.testing.assert_close(ours.tensors(), theirs.tensors(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [*FOLDED, "represnet20"])
def test_frozen_networks_give_the_same_taps(name):
    network = with_statistics(name)
    x, before = torch.randn(2, 3, 32, 32, dtype=torch.float64), norms(network)
    folded = freeze(network)
    if name in FOLDED:
        assert (folded.folded, before) == FOLDED[name] and norms(folded) == before - folded.folded
    with torch.no_grad():
        assert_same_taps(folded.taps(x), network.taps(x))
        flops = {count(lambda one=one: one.taps(x))["flops"] for one in (network, folded)}
    assert len(flops) == 1 + (name == "represnet20")
    assert not any(p.requires_grad for p in folded.parameters())


class Flat(Tiny):
    """Its classifier takes the last maps of images of 16 x 16 as they are."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.flat = nn.Linear(32 * 2 * 2, num_classes)

    def taps(self, x):
        found = super().taps(x)
        return dataclasses.replace(found, logits=self.flat(found.stages[-1].flatten(1)))


def test_a_classifier_for_one_image_size_can_teach(store, silent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.trust(["test_frozen:Flat"])
    x, y = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8), np.arange(40) % 4
    np.savez("small.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    plain = small_plain(network="test_frozen:Flat", data=tiny_data(name="small.npz"), epochs=1)
    taught = dataclasses.replace(plain, method="kd", options={}, teacher=TeacherConfig(run=plain))
    records = Runner(store, tmp_path, progress=silent).run([taught]).values()
    assert all(record.status == "finished" for record in records)


@pytest.mark.parametrize(("batch_norm", "form"), [("running", "folded"), ("batch", "unfolded")])
def test_the_record_names_the_form(batch_norm, form, store, silent, tmp_path):
    config = small(batch_norm=batch_norm, epochs=1)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert record.cost["teacher_form"] == form


def test_the_network_given_stays_as_it_is():
    network = with_statistics("cases:Tiny")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, torch.bfloat16)
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.dtype == torch.float64 for p in network.parameters())


def test_batch_statistics_stay_layers_of_their_own():
    """Those of branches too."""
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for name in ("resnet8", "represnet20"):
        network = with_statistics(name).train()
        made = freeze(network)
        assert made.folded == 0 and norms(made) == norms(network)
        with torch.no_grad():
            torch.testing.assert_close(made.taps(x).logits, network.taps(x).logits)


def test_low_precision_is_in_convolutions_and_linear_layers_alone():
    made = freeze(with_statistics("wrn_16_1").float(), torch.bfloat16)
    kinds = {type(m): m.weight.dtype for m in made.modules() if getattr(m, "weight", None) is not None}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.Linear: torch.bfloat16, nn.BatchNorm2d: torch.float32}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert made.taps(torch.randn(4, 3, 32, 32).bfloat16()).logits.dtype == torch.bfloat16


class Moody(Tiny):
    """Its code depends on its data."""

    def taps(self, x):
        return super().taps(x * 2 if x.sum() > 0 else x)


class Counting(Tiny):
    """Tracing takes one branch of a test on a Python value and keeps it: the check against the network notices."""

    calls = 0

    def taps(self, x):
        Counting.calls += 1
        return super().taps(x if Counting.calls == 1 else x * 1.5)


def test_networks_no_graph_can_stand_for_are_left_alone():
    stages = ["layer1", "layer2", "layer3", "layer4"]
    foreign = torchvision.models.resnet18(num_classes=10)
    for network in (models.from_module(foreign, stages=stages, pooled="avgpool"), Moody(10), Counting(10)):
        assert freeze(network.eval()) is None


def test_a_layer_called_twice_is_not_folded():
    class Twice(Tiny):
        def taps(self, x):
            self.norms[0](self.convs[0](self.stem(x + 1)))  # this norm now has two inputs in the graph
            return super().taps(x)

    torch.manual_seed(0)
    network, x = Twice(10).double().eval(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    made = freeze(network)
    assert made.folded == 2, "all but the first"
    with torch.no_grad():
        assert_same_taps(made.taps(x), network.taps(x))
