"""CIFAR ResNets of depth 6n+2 (He et al. 2016, section 4.2), with projection shortcuts.

State-dict names are those of RepDistiller, mdistiller and ReviewKD, whose checkpoints load unchanged.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import conv1x1, conv3x3, global_average, init_kaiming, run_stages
from rkd.models.registry import register
from rkd.models.taps import Taps

WIDTHS = (16, 16, 32, 64)
WIDTHS_X4 = (32, 64, 128, 256)


class Block(nn.Module):
    """Basic residual block; returns its output before and after the final ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
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
    """

    def __init__(self, num_classes: int, depth: int, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, first, second, third = widths
        self.conv1 = conv3x3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, first, 1, blocks)
        self.layer2 = _stage(first, second, 2, blocks)
        self.layer3 = _stage(second, third, 2, blocks)
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


def _stage(in_channels: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (Block(channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(in_channels, channels, stride), *rest)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", display=f"ResNet-{_depth}", group="ResNet")(partial(ResNet, depth=_depth))
for _depth in (8, 32):
    register(f"resnet{_depth}x4", display=f"ResNet-{_depth}x4", group="ResNet")(
        partial(ResNet, depth=_depth, widths=WIDTHS_X4)
    )
