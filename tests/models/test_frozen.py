"""Frozen networks give the same taps, with BatchNorm folded where it uses running statistics."""

import pytest
import torch
import torchvision
from torch import nn

from rkd import models
from rkd.models.frozen import freeze
from rkd.models.taps import Taps

# BatchNorm layers that directly follow a convolution: all of a ResNet's, one a block of a pre-activation WRN's.
FOLDED = {
    "resnet14": (15, 15),
    "resnet8x4": (10, 10),
    "wrn_16_1": (6, 13),
    "shufflenetv1": (49, 49),
    "shufflenetv2": (56, 56),
}


def with_statistics(name):
    torch.manual_seed(0)
    network = models.build(name).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return network


@pytest.mark.parametrize("name", FOLDED)
def test_folded_network_gives_the_same_taps(name):
    network = with_statistics(name)
    frozen = freeze(network)
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (frozen.folded, len(layers)) == FOLDED[name]
    left = [m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == len(layers) - frozen.folded
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for ours, expected in zip(frozen.taps(x).tensors(), network.taps(x).tensors(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(frozen(x), network(x), rtol=1e-10, atol=1e-10)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_the_network_given_stays_as_it_is():
    network = with_statistics("resnet8")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, torch.bfloat16)
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.dtype == torch.float64 for p in network.parameters())


def test_batch_statistics_stay_layers_of_their_own():
    network = with_statistics("resnet8")
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
            layer.momentum = 0.0
    frozen = freeze(network)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert frozen.folded == 0
    with torch.no_grad():
        torch.testing.assert_close(frozen.taps(x).logits, network.taps(x).logits)


def test_low_precision_is_in_convolutions_and_linear_layers_alone():
    frozen = freeze(with_statistics("wrn_16_1").float(), torch.bfloat16)
    kinds = {type(m): m.weight.dtype for m in frozen.modules() if getattr(m, "weight", None) is not None}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.Linear: torch.bfloat16, nn.BatchNorm2d: torch.float32}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        taps = frozen.taps(torch.randn(4, 3, 32, 32).bfloat16())
    assert isinstance(taps, Taps) and taps.logits.dtype == torch.bfloat16


def test_networks_no_graph_can_stand_for_are_left_alone():
    foreign = models.from_module(
        torchvision.models.resnet18(num_classes=10),
        stages=["layer1", "layer2", "layer3", "layer4"],
        pooled="avgpool",
    )
    assert freeze(foreign) is None  # its taps are read by hooks

    class Moody(models.build("resnet8").__class__):
        def taps(self, x):
            return super().taps(x * 2 if x.sum() > 0 else x)

    assert freeze(Moody(10, [1, 1, 1], [16, 16, 32, 64]).eval()) is None  # its code depends on its data


def test_a_graph_that_says_something_else_is_not_used():
    """Tracing takes one branch of a test on a Python value and keeps it: the check against the network notices."""

    class Counting(models.build("resnet8").__class__):
        calls = 0

        def taps(self, x):
            Counting.calls += 1
            return super().taps(x if Counting.calls == 1 else x * 1.5)

    assert freeze(Counting(10, [1, 1, 1], [16, 16, 32, 64]).eval()) is None


def test_a_layer_called_twice_is_not_folded():
    class Twice(models.build("resnet8").__class__):
        def taps(self, x):
            self.bn1(self.conv1(x + 1))  # bn1 now has two inputs in the graph
            return super().taps(x + self.bn1(self.conv1(x)).mean(1, keepdim=True))

    torch.manual_seed(0)
    network = Twice(10, [1, 1, 1], [16, 16, 32, 64]).double().eval()
    frozen = freeze(network)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert frozen.folded == 8, "all but bn1"
    with torch.no_grad():
        torch.testing.assert_close(frozen.taps(x).logits, network.taps(x).logits)
