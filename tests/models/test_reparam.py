"""Reparameterised networks: sizes, branches by naive loops, merging, deploy forms by name."""

import copy

import pytest
import torch
from conftest import with_statistics
from naive import drawn
from torch import nn
from torch.nn import functional as F

from rkd import models
from rkd.errors import ConfigError
from rkd.models.reparam import NETWORKS, BranchedConv

PLAIN = {name: name.removeprefix("rep") for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_merging_is_exact_in_float64(name):
    """The deploy form has the sizes and the maps of the plain network, and computes what the trained one does."""
    plain, network = models.build(PLAIN[name], 7), with_statistics(name, 7)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    deployed, built = models.deploy(network), models.build(f"{name}_deploy", 7)
    with torch.no_grad():
        expected, merged = (net.taps(drawn(2, 3, 32, 32, seed=2)) for net in (network, deployed))
    for found, wanted in zip(merged.tensors(), expected.tensors(), strict=True):
        assert wanted.std() > 1e-3  # else the bound says nothing
        assert (found - wanted).abs().max() < 1e-10 * max(1, wanted.abs().max())
    assert not models.is_reparameterised(deployed) and models.is_reparameterised(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert deployed.state_dict().keys() == built.state_dict().keys()
    assert models.macs(deployed) == models.macs(plain) < models.macs(network)
    assert models.tap_shapes(network) == models.tap_shapes(deployed) == models.tap_shapes(plain)


def naive_convolution(x, weight, stride, groups, padding):
    """One output at a time."""
    tall, wide = weight.shape[2:]
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (x.shape[2] - tall) // stride + 1, (x.shape[3] - wide) // stride + 1
    out = x.new_zeros(len(x), len(weight), rows, columns)
    for o, kernel in enumerate(weight):
        first = o // (len(weight) // groups) * weight.shape[1]
        for i in range(rows):
            for j in range(columns):
                window = x[:, first:, i * stride :, j * stride :][:, : weight.shape[1], :tall, :wide]
                out[:, o, i, j] = (kernel * window).sum((1, 2, 3))
    return out


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 2), (5, 2, 1), (1, 2, 1)])
def test_the_block_against_naive_loops(kernel, stride, groups):
    torch.manual_seed(5)
    block, half = BranchedConv(2, 4, kernel, stride, groups).double().eval(), kernel // 2
    x = drawn(1, 2, 6, 6, seed=2)
    forms = [(kernel, kernel, half, half)] * 3 + [(kernel, 1, half, 0), (1, kernel, 0, half)]
    forms, expected = forms if kernel > 1 else [(1, 1, 0, 0)], 0.0
    for (conv, norm), (tall, wide, *padding) in zip(block.branches, forms, strict=True):
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        for tensor in tensors:
            nn.init.uniform_(tensor, 0.5, 1.5)
        assert tuple(conv.weight.shape[2:]) == (tall, wide)
        y = naive_convolution(x, conv.weight, stride, groups, padding)
        mean, var, gain, shift = (tensor[:, None, None] for tensor in tensors)
        expected = expected + (y - mean) / (var + 1e-5).sqrt() * gain + shift
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(block.merged()(x), expected, rtol=1e-12, atol=1e-12)


def test_merged_weights_are_rounded_once():
    torch.manual_seed(6)
    block = BranchedConv(3, 8).eval()
    for _, norm in block.branches:
        nn.init.uniform_(norm.running_var, 0.5, 2)
    exact = copy.deepcopy(block).double().merged()
    single = block.merged()
    assert single.weight.dtype == torch.float32
    assert torch.equal(single.weight, exact.weight.float()) and torch.equal(single.bias, exact.bias.float())


def test_deploying_is_for_reparameterised_networks():
    with pytest.raises(ConfigError, match="ResNet is not reparameterised: none of its convolutions"):
        models.deploy(models.build("resnet8"))
    trained = models.build("represnet20").train()
    assert not models.deploy(trained).training and trained.training


def test_plain_networks_have_no_deploy_form():
    for name in ("resnet20_deploy", "wrn_22_4 deploy", "nonesuch_deploy"):
        with pytest.raises(ConfigError, match=r"unknown model .*allowed: .*represnet20_deploy"):
            models.build(name)
    assert models.deploy_name("RepVGG8") == "repvgg8_deploy"
    assert not [name for name in models.names() if name.endswith("_deploy")]
