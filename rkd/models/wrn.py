"""Wide ResNets WRN-d-k of depth d = 6n+4 and widening factor k (Zagoruyko & Komodakis 2016), without dropout.

State-dict names are those of RepDistiller, mdistiller and ReviewKD.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.errors import ConfigError
from rkd.models.layers import ConvBN, conv1x1, conv_bn, global_average, init_kaiming
from rkd.models.registry import FAMILIES, NetworkEntry, register
from rkd.models.taps import TapNet, Taps

MOST_PARAMETERS = 10**9  # 4 GB


class Block(nn.Module):
    """Pre-activation block; returns its normalised input (the output of its first BN) and its output."""

    def __init__(self, in_channels: int, channels: int, stride: int, conv_bn: ConvBN) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1, self.bn2 = conv_bn(in_channels, channels, stride=stride)
        self.conv2, _ = conv_bn(channels, channels)  # the addition follows it, not a BN
        # Only a change of width needs a projection: with k = 1 the first group has none.
        self.convShortcut = conv1x1(in_channels, channels, stride) if in_channels != channels else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.bn1(x)
        active = F.relu(normed)
        branch = F.relu(self.bn2(self.conv1(active)), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return normed, self.conv2(branch) + shortcut


class Group(nn.Module):
    """The blocks of one stage; returns the normalised input of the first and the raw output of the last."""

    def __init__(self, in_channels: int, channels: int, stride: int, blocks: int, conv_bn: ConvBN) -> None:
        super().__init__()
        first = Block(in_channels, channels, stride, conv_bn)
        self.layer = nn.Sequential(first, *(Block(channels, channels, 1, conv_bn) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, *rest = self.layer
        entered, x = first(x)
        for block in rest:
            _, x = block(x)
        return entered, x


class WideResNet(TapNet):
    """WRN-depth-width with three groups at full, half and quarter image size.

    Args:
        depth: 6n+4.
        width: widening factor k; the groups have 16k, 32k and 64k channels.
        conv_bn: makes each 3x3 convolution with a BatchNorm, which is used only after the first convolution of a block:
            no BatchNorm directly follows the stem and the second.
    """

    def __init__(self, num_classes: int, depth: int, width: int, conv_bn: ConvBN = conv_bn) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1, _ = conv_bn(3, 16)
        self.block1 = Group(16, 16 * width, 1, blocks, conv_bn)
        self.block2 = Group(16 * width, 32 * width, 2, blocks, conv_bn)
        self.block3 = Group(32 * width, 64 * width, 2, blocks, conv_bn)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        init_kaiming(self)
        nn.init.zeros_(self.fc.bias)

    def final_norms(self) -> list[nn.Module]:
        return [self.block2.layer[0].bn1, self.block3.layer[0].bn1, self.bn1]

    def taps(self, x: Tensor) -> Taps:
        """Return the raw stem and residual streams, the latter after the next BN too, pooled vector and logits.

        The "pre" map of a group is the output of the next group's first BN (after the last group, the final BN), which
        is computed anyway: no BN runs twice.
        """
        stem = self.conv1(x)
        _, first = self.block1(stem)
        first_normed, second = self.block2(first)
        second_normed, third = self.block3(second)
        third_normed = self.bn1(third)
        pooled = global_average(F.relu(third_normed))
        stages_pre = (first_normed, second_normed, third_normed)
        return Taps(stem, (first, second, third), stages_pre, pooled, self.fc(pooled))


def _member(depth: int, width: int) -> NetworkEntry:
    name = f"wrn_{depth}_{width}"
    if depth < 10 or (depth - 4) % 6:
        raise ConfigError(f"model {name}: the depth must be 6n+4 (10, 16, 22, 28, ...), not {depth}")
    if width < 1:
        raise ConfigError(f"model {name}: the widening factor must be at least 1, not {width}")
    # Two 3x3 convolutions per block; groups of c, 2c and 4c channels.
    about = depth // 6 * 2 * 9 * 21 * (16 * width) ** 2
    if about > MOST_PARAMETERS:
        raise ConfigError(
            f"model {name} would have about {about / 1e6:,.0f} million parameters; at most "
            f"{MOST_PARAMETERS / 1e6:,.0f} million are built"
        )
    return NetworkEntry(name, f"WRN-{depth}-{width}", partial(WideResNet, depth=depth, width=width))


FAMILIES["wrn_<depth>_<width>"] = r"(?:wrn|wideresnet)(\d{1,9})_(\d{1,9})", _member
for _entry in (_member(16, 1), _member(16, 2), _member(40, 1), _member(40, 2)):
    register(_entry.name, display=_entry.display, group="WRN")(_entry.build)
