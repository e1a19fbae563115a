"""Pieces that several network families share."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.models.taps import TapNet, Taps

# (in_channels, out_channels, kernel, stride, groups) -> a convolution and its BatchNorm. Families take one as an
# argument, so that their convolutions can be of another kind (see reparam); `conv_bn` is the plain one.
ConvBN = Callable[..., tuple[nn.Module, nn.Module]]


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> tuple[nn.Module, nn.Module]:
    """Return a convolution, padded by half its kernel, and a BatchNorm."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
    return conv, nn.BatchNorm2d(out_channels)


class StagedNet(TapNet):
    """A network of `conv1` and `bn1`, stages `layer1`, `layer2`, ..., a global average and a linear layer. Each block
    of a stage returns its map before and after its final ReLU.

    Attributes:
        HEAD: name of the linear layer.
    """

    HEAD = "fc"

    def stages(self) -> list[nn.Sequential]:
        """Return the stages, shallow to deep."""
        return [module for name, module in self.named_children() if name.startswith("layer")]

    def taps(self, x: Tensor) -> Taps:
        x = stem = F.relu(self.bn1(self.conv1(x)), inplace=True)
        before, after = [], []
        for stage in self.stages():
            for block in stage:
                pre, x = block(x)
            before.append(pre)
            after.append(x)
        pooled = global_average(x)
        return Taps(stem, tuple(after), tuple(before), pooled, getattr(self, self.HEAD)(pooled))


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Move channel c of group g to position c * groups + g (ShuffleNet, Zhang et al. 2018, Figure 1)."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def global_average(x: Tensor) -> Tensor:
    """Average (B, C, H, W) over its positions to (B, C)."""
    return x.mean((2, 3))


def init_kaiming(network: nn.Module) -> None:
    """Draw convolution weights from normal(0, sqrt(2 / (k^2 * out_channels))); all else keeps torch's default, which is
    the identity for BatchNorm."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def init_vgg(network: nn.Module) -> None:
    """Initialise as `init_kaiming` does, but with zero biases and linear weights from normal(0, 0.01)."""
    init_kaiming(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
