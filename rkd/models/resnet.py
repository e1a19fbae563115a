"""ResNets (He et al. 2016) for small images. State-dict names are those of RepDistiller, mdistiller and ReviewKD, whose
checkpoints load unchanged."""

from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, StagedNet, chain, conv1x1, conv3x3, conv_bn, init_kaiming
from rkd.models.registry import register

WIDTHS = (16, 16, 32, 64)
WIDTHS_X4 = (32, 64, 128, 256)


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Where stride or width changes; else the identity (an empty Sequential)."""
    if stride == 1 and in_channels == channels:
        return nn.Sequential()
    return nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))


class Block(nn.Module):
    """Basic residual block; returns its output before and after the final ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int, conv_bn: ConvBN) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, stride=stride)
        self.conv2, self.bn2 = conv_bn(channels, channels)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        pre = self.bn2(self.conv2(branch)) + self.downsample(x)
        return pre, F.relu(pre)


class ResNet(StagedNet):
    """CIFAR ResNet of depth 6n+2 (section 4.2) with projection shortcuts: three stages at full, half and quarter image
    size.

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
        self.conv1, self.bn1 = conv_bn(3, widths[0])
        for i, (inputs, channels) in enumerate(pairwise(widths), 1):
            first = Block(inputs, channels, 1 if i == 1 else 2, conv_bn)
            setattr(
                self, f"layer{i}", chain(first, partial(Block, channels, channels, 1, conv_bn), blocks - 1)
            )
        self.fc = nn.Linear(widths[-1], num_classes)
        init_kaiming(self)

    def final_norms(self) -> list[nn.Module]:
        """See `rkd.models.taps.final_norms`."""
        return [stage[-1].bn2 for stage in self.stages()]


class WideStemResNet(ResNet):
    """As `ResNet` but for the 7x7 stem, and for the linear layer's weights, which start Xavier-uniform (hankyul2's
    KnowledgeDistillation code, whose checkpoints load unchanged). The stem pads by one pixel, so that maps of 32x32
    images are 28x28, 14x14 and 7x7.

    Args:
        num_classes: number of logits.
        depth: 6n+2.
    """

    def __init__(self, num_classes: int, depth: int) -> None:
        super().__init__(num_classes, depth)
        self.conv1 = nn.Conv2d(3, self.conv1.out_channels, 7, padding=1, bias=False)
        init_kaiming(self.conv1)
        nn.init.xavier_uniform_(self.fc.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; returns its output before and after the final ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        pre = self.bn2(self.conv2(branch)) + self.shortcut(x)
        return pre, F.relu(pre)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolution to four times the width; returns as BasicBlock."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.shortcut = _projection(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        branch = F.relu(self.bn1(self.conv1(x)), inplace=True)
        branch = F.relu(self.bn2(self.conv2(branch)), inplace=True)
        pre = self.bn3(self.conv3(branch)) + self.shortcut(x)
        return pre, F.relu(pre)


class ImageNetResNet(StagedNet):
    """ResNet-18, -34 or -50 (Table 1) with a 3x3 stem of stride 1 and no max-pooling: four stages of widths 64, 128,
    256, 512 at full to one eighth of the image size.

    Args:
        num_classes: number of logits.
        block: BasicBlock or Bottleneck.
        blocks: number of blocks in each stage.
    """

    STAGES, HEAD = 4, "linear"

    def __init__(
        self, num_classes: int, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for i, count in enumerate(blocks):
            width = 64 * 2**i
            first = block(channels, width, 2 if i else 1)
            channels = width * block.expansion
            setattr(self, f"layer{i + 1}", chain(first, partial(block, channels, width, 1), count - 1))
        self.linear = nn.Linear(channels, num_classes)
        init_kaiming(self)

    def final_norms(self) -> list[nn.Module]:
        """See `rkd.models.taps.final_norms`."""
        return [
            stage[-1].bn3 if isinstance(stage[-1], Bottleneck) else stage[-1].bn2 for stage in self.stages()
        ]


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", display=f"ResNet-{_depth}", group="ResNet")(partial(ResNet, depth=_depth))
for _depth in (8, 32):
    register(f"resnet{_depth}x4", display=f"ResNet-{_depth}x4", group="ResNet")(
        partial(ResNet, depth=_depth, widths=WIDTHS_X4)
    )
for _depth in (20, 110):
    register(
        f"resnet{_depth}_7x7",
        display=f"ResNet-{_depth}-7x7",
        aliases=(f"resnet_32_{_depth}",),
        group="ResNet with 7x7 stem",
    )(partial(WideStemResNet, depth=_depth))
for _depth, _block, _blocks in (
    (18, BasicBlock, (2, 2, 2, 2)), (34, BasicBlock, (3, 4, 6, 3)), (50, Bottleneck, (3, 4, 6, 3)),
):  # fmt: skip
    register(f"resnet{_depth}", display=f"ResNet-{_depth}", group="ResNet with ImageNet widths")(
        partial(ImageNetResNet, block=_block, blocks=_blocks)
    )
