"""KD: softened class probabilities (Hinton et al. 2015), KL(teacher || student) at a temperature."""

from torch import Tensor

from rkd.config import Positive, frozen
from rkd.methods.base import Batch, Options, SingleLoss, register_method
from rkd.methods.numeric import kl


@frozen
class KdOptions(Options):
    """
    Attributes:
        loss_weight: RepDistiller's, mdistiller's and KDrefine's tables have 0.9 beside a cross-entropy of weight 0.1;
            SemCKD, KnowledgeDistillation's "ST" and this default 1 beside 1; KnowledgeDistillation's "AT+ST" 0.9.
        temperature: T; 4 in all of these.
    """

    temperature: Positive = 4.0


@register_method("kd", KdOptions, "KD")
class Kd(SingleLoss):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over images."""

    def loss(self, batch: Batch) -> Tensor:
        return kl(batch.student.logits, batch.teacher.logits, self.options.temperature)
