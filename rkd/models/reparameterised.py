"""Students of KDrefine: the plain networks with `BranchedConv` in place of their convolutions and BatchNorms.

Projections of the ResNets and the 1x1 convolutions of ShuffleNetV1 are ordinary ones and keep their BatchNorm when
deployed; the 1x1 convolutions of MobileNetV2 are merged with theirs.

KDrefine reports WRN-16-2 and WRN-40-1 but publishes no code for them; these two are our own construction. Every 3x3
convolution is a sum of branches, each with a BatchNorm after its convolution. These replace the BatchNorm between the
two convolutions of a block, as in the other networks. The BatchNorm at the beginning of a block stays, since it follows
an addition; so the stem and a block's second convolution, which no BatchNorm follows in the plain network, gain the
BatchNorms of their branches.
"""

from functools import partial

from rkd.models.mobilenetv2 import MobileNetV2
from rkd.models.registry import register
from rkd.models.reparam import branched, merged
from rkd.models.resnet import WIDTHS_X4, cifar_resnet
from rkd.models.shufflenetv1 import ShuffleNetV1
from rkd.models.vgg import CONVOLUTIONS, VGG
from rkd.models.wrn import WideResNet

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
