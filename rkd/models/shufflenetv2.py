"""ShuffleNetV2 1x for 32x32 images (Ma et al. 2018, as used in RepDistiller and ReviewKD)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import conv_bn, global_average, shuffle_channels
from rkd.models.registry import register
from rkd.models.taps import TapNet, Taps


class BasicBlock(nn.Module):
    """Passes half of the channels on unchanged, and the other half through 1x1, depth-wise 3x3 and 1x1.

    Returns the two halves before the last ReLU, and the shuffled output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = conv_bn(half, half, 1)
        self.conv2, self.bn2 = conv_bn(half, half, groups=half)
        self.conv3, self.bn3 = conv_bn(half, half, 1)

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
        self.conv1, self.bn1 = conv_bn(in_channels, in_channels, stride=2, groups=in_channels)
        self.conv2, self.bn2 = conv_bn(in_channels, half, 1)
        self.conv3, self.bn3 = conv_bn(in_channels, half, 1)
        self.conv4, self.bn4 = conv_bn(half, half, stride=2, groups=half)
        self.conv5, self.bn5 = conv_bn(half, half, 1)

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
        self.conv1, self.bn1 = conv_bn(3, 24, 1)
        self.layer1 = nn.Sequential(DownBlock(24, 116), *(BasicBlock(116) for _ in range(3)))
        self.layer2 = nn.Sequential(DownBlock(116, 232), *(BasicBlock(232) for _ in range(7)))
        self.layer3 = nn.Sequential(DownBlock(232, 464), *(BasicBlock(464) for _ in range(3)))
        self.conv2, self.bn2 = conv_bn(464, 1024, 1)
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
