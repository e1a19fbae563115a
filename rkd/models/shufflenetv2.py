"""ShuffleNetV2 1x for 32x32 images (Ma et al. 2018, as used in RepDistiller and ReviewKD)."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import chain, conv1x1, conv3x3, global_average, shuffle_channels
from rkd.models.registry import register
from rkd.models.taps import TapNet, Taps

Halves = tuple[Tensor, Tensor]


class BasicBlock(nn.Module):
    """One half of the channels passes untouched, the other goes through 1x1, depth-wise 3x3 and 1x1.

    Returns the two halves before the last ReLU, and the shuffled output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Halves, Tensor]:
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
        self.conv1 = conv3x3(in_channels, in_channels, 2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return shuffle_channels(torch.cat([left, right], 1), 2)


class ShuffleNetV2(TapNet):
    """Three stages of 116, 232 and 464 channels, then a 1x1 convolution to 1024 before pooling."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(3, 24)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = chain(DownBlock(24, 116), partial(BasicBlock, 116), 3)
        self.layer2 = chain(DownBlock(116, 232), partial(BasicBlock, 232), 7)
        self.layer3 = chain(DownBlock(232, 464), partial(BasicBlock, 464), 3)
        self.conv2 = conv1x1(464, 1024)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, num_classes)."""
        _, _, after = self._stages(x)
        return self.linear(self._pool(after[-1]))

    def taps(self, x: Tensor) -> Taps:
        """Maps of stem and three stages, pooled vector (of the 1x1 convolution, 1024) and logits.

        A "pre" map is [untouched half, branch before its ReLU] before the shuffle, as in ReviewKD: its
        channel order is not that of the "post" map.
        """
        stem, halves, after = self._stages(x)
        pooled = self._pool(after[-1])
        return Taps(stem, after, tuple(torch.cat(pair, 1) for pair in halves), pooled, self.linear(pooled))

    def _stages(self, x: Tensor) -> tuple[Tensor, list[Halves], tuple[Tensor, ...]]:
        # The halves are joined by `taps` alone, so that `forward` does not pay for maps nobody reads.
        x = stem = F.relu(self.bn1(self.conv1(x)), inplace=True)
        halves, after = [], []
        for stage in (self.layer1, self.layer2, self.layer3):
            down, *blocks = stage
            x = down(x)
            for block in blocks:
                pair, x = block(x)
            halves.append(pair)
            after.append(x)
        return stem, halves, tuple(after)

    def _pool(self, x: Tensor) -> Tensor:
        return global_average(F.relu(self.bn2(self.conv2(x)), inplace=True))


register("shufflenetv2", display="ShuffleNetV2", aliases=("shufflev2",), group="MobileNet and ShuffleNet")(
    ShuffleNetV2
)
