"""ABF, the attention-based fusion block (ReviewKD section 3.2 and Figure 4a), and its variants."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Count, check
from rkd.review.fused import WeightedSum


def _conv_bn(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


def _attention(channels: int, init: str) -> nn.Sequential:
    conv = nn.Conv2d(2 * channels, 2, 1)
    if init == "kaiming":
        nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.Sigmoid())


def _fuse(x: Tensor, residual: Tensor, attention: nn.Sequential | None) -> Tensor:
    """The student's map and the resized residual, added, or weighted by two attention maps in (0, 1) and added.

    Paper Figure 4a: z = sigmoid(conv1x1([x, up(residual)])); x z_1 + up(residual) z_2. A 1x1 convolution of a
    concatenation is the sum of two, and one of a nearest-neighbour enlargement is the enlargement of one: so nothing is
    concatenated, and the residual's half is computed at its own, smaller size.

    Args:
        x: (B, C, h, w).
        residual: (B, C, any size).
    """
    if attention is None:
        return x + resize(residual, x.shape[-2:])
    return WeightedSum.apply(x, resize(residual, x.shape[-2:]), _attention_maps(x, residual, attention))


def _attention_maps(x: Tensor, residual: Tensor, attention: nn.Sequential) -> Tensor:
    """(B, 2, h, w) in (0, 1): where the student's map counts, and where the residual does."""
    conv, channels = attention[0], x.shape[1]
    half, other_half = conv.weight.split(channels, dim=1)
    z = F.conv2d(x, half, conv.bias) + resize(F.conv2d(residual, other_half), x.shape[-2:])
    return torch.sigmoid(z)


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """(B, C, h, w) -> (B, C, *size) by nearest neighbours; `x` itself where it has that size."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")


class _Block(nn.Module):
    """One level of the review path. Module names are those of the released code, so its state dicts load."""

    conv1: nn.Module
    residual_conv: nn.Module | None
    att_conv: nn.Sequential | None

    def _projected(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps in the width in which they are fused."""
        return self.conv1(x), residual if self.residual_conv is None else self.residual_conv(residual)

    def fused(self, x: Tensor, residual: Tensor | None, size: torch.Size) -> Tensor:
        """The fused map (B, width, *size); arguments as of `ABF.forward`."""
        if residual is None:
            return resize(self.conv1(x), size)
        return resize(_fuse(*self._projected(x, residual), self.att_conv), size)

    def attention_maps(self, x: Tensor, residual: Tensor | None) -> Tensor | None:
        """The two attention maps of a forward pass, (B, 2, h, w) in (0, 1): first the student map's, then the
        residual's; None where the block has no attention or nothing to fuse. Arguments as of `ABF.forward`."""
        if self.att_conv is None or residual is None:
            return None
        return _attention_maps(*self._projected(x, residual), self.att_conv)


class ABF(_Block):
    """Fuses a student map of `in_channels`, in a width of `mid_channels`, with what the deeper level passed on.

    Args:
        out_channels: of the teacher's map at this level.
        residual_channels: of what the deeper level passes on; None for the deepest level, which fuses nothing.
        attention: fuse by two attention maps, else by addition; `attention_init`: see ReviewOptions.
        pass_output: pass on the output instead of the mid-channel map.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        residual_channels: int | None,
        attention: bool = True,
        attention_init: str = "default",
        pass_output: bool = False,
    ) -> None:
        super().__init__()
        check(Count, "mid_channels", mid_channels)
        self.conv1 = _conv_bn(in_channels, mid_channels, 1)
        self.conv2 = _conv_bn(mid_channels, out_channels, 3)
        fuses = residual_channels is not None
        self.att_conv = _attention(mid_channels, attention_init) if attention and fuses else None
        self.residual_conv = _conv_bn(residual_channels, mid_channels, 1) if pass_output and fuses else None
        self.pass_output = pass_output

    def forward(self, x: Tensor, residual: Tensor | None, out_size: torch.Size) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: student map, (B, in_channels, h, w).
            residual: what the deeper level passed on, (B, residual_channels, any size), or None.
            out_size: (height, width) of the teacher's map.

        Returns:
            output `(B, out_channels, *out_size)`, to compare with the teacher's map, and what is passed on.
        """
        x = self.fused(x, residual, out_size)  # (B, mid, H, W)
        output = self.conv2(x)  # (B, out, H, W)
        return output, output if self.pass_output else x


class DirectABF(_Block):
    """The [Re] code's block for "residual output same as ABF output" (Table 6): no mid width and no final
    convolution; 3x3 convolutions bring both maps to the teacher's channels, and their fusion is output and residual
    at once. As committed, its channel counts do not fit; here they are those of the deeper level's output."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        residual_channels: int | None,
        attention: bool = True,
        attention_init: str = "default",
    ) -> None:
        super().__init__()
        self.conv1 = _conv_bn(in_channels, out_channels, 3)
        fuses = residual_channels is not None
        self.residual_conv = _conv_bn(residual_channels, out_channels, 3) if fuses else None
        self.att_conv = _attention(out_channels, attention_init) if attention and fuses else None

    def forward(self, x: Tensor, residual: Tensor | None, out_size: torch.Size) -> tuple[Tensor, Tensor]:
        """As ABF.forward; both returned tensors are the fused map, `(B, out_channels, *out_size)`."""
        x = self.fused(x, residual, out_size)
        return x, x
