"""ShuffleNetV1 with 3 groups (Zhang et al. 2018) and ShuffleNetV2 1x (Ma et al. 2018) for 32x32 images, as used in
RepDistiller and ReviewKD."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, StagedNet, global_average, shuffle_channels
from rkd.models.layers import conv_bn as plain
from rkd.models.registry import register
from rkd.models.taps import TapNet, Taps

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


class BasicBlock(nn.Module):
    """Passes half of the channels on unchanged, and the other half through 1x1, depth-wise 3x3 and 1x1.

    Returns the two halves before the last ReLU, and the shuffled output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = plain(half, half, 1)
        self.conv2, self.bn2 = plain(half, half, groups=half)
        self.conv3, self.bn3 = plain(half, half, 1)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        kept, branch = x.chunk(2, dim=1)
        branch = F.relu(self.bn1(self.conv1(branch)), inplace=True)
        branch = self.bn2(self.conv2(branch))
        branch = self.bn3(self.conv3(branch))
        return (kept, branch), shuffle_channels(torch.cat([kept, F.relu(branch)], 1), 2)


class DownBlock(nn.Module):
    """Halves the size: two branches from the same input, both with stride 2, joined and shuffled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = plain(in_channels, in_channels, stride=2, groups=in_channels)
        self.conv2, self.bn2 = plain(in_channels, half, 1)
        self.conv3, self.bn3 = plain(in_channels, half, 1)
        self.conv4, self.bn4 = plain(half, half, stride=2, groups=half)
        self.conv5, self.bn5 = plain(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return shuffle_channels(torch.cat([left, right], 1), 2)


@register("shufflenetv2", display="ShuffleNetV2", aliases=("shufflev2",), group="MobileNet and ShuffleNet")
class ShuffleNetV2(TapNet):
    """Three stages of 116, 232 and 464 channels, then a 1x1 convolution to 1024 before pooling."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = plain(3, 24, 1)
        self.layer1 = nn.Sequential(DownBlock(24, 116), *(BasicBlock(116) for _ in range(3)))
        self.layer2 = nn.Sequential(DownBlock(116, 232), *(BasicBlock(232) for _ in range(7)))
        self.layer3 = nn.Sequential(DownBlock(232, 464), *(BasicBlock(464) for _ in range(3)))
        self.conv2, self.bn2 = plain(464, 1024, 1)
        self.linear = nn.Linear(1024, num_classes)

    def taps(self, x: Tensor) -> Taps:
        """Return the maps of stem and three stages, pooled vector (of the 1x1 convolution, 1024) and logits.

        A "pre" map is [unchanged half, branch before its ReLU] before the shuffle, as in ReviewKD: its
        channel order is not that of the "post" map.
        """
        x = stem = F.relu(self.bn1(self.conv1(x)), inplace=True)
        before, after = [], []
        for down, *blocks in (self.layer1, self.layer2, self.layer3):
            x = down(x)
            for block in blocks:
                halves, x = block(x)
            before.append(torch.cat(halves, 1))
            after.append(x)
        pooled = global_average(F.relu(self.bn2(self.conv2(x)), inplace=True))
        return Taps(stem, tuple(after), tuple(before), pooled, self.linear(pooled))
