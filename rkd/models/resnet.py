"""ResNets (He et al. 2016) for small images. State-dict names are those of RepDistiller, mdistiller and ReviewKD, whose
checkpoints load unchanged."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, StagedNet, conv_bn, init_kaiming
from rkd.models.registry import register

WIDTHS = (16, 16, 32, 64)
WIDTHS_X4 = (32, 64, 128, 256)


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Return a 1x1 convolution with BatchNorm if stride or width changes, else the identity (an empty Sequential)."""
    if stride == 1 and in_channels == channels:
        return nn.Sequential()
    return nn.Sequential(*conv_bn(in_channels, channels, 1, stride))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; returns their sum before and after the final ReLU.

    Attributes:
        EXPANSION: channels of the sum, in multiples of the width.
        SHORTCUT, LAST: names of the shortcut and of the branch's last BatchNorm.
        PROJECTION: makes the shortcut for (in_channels, channels, stride).
    """

    EXPANSION, SHORTCUT, LAST = 1, "downsample", "bn2"
    PROJECTION: Callable[[int, int, int], nn.Module] = staticmethod(_projection)

    def __init__(self, in_channels: int, width: int, stride: int, conv_bn: ConvBN) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, width, stride=stride)
        self.conv2, self.bn2 = conv_bn(width, width)
        setattr(self, self.SHORTCUT, self.PROJECTION(in_channels, width, stride))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pre = self.branch(x) + getattr(self, self.SHORTCUT)(x)
        return pre, F.relu(pre)


class Padding(nn.Module):
    """A shortcut without parameters (He et al. 2016, option A), (B, C, H, W) to (B, width, H / stride, W / stride): it
    takes every `stride`-th pixel, and pads with zeros for new channels, half of them before and half after the old."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, (width - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new, self.new))


class PaddedBlock(Block):
    """A `Block` whose shortcut has no parameters."""

    PROJECTION = Padding


class BasicBlock(Block):
    """A `Block` with the layer names of ResNet-18 and -34."""

    SHORTCUT = "shortcut"


class Bottleneck(Block):
    """A block of a 1x1, a 3x3 (which has the stride) and a 1x1 convolution, the last to four times the width."""

    EXPANSION, SHORTCUT, LAST = 4, "shortcut", "bn3"

    def __init__(self, in_channels: int, width: int, stride: int, conv_bn: ConvBN) -> None:
        nn.Module.__init__(self)
        self.conv1, self.bn1 = conv_bn(in_channels, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width, stride=stride)
        self.conv3, self.bn3 = conv_bn(width, width * self.EXPANSION, 1)
        self.shortcut = self.PROJECTION(in_channels, width * self.EXPANSION, stride)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))


class ResNet(StagedNet):
    """A 3x3 stem of stride 1, then stages, each after the first at half the size of the one before.

    Args:
        blocks: number of blocks in each stage.
        widths: widths of stem and stages, in channels.
        block: Block, BasicBlock or Bottleneck.
        conv_bn: makes each 3x3 convolution with its BatchNorm; projections are ordinary ones.
    """

    def __init__(
        self,
        num_classes: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        block: type[Block] = Block,
        conv_bn: ConvBN = conv_bn,
    ) -> None:
        super().__init__()
        channels, *stages = widths
        self.conv1, self.bn1 = conv_bn(3, channels)
        for i, (width, count) in enumerate(zip(stages, blocks, strict=True)):
            first = block(channels, width, 2 if i else 1, conv_bn)
            channels = width * block.EXPANSION
            others = (block(channels, width, 1, conv_bn) for _ in range(count - 1))
            setattr(self, f"layer{i + 1}", nn.Sequential(first, *others))
        setattr(self, self.HEAD, nn.Linear(channels, num_classes))
        init_kaiming(self)

    def final_norms(self) -> list[nn.Module]:
        return [getattr(stage[-1], stage[-1].LAST) for stage in self.stages()]


class ImageNetResNet(ResNet):
    """ResNet-18, -34 or -50 (Table 1) without max-pooling: four stages of widths 64, 128, 256, 512."""

    HEAD = "linear"


def cifar_resnet(
    num_classes: int,
    depth: int,
    widths: Sequence[int] = WIDTHS,
    block: type[Block] = Block,
    conv_bn: ConvBN = conv_bn,
) -> ResNet:
    """Return a CIFAR ResNet of depth 6n+2 (section 4.2) with three stages, by default with projection shortcuts."""
    return ResNet(num_classes, 3 * [(depth - 2) // 6], widths, block, conv_bn)


def wide_stem_resnet(num_classes: int, depth: int) -> ResNet:
    """Return a `cifar_resnet` with a 7x7 stem, and with Xavier-uniform weights of the linear layer, as in hankyul2's
    KnowledgeDistillation code, whose checkpoints load unchanged. The stem pads by one pixel, so that maps of 32x32
    images are 28x28, 14x14 and 7x7."""
    network = cifar_resnet(num_classes, depth)
    network.conv1 = nn.Conv2d(3, WIDTHS[0], 7, padding=1, bias=False)
    init_kaiming(network.conv1)
    nn.init.xavier_uniform_(network.fc.weight)
    return network


def _register(name: str, family: str, build: partial, *aliases: str) -> None:
    shown = f"ResNet-{name.replace('_', '-')}"
    register(f"resnet{name}", display=shown, aliases=aliases, group=family)(build)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    _register(f"{_depth}", "ResNet", partial(cifar_resnet, depth=_depth))
for _depth in (8, 32):
    _register(f"{_depth}x4", "ResNet", partial(cifar_resnet, depth=_depth, widths=WIDTHS_X4))
for _depth in (20, 32, 44, 56, 110):
    _build = partial(cifar_resnet, depth=_depth, block=PaddedBlock)
    _register(f"{_depth}_a", "ResNet with padded shortcuts", _build)
for _depth in (20, 110):
    _build = partial(wide_stem_resnet, depth=_depth)
    _register(f"{_depth}_7x7", "ResNet with 7x7 stem", _build, f"resnet_32_{_depth}")
for _depth, _block, _blocks in (
    (18, BasicBlock, (2, 2, 2, 2)), (34, BasicBlock, (3, 4, 6, 3)), (50, Bottleneck, (3, 4, 6, 3)),
):  # fmt: skip
    _build = partial(ImageNetResNet, block=_block, blocks=_blocks, widths=(64, 64, 128, 256, 512))
    _register(f"{_depth}", "ResNet with ImageNet widths", _build)
