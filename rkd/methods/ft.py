"""Paraphrasing Complex Network: Network Compression via Factor Transfer (Kim et al. 2018, Equations 1 to 3).

A paraphraser learns to code the teacher's last map in fewer channels; the student's translator then gives that code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.errors import ConfigError
from rkd.methods.at import attention
from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import wide
from rkd.methods.options import Options, Stage, at_least, positive
from rkd.methods.resize import match
from rkd.models import tap_shapes

SLOPE = 0.1


@dataclass(frozen=True)
class FtOptions(Options):
    """Options of FT; RepDistiller's values (`-b 200`).

    Attributes:
        loss_weight: weight against cross-entropy.
        rate: channels of the code, as a fraction of the teacher's.
        init_epochs: length of the stage "ft_paraphraser", in which the paraphraser alone is trained.
        paraphraser_lr: learning rate there. RepDistiller takes 0.01 for ResNet and WRN students and the run's own rate
            for the others, which is 0.01 for ShuffleNets and MobileNetV2 too; None: the run's own rate.
    """

    loss_weight: float = 200.0
    rate: float = 0.5
    init_epochs: int = 30
    paraphraser_lr: float | None = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("rate", self.rate)
        at_least("init_epochs", self.init_epochs, 1)
        if self.paraphraser_lr is not None:
            positive("paraphraser_lr", self.paraphraser_lr)

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(
                "ft_paraphraser",
                self.init_epochs,
                ("reconstruction",),
                self.paraphraser_lr,
                trains_student=False,
            ),
        )


def layers(make: type[nn.Module], channels: tuple[int, ...], norm: bool = False) -> nn.Sequential:
    """3x3 convolutions (`make`) through these channels, each with LeakyReLU, and BatchNorm before it if `norm`."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        parts.append(make(inputs, outputs, 3, padding=1))
        parts += [nn.BatchNorm2d(outputs)] if norm else []
        parts.append(nn.LeakyReLU(SLOPE, inplace=True))
    return nn.Sequential(*parts)


class Paraphraser(nn.Module):
    """Autoencoder of maps (B, C, H, W): `encoder` to (B, F, H, W), `decoder` back."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = layers(nn.Conv2d, (channels, channels, factors, factors))
        self.decoder = layers(nn.ConvTranspose2d, (factors, factors, channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x."""
        return self.decoder(self.encoder(x))


class Ft(SingleLoss):
    """Mean absolute difference of the attention maps of two codes: the student's, from three trained convolutions on
    its last map, and the teacher's, from the paraphraser, which has been trained before and rests now.

    Args:
        student, teacher: channels of the last maps.
        options: see FtOptions.

    Raises:
        ConfigError: a rate that leaves the code without channels.
    """

    def __init__(self, student: int, teacher: int, options: FtOptions) -> None:
        super().__init__("ft", options)
        factors = int(teacher * options.rate)
        if factors < 1:
            raise ConfigError(f"rate is {options.rate}; of {teacher} channels it must leave at least 1")
        self.paraphraser = Paraphraser(teacher, factors)
        self.translator = layers(nn.Conv2d, (student, student, factors, factors), norm=True)

    def stage_losses(self, stage: str, batch: Batch) -> Mapping[str, Tensor]:
        """Mean squared error of the teacher's last map and its reconstruction."""
        target = batch.teacher.stages[-1]
        return {"reconstruction": F.mse_loss(wide(self.paraphraser(target)), wide(target))}

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            theirs = self.paraphraser.encoder(batch.teacher.stages[-1])
        ours = self.translator(batch.student.stages[-1])
        return F.l1_loss(*map(attention, match(wide(ours), wide(theirs))))


@register_method("ft", FtOptions, "FT")
def build_ft(context: Context, options: FtOptions) -> Ft:
    """FT for the pair in `context`."""
    student, teacher = (tap_shapes(n, context.image_size).stages for n in (context.student, context.teacher))
    return Ft(student[-1][0], teacher[-1][0], options)
