"""CRD, contrastive representation distillation (Tian et al. 2020): among the teacher embeddings in memory, an image's
student embedding must tell its own from those of images of other classes, and the other way round. Compares pooled
vectors. Constants as in RepDistiller."""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Count, Positive, Weight, frozen
from rkd.data.streams import stream_seed
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import no_autocast, upcast

EPS = 1e-7
# Images per wanted score up to which one product with the whole memory is quicker than gathering the wanted rows
# (B x K x D numbers): break-even lies near 50 on a CPU with D = 128, and higher on GPUs, where the product costs less.
PRODUCT_UP_TO = 32
_WORKER = ThreadPoolExecutor(1)  # starts its thread with the first draw ahead


@frozen
class CrdOptions(Options):
    """
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
    """A linear embedding (B, C) -> (B, D), normalised to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(upcast(x)), dim=1)


class Memory(nn.Module):
    """One embedding per training image, and the constant Z that its scores are divided by.

    Attributes:
        rows: (N, D) of N images, drawn uniformly from +-1 / sqrt(D / 3), so that their expected squared length is 1.
        z: scalar; 0 until the first update fixes it.
    """

    def __init__(self, images: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim / 3)
        self.register_buffer("rows", torch.empty(images, dim).uniform_(-bound, bound))
        self.register_buffer("z", torch.zeros(()))

    def contrast(self, embedding: Tensor, wanted: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the loss of the other network's embeddings against this memory.

        With p_bi = exp(rows_i . e_b / T) / Z and c = K / N, the loss is
        -1/B sum_b [log p/(p + c + eps) of the positive + sum over negatives of log c/(p + c + eps)].

        Args:
            embedding: (B, D), of length 1.
            wanted: (B, 1 + K) int64, image indices: each one's positive and then its negatives.
            temperature: T.

        Returns:
            (loss, z): the scalar, and the constant used: `self.z`, or in the first step the mean of the B (1 + K)
            scores before division, times N.
        """
        images, share = len(self.rows), (wanted.shape[1] - 1) / len(self.rows)
        scores = similarities(self.rows, embedding / temperature, wanted).exp()
        z = torch.where(self.z > 0, self.z.to(scores.dtype), scores.detach().mean() * images)
        p = scores / z
        # The same logarithms, in a form that stays precise where p is much smaller, or larger, than c.
        positive = torch.log1p((share + EPS) / p[:, 0])
        negative = torch.log1p((p[:, 1:] + EPS) / share)
        return (positive.sum() + negative.sum()) / len(p), z

    @torch.no_grad()
    def update(self, indices: Tensor, embedding: Tensor, momentum: float, z: Tensor, made: Tensor) -> None:
        """Set row <- normalise(momentum row + (1 - momentum) embedding) for the images `indices` (B,), all different,
        and fix the constant. Do neither where the step was not `made`: its embeddings may hold NaN."""
        old = self.rows.index_select(0, indices)
        new = F.normalize(momentum * old.to(embedding.dtype) + (1 - momentum) * embedding, dim=1)
        self.rows.index_copy_(0, indices, torch.where(made, new.to(old.dtype), old))
        self.z.copy_(torch.where(made, z, self.z))


def similarities(rows: Tensor, embedding: Tensor, wanted: Tensor) -> Tensor:
    """rows (N, D), embedding (B, D) and wanted (B, K) int64 -> (B, K), [b, k] = rows[wanted[b, k]] . embedding[b].

    Sizes alone decide how: either all N x B products are computed and the wanted ones selected or, where few of very
    many are wanted, their rows are gathered first.
    """
    rows = rows.to(embedding.dtype)
    if len(rows) <= PRODUCT_UP_TO * wanted.shape[1]:
        return (embedding @ rows.t()).gather(1, wanted)
    gathered = rows.index_select(0, wanted.flatten()).view(*wanted.shape, rows.shape[1])
    return torch.bmm(gathered, embedding[:, :, None]).squeeze(2)


class Contrasts(nn.Module):
    """Negatives and positives of every training image, drawn anew for each epoch.

    Each class has a row with all images of the other classes in a random order of its own, continued cyclically; an
    image's negatives are K consecutive entries of its class's row, from a random start of its own. So every image's
    negatives are a uniformly drawn set of K different images of other classes, as drawn without replacement; where K
    exceeds the M images of other classes, each of these occurs floor(K / M) or ceil(K / M) times. Within an epoch, two
    images of one class share an order, so the overlap of their sets varies more than that of independent draws.

    All draws are in buffers, renewed in place; a function of seed and epoch, they are not part of the state dict.

    Args:
        labels: (N,) int64, classes of the training images, on the CPU.
        count: K, negatives per image.
        positive: "exact": an image's positive is itself; "relax": an image of its class, itself among them, drawn
            uniformly per image and epoch.

    Memory: classes x (N + K) x 4 bytes; 26 MB for 100 classes, N = 50,000, K = 16,384.

    Raises:
        ConfigError: images of one class only, which have no negatives.
    """

    def __init__(self, labels: Tensor, count: int, seed: int, positive: str = "exact") -> None:
        super().__init__()
        self.count, self.seed, self.positive = count, seed, positive
        sizes = torch.bincount(labels)
        if int((sizes > 0).sum()) < 2:
            raise ConfigError("contrastive negatives need training images of at least two classes")
        self._labels, self._sizes = labels, sizes
        self._firsts = sizes.cumsum(0) - sizes
        self._by_class = labels.argsort(stable=True).int()
        self._width = len(labels) - int(sizes[sizes > 0].min()) + count - 1  # of the longest row
        table = torch.zeros(len(sizes), self._width, dtype=torch.int32)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("starts", torch.zeros_like(labels), persistent=False)
        self.register_buffer("mates", torch.arange(len(labels)), persistent=False)
        self._ahead: tuple[int, Future[tuple[Tensor, Tensor, Tensor]]] | None = None
        self.draw(0)

    def draw(self, epoch: int) -> None:
        """Renew everything for an epoch (0-based). On CUDA another thread then draws the next epoch's, since drawing
        may take longer than the epoch."""
        ahead, self._ahead = self._ahead, None
        drawn = ahead[1].result() if ahead is not None and ahead[0] == epoch else self._drawn(epoch)
        for buffer, values in zip((self.starts, self.table, self.mates), drawn, strict=True):
            buffer.copy_(values, non_blocking=True)
        if self._on_gpu():
            self._ahead = epoch + 1, _WORKER.submit(self._drawn, epoch + 1)

    def _drawn(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts, table and mates of an epoch, on the CPU; in pinned memory if they will be copied to a GPU."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "crd", "negatives", epoch))
        others = len(self._labels) - self._sizes
        place = torch.rand(len(self._labels), generator=generator, dtype=torch.float64)
        starts = self._labels * self._width + (place * others[self._labels]).long()
        table = torch.zeros(len(self._sizes), self._width, dtype=torch.int32)
        for row, first, size in zip(table, self._firsts.tolist(), self._sizes.tolist(), strict=True):
            if size:  # nobody asks for the negatives of a class without images
                others = len(self._labels) - size
                order = torch.randperm(others, dtype=torch.int32, generator=generator)
                order += (order >= first).int() * size  # skips the class's own images, in the order by class
                length = others + self.count - 1
                row[:length] = self._by_class.index_select(0, order).repeat(-(-length // others))[:length]
        mates = torch.arange(len(self._labels))
        if self.positive == "relax":
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "crd", "positives", epoch))
            place = torch.rand(len(self._labels), generator=generator, dtype=torch.float64)
            within = (place * self._sizes[self._labels]).long()
            mates = self._by_class[self._firsts[self._labels] + within].long()
        drawn = starts, table, mates
        return tuple(values.pin_memory() for values in drawn) if self._on_gpu() else drawn

    def _on_gpu(self) -> bool:
        """Whether the buffers are on a GPU; tensors that merely stand in for a GPU's have none behind them."""
        return self.table.is_cuda and torch.cuda.is_available()

    def forward(self, indices: Tensor) -> Tensor:
        """Return the positive of each image of `indices` (B,) int64 and then its negatives: (B, 1 + K) int64."""
        out = torch.empty(len(indices), 1 + self.count, dtype=torch.int64, device=indices.device)
        out[:, 0] = self.mates.index_select(0, indices)
        windows = self.table.view(-1).as_strided((self.table.numel() - self.count + 1, self.count), (1, 1))
        out[:, 1:] = windows.index_select(0, self.starts.index_select(0, indices))
        return out


@register_method("crd", CrdOptions, "CRD")
class CRD(SingleLoss):
    """L = contrast(student embeddings, teacher memory) + contrast(teacher embeddings, student memory), see
    `Memory.contrast`. Both embeddings are trained; memories are updated after the optimiser's step, with the embeddings
    from before it. ConfigError for a context without the classes of training images, or with a single class."""

    def __init__(self, context: Context, options: CrdOptions) -> None:
        super().__init__(context, options)
        images, labels, dim = context.train_images, context.labels, options.feature_dim
        if labels is None:
            raise ConfigError("CRD draws negatives of other classes, but the classes (labels) are missing")
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

    def after_step(self, made: Tensor) -> None:
        for memory, indices, embedding, z in self._pending:
            memory.update(indices, embedding, self.options.momentum, z, made)
        self._pending = ()
