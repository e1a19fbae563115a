"""Golden sizes and tap shapes of every built-in network (RepDistiller's definitions)."""

import pytest
import torch

from rkd import models

# name: parameters at 100 and at 10 classes, multiply-adds in millions at 100 classes, state-dict entries
SIZES = {
    "resnet8": (83_892, 78_042, 12.51, 56),
    "resnet14": (181_108, 175_258, 26.66, 92),
    "resnet20": (278_324, 272_474, 40.82, 128),
    "resnet32": (472_756, 466_906, 69.13, 200),
    "resnet44": (667_188, 661_338, 97.44, 272),
    "resnet56": (861_620, 855_770, 125.75, 344),
    "resnet110": (1_736_564, 1_730_714, 253.16, 668),
    "resnet8x4": (1_233_540, 1_210_410, 177.07, 62),
    "resnet32x4": (7_433_860, 7_410_730, 1083.04, 206),
    "wrn_16_1": (180_916, 175_066, 26.66, 82),
    "wrn_16_2": (703_284, 691_674, 101.12, 83),
    "wrn_40_1": (569_780, 563_930, 83.29, 226),
    "wrn_40_2": (2_255_156, 2_243_546, 327.61, 227),
    "vgg8": (3_965_028, 3_918_858, 96.19, 37),
    "vgg11": (9_277_284, 9_231_114, 209.44, 58),
    "vgg13": (9_462_180, 9_416_010, 284.94, 72),
    "vgg16": (14_774_436, 14_728_266, 398.18, 93),
    "vgg19": (20_086_692, 20_040_522, 511.43, 114),
    "mobilenetv2": (812_836, 697_546, 6.52, 320),
    "shufflenetv1": (949_258, 862_768, 38.69, 296),
    "shufflenetv2": (1_355_528, 1_263_278, 44.50, 338),
    "resnet18": (11_220_132, 11_173_962, 555.47, 122),
    "resnet34": (21_328_292, 21_282_122, 1159.45, 218),
    "resnet50": (23_705_252, 23_520_842, 1298.01, 320),
    # the 3x3 networks with 16 x 3 x 40 more weights in the stem, and maps of 28², 14² and 7² instead of 32², 16², 8²
    "resnet20_7x7": (280_244, 274_394, 32.76, 128),
    "resnet110_7x7": (1_738_484, 1_732_634, 195.33, 668),
}

# stem, stages, pooled channels
SHAPES = {
    **{
        f"resnet{depth}": ((16, 32, 32), ((16, 32, 32), (32, 16, 16), (64, 8, 8)), 64)
        for depth in (8, 14, 20, 32, 44, 56, 110)
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


def test_every_network_is_measured():
    assert set(SIZES) == set(SHAPES)
    assert set(SIZES) | set(models.groups()["reparameterised"]) == set(models.names())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_shapes(name):
    network = models.build(name, 100)
    at_100, at_10, million_macs, entries = SIZES[name]
    assert models.parameter_count(network) == at_100
    assert models.parameter_count(models.build(name, 10)) == at_10
    assert models.macs(network) / 1e6 == pytest.approx(million_macs, abs=0.005)

    assert len(network.state_dict()) == entries

    shapes = models.tap_shapes(network)
    stem, stages, pooled = SHAPES[name]
    assert (shapes.stem, shapes.stages, shapes.pooled, shapes.classes) == (stem, stages, pooled, 100)
    assert shapes.stages_pre == stages


def test_projections_stand_where_the_papers_put_them():
    """x4 nets change width already in stage 1; WRN with k = 1 does not."""
    state = models.build("resnet8x4").state_dict()
    assert [f"layer{i}.0.downsample.0.weight" in state for i in (1, 2, 3)] == [True, True, True]
    state = models.build("resnet20").state_dict()
    assert [f"layer{i}.0.downsample.0.weight" in state for i in (1, 2, 3)] == [False, True, True]
    state = models.build("wrn_16_1").state_dict()
    assert [f"block{i}.layer.0.convShortcut.weight" in state for i in (1, 2, 3)] == [False, True, True]
    assert models.build("wrn_16_2").block1.layer[0].convShortcut is not None


def test_other_image_sizes():
    shapes = models.tap_shapes(models.build("resnet20"), size=64)
    assert shapes.stages == ((16, 64, 64), (32, 32, 32), (64, 16, 16))
    assert models.macs(models.build("wrn_16_1", 10), size=64) > 3.9 * models.macs(
        models.build("wrn_16_1", 10)
    )


def test_macs_by_hand():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 25, 7),
    )
    assert models.macs(network, size=9, channels=4) == 5 * 5 * 8 * 2 * 9 + 8 * 25 * 7
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_1", "resnet18", "vgg8", "mobilenetv2", "repvgg8"])
def test_initial_spread(name):
    """All rules make it normal with deviation sqrt(2 / (k^2 out_channels)); BN starts as the identity."""
    torch.manual_seed(0)
    network = models.build(name)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 5000:
            height, width = module.kernel_size
            expected = (2 / (height * width * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    if name.startswith("wrn"):
        assert (network.fc.bias == 0).all()
    if name == "vgg8":
        assert all((module.bias == 0).all() for module in network.modules() if hasattr(module, "bias"))
        assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_dry_forward_leaves_everything_as_it_was():
    network = models.build("wrn_16_1", 10)
    network.train()
    network.block2.eval()
    flags = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    models.tap_shapes(network)
    models.macs(network)
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
