"""ShuffleNetV1 with 3 groups for 32x32 images (Zhang et al. 2018, as used in RepDistiller and ReviewKD)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, StagedNet, shuffle_channels
from rkd.models.layers import conv_bn as plain
from rkd.models.registry import register

GROUPS = 3
STEM = 24


class Block(nn.Module):
    """Grouped 1x1, shuffle, depth-wise 3x3, grouped 1x1; returns its output before and after the final ReLU.

    With stride 2 the average-pooled input is concatenated with the branch instead of added to it.
    """

    def __init__(self, in_channels: int, branch_channels: int, stride: int, conv_bn: ConvBN) -> None:
        super().__init__()
        mid = branch_channels // 4
        self.stride = stride
        # The stem's 24 channels are too few to be grouped, so that there is nothing to shuffle either.
        self.groups = 1 if in_channels == STEM else GROUPS
        self.conv1, self.bn1 = plain(in_channels, mid, 1, groups=self.groups)
        self.conv2, self.bn2 = conv_bn(mid, mid, stride=stride, groups=mid)
        self.conv3, self.bn3 = plain(mid, branch_channels, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.groups > 1:
            branch = shuffle_channels(branch, self.groups)
        branch = F.relu(self.bn2(self.conv2(branch)), inplace=True)
        branch = self.bn3(self.conv3(branch))
        if self.stride == 2:
            pre = torch.cat([branch, F.avg_pool2d(x, 3, stride=2, padding=1)], 1)
        else:
            pre = branch + x
        return pre, F.relu(pre)


@register("shufflenetv1", display="ShuffleNetV1", aliases=("shufflev1",), group="MobileNet and ShuffleNet")
class ShuffleNetV1(StagedNet):
    """Three stages of 240, 480 and 960 channels, each halving the size; `conv_bn` makes the 3x3 convolutions."""

    HEAD = "linear"

    def __init__(self, num_classes: int, conv_bn: ConvBN = plain) -> None:
        super().__init__()
        self.conv1, self.bn1 = plain(3, STEM, 1)
        channels = STEM
        for i, (width, blocks) in enumerate(((240, 4), (480, 8), (960, 4)), 1):
            first = Block(channels, width - channels, 2, conv_bn)
            others = (Block(width, width, 1, conv_bn) for _ in range(blocks - 1))
            setattr(self, f"layer{i}", nn.Sequential(first, *others))
            channels = width
        self.linear = nn.Linear(960, num_classes)
