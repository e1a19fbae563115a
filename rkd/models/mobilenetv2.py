"""MobileNetV2 of half width for 32x32 images (Sandler et al. 2018, Table 2; as used in RepDistiller and ReviewKD).

Its stem halves the size, so that the first stage is 16x16. It uses ReLU where the paper uses ReLU6. State-dict names
are those of RepDistiller and mdistiller.
"""

from torch import Tensor, nn

from rkd.models.layers import ConvBN, conv_bn, global_average, init_vgg
from rkd.models.registry import register
from rkd.models.taps import TapNet, Taps

WIDTH = 0.5
STEM = 32
LAST = 1280
# Expansion, channels at full width, number of blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAPPED = (1, 2, 4, 6)  # the last stage of each map size


class Block(nn.Module):
    """Inverted residual block: 1x1 to `expansion` times the channels, depth-wise 3x3, linear 1x1."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int, conv_bn: ConvBN) -> None:
        super().__init__()
        mid = in_channels * expansion
        self.residual = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *conv_bn(in_channels, mid, 1),
            nn.ReLU(inplace=True),
            *conv_bn(mid, mid, 3, stride, groups=mid),
            nn.ReLU(inplace=True),
            *conv_bn(mid, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


@register(
    "mobilenetv2", display="MobileNetV2", aliases=("mobile_half", "mobilenetv2_half"), group="MobileNet and ShuffleNet"
)  # fmt: skip
class MobileNetV2(TapNet):
    """Seven stages of inverted residuals, four of which are tapped, between two ordinary convolutions."""

    def __init__(self, num_classes: int, conv_bn: ConvBN = conv_bn) -> None:
        super().__init__()
        channels = int(STEM * WIDTH)
        self.conv1 = nn.Sequential(*conv_bn(3, channels, 3, 2), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        for expansion, full, count, stride in STAGES:
            width = int(full * WIDTH)
            first = Block(channels, width, stride, expansion, conv_bn)
            others = (Block(width, width, 1, expansion, conv_bn) for _ in range(count - 1))
            self.blocks.append(nn.Sequential(first, *others))
            channels = width
        self.conv2 = nn.Sequential(*conv_bn(channels, LAST, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(nn.Linear(LAST, num_classes))
        init_vgg(self)

    def taps(self, x: Tensor) -> Taps:
        """Return the maps of stem and four stages, pooled vector (of the last 1x1 convolution, 1280) and logits.

        The stages end in linear bottlenecks, which no ReLU follows: their maps are signed, and the maps "before the
        ReLU" are the same tensors.
        """
        x = stem = self.conv1(x)
        maps = []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        tapped = tuple(maps[i] for i in TAPPED)
        pooled = global_average(self.conv2(x))
        return Taps(stem, tapped, tapped, pooled, self.classifier(pooled))
