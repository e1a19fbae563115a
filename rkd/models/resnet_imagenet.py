"""ResNet-18, -34 and -50 (He et al. 2016, Table 1) for small images: 3x3 stem of stride 1, no max-pooling.

State-dict names are those of RepDistiller and mdistiller.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import conv1x1, conv3x3, global_average, init_kaiming, run_stages
from rkd.models.registry import register
from rkd.models.taps import Taps

GROUP = "ResNet with ImageNet widths"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; returns its output before and after the final ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        pre = self.bn2(self.conv2(branch)) + self.shortcut(x)
        return pre, F.relu(pre)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolution to four times the width.

    Returns its output before and after the final ReLU.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        branch = F.relu(self.bn2(self.conv2(branch)), inplace=True)
        pre = self.bn3(self.conv3(branch)) + self.shortcut(x)
        return pre, F.relu(pre)


class ResNet(nn.Module):
    """Four stages of widths 64, 128, 256, 512 at full to one eighth of the image size.

    Args:
        num_classes: number of logits.
        block: BasicBlock or Bottleneck.
        blocks: number of blocks in each stage.
    """

    def __init__(
        self, num_classes: int, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, 1, blocks[0])
        self.layer2 = _stage(block, 64 * block.expansion, 128, 2, blocks[1])
        self.layer3 = _stage(block, 128 * block.expansion, 256, 2, blocks[2])
        self.layer4 = _stage(block, 256 * block.expansion, 512, 2, blocks[3])
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, num_classes)."""
        return self.taps(x).logits

    def taps(self, x: Tensor) -> Taps:
        """Maps of stem and four stages, pooled vector and logits of one forward pass."""
        stem = F.relu(self.bn1(self.conv1(x)), inplace=True)
        before, after = run_stages([self.layer1, self.layer2, self.layer3, self.layer4], stem)
        pooled = global_average(after[-1])
        return Taps(stem, after, before, pooled, self.linear(pooled))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Projection where stride or width changes, else the identity (an empty Sequential)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, stride: int, blocks: int
) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(in_channels, width, stride), *rest)


register("resnet18", display="ResNet-18", group=GROUP)(partial(ResNet, block=BasicBlock, blocks=(2, 2, 2, 2)))
register("resnet34", display="ResNet-34", group=GROUP)(partial(ResNet, block=BasicBlock, blocks=(3, 4, 6, 3)))
register("resnet50", display="ResNet-50", group=GROUP)(partial(ResNet, block=Bottleneck, blocks=(3, 4, 6, 3)))
