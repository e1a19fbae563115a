"""VGG with BatchNorm and a single linear layer, for 32x32 images (Simonyan & Zisserman 2015, Table 1).

State-dict names are those of RepDistiller and mdistiller, where the last number of a name counts the layers of its
block, ReLUs included.
"""

from functools import partial

from torch import Tensor, fx, nn
from torch.nn import functional as F

from rkd.models.layers import ConvBN, conv_bn, global_average, init_vgg
from rkd.models.registry import register
from rkd.models.taps import TapNet, Taps

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


biased = partial(conv_bn, bias=True)


@fx.wrap
def halve_large(x: Tensor, height: int) -> Tensor:
    """Pool before the last block if images are 64 pixels high, otherwise return `x`. It is a function of its own since
    a traced graph cannot contain the condition."""
    return F.max_pool2d(x, 2) if height == 64 else x


class VGG(TapNet):
    """Five blocks of 3x3 convolutions, with the size halved between them.

    Args:
        convolutions: number in each block. (VGG-8 has six layers with weights: its name counts two of the original's
            linear layers, which it does not have.)
    """

    def __init__(
        self,
        num_classes: int,
        convolutions: tuple[int, int, int, int, int],
        conv_bn: ConvBN = biased,
    ) -> None:
        super().__init__()
        in_channels = 3
        for i, (width, count) in enumerate(zip(WIDTHS, convolutions, strict=True)):
            setattr(self, f"block{i}", _block(in_channels, width, count, conv_bn))
            in_channels = width
        self.classifier = nn.Linear(in_channels, num_classes)
        init_vgg(self)

    def final_norms(self) -> list[nn.Module]:
        return [block[-1] for block in (self.block1, self.block2, self.block3, self.block4)]

    def taps(self, x: Tensor) -> Taps:
        """Return the maps of the first block (the stem) and the four others, pooled vector and logits."""
        height = x.shape[2]
        x = stem = F.relu(self.block0(x), inplace=True)
        before, after = [], []
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = halve_large(x, height) if block is self.block4 else F.max_pool2d(x, 2)
            before.append(block(x))
            x = F.relu(before[-1])
            after.append(x)
        pooled = global_average(x)
        return Taps(stem, tuple(after), tuple(before), pooled, self.classifier(pooled))


def _block(in_channels: int, width: int, count: int, conv_bn: ConvBN) -> nn.Sequential:
    """Return a block without its last ReLU, which `taps` applies so as to keep the map before it."""
    layers = [*conv_bn(in_channels, width)]
    for _ in range(count - 1):
        layers += [nn.ReLU(inplace=True), *conv_bn(width, width)]
    return nn.Sequential(*layers)


for _depth, _convolutions in CONVOLUTIONS.items():
    register(f"vgg{_depth}", display=f"VGG-{_depth}", group="VGG")(partial(VGG, convolutions=_convolutions))
