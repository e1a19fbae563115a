"""Paraphrasing Complex Network: Network Compression via Factor Transfer (Kim et al. 2018, Equations 1 to 3).

A paraphraser learns to code the teacher's last map in fewer channels; the student's translator learns that code.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rkd.config import Count, Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.at import attention
from rkd.methods.base import Batch, Context, Options, SingleLoss, Stage, register_method
from rkd.methods.numeric import match, upcast

SLOPE = 0.1


@frozen
class FtOptions(Options):
    """RepDistiller's values (`-b 200`).

    Attributes:
        rate: channels of the code, as a fraction of the teacher's.
        init_epochs: length of the stage "ft_paraphraser", in which the paraphraser alone is trained.
        paraphraser_lr: learning rate there. RepDistiller takes 0.01 for ResNet and WRN students and the run's own rate
            for the others, which is 0.01 for ShuffleNets and MobileNetV2 too; None: the run's own rate.
    """

    loss_weight: Weight = 200.0
    rate: Positive = 0.5
    init_epochs: Count = 30
    paraphraser_lr: Positive | None = 0.01

    def stages(self) -> tuple[Stage, ...]:
        lr = self.paraphraser_lr
        return (Stage("ft_paraphraser", self.init_epochs, ("reconstruction",), lr, trains_student=False),)


def layers(make: type[nn.Module], channels: tuple[int, ...], norm: bool = False) -> nn.Sequential:
    """Return 3x3 convolutions (`make`) through these channels, each with LeakyReLU, after BatchNorm if `norm`."""
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
        """Return the reconstruction of x."""
        return self.decoder(self.encoder(x))


@register_method("ft", FtOptions, "FT")
class Ft(SingleLoss):
    """Mean absolute difference of the attention maps of two codes: the student's, from three trained convolutions on
    its last map, and the teacher's, from the paraphraser, which has been trained before and is now fixed. ConfigError
    for a rate that leaves the code without channels."""

    def __init__(self, context: Context, options: FtOptions) -> None:
        super().__init__(context, options)
        student, teacher = (shapes.stages[-1][0] for shapes in context.shapes)
        factors = int(teacher * options.rate)
        if factors < 1:
            raise ConfigError(f"rate is {options.rate}; of {teacher} channels it must leave at least 1")
        self.paraphraser = Paraphraser(teacher, factors)
        self.translator = layers(nn.Conv2d, (student, student, factors, factors), norm=True)

    def stage_losses(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        """Return the mean squared error between the teacher's last map and its reconstruction."""
        target = batch.teacher.stages[-1]
        return {"reconstruction": F.mse_loss(upcast(self.paraphraser(target)), upcast(target))}

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            theirs = self.paraphraser.encoder(batch.teacher.stages[-1])
        ours = self.translator(batch.student.stages[-1])
        return F.l1_loss(*map(attention, match(upcast(ours), upcast(theirs))))
