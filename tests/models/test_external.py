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

    def __init__(self, overwrite=False, twice=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.pool, self.unused, self.head = nn.AdaptiveAvgPool2d(1), nn.Identity(), nn.Linear(6, 5)
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
    pre = ["first.1", "second.1"]
    return models.from_module(Own(**options), stages=["first", "second"], stages_pre=pre, pooled="pool")


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_pooling_by_a_function_is_the_mean_over_the_last_map(x):
    net = torchvision.models.mobilenet_v2(weights=None, num_classes=10)
    stages = ["features.3", "features.17"]
    network = models.from_module(net, stem="features.0", stages=stages, pooled="features").eval()
    taps = network.taps(x)
    assert [m.shape[1] for m in taps.stages] == [24, 320] and taps.pooled.shape == (2, 1280)
    assert torch.equal(taps.logits, net.classifier(taps.pooled))
    assert torch.allclose(network.taps(torch.cat([x, x], 3)).logits, net(torch.cat([x, x], 3)), atol=1e-6)


def test_own_network(x):
    network = wrap_own().eval()
    taps, own = network.taps(x), network.module
    first = own.first[1](own.first[0](x))
    second = own.second[1](own.second[0](first.relu()))
    wanted = [first.relu(), first.relu(), second.relu(), first, second]  # stem, stages, before ReLU
    assert all(torch.equal(a, b) for a, b in zip(taps.tensors(), wanted, strict=False))
    assert torch.allclose(taps.pooled, second.relu().mean((2, 3))) and taps.pooled.shape == (2, 6)
    assert torch.equal(taps.logits, own.head(taps.pooled)) and torch.equal(network(x), taps.logits)
    with torch.inference_mode():
        assert torch.equal(network.taps(x).logits, taps.logits)
    assert not network.taps(x.clone().requires_grad_()).logits.is_inference()


def test_overwriting_is_detected(x):
    network = wrap_own(overwrite=True)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context(), pytest.raises(ConfigError, match="tap 'first' was overwritten in place"):
            network.taps(x)
    assert network(x).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": ["frist"]}, "Own has no submodule 'frist'; nearest: first"),
        ({"stages": [""]}, "no submodule ''"),
        ({"stages": [1], "pooled": None}, "no submodule 1"),
        ({"stages": []}, "stages must be a list of at least one module path"),
        ({"stages": "first"}, "stages must be a list .* not 'first'"),
        ({"stages_pre": "f"}, "must be a list"),
        ({"stages_pre": ["f", "f"]}, r"stages_pre as long a one, not .* and \['f', 'f'\]"),
        ({"stages": ["first", "first"]}, r"stages names a path twice: \['first', 'first'\]"),
        *(({"module": it}, "from_module wraps a torch module, not") for it in (None, models.Taps)),
    ],
)
def test_refused_modules_and_paths(options, said):
    with pytest.raises(ConfigError, match=said):
        models.from_module(**{"module": Own(), "stages": ["first"], "pooled": "pool", **options})


@pytest.mark.parametrize("network", [None, "resnet8", torch.nn.Linear(1, 1), models.build])
def test_networks_without_taps_get_one_sentence(network):
    with pytest.raises(ConfigError, match=r"not a network with a taps\(x\) method"):
        models.tap_shapes(network)


def test_images_that_a_network_cannot_take():
    with pytest.raises(ConfigError, match="cannot take images of 32 x 32 pixels in 1 channels: "):
        models.tap_shapes(models.build("resnet8"), channels=1)


class Pair(Own):
    def forward(self, x):
        return super().forward(x), 0


@pytest.mark.parametrize(
    ("module", "names", "said"),
    [
        (Own(twice=True), {}, "tap 'pool' was called twice"),
        (Own(), {"stages": ["first", "unused"]}, "tap 'unused' was not called"),
        (Own(), {"stages": ["first", "head"]}, r"'head' must give \(B, C, H, W\), but gives .* \(2, 5\)"),
        (Pair(), {}, r"Pair must return logits \(B, C\), but gives a tuple"),
        (Own(), {"stem": "second"}, "is computed before tap .*shallow to deep"),
        (Own(), {"stages": ["second"], "pooled": "first"}, "is computed before tap .*shallow to deep"),
        (
            Own(),
            {"stages": ["first", "second"], "stages_pre": ["second.1", "first.1"]},
            "is computed before tap .*shallow to deep",
        ),
    ],
)
def test_refused_taps(module, names, said, x):
    with pytest.raises(ConfigError, match=said):
        models.from_module(module, **{"stages": ["first"], "pooled": "pool", **names}).taps(x)


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
    """And every BatchNorm has run once."""
    network = wrap_own()
    taps = network.taps(x)
    (taps.stages_pre[0].sum() + taps.logits.sum()).backward()
    assert all(p.grad is not None for p in network.module.first.parameters())
    assert {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1}
    watched = [weakref.ref(m) for m in (taps.stem, *taps.stages, taps.logits)]
    del taps
    gc.collect()
    assert all(ref() is None for ref in watched)
    with pytest.raises(RuntimeError):
        network.taps(x[:, :1])
    assert not any(module._forward_hooks for module in network.modules())
