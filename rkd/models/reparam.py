"""Convolutions that are trained as a sum of branches and deployed as one, and KDrefine's students: the plain networks
with such a `BranchedConv` in place of their convolutions and BatchNorms.

A k x k convolution and its BatchNorm are replaced by five branches, each a convolution with its own BatchNorm: three of
k x k, one of k x 1 and one of 1 x k. With running statistics a branch is an affine map, and the sum of the five is one
convolution with bias: the kernels of the tall and the wide branch are added to the middle column and row of the square
ones.

Projections of the ResNets and the 1x1 convolutions of ShuffleNetV1 are ordinary ones and keep their BatchNorm when
deployed; the 1x1 convolutions of MobileNetV2 are merged with theirs.

KDrefine reports WRN-16-2 and WRN-40-1 but publishes no code for them; these two are our own construction. Every 3x3
convolution is a sum of branches, each with a BatchNorm after its convolution. These replace the BatchNorm between the
two convolutions of a block, as in the other networks. The BatchNorm at the beginning of a block stays, since it follows
an addition; so the stem and a block's second convolution, which no BatchNorm follows in the plain network, gain the
BatchNorms of their branches.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.models.layers import conv_bn
from rkd.models.mobilenetv2 import MobileNetV2
from rkd.models.registry import register
from rkd.models.resnet import WIDTHS_X4, cifar_resnet
from rkd.models.shufflenet import ShuffleNetV1
from rkd.models.vgg import CONVOLUTIONS, VGG
from rkd.models.wrn import WideResNet


class BranchedConv(nn.Module):
    """Sum of five convolutions with BatchNorm, or just one if the kernel is 1. The kernel is odd, since branches share
    a middle row and column; padding is half the kernel, so that only the stride changes the size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        shapes = [(kernel, kernel)] * 3 + [(kernel, 1), (1, kernel)] if kernel > 1 else [(1, 1)]
        self.kernel = kernel
        self.branches = nn.ModuleList(
            nn.Sequential(*conv_bn(in_channels, out_channels, shape, stride, groups)) for shape in shapes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        first, *rest = (branch(x) for branch in self.branches)
        return sum(rest, start=first)

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """Return the single convolution with bias that gives the same result with running statistics, computed in
        float64 and rounded once to the precision of the weights."""
        model = self.branches[0][0]
        kernel = torch.zeros_like(model.weight, dtype=torch.float64)
        bias = kernel.new_zeros(model.out_channels)
        for conv, bn in self.branches:
            scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
            height, width = conv.kernel_size
            top, left = (self.kernel - height) // 2, (self.kernel - width) // 2
            weight = conv.weight.double() * scale[:, None, None, None]
            kernel[:, :, top : top + height, left : left + width] += weight
            bias += bn.bias.double() - bn.running_mean.double() * scale
        sizes = model.in_channels, model.out_channels, self.kernel, model.stride, model.groups
        with torch.device("meta"):
            one, _ = conv_bn(*sizes, bias=True)
        one.weight = nn.Parameter(kernel.to(model.weight.dtype))
        one.bias = nn.Parameter(bias.to(model.weight.dtype))
        return one.train(self.training)


def branched(*sizes: int, **named: int) -> tuple[nn.Module, nn.Module]:
    """Return what replaces a `layers.conv_bn` of plain networks: a `BranchedConv`, which contains its BatchNorms."""
    return BranchedConv(*sizes, **named), nn.Identity()


def merged(*sizes: int, **named: int) -> tuple[nn.Module, nn.Module]:
    """Return what a `branched` convolution becomes once merged: one convolution with bias."""
    return conv_bn(*sizes, bias=True, **named)[0], nn.Identity()


def is_reparameterised(network: nn.Module) -> bool:
    """Whether any convolution of the network is a sum of branches."""
    return any(isinstance(module, BranchedConv) for module in network.modules())


def deploy(network: nn.Module) -> nn.Module:
    """Return a copy for inference, in eval mode, with its branches merged; it computes what `network` computes in eval
    mode. Raise ConfigError if there is nothing to merge."""
    copied = copy.deepcopy(network).eval()
    if not merge_branches(copied):
        kind = type(network).__name__
        raise ConfigError(f"{kind} is not reparameterised: none of its convolutions is a sum of branches")
    return copied


def merge_branches(network: nn.Module) -> int:
    """Replace the branches within `network` by single convolutions, wherever all their BatchNorms use running
    statistics; return how many BatchNorms were removed."""
    gone = 0
    for name, block in list(network.named_modules()):
        if isinstance(block, BranchedConv) and not any(bn.training for _, bn in block.branches):
            network.set_submodule(name, block.merged())
            gone += len(block.branches)
    return gone


NETWORKS = {
    "represnet20": ("RepResNet-20", partial(cifar_resnet, depth=20), ()),
    "represnet32": ("RepResNet-32", partial(cifar_resnet, depth=32), ()),
    "represnet8x4": ("RepResNet-8x4", partial(cifar_resnet, depth=8, widths=WIDTHS_X4), ()),
    "repwrn_16_2": ("RepWRN-16-2", partial(WideResNet, depth=16, width=2), ()),
    "repwrn_40_1": ("RepWRN-40-1", partial(WideResNet, depth=40, width=1), ()),
    "repvgg8": ("RepVGG-8", partial(VGG, convolutions=CONVOLUTIONS[8]), ()),
    "repmobilenetv2": ("RepMobileNetV2", MobileNetV2, ()),
    "repshufflenetv1": ("RepShuffleNetV1", ShuffleNetV1, ("repshufflev1",)),
}

for _name, (_display, _build, _aliases) in NETWORKS.items():
    _how = {"display": _display, "aliases": _aliases, "deployed": partial(_build, conv_bn=merged)}
    register(_name, group="reparameterised", **_how)(partial(_build, conv_bn=branched))
