"""KDrefine: KD on logits standardised per image, which cross-entropy sees too (the loss of KDrefine's code; its other
half, the re-parameterised students, are networks)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rkd.config import Positive, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import kl, upcast
from rkd.models.taps import Taps

_EPS = 1e-7


@frozen
class KdRefineOptions(Options):
    """
    Attributes:
        loss_weight: the published runs have 0.9 beside a cross-entropy of weight 0.1.
        temperature: T of the KL.
        statistics: "unbiased" divides by the unbiased standard deviation + 1e-7, as in the code of September 2024, the
            first complete one and so the default; "layer_norm" by the square root of the biased variance + 1e-7, as in
            the code of December 2022. The results were published in March 2023, between the two, so "layer_norm"
            probably gave them; no code that was public then shows it.
        multiplier: of the standardised logits; None: 2 for "unbiased", 4 for "layer_norm", as in those codes.
    """

    temperature: Positive = 4.0
    statistics: Literal["unbiased", "layer_norm"] = "unbiased"
    multiplier: Positive | None = None


@register_method("kdrefine", KdRefineOptions, "KDrefine")
class KdRefine(SingleLoss):
    """KD between standardised logits. Cross-entropy sees the student's too; accuracy is measured on the raw ones."""

    def standardised(self, logits: Tensor) -> Tensor:
        """(B, classes) -> (B, classes) of mean 0 and standard deviation `multiplier` per image, fp32 or better."""
        logits, multiplier = upcast(logits), self.options.multiplier
        if self.options.statistics == "layer_norm":
            return (multiplier or 4.0) * F.layer_norm(logits, logits.shape[1:], eps=_EPS)
        centred = logits - logits.mean(1, keepdim=True)
        return (multiplier or 2.0) * (centred / (logits.std(1, keepdim=True) + _EPS))

    def classified(self, taps: Taps) -> Tensor:
        return self.standardised(taps.logits)

    def loss(self, batch: Batch) -> Tensor:
        student, teacher = (self.standardised(taps.logits) for taps in (batch.student, batch.teacher))
        return kl(student, teacher, self.options.temperature)
