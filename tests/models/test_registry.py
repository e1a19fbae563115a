"""Names, spellings and networks of one's own."""

import pytest

from rkd import models, trust
from rkd.errors import ConfigError
from rkd.models import registry


@pytest.mark.parametrize(
    ("spelling", "name", "display"),
    [
        ("resnet20", "resnet20", "ResNet-20"),
        ("ResNet-8×4", "resnet8x4", "ResNet-8x4"),
        ("WRN40-2", "wrn_40_2", "WRN-40-2"),
        ("WRN 16 1", "wrn_16_1", "WRN-16-1"),
        ("WideResNet-22-4", "wrn_22_4", "WRN-22-4"),
        ("ShuffleV1", "shufflenetv1", "ShuffleNetV1"),
        ("shuffle_v2", "shufflenetv2", "ShuffleNetV2"),
        ("mobile_half", "mobilenetv2", "MobileNetV2"),
        ("resnet_32_110", "resnet110_7x7", "ResNet-110-7x7"),
        ("RepResNet-8x4", "represnet8x4", "RepResNet-8x4"),
        ("repshufflev1_deploy", "repshufflenetv1_deploy", "RepShuffleNetV1 deploy"),
        ("RepWRN-16-2 deploy", "repwrn_16_2_deploy", "RepWRN-16-2 deploy"),
        ("own.module:function", "own.module:function", "own.module:function"),
    ],
)
def test_spellings(spelling, name, display):
    assert models.canonical(spelling) == name
    assert models.display_name(spelling) == display


def test_every_name_is_its_own_canonical_form():
    assert all(models.canonical(name) == name for name in models.names())
    assert all(models.canonical(models.display_name(name)) == name for name in models.names())


def test_members_of_the_wrn_family():
    """16 -> 64 -> 128 -> 256 channels, three blocks a group, counted by hand."""
    network, convs, norms = models.build("WRN-22-4", 10), 3 * 16 * 9, 2 * 256
    for n_in, n_out in ((16, 64), (64, 128), (128, 256)):
        convs += 9 * (n_in * n_out + 5 * n_out * n_out) + n_in * n_out
        norms += 2 * (n_in + 5 * n_out)
    assert models.parameter_count(network) == convs + norms + 256 * 10 + 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrn_17_2", "depth must be 6n.4 .* not 17"),
        ("wrn_4_2", "depth must be 6n.4 .* not 4"),
        ("wrn_16_0", "at least 1, not 0"),
        ("wrn402", "unknown model 'wrn402' .did you mean 'wrn_40_2'.*wrn_<depth>_<width>"),
        ("resnet21", "unknown model 'resnet21'.*allowed: .*resnet20"),
        ("", "unknown model ''"),
        (None, "unknown model None"),
    ],
)
def test_refused_names(name, said):
    with pytest.raises(ConfigError, match=said) as caught:
        models.canonical(name)
    assert "\n" not in str(caught.value)


def test_refused_class_counts():
    with pytest.raises(ConfigError, match=r"num_classes is '10'; it must be a whole number >= 1"):
        models.build("resnet8", "10")


def test_register_an_own_network(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @models.register("My-Net", aliases=["mine"])
    def my_net(num_classes):
        return models.build("resnet8", num_classes)

    assert "My-Net" in models.names()
    assert models.canonical("my net") == models.canonical("mine") == "My-Net"
    assert models.display_name("mine") == "My-Net"
    assert models.build("mine", 3).fc.out_features == 3


def test_network_by_import(tmp_path, monkeypatch):
    """Of a module in the folder where the user stands, once its name is vouched for; whatever it does, one sentence."""
    (tmp_path / "own_networks_for_test.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom torch import nn\nfrom rkd import models\n"
        "def good(num_classes):\n    return models.build('resnet8', num_classes)\n"
        "def bare(num_classes):\n    return nn.Linear(3, num_classes)\n"
        "def none(num_classes): pass\n"
        "def noarg(): pass\n"
        "def fails(num_classes):\n    raise KeyError('of its own')\n"
        "def leaves(num_classes):\n    raise SystemExit(0)\n"
        "value = 3\n"
    )
    (tmp_path / "broken_module_for_test.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rkd.trust._TRUSTED", set())
    own = "own_networks_for_test"
    with pytest.raises(ConfigError, match=f"'{own}:good' is code from elsewhere, .* --trust {own}:good"):
        models.build(f"{own}:good", 4)
    trust.note_origin([f"{own}:good"], "x.pt")
    with pytest.raises(ConfigError, match=f"'{own}:good', named by x.pt, is code from elsewhere"):
        models.build(f"{own}:good", 4)
    assert not (tmp_path / "ran").exists()
    models.trust([f"{own}:good"])
    assert models.build(f"{own}:good", 4).fc.out_features == 4
    for name, said in (
        (f"{own}:bare", "is a Linear, not a network with a taps"),
        (f"{own}:none", "is None, not a network"),
        (f"{own}:noarg", "takes 0 positional arguments but 1 was given$"),
        (f"{own}:fails", r"KeyError: 'of its own' \(.*own_networks_for_test.py, line 12\)"),
        (f"{own}:leaves", "SystemExit: 0"),
        (f"{own}:value", "names a int, not a function"),
        (f"{own}:absent", "cannot be imported: AttributeError: module .* has no attribute 'absent'"),
        ("no_such_package_at_all:f", f"No module named .*in this folder, {tmp_path}, and .* of PYTHONPATH"),
        ("broken_module_for_test:f", "cannot be imported: ZeroDivisionError: division by zero$"),
        ("os:_exit", "is of Python's own library"),
    ):
        models.trust([name])
        with pytest.raises(ConfigError, match=said) as caught:
            models.build(name)
        assert "\n" not in str(caught.value)


def test_only_whole_names_are_code():
    nested = {"student": "a:b", "pairs": [["c.d:e", "resnet8"]], "method": "at+f:g"}
    nested |= {"x": 1, "y": "C:\\z", "z": "a:b:c"}
    assert trust.foreign_in(nested) == {"a:b", "c.d:e", "f:g"}
    for name in (":f", "a:", "a b:c", "<b>:c", "a::b", "a:b.c"):
        with pytest.raises(ConfigError, match="unknown model"):
            models.canonical(name)
        with pytest.raises(ConfigError, match="must name functions"):
            models.trust([name])
