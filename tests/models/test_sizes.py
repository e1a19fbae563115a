"""Sizes and tap shapes of every built-in network (RepDistiller's definitions)."""

import csv
import subprocess
import sys
from importlib import resources

import pytest
import torch

from rkd import models
from rkd.models.taps import TapShapes

# Parameters at 100 classes, as RepDistiller's definitions have them
PARAMETERS = {
    "resnet20": 278_324, "resnet110": 1_736_564, "resnet32x4": 7_433_860, "wrn_16_2": 703_284, "wrn_40_1": 569_780,
    "vgg8": 3_965_028, "vgg13": 9_462_180, "mobilenetv2": 812_836, "shufflenetv1": 949_258, "shufflenetv2": 1_355_528,
    "resnet18": 11_220_132, "resnet50": 23_705_252, "resnet20_7x7": 280_244,
    "resnet20_a": 275_572,
}  # fmt: skip
# The same in training and deployed, as KDrefine's code has them
REPARAMETERISED = {
    "represnet20": (997_684, 277_636), "represnet32": (1_711_796, 471_620), "represnet8x4": (4_339_844, 1_232_612),
    "repvgg8": (14_400_164, 3_962_084), "repmobilenetv2": (928_292, 803_652), "repshufflenetv1": (1_012_426, 947_284),
}  # fmt: skip

# stem, stages, pooled channels
SHAPES = {
    **{
        f"resnet{depth}": ((16, 32, 32), ((16, 32, 32), (32, 16, 16), (64, 8, 8)), 64)
        for depth in (8, 14, 20, 32, 44, 56, 110, "20_a", "32_a", "44_a", "56_a", "110_a")
    },
    **{
        f"resnet{depth}x4": ((32, 32, 32), ((64, 32, 32), (128, 16, 16), (256, 8, 8)), 256)
        for depth in (8, 32)
    },
    **{
        f"wrn_{depth}_{k}": ((16, 32, 32), ((16 * k, 32, 32), (32 * k, 16, 16), (64 * k, 8, 8)), 64 * k)
        for depth in (16, 40)
        for k in (1, 2)
    },
    **{
        f"resnet{depth}_7x7": ((16, 28, 28), ((16, 28, 28), (32, 14, 14), (64, 7, 7)), 64)
        for depth in (20, 110)
    },
    **{
        f"vgg{depth}": ((64, 32, 32), ((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)), 512)
        for depth in (8, 11, 13, 16, 19)
    },
    "mobilenetv2": ((16, 16, 16), ((12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)), 1280),
    "shufflenetv1": ((24, 32, 32), ((240, 16, 16), (480, 8, 8), (960, 4, 4)), 960),
    "shufflenetv2": ((24, 32, 32), ((116, 16, 16), (232, 8, 8), (464, 4, 4)), 1024),
    "resnet18": ((64, 32, 32), ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)), 512),
    "resnet34": ((64, 32, 32), ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)), 512),
    "resnet50": ((64, 32, 32), ((256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)), 2048),
}


KEPT = {r["name"]: r for r in csv.DictReader(resources.files("rkd").joinpath("models/sizes.csv").open())}


def test_every_network_is_measured():
    listed = {name: group for group, names in models.groups().items() if group != "own" for name in names}
    assert {name: row["group"] for name, row in KEPT.items()} == listed
    for name, counts in ({n: (count,) for n, count in PARAMETERS.items()} | REPARAMETERISED).items():
        for column, count in zip(("parameters", "merged_parameters"), counts, strict=False):
            assert int(KEPT[name][column]) + 100 * (int(KEPT[name]["width"]) + 1) == count


@pytest.mark.parametrize("name", KEPT)
def test_sizes_and_shapes(name):
    """The file, which `rkd models` lists without importing torch, holds parameters and multiply-adds without the
    classifier."""
    forms = {"": name} | ({"merged_": models.deploy_name(name)} if name.startswith("rep") else {})
    kept = {column: KEPT[name][column] for column in ("group", "name", "width")}
    row = dict.fromkeys(KEPT[name], "") | kept
    pooled = int(row["width"])
    for form, network in forms.items():
        with torch.device("meta"):
            net = models.build(network, 10)
        row[f"{form}parameters"] = str(models.parameter_count(net) - 10 * (pooled + 1))
        row[f"{form}multiply_adds"] = str(models.macs(net) - 10 * pooled)
    assert row == KEPT[name]
    shapes = models.tap_shapes(net)
    if name.startswith("torchvision"):  # halved by the stem, its pooling, and each stage
        assert [size for _, _, size in (shapes.stem, *shapes.stages)] == [16, 8, 4, 2, 1]
        stem, stages = shapes.stem, shapes.stages
    else:
        stem, stages, pooled = SHAPES[name.removeprefix("rep")]
    assert shapes == TapShapes(stem, stages, stages, pooled, 10)


def test_the_list_does_without_torch():
    call = "import sys; from rkd.cli import main; main(['models', '--classes', '10']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    net = models.build("represnet20", 10)
    assert out.endswith("False\n") and f"{models.parameter_count(net):,}" in out
    assert f"merged:{models.parameter_count(models.deploy(net)):>12,}" in out


def test_macs_by_hand():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 25, 7),
    )
    assert models.macs(network, size=9, channels=4) == 5 * 5 * 8 * 2 * 9 + 8 * 25 * 7
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "vgg8", "mobilenetv2", "repvgg8", "resnet20_7x7"])
def test_initial_spread(name):
    """All rules make it normal with deviation sqrt(2 / (k^2 out_channels)); BN starts as the identity. The linear layer
    of 7x7 networks starts Xavier-uniform."""
    torch.manual_seed(0)
    network = models.build(name)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 5000:
            height, width = module.kernel_size
            expected = (2 / (height * width * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif name == "vgg8" and getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all()
    if name.startswith("wrn"):
        assert (network.fc.bias == 0).all()
    if name == "vgg8":
        assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    if name.endswith("7x7"):
        bound = (6 / (64 + 100)) ** 0.5
        assert network.fc.weight.abs().max() <= bound
        assert network.fc.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_dry_forward_leaves_everything_as_it_was():
    network = models.build("wrn_16_1", 10).train()
    network.block2.eval()
    flags = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    assert models.tap_shapes(network, size=64).stages == ((16, 64, 64), (32, 32, 32), (64, 16, 16))
    assert models.macs(network, size=64) > 3.9 * models.macs(network)
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
