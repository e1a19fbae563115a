"""SemCKD, cross-layer distillation with semantic calibration (Chen et al. 2021): every student stage is compared with
every teacher stage, and attention between their similarities within the batch says how much each comparison counts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import match, no_autocast, upcast

FACTOR = 4  # images of a batch per dimension of queries and keys


@frozen
class SemckdOptions(Options):
    """
    Attributes:
        soft: divides the products of queries and keys before the softmax.
    """

    loss_weight: Weight = 400.0
    soft: Positive = 1.0


class Similarities(nn.Module):
    """A map's similarities within its batch, embedded: F F^T -> Linear -> ReLU -> Linear -> length 1.

    Args:
        batch_size: B, which is the width of the first Linear.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        dim = batch_size // FACTOR
        self.layers = nn.Sequential(nn.Linear(batch_size, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, B // 4). The products are sums over whole maps, too large for half precision."""
        with no_autocast(x):
            flat = upcast(x).flatten(1)
            return F.normalize(self.layers(flat @ flat.t()), dim=1)


def projector(student: int, teacher: int) -> nn.Sequential:
    """(B, C_s, H, W) -> (B, C_t, H, W)."""
    mid = 2 * teacher
    return nn.Sequential(
        nn.Conv2d(student, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.ReLU(),
        nn.Conv2d(mid, mid, 3, padding=1, bias=False), nn.BatchNorm2d(mid), nn.ReLU(),
        nn.Conv2d(mid, teacher, 1, bias=False),
    )  # fmt: skip


@register_method("semckd", SemckdOptions, "SemCKD")
class SemCKD(SingleLoss):
    """L = 1/(B S) sum_b sum_s sum_t a_bst mean (P_st(student map s) - teacher map t)^2, the larger of the two maps
    average-pooled to the smaller before the projection; a_bst = softmax over t of q_bs . k_bt / soft, with queries q
    from the student's and keys k from the teacher's stages. The student learns through queries as well as maps.

    Queries and keys read B similarities per image, so their layers fit one batch size: a batch of another size, as the
    last of an epoch may be, has loss 0 without gradient. Leave it out of training altogether with `drop_last`.
    ConfigError for a batch too small for queries, or larger than the training set.
    """

    def __init__(self, context: Context, options: SemckdOptions) -> None:
        super().__init__(context, options)
        self.batch_size = size = context.batch_size
        if size < FACTOR:
            raise ConfigError(f"SemCKD embeds {FACTOR} similarities in one; batch_size {size} is too small")
        if 0 < (images := context.train_images) < size:
            raise ConfigError(
                f"SemCKD compares batches of exactly batch_size {size} images; there are {images}"
            )
        student, teacher = ([shape[0] for shape in shapes.stages] for shapes in context.shapes)
        self.queries = nn.ModuleList(Similarities(size) for _ in student)
        self.keys = nn.ModuleList(Similarities(size) for _ in teacher)
        self.projectors = nn.ModuleList(nn.ModuleList(projector(s, t) for t in teacher) for s in student)

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """(B, S, T), each row a distribution over the teacher's stages."""
        queries = torch.stack([query(x) for query, x in zip(self.queries, student, strict=True)], 1)
        keys = torch.stack([key(x) for key, x in zip(self.keys, teacher, strict=True)], 2)
        with no_autocast(queries):
            return F.softmax(queries @ keys / self.options.soft, 2)

    def loss(self, batch: Batch) -> Tensor:
        student, teacher = batch.student.stages, batch.teacher.stages
        if len(batch.labels) != self.batch_size:
            return upcast(batch.student.pooled.detach()).new_zeros(())
        rows = []
        for x, projectors in zip(student, self.projectors, strict=True):
            pairs = [(projectors[i], *match(x, t)) for i, t in enumerate(teacher)]
            errors = [(upcast(p(s)) - upcast(t)).square().mean((1, 2, 3)) for p, s, t in pairs]
            rows.append(torch.stack(errors, 1))
        weighted = self.attention(student, teacher) * torch.stack(rows, 1)
        return weighted.sum() / (self.batch_size * len(student))
