"""Networks against forwards written out from the state dict alone, and what the taps promise."""

from functools import partial

import pytest
import torch
from conftest import with_statistics
from naive import drawn
from torch.nn import functional as F

from rkd.models.frozen import freeze


class Plain:
    """Convolution and BatchNorm by key, straight from a state dict."""

    def __init__(self, network):
        self.state = {key: value.detach() for key, value in network.state_dict().items()}

    def __contains__(self, key):
        return key in self.state

    def conv(self, key, x, stride=1, groups=1, padding=None):
        weight = self.state[f"{key}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.state.get(f"{key}.bias"), stride, padding, groups=groups)

    def bn(self, key, x):
        mean, var, weight, bias = (
            self.state[f"{key}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def linear(self, key, x):
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]


def plain_sum(p, key, x, y, stride):
    for shortcut in (f"{key}.downsample", f"{key}.shortcut"):
        if f"{shortcut}.0.weight" in p:
            x = p.bn(f"{shortcut}.1", p.conv(f"{shortcut}.0", x, stride))
    return (y + x).clamp(min=0)


def plain_basic(p, key, x, stride):
    y = p.bn(f"{key}.bn1", p.conv(f"{key}.conv1", x, stride)).clamp(min=0)
    return plain_sum(p, key, x, p.bn(f"{key}.bn2", p.conv(f"{key}.conv2", y)), stride)


def plain_bottleneck(p, key, x, stride):
    y = p.bn(f"{key}.bn1", p.conv(f"{key}.conv1", x)).clamp(min=0)
    y = p.bn(f"{key}.bn2", p.conv(f"{key}.conv2", y, stride)).clamp(min=0)
    return plain_sum(p, key, x, p.bn(f"{key}.bn3", p.conv(f"{key}.conv3", y)), stride)


def plain_resnet(p, x, blocks, block, head):
    """Also with a 7x7 stem, which pads by one pixel too."""
    x = p.bn("bn1", p.conv("conv1", x, padding=1)).clamp(min=0)
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            x = block(p, f"layer{stage}.{i}", x, 2 if stage > 1 and i == 0 else 1)
    return p.linear(head, x.mean((2, 3)))


def plain_wrn16(p, x):
    x = p.conv("conv1", x)
    for group in (1, 2, 3):
        for i in range(2):
            key, stride = f"block{group}.layer.{i}", 2 if group > 1 and i == 0 else 1
            active = p.bn(f"{key}.bn1", x).clamp(min=0)
            y = p.bn(f"{key}.bn2", p.conv(f"{key}.conv1", active, stride)).clamp(min=0)
            y = p.conv(f"{key}.conv2", y)
            projects = f"{key}.convShortcut.weight" in p
            x = y + (p.conv(f"{key}.convShortcut", active, stride) if projects else x)
    return p.linear("fc", F.avg_pool2d(p.bn("bn1", x).clamp(min=0), 8).flatten(1))


def naive_shuffle(x, groups):
    """One channel at a time: the outputs take turns among the groups."""
    size = x.shape[1] // groups
    return torch.stack([x[:, group * size + place] for place in range(size) for group in range(groups)], 1)


def plain_shufflenetv1(p, x):
    x = p.bn("bn1", p.conv("conv1", x)).clamp(min=0)
    for stage, blocks in enumerate((4, 8, 4), 1):
        for i in range(blocks):
            key, stride = f"layer{stage}.{i}", 2 if i == 0 else 1
            groups = 1 if x.shape[1] == 24 else 3
            y = p.bn(f"{key}.bn1", p.conv(f"{key}.conv1", x, groups=groups)).clamp(min=0)
            y = naive_shuffle(y, groups)
            y = p.bn(f"{key}.bn2", p.conv(f"{key}.conv2", y, stride, groups=y.shape[1])).clamp(min=0)
            y = p.bn(f"{key}.bn3", p.conv(f"{key}.conv3", y, groups=3))
            x = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if stride == 2 else y + x
            x = x.clamp(min=0)
    return p.linear("linear", F.avg_pool2d(x, 4).flatten(1))


def plain_shufflenetv2(p, x):
    def unit(key, n, x, stride=1, depthwise=False):
        return p.bn(f"{key}.bn{n}", p.conv(f"{key}.conv{n}", x, stride, x.shape[1] if depthwise else 1))

    x = p.bn("bn1", p.conv("conv1", x)).clamp(min=0)
    for stage, blocks in enumerate((3, 7, 3), 1):
        key = f"layer{stage}.0"
        left = unit(key, 2, unit(key, 1, x, 2, True)).clamp(min=0)
        right = unit(key, 3, x).clamp(min=0)
        right = unit(key, 5, unit(key, 4, right, 2, True)).clamp(min=0)
        x = naive_shuffle(torch.cat([left, right], 1), 2)
        for i in range(1, blocks + 1):
            key, half = f"layer{stage}.{i}", x.shape[1] // 2
            y = unit(key, 1, x[:, half:]).clamp(min=0)
            y = unit(key, 3, unit(key, 2, y, 1, True)).clamp(min=0)
            x = naive_shuffle(torch.cat([x[:, :half], y], 1), 2)
    x = p.bn("bn2", p.conv("conv2", x)).clamp(min=0)
    return p.linear("linear", F.avg_pool2d(x, 4).flatten(1))


def plain_vgg(p, x):
    large = x.shape[2] == 64
    for block in range(5):
        if block in (1, 2, 3) or (block == 4 and large):
            x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
        for i in range(5):
            if f"block{block}.{3 * i}.weight" in p:
                x = p.bn(f"block{block}.{3 * i + 1}", p.conv(f"block{block}.{3 * i}", x)).clamp(min=0)
    return p.linear("classifier", x.mean((2, 3)))


def plain_mobilenet(p, x):
    x = p.bn("conv1.1", p.conv("conv1.0", x, 2)).clamp(min=0)
    for stage, (count, first) in enumerate(((1, 1), (2, 1), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))):
        for i in range(count):
            key = f"blocks.{stage}.{i}.conv"
            y = p.bn(f"{key}.1", p.conv(f"{key}.0", x)).clamp(min=0)
            y = p.conv(f"{key}.3", y, first if i == 0 else 1, groups=y.shape[1])
            y = p.bn(f"{key}.7", p.conv(f"{key}.6", p.bn(f"{key}.4", y).clamp(min=0)))
            x = x + y if i else y
    x = p.bn("conv2.1", p.conv("conv2.0", x)).clamp(min=0).mean((2, 3))
    return p.linear("classifier.0", x)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet20", partial(plain_resnet, blocks=(3, 3, 3), block=plain_basic, head="fc")),
        ("resnet20_7x7", partial(plain_resnet, blocks=(3, 3, 3), block=plain_basic, head="fc")),
        ("mobilenetv2", plain_mobilenet),
        ("resnet18", partial(plain_resnet, blocks=(2, 2, 2, 2), block=plain_basic, head="linear")),
        ("resnet50", partial(plain_resnet, blocks=(3, 4, 6, 3), block=plain_bottleneck, head="linear")),
        ("wrn_16_1", plain_wrn16),
        ("wrn_16_2", plain_wrn16),
        ("shufflenetv1", plain_shufflenetv1),
        ("shufflenetv2", plain_shufflenetv2),
    ],
)
def test_logits_equal_a_forward_written_out(name, plain):
    network, x = with_statistics(name, 7).eval(), drawn(2, 3, 32, 32, seed=2)
    with torch.no_grad():
        logits, taps, expected = network(x), network.taps(x), plain(Plain(network), x)
    assert torch.allclose(logits, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())
    assert torch.equal(taps.logits, logits)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_vgg_asks_every_batch_for_its_size(size):
    """Frozen too, where the question could have been answered once for all."""
    network, x = with_statistics("vgg8", 7).eval(), drawn(2, 3, size, size, seed=2)
    with torch.no_grad():
        expected = plain_vgg(Plain(network), x)
        for found in (network(x), freeze(network, image_size=size)(x)):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize(
    "name",
    ["resnet8", "represnet20", "wrn_16_2", "shufflenetv1", "shufflenetv2", "resnet18", "vgg8", "mobilenetv2"],
)
def test_taps_are_what_they_promise(name):
    """Maps of one pass, none an alias, before and after ReLU; every parameter is reached, every BatchNorm ran once."""
    network = with_statistics(name, 5).train()
    taps = network.taps(drawn(2, 3, 32, 32, seed=2))
    pairs = [*zip(taps.stages_pre, taps.stages, strict=True)]
    assert all(pre.min() < 0 for pre, _ in pairs)
    last = pairs[-1][name.startswith("wrn") - 1]
    if name == "mobilenetv2":  # linear bottlenecks: the maps before ReLU are the stages' own
        assert all(pre is post for pre, post in pairs)
    elif name == "shufflenetv2":  # the untouched half passed its ReLU earlier; shuffled after the tap
        assert all(torch.equal(naive_shuffle(pre.relu(), 2), post) for pre, post in pairs)
        assert all(pre[:, : pre.shape[1] // 2].min() >= 0 for pre, _ in pairs)
    else:
        torch.testing.assert_close(taps.pooled, last.relu().mean((2, 3)))
        if name.startswith("wrn"):
            assert all(post.min() < 0 for _, post in pairs)
        else:
            assert all(torch.equal(pre.relu(), post) for pre, post in pairs)
    maps = taps.tensors()
    if name == "mobilenetv2":
        maps = (taps.stem, *taps.stages, taps.pooled, taps.logits)
    assert len({m.untyped_storage().data_ptr() for m in maps}) == len(maps)
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}
