"""DKD, decoupled knowledge distillation (Zhao et al. 2022, Equation 7): KL of target against the rest, and KL among the
non-target classes, weighted separately."""

from typing import Literal

import torch
from torch import Tensor

from rkd.config import Natural, Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method, Options, register_method
from rkd.methods.numeric import kl, upcast


@frozen
class DkdOptions(Options):
    """
    Attributes:
        loss_weight: multiplies both terms.
        alpha: weight of the target term.
        beta: weight of the non-target term. mdistiller's table was made with 2 for resnet56 -> resnet20 and
            resnet110 -> resnet32, with 6 for WRN-40-2 -> WRN-16-2 and WRN-40-1 and VGG13 -> VGG8 and MobileNetV2, and
            with 8 elsewhere.
        temperature: T of both terms.
        warmup_epochs: the weights grow in equal steps from 1 / warmup_epochs in the first epoch to 1; 0: no warm-up.
        terms: "both" as published; "non_target" is what KDrefine's code returns: the second term alone, its weight 1
            in place of beta.
    """

    alpha: Weight = 1.0
    beta: Weight = 8.0
    temperature: Positive = 4.0
    warmup_epochs: Natural = 20
    terms: Literal["both", "non_target"] = "both"

    def unread(self) -> set[str]:
        return {"alpha", "beta"} if self.terms == "non_target" else set()


@register_method("dkd", DkdOptions, "DKD")
class Dkd(Method):
    """Two losses: "tckd", T^2 KL of the two-way split target / non-target, and "nckd", T^2 KL of the softmax over the
    non-target classes; both are means over images. ConfigError for a single class, which leaves no others."""

    def __init__(self, context: Context, options: DkdOptions) -> None:
        super().__init__(context, options)
        if context.classes < 2:
            raise ConfigError("DKD compares the classes beside an image's own, but the data set has only one")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = upcast(batch.student.logits), upcast(batch.teacher.logits)
        nckd = kl(_others(student, batch.labels), _others(teacher, batch.labels), self.options.temperature)
        if self.options.terms == "non_target":
            return {"nckd": nckd}
        # The softmax of these two logits is the split: its KL is that of the two probabilities.
        ours, theirs = (self._split(logits, batch.labels) for logits in (student, teacher))
        return {"tckd": kl(ours, theirs, self.options.temperature), "nckd": nckd}

    def _split(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, classes) -> (B, 2): the target's logit, and the one logit that stands for all others at temperature T."""
        t = self.options.temperature
        target = logits.gather(1, labels[:, None])
        rest = t * torch.logsumexp(_others(logits, labels) / t, 1, keepdim=True)
        return torch.cat([target, rest], 1)

    def weights(self, epoch: int) -> dict[str, float]:
        options = self.options
        scale = options.loss_weight
        if options.warmup_epochs:
            scale *= min(1.0, (epoch + 1) / options.warmup_epochs)
        if options.terms == "non_target":
            return {"nckd": scale}
        return {"tckd": scale * options.alpha, "nckd": scale * options.beta}


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, classes) -> (B, classes - 1): the logits without each image's target."""
    columns = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, columns + (columns >= labels[:, None]))
