"""ABF, the attention-based fusion block (ReviewKD section 3.2 and Figure 4a), and its variants."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Count, validate
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


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size) by nearest neighbours; return `x` itself if it already has that size."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")


class ABF(nn.Module):
    """Fuses a student map of `in_channels`, brought to `mid_channels`, with what the deeper level passed on.

    Module names are those of the released code, so that its state dicts load.

    Args:
        out_channels: channels of the teacher's map at this level.
        residual_channels: channels of what the deeper level passes on; None for the deepest level, which fuses nothing.
        attention: fuse by two attention maps, otherwise by addition; `attention_init`: see ReviewOptions.
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
        validate(Count, "mid_channels", mid_channels)
        self.conv1 = _conv_bn(in_channels, mid_channels, 1)
        self.conv2 = _conv_bn(mid_channels, out_channels, 3)
        fuses = residual_channels is not None
        self.att_conv = _attention(mid_channels, attention_init) if attention and fuses else None
        self.residual_conv = _conv_bn(residual_channels, mid_channels, 1) if pass_output and fuses else None
        self.pass_output = pass_output

    def fused(self, x: Tensor, residual: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor | None]:
        """Add the student's map and the resized residual, each weighted by an attention map if there is attention.

        Paper Figure 4a: z = sigmoid(conv1x1([x, up(residual)])); x z_1 + up(residual) z_2. A 1x1 convolution of a
        concatenation is the sum of two 1x1 convolutions, and a 1x1 convolution commutes with nearest-neighbour
        enlargement: so nothing is concatenated, and the residual's half is computed at its own, smaller size.
        Arguments are those of `forward`.

        Returns:
            The fused map, `(B, width, *size)`, and z, (B, 2, h, w) in (0, 1): where the student's map counts, and where
            the residual does; z is None without attention or residual.
        """
        x, z = self.conv1(x), None
        if residual is not None:
            if self.residual_conv is not None:
                residual = self.residual_conv(residual)
            enlarged = resize(residual, x.shape[-2:])
            if self.att_conv is None:
                x = x + enlarged
            else:
                conv = self.att_conv[0]
                half, other_half = conv.weight.split(x.shape[1], dim=1)
                ours, theirs = F.conv2d(x, half, conv.bias), F.conv2d(residual, other_half)
                z = torch.sigmoid(ours + resize(theirs, x.shape[-2:]))
                x = WeightedSum.apply(x, enlarged, z)
        return resize(x, size), z

    def forward(self, x: Tensor, residual: Tensor | None, out_size: torch.Size) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: student map, (B, in_channels, h, w).
            residual: what the deeper level passed on, (B, residual_channels, any size), or None.
            out_size: (height, width) of the teacher's map.

        Returns:
            output `(B, out_channels, *out_size)`, to compare with the teacher's map, and what to pass on.
        """
        x, _ = self.fused(x, residual, out_size)  # (B, mid, H, W)
        output = self.conv2(x)  # (B, out, H, W)
        return output, output if self.pass_output else x


class DirectABF(ABF):
    """The [Re] code's block for "residual output same as ABF output" (Table 6): no mid width and no final
    convolution; 3x3 convolutions bring both maps to the teacher's channels, and their fusion is both output and
    residual. In the committed code the channel counts do not fit; here they are those of the deeper level's output."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        residual_channels: int | None,
        attention: bool = True,
        attention_init: str = "default",
    ) -> None:
        nn.Module.__init__(self)
        self.conv1 = _conv_bn(in_channels, out_channels, 3)
        fuses = residual_channels is not None
        self.residual_conv = _conv_bn(residual_channels, out_channels, 3) if fuses else None
        self.att_conv = _attention(out_channels, attention_init) if attention and fuses else None

    def forward(self, x: Tensor, residual: Tensor | None, out_size: torch.Size) -> tuple[Tensor, Tensor]:
        x, _ = self.fused(x, residual, out_size)
        return x, x
