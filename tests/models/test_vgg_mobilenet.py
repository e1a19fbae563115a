"""VGG, MobileNetV2 and the ResNets with a 7x7 stem: forwards written out, taps, checkpoints of the other codes."""

import pytest
import torch
from torch.nn import functional as F

from rkd import models
from rkd.models.frozen import freeze

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
# in, out, expansion, stride of every block of MobileNetV2 at half width, stage by stage
BLOCKS = [
    [(16, 8, 1, 1)],
    [(8, 12, 6, 1), (12, 12, 6, 1)],
    [(12, 16, 6, 2), (16, 16, 6, 1), (16, 16, 6, 1)],
    [(16, 32, 6, 2), (32, 32, 6, 1), (32, 32, 6, 1), (32, 32, 6, 1)],
    [(32, 48, 6, 1), (48, 48, 6, 1), (48, 48, 6, 1)],
    [(48, 80, 6, 2), (80, 80, 6, 1), (80, 80, 6, 1)],
    [(80, 160, 6, 1)],
]


def norm(prefix, channels):
    shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{prefix}.{part}": shape for part, shape in {**shapes, "num_batches_tracked": ()}.items()}


def vgg_shapes(depth, classes):
    """Names and shapes of a RepDistiller or mdistiller checkpoint, from their naming rule."""
    shapes, n_in = {}, 3
    for block, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS[depth], strict=True)):
        for i in range(count):
            shapes[f"block{block}.{3 * i}.weight"] = (width, n_in, 3, 3)
            shapes[f"block{block}.{3 * i}.bias"] = (width,)
            shapes |= norm(f"block{block}.{3 * i + 1}", width)
            n_in = width
    return {**shapes, "classifier.weight": (classes, 512), "classifier.bias": (classes,)}


def mobilenet_shapes(classes):
    shapes = {"conv1.0.weight": (16, 3, 3, 3), **norm("conv1.1", 16)}
    for stage, blocks in enumerate(BLOCKS):
        for i, (n_in, n_out, expansion, _) in enumerate(blocks):
            key, mid = f"blocks.{stage}.{i}.conv", n_in * expansion
            shapes |= {f"{key}.0.weight": (mid, n_in, 1, 1), **norm(f"{key}.1", mid)}
            shapes |= {f"{key}.3.weight": (mid, 1, 3, 3), **norm(f"{key}.4", mid)}
            shapes |= {f"{key}.6.weight": (n_out, mid, 1, 1), **norm(f"{key}.7", n_out)}
    shapes |= {"conv2.0.weight": (1280, 160, 1, 1), **norm("conv2.1", 1280)}
    return {**shapes, "classifier.0.weight": (classes, 1280), "classifier.0.bias": (classes,)}


def resnet_7x7_shapes(classes):
    shapes, n_in = {"conv1.weight": (16, 3, 7, 7), **norm("bn1", 16)}, 16
    for stage, width in enumerate((16, 32, 64), 1):
        for i in range(3):
            key = f"layer{stage}.{i}"
            shapes |= {f"{key}.conv1.weight": (width, n_in, 3, 3), **norm(f"{key}.bn1", width)}
            shapes |= {f"{key}.conv2.weight": (width, width, 3, 3), **norm(f"{key}.bn2", width)}
            if n_in != width:
                shapes[f"{key}.downsample.0.weight"] = (width, n_in, 1, 1)
                shapes |= norm(f"{key}.downsample.1", width)
            n_in = width
    return {**shapes, "fc.weight": (classes, 64), "fc.bias": (classes,)}


def made_by_hand(shapes):
    """Random float64 weights, small enough for maps to stay of order one."""
    draw = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(5)
        elif key.endswith("running_var"):
            state[key] = torch.rand(shape, generator=draw, dtype=torch.float64) + 0.5
        else:
            fan = max(1, torch.Size(shape[1:]).numel())
            state[key] = torch.randn(shape, generator=draw, dtype=torch.float64) * (2 / fan) ** 0.5
    return state


def images(size=32):
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def bn(state, key, x):
    mean, var, weight, bias = (
        state[f"{key}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def plain_vgg(state, x, convolutions):
    """Maps after each block's last ReLU, before it, and logits."""
    large = x.shape[2] == 64
    before, after = [], []
    for block, count in enumerate(convolutions):
        if block in (1, 2, 3) or (block == 4 and large):
            x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
        for i in range(count):
            weight, bias = (state[f"block{block}.{3 * i}.{part}"] for part in ("weight", "bias"))
            pre = bn(state, f"block{block}.{3 * i + 1}", F.conv2d(x, weight, bias, padding=1))
            x = pre.clamp(min=0)
        before.append(pre)
        after.append(x)
    return after, before, x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


def plain_mobilenet(state, x):
    """Maps after stages 2, 3, 5 and 7, and logits."""
    x = stem = bn(state, "conv1.1", F.conv2d(x, state["conv1.0.weight"], stride=2, padding=1)).clamp(min=0)
    maps = []
    for stage, blocks in enumerate(BLOCKS):
        for i, (n_in, n_out, _, stride) in enumerate(blocks):
            key = f"blocks.{stage}.{i}.conv"
            y = bn(state, f"{key}.1", F.conv2d(x, state[f"{key}.0.weight"])).clamp(min=0)
            y = F.conv2d(y, state[f"{key}.3.weight"], stride=stride, padding=1, groups=y.shape[1])
            y = bn(state, f"{key}.4", y).clamp(min=0)
            y = bn(state, f"{key}.7", F.conv2d(y, state[f"{key}.6.weight"]))
            x = x + y if n_in == n_out and stride == 1 else y
        maps.append(x)
    x = bn(state, "conv2.1", F.conv2d(x, state["conv2.0.weight"])).clamp(min=0).mean((2, 3))
    logits = x @ state["classifier.0.weight"].T + state["classifier.0.bias"]
    return stem, [maps[i] for i in (1, 2, 4, 6)], logits


def loaded(name, state, tmp_path, wrap):
    torch.save(wrap(state), tmp_path / "weights.pth")
    network = models.build(name, 7).double()
    models.load_weights(network, tmp_path / "weights.pth")
    return network.eval()


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("depth", "entries", "size"), [(8, 37, 32), (8, 37, 64), (8, 37, 48), (13, 72, 64), (19, 114, 32)]
)
def test_vgg_of_repdistiller(depth, entries, size, tmp_path):
    state = made_by_hand(vgg_shapes(depth, 7))
    assert len(state) == entries
    network = loaded(f"vgg{depth}", state, tmp_path, lambda s: {"epoch": 240, "model": s})
    with torch.no_grad():
        taps = network.taps(images(size))
        after, before, logits = plain_vgg(state, images(size), CONVOLUTIONS[depth])
        frozen = freeze(network)(images(size))
    for ours, expected in zip((taps.stem, *taps.stages), after, strict=True):
        close(ours, expected)
    for ours, expected in zip(taps.stages_pre, before[1:], strict=True):
        close(ours, expected)
    close(taps.pooled, after[-1].mean((2, 3)))
    close(taps.logits, logits)
    close(frozen, logits)  # the question for the size is asked anew of every batch


def test_mobilenet_of_repdistiller(tmp_path):
    state = made_by_hand(mobilenet_shapes(7))
    assert len(state) == 320
    prefixed = {f"module.{key}": value for key, value in state.items()}
    network = loaded("MobileNetV2", prefixed, tmp_path, lambda s: {"model": s, "best_acc": 64.6})
    with torch.no_grad():
        taps = network.taps(images())
        stem, stages, logits = plain_mobilenet(state, images())
    close(taps.stem, stem)
    for ours, pre, expected in zip(taps.stages, taps.stages_pre, stages, strict=True):
        assert ours is pre and ours.min() < 0
        close(ours, expected)
    close(taps.logits, logits)


def test_resnet_of_hankyul2(tmp_path):
    state = made_by_hand(resnet_7x7_shapes(7))
    assert len(state) == 128
    network = loaded("resnet_32_20", state, tmp_path, lambda s: {"weight": s, "top1_acc": 67.6})
    with torch.no_grad():
        taps = network.taps(images())
        stem = bn(state, "bn1", F.conv2d(images(), state["conv1.weight"], padding=1)).clamp(min=0)
        x = stem
        for stage in (1, 2, 3):
            for i in range(3):
                key, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                y = F.conv2d(x, state[f"{key}.conv1.weight"], stride=stride, padding=1)
                y = F.conv2d(bn(state, f"{key}.bn1", y).clamp(min=0), state[f"{key}.conv2.weight"], padding=1)
                if stride == 2:
                    x = F.conv2d(x, state[f"{key}.downsample.0.weight"], stride=2)
                    x = bn(state, f"{key}.downsample.1", x)
                x = (bn(state, f"{key}.bn2", y) + x).clamp(min=0)
    assert tuple(stem.shape[1:]) == (16, 28, 28) and tuple(x.shape[1:]) == (64, 7, 7)
    close(taps.stem, stem)
    close(taps.stages[-1], x)
    close(taps.logits, x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"])


def test_the_linear_layer_of_7x7_networks_starts_xavier_uniform():
    torch.manual_seed(0)
    weight = models.build("resnet20_7x7", 100).fc.weight
    bound = (6 / (64 + 100)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2", "resnet20_7x7"])
@pytest.mark.parametrize("train", [True, False])
def test_maps_before_relu_are_not_overwritten(name, train):
    torch.manual_seed(1)
    network = models.build(name, 5).double().train(train)
    taps = network.taps(images())
    for pre, post in zip(taps.stages_pre, taps.stages, strict=True):
        assert pre.min() < 0
        if name != "mobilenetv2":
            assert torch.equal(pre.relu(), post)
    maps = [taps.stem, *taps.stages, *taps.stages_pre, taps.pooled, taps.logits]
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    counts = {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert counts == {int(train)}


@pytest.mark.parametrize(
    ("spelling", "name", "display"),
    [
        ("VGG13", "vgg13", "VGG-13"),
        ("MobileNetV2", "mobilenetv2", "MobileNetV2"),
        ("mobile_half", "mobilenetv2", "MobileNetV2"),
        ("resnet_32_110", "resnet110_7x7", "ResNet-110-7x7"),
        ("ResNet20-7x7", "resnet20_7x7", "ResNet-20-7x7"),
    ],
)
def test_spellings(spelling, name, display):
    assert (models.canonical(spelling), models.display_name(spelling)) == (name, display)
