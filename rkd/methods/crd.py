"""CRD, contrastive representation distillation (Tian et al. 2020): an image's student embedding is to be told
apart, in the memory of teacher embeddings, from images of other classes, and the other way round. Compares pooled
vectors."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.crd_memory import Memory
from rkd.methods.negatives import POSITIVES, Contrasts
from rkd.methods.numeric import no_autocast, wide
from rkd.methods.options import Options, at_least, not_negative, one_of, positive
from rkd.models.inspect import tap_shapes


@dataclass(frozen=True)
class CrdOptions(Options):
    """Options of CRD; defaults as in RepDistiller.

    Attributes:
        feature_dim: D, of both embeddings.
        negatives: K, per image.
        temperature: T of the scores.
        momentum: share of the old row in a memory's update, 0 to below 1.
        positive: "exact": an image's positive is itself; "relax": any image of its class.
    """

    loss_weight: float = 0.8
    feature_dim: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5
    positive: str = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("feature_dim", self.feature_dim, 1)
        at_least("negatives", self.negatives, 1)
        positive("temperature", self.temperature)
        not_negative("momentum", self.momentum)
        if self.momentum >= 1:
            raise ConfigError(f"momentum is {self.momentum}; it must be < 1, or the memories never change")
        one_of("positive", self.positive, POSITIVES)


class Embedding(nn.Linear):
    """(B, C) -> (B, D) of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(wide(x)), dim=1)


class CRD(SingleLoss):
    """L = contrast(student embeddings, teacher memory) + contrast(teacher embeddings, student memory), see
    `Memory.contrast`. Both embeddings are trained; memories are updated after the optimiser's step, with the embeddings
    from before it."""

    def __init__(
        self, student_width: int, teacher_width: int, labels: Tensor, seed: int, options: CrdOptions
    ) -> None:
        super().__init__("crd", options)
        self.student = Embedding(student_width, options.feature_dim)
        self.teacher = Embedding(teacher_width, options.feature_dim)
        self.student_memory = Memory(len(labels), options.feature_dim)
        self.teacher_memory = Memory(len(labels), options.feature_dim)
        self.contrasts = Contrasts(labels, options.negatives, seed, options.positive)
        self._pending: tuple[tuple[Memory, Tensor, Tensor, Tensor], ...] = ()

    def begin_epoch(self, epoch: int) -> None:
        self.contrasts.draw(epoch)

    def loss(self, batch: Batch) -> Tensor:
        indices, temperature = batch.indices, self.options.temperature
        wanted = self.contrasts(indices)
        with no_autocast(batch.student.pooled):
            student = self.student(batch.student.pooled)
            teacher = self.teacher(batch.teacher.pooled)
            of_student, z_teacher = self.teacher_memory.contrast(student, wanted, temperature)
            of_teacher, z_student = self.student_memory.contrast(teacher, wanted, temperature)
        self._pending = (
            (self.student_memory, indices, student.detach(), z_student),
            (self.teacher_memory, indices, teacher.detach(), z_teacher),
        )
        return of_student + of_teacher

    def after_step(self) -> None:
        for memory, indices, embedding, z in self._pending:
            memory.update(indices, embedding, self.options.momentum, z)
        self._pending = ()


@register_method("crd", CrdOptions, display="CRD")
def crd(context: Context, options: CrdOptions) -> CRD:
    """CRD needs the training images' classes.

    Raises:
        ConfigError: a context without training images, without their classes, or with those of another number.
    """
    if context.train_images < 1:
        raise ConfigError(f"CRD keeps a memory of training images; their number is {context.train_images}")
    if context.labels is None:
        raise ConfigError(
            "CRD draws negatives of other classes; the training images' classes (labels) are missing"
        )
    if len(context.labels) != context.train_images:
        raise ConfigError(f"CRD has {len(context.labels)} labels of {context.train_images} training images")
    widths = (tap_shapes(net, context.image_size).pooled for net in (context.student, context.teacher))
    return CRD(*widths, context.labels, context.seed, options)
