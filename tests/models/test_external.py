"""Foreign modules as networks with taps."""

import copy
import gc
import weakref

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from rkd import models
from rkd.errors import ConfigError


class Own(nn.Module):
    """Two convolutions with BN and ReLU, global average and a classifier."""

    def __init__(self, classes=5, overwrite=False, twice=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Identity()
        self.head = nn.Linear(6, classes)
        self.overwrite, self.twice = overwrite, twice

    def forward(self, x):
        x = self.first(x)
        if self.overwrite:
            F.dropout(x, 0.5, inplace=True)
            x += 1
        x = self.second(x)
        if self.twice:
            x = self.pool(x) + x
        return self.head(self.pool(x).flatten(1))


def wrap_own(**options):
    return models.from_module(
        Own(**options),
        stages=["first", "second"],
        stages_pre=["first.1", "second.1"],
        pooled="pool",
    )


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_torchvision_resnet18(x):
    net = torchvision.models.resnet18(weights=None, num_classes=10)
    network = models.from_module(
        net, stem="bn1", stages=["layer1", "layer2", "layer3", "layer4"], pooled="avgpool"
    ).eval()
    taps = network.taps(x)
    assert [tuple(m.shape[1:]) for m in taps.stages] == [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]
    assert all(pre is post for pre, post in zip(taps.stages_pre, taps.stages, strict=True))
    assert torch.equal(taps.stem, net.bn1(net.conv1(x)))
    assert torch.equal(taps.stages[0], net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
    assert torch.equal(taps.logits, net.fc(taps.pooled))
    assert models.tap_shapes(network).classes == 10


def test_torchvision_mobilenet_v2(x):
    net = torchvision.models.mobilenet_v2(weights=None, num_classes=10)
    network = models.from_module(
        net,
        stem="features.0",
        stages=["features.3", "features.6", "features.13", "features.17"],
        pooled="features",
    ).eval()
    taps = network.taps(x)
    assert [m.shape[1] for m in taps.stages] == [24, 32, 96, 320]
    assert taps.pooled.shape == (2, 1280)
    assert torch.equal(taps.logits, net.classifier(taps.pooled))
    # Where the last map is larger than 1x1, pooling is the mean over it.
    assert torch.allclose(network.taps(torch.cat([x, x], 3)).logits, net(torch.cat([x, x], 3)), atol=1e-6)


def test_own_network(x):
    network = wrap_own().eval()
    taps = network.taps(x)
    own = network.module
    first_pre = own.first[1](own.first[0](x))
    second_pre = own.second[1](own.second[0](first_pre.relu()))
    assert torch.equal(taps.stages_pre[0], first_pre)
    assert torch.equal(taps.stages[0], first_pre.relu())
    assert torch.equal(taps.stages_pre[1], second_pre)
    assert torch.equal(taps.stages[1], second_pre.relu())
    assert torch.equal(taps.stem, taps.stages[0])
    assert taps.pooled.shape == (2, 6)
    assert torch.allclose(taps.pooled, second_pre.relu().mean((2, 3)))
    assert torch.equal(taps.logits, own.head(taps.pooled))
    assert torch.equal(network(x), taps.logits)


def test_overwriting_is_detected(x):
    network = wrap_own(overwrite=True)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context(), pytest.raises(ConfigError, match="tap 'first' was overwritten in place"):
            network.taps(x)
    assert network(x).shape == (2, 5)


def test_inference_mode(x):
    network = wrap_own().eval()
    expected = network.taps(x)
    with torch.inference_mode():
        taps = network.taps(x)
        assert torch.equal(taps.logits, expected.logits)
    assert torch.equal(taps.stages[1], expected.stages[1])
    assert not taps.logits.requires_grad


def test_second_call_and_missing_call_are_refused(x):
    with pytest.raises(ConfigError, match="tap 'pool' was called twice"):
        wrap_own(twice=True).taps(x)
    network = models.from_module(Own(), stages=["first", "unused"], pooled="pool")
    with pytest.raises(ConfigError, match="tap 'unused' was not called"):
        network.taps(x)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": ["frist"], "pooled": "pool"}, "Own has no submodule 'frist'; nearest: first"),
        (
            {"stages": ["first"], "pooled": "zzzzzz"},
            "has no submodule 'zzzzzz'; nearest: ",
        ),
        (
            {"stages": ["first"], "pooled": "pool", "stem": "first.9"},
            "no submodule 'first.9'; nearest: first.",
        ),
        ({"stages": [""], "pooled": "pool"}, "no submodule ''"),
        ({"stages": [], "pooled": "pool"}, "stages must be a list of at least one module path"),
        ({"stages": "first", "pooled": "pool"}, "stages must be a list .* not 'first'"),
        (
            {"stages": ["first", "second"], "stages_pre": ["first.1"], "pooled": "pool"},
            r"stages_pre as long a one, not .* and \['first.1'\]",
        ),
    ],
)
def test_refused_paths(options, said):
    with pytest.raises(ConfigError, match=said):
        models.from_module(Own(), **options)


def test_refused_forms(x):
    with pytest.raises(
        ConfigError, match=r"tap 'head' must give \(B, C, H, W\), but gives a tensor \(2, 5\)"
    ):
        models.from_module(Own(), stages=["first", "head"], pooled="pool").taps(x)

    class Pair(Own):
        def forward(self, x):
            return super().forward(x), 0

    with pytest.raises(ConfigError, match=r"Pair must return logits \(B, C\), but gives a tuple"):
        models.from_module(Pair(), stages=["first"], pooled="pool").taps(x)


def test_copies_and_state_dict(x):
    network = wrap_own().eval()
    twin = copy.deepcopy(network)
    assert list(network.state_dict()) == [f"module.{key}" for key in network.module.state_dict()]
    with torch.no_grad():
        twin.module.head.bias.add_(1)
    assert torch.allclose(twin.taps(x).logits, network.taps(x).logits + 1)
    twin.load_state_dict(network.state_dict())
    for _ in range(2):
        assert torch.equal(twin.taps(x).logits, network.taps(x).logits)


def test_no_hook_and_no_tensor_outlives_the_forward(x):
    network = wrap_own()
    with torch.no_grad():
        taps = network.taps(x)
    watched = [weakref.ref(m) for m in (taps.stem, *taps.stages, taps.logits)]
    del taps
    gc.collect()
    assert all(ref() is None for ref in watched)
    with pytest.raises(RuntimeError):
        network.taps(x[:, :1])
    assert not any(module._forward_hooks for module in network.modules())


def test_gradients_and_single_batchnorm_update(x):
    network = wrap_own().train()
    taps = network.taps(x)
    (taps.stages_pre[0].sum() + taps.logits.sum()).backward()
    assert all(p.grad is not None for p in network.module.first.parameters())
    assert {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1}
