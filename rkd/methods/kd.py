"""KD: softened class probabilities (Hinton et al. 2015), KL(teacher || student) at a temperature."""

from dataclasses import dataclass

from torch import Tensor

from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import kl
from rkd.methods.options import Options, positive


@dataclass(frozen=True)
class KdOptions(Options):
    """
    Attributes:
        loss_weight: RepDistiller's, mdistiller's and KDrefine's tables have 0.9 beside a cross-entropy of weight 0.1;
            SemCKD, KnowledgeDistillation's "ST" and this default 1 beside 1; KnowledgeDistillation's "AT+ST" 0.9.
        temperature: T; 4 in all of these.

    Raises:
        ConfigError: a temperature that is not > 0.
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("temperature", self.temperature)


class Kd(SingleLoss):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over images."""

    def loss(self, batch: Batch) -> Tensor:
        return kl(batch.student.logits, batch.teacher.logits, self.options.temperature)


@register_method("kd", KdOptions, "KD")
def build_kd(context: Context, options: KdOptions) -> Kd:
    """KD for the pair in `context`."""
    return Kd("kd", options)
