"""CRD, contrastive representation distillation (Tian et al. 2020): an image's student embedding is to be told
apart, in the memory of teacher embeddings, from images of other classes, and the other way round. Compares pooled
vectors."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Count, Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.crd_memory import Memory
from rkd.methods.negatives import Contrasts
from rkd.methods.numeric import no_autocast, wide


@frozen
class CrdOptions(Options):
    """Options of CRD; defaults as in RepDistiller.

    Attributes:
        feature_dim: D, of both embeddings.
        negatives: K, per image.
        temperature: T of the scores.
        momentum: share of the old row in a memory's update, 0 to below 1.
        positive: "exact": an image's positive is itself; "relax": any image of its class.
    """

    loss_weight: Weight = 0.8
    feature_dim: Count = 128
    negatives: Count = 16384
    temperature: Positive = 0.07
    momentum: Weight = 0.5
    positive: Literal["exact", "relax"] = "exact"

    def __post_init__(self) -> None:
        if self.momentum >= 1:
            raise ConfigError(f"momentum is {self.momentum}; it must be < 1, or the memories never change")


class Embedding(nn.Linear):
    """(B, C) -> (B, D) of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(wide(x)), dim=1)


@register_method("crd", CrdOptions, "CRD")
class CRD(SingleLoss):
    """L = contrast(student embeddings, teacher memory) + contrast(teacher embeddings, student memory), see
    `Memory.contrast`. Both embeddings are trained; memories are updated after the optimiser's step, with the embeddings
    from before it.

    Raises:
        ConfigError: a context without training images, without their classes, or with those of another number.
    """

    def __init__(self, context: Context, options: CrdOptions) -> None:
        super().__init__(context, options)
        images, labels, dim = context.train_images, context.labels, options.feature_dim
        if images < 1:
            raise ConfigError(f"CRD keeps a memory of training images; their number is {images}")
        if labels is None:
            raise ConfigError(
                "CRD draws negatives of other classes; the training images' classes (labels) are missing"
            )
        if len(labels) != images:
            raise ConfigError(f"CRD has {len(labels)} labels of {images} training images")
        self.student, self.teacher = (Embedding(shapes.pooled, dim) for shapes in context.shapes)
        self.student_memory, self.teacher_memory = Memory(images, dim), Memory(images, dim)
        self.contrasts = Contrasts(labels, options.negatives, context.seed, options.positive)
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
