"""Reparameterised networks: sizes, branches by naive loops, merging, deploy forms by name."""

import copy

import pytest
import torch
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.models.frozen import freeze
from rkd.models.reparam import BranchedConv
from rkd.models.reparameterised import NETWORKS

# Parameters at 100 classes in training and deployed, as KDrefine's code has them
SIZES = {
    "represnet20": (997_684, 277_636),
    "represnet32": (1_711_796, 471_620),
    "represnet8x4": (4_339_844, 1_232_612),
    "repvgg8": (14_400_164, 3_962_084),
    "repmobilenetv2": (928_292, 803_652),
    "repshufflenetv1": (1_012_426, 947_284),
}
PLAIN = {name: name.removeprefix("rep") for name in NETWORKS}
SMALL = ["represnet20", "repmobilenetv2", "repshufflenetv1"]


def randomised(network):
    """In float64 and eval mode, all BatchNorms different; the merged kernels of one block have variances near 1."""
    draw = torch.Generator().manual_seed(4)
    network = network.double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 2, generator=draw)
                module.weight.uniform_(0.2, 0.6, generator=draw)
                module.bias.normal_(0, 0.1, generator=draw)
    return network


def images(count=2, channels=3, size=32):
    draw = torch.Generator().manual_seed(2)
    return torch.randn(count, channels, size, size, dtype=torch.float64, generator=draw)


def test_every_reparameterised_network_is_tested():
    assert list(NETWORKS) == models.groups()["reparameterised"]
    assert set(NETWORKS) - set(SIZES) == {"repwrn_16_2", "repwrn_40_1"}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    network = models.build(name, 100)
    assert models.parameter_count(network) == SIZES[name][0]
    assert models.parameter_count(models.deploy(network)) == SIZES[name][1]


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_and_maps_of_the_deploy_form_are_those_of_the_plain_network(name):
    deployed, plain = models.build(f"{name}_deploy"), models.build(PLAIN[name])
    assert models.macs(deployed) == models.macs(plain)
    trained = models.build(name)
    assert models.macs(trained) > models.macs(plain)
    assert models.tap_shapes(trained) == models.tap_shapes(deployed) == models.tap_shapes(plain)


@pytest.mark.parametrize("name", NETWORKS)
def test_merging_is_exact_in_float64(name):
    network = randomised(models.build(name, 7))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    deployed, frozen = models.deploy(network), freeze(network)
    with torch.no_grad():
        expected, merged, folded = network.taps(images()), deployed.taps(images()), frozen.taps(images())
    for ours in (merged, folded):
        for found, wanted in zip(ours.tensors(), expected.tensors(), strict=True):
            assert wanted.std() > 1e-3  # else the bound says nothing
            assert (found - wanted).abs().max() < 1e-10 * max(1, wanted.abs().max())
    assert not models.is_reparameterised(deployed) and frozen.folded >= 5
    assert models.is_reparameterised(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert deployed.state_dict().keys() == models.build(f"{name}_deploy", 7).state_dict().keys()


def naive_branch(x, weight, stride, groups, padding):
    """One output at a time."""
    batch, _, height, width = x.shape
    n_out, per_group, tall, wide = weight.shape
    pad_y, pad_x = padding
    rows = (height + 2 * pad_y - tall) // stride + 1
    columns = (width + 2 * pad_x - wide) // stride + 1
    out = x.new_zeros(batch, n_out, rows, columns)
    for b in range(batch):
        for o in range(n_out):
            first = o // (n_out // groups) * per_group
            for i in range(rows):
                for j in range(columns):
                    for dy in range(tall):
                        for dx in range(wide):
                            y, z = i * stride + dy - pad_y, j * stride + dx - pad_x
                            if 0 <= y < height and 0 <= z < width:
                                window = x[b, first : first + per_group, y, z]
                                out[b, o, i, j] += (weight[o, :, dy, dx] * window).sum()
    return out


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 2), (5, 2, 1), (1, 2, 1)])
def test_the_block_against_naive_loops(kernel, stride, groups):
    torch.manual_seed(5)
    block = randomised(BranchedConv(2, 4, kernel, stride, groups))
    x = images(1, 2, 6)
    half = kernel // 2
    forms = [(kernel, kernel, half, half)] * 3 + [(kernel, 1, half, 0), (1, kernel, 0, half)]
    forms = forms if kernel > 1 else [(1, 1, 0, 0)]
    expected = 0
    state = block.state_dict()
    for i, (tall, wide, pad_y, pad_x) in enumerate(forms):
        weight = state[f"branches.{i}.0.weight"]
        assert tuple(weight.shape[2:]) == (tall, wide)
        y = naive_branch(x, weight, stride, groups, (pad_y, pad_x))
        mean, var, gain, shift = (
            state[f"branches.{i}.1.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        expected = expected + (y - mean) / (var + 1e-5).sqrt() * gain + shift
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(block.merged()(x), expected, rtol=1e-12, atol=1e-12)
    assert sum(isinstance(m, nn.Conv2d) for m in block.modules()) == len(forms)


def test_merged_weights_are_rounded_once():
    torch.manual_seed(6)
    block = randomised(BranchedConv(3, 8)).float()
    exact = copy.deepcopy(block).double().merged()
    single = block.merged()
    assert single.weight.dtype == torch.float32
    assert torch.equal(single.weight, exact.weight.float()) and torch.equal(single.bias, exact.bias.float())


@pytest.mark.parametrize("name", SMALL)
def test_branches_learn_and_gradients_reach_them(name):
    torch.manual_seed(0)
    network = models.build(name, 5).train()
    taps = network.taps(images(4).float())
    sum(m.square().mean() for m in taps.tensors()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    counts = {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {1}


@pytest.mark.parametrize("name", SMALL)
def test_batch_statistics_are_not_merged_by_freezing(name):
    network = randomised(models.build(name, 5)).train()
    frozen = freeze(network)
    kinds = [nn.Conv2d, nn.BatchNorm2d]
    ours, expected = ([sum(type(m) is k for m in net.modules()) for k in kinds] for net in (frozen, network))
    assert frozen.folded == 0 and ours == expected
    with torch.no_grad():
        torch.testing.assert_close(
            frozen.taps(images(4)).logits, network.taps(images(4)).logits, rtol=1e-9, atol=1e-9
        )


def test_deploying_is_for_reparameterised_networks():
    with pytest.raises(ConfigError, match="ResNet is not reparameterised: none of its convolutions"):
        models.deploy(models.build("resnet8"))
    trained = models.build("represnet20").train()
    assert not models.deploy(trained).training and trained.training


def test_plain_networks_have_no_deploy_form():
    for name in ("resnet20_deploy", "wrn_22_4 deploy", "nonesuch_deploy"):
        with pytest.raises(ConfigError, match=r"unknown model .*allowed: .*represnet20_deploy"):
            models.build(name)
    for name in ("resnet20", "own.module:function"):
        with pytest.raises(ConfigError, match=r"unknown deploy form .*allowed: .*represnet20_deploy"):
            models.deploy_name(name)
    assert models.deploy_name("RepVGG8") == "repvgg8_deploy"
    assert not [name for name in models.names() if name.endswith("_deploy")]
