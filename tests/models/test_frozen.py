"""Frozen networks give the same taps in every form; the fused one with plain stand-ins for cuDNN's operations."""

import pytest
import torch
import torchvision
from cases import Tiny
from conftest import with_statistics
from torch import nn

from rkd import models
from rkd.bench.clock import count
from rkd.errors import ConfigError
from rkd.models import frozen
from rkd.models.frozen import freeze
from rkd.training.standin import GPU, standing_in

# BatchNorm layers that directly follow a convolution: all of a ResNet's, one a block of a pre-activation WRN's.
FOLDED = {"resnet8": (9, 9), "wrn_16_1": (6, 13), "shufflenetv1": (49, 49), "vgg8": (5, 5)}


def norms(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def assert_same_taps(ours, theirs):
    torch.testing.assert_close(ours.tensors(), theirs.tensors(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [*FOLDED, "represnet20"])
def test_every_form_gives_the_same_taps(name, cudnn):
    network = with_statistics(name)
    x, before = torch.randn(2, 3, 32, 32, dtype=torch.float64), norms(network)
    made = {form: freeze(network, form=form) for form in frozen.FORMS}
    folded = made["folded"]
    if name in FOLDED:
        assert (folded.folded, before) == FOLDED[name] and norms(folded) == before - folded.folded
    assert made["unfolded"].folded == 0 and made["fused"].folded == folded.folded
    assert made["fused"].fused > 0 == folded.fused or name == "wrn_16_1"
    with torch.no_grad():
        for one in made.values():
            assert_same_taps(one.taps(x), network.taps(x))
        flops = {count(lambda one=one: one.taps(x))["flops"] for one in made.values()}
    assert len(flops) == 1 + (name == "represnet20")
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_residual_network_is_convolutions_with_their_activations(cudnn):
    """ResNet-14: of 13 convolutions and 2 projections, the stem's, six first ones, and three sums within the stages;
    what stands before a stage's last ReLU is a tap."""
    made = freeze(with_statistics("resnet14"), form="fused")
    called = [node.target for node in made.graph_module.graph.nodes if node.op == "call_function"]
    assert called.count(frozen._CONV_RELU) == 7 and called.count(frozen._CONV_ADD_RELU) == made.fused - 7 == 3


def test_what_is_refused():
    network = models.build("resnet8")
    with pytest.raises(ConfigError, match=r"'fused' is for CUDA.* and this is cpu in bfloat16"):
        freeze(network, torch.bfloat16, "fused")
    with pytest.raises(ConfigError, match="unknown teacher form 'fuse'"):
        freeze(network, form="fuse")
    assert frozen.forms(GPU, torch.float16) == frozen.FORMS
    assert frozen.forms(GPU, torch.bfloat16) == frozen.forms(torch.device("cpu"), torch.float32)


def test_shapes_and_types_on_a_stand_in_for_a_gpu(cudnn):
    network = with_statistics("resnet8").float()
    made = freeze(network, form="fused").half()
    with standing_in([network]) as recorder, torch.no_grad():
        made, network = made.to(GPU), network.to(GPU)
        x = torch.zeros(2, 3, 32, 32, device=GPU)
        with recorder.recording():
            ours, theirs = made.taps(x.half()), network.taps(x)
    for a, b in zip(ours.tensors(), theirs.tensors(), strict=True):
        assert a.shape == b.shape and a.dtype == torch.float16 and a.device == b.device
    assert recorder.sentences() == ()  # a CUDA graph can hold it


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
