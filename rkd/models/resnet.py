"""CIFAR ResNets of depth 6n+2 (He et al. 2016, section 4.2), with projection shortcuts.

State-dict names are those of RepDistiller, mdistiller and ReviewKD, whose checkpoints load unchanged.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, conv1x1, conv_bn, global_average, init_kaiming, run_stages
from rkd.models.registry import register
from rkd.models.taps import Taps

WIDTHS = (16, 16, 32, 64)
WIDTHS_X4 = (32, 64, 128, 256)


class Block(nn.Module):
    """Basic residual block; returns its output before and after the final ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int, conv_bn: ConvBN) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, stride=stride)
        self.conv2, self.bn2 = conv_bn(channels, channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        branch = self.bn2(self.conv2(branch))
        pre = branch + (x if self.downsample is None else self.downsample(x))
        return pre, F.relu(pre)


class ResNet(nn.Module):
    """ResNet of depth 6n+2 with three stages at full, half and quarter image size.

    Args:
        num_classes: number of logits.
        depth: 6n+2.
        widths: channels of stem and stages.
        conv_bn: makes each 3x3 convolution with its BatchNorm; projections are ordinary ones.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int,
        widths: tuple[int, int, int, int] = WIDTHS,
        conv_bn: ConvBN = conv_bn,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, first, second, third = widths
        self.conv1, self.bn1 = conv_bn(3, stem)
        self.layer1 = _stage(stem, first, 1, blocks, conv_bn)
        self.layer2 = _stage(first, second, 2, blocks, conv_bn)
        self.layer3 = _stage(second, third, 2, blocks, conv_bn)
        self.fc = nn.Linear(third, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, num_classes)."""
        return self.taps(x).logits

    def taps(self, x: Tensor) -> Taps:
        """Maps of stem and three stages, pooled vector and logits of one forward pass."""
        stem = F.relu(self.bn1(self.conv1(x)), inplace=True)
        before, after = run_stages([self.layer1, self.layer2, self.layer3], stem)
        pooled = global_average(after[-1])
        return Taps(stem, after, before, pooled, self.fc(pooled))


def _stage(in_channels: int, channels: int, stride: int, blocks: int, conv_bn: ConvBN) -> nn.Sequential:
    rest = (Block(channels, channels, 1, conv_bn) for _ in range(blocks - 1))
    return nn.Sequential(Block(in_channels, channels, stride, conv_bn), *rest)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", display=f"ResNet-{_depth}", group="ResNet")(partial(ResNet, depth=_depth))
for _depth in (8, 32):
    register(f"resnet{_depth}x4", display=f"ResNet-{_depth}x4", group="ResNet")(
        partial(ResNet, depth=_depth, widths=WIDTHS_X4)
    )
