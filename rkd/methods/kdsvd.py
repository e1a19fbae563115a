"""Self-supervised Knowledge Distillation Using Singular Value Decomposition (Lee et al. 2018, Equations 3 to 5).

Compares how the leading singular vector of a stage's map, a direction in channel space, relates to that of the next. As
in RepDistiller, the matrix of a map is positions x channels; mdistiller reshapes maps to (channels and rows) x columns,
whose singular vectors mean something else: its KDSVD is another loss under the same name, which is an option here.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rkd.config import Count, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import check_alike, no_autocast, pair_stages, upcast

SPARE = 3  # extra student vectors among which each teacher vector's partner is sought
STEPS = 8  # of the power iteration, with gradient
SQUARINGS = 7  # for the matrix of each step, with gradient; as many again, without, for the start vector


@frozen
class KdsvdOptions(Options):
    """RepDistiller's k. No weight was published with it.

    Attributes:
        k: singular vectors of the teacher that are compared.
        vectors: "channels": they lie in channel space, as RepDistiller has it; "columns": in that of a map's columns,
            as mdistiller has it.
    """

    k: Count = 1
    vectors: Literal["channels", "columns"] = "channels"


def leading_vectors(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first right singular vectors, in channel space, of each image's (positions x channels) matrix.

    Power iteration and deflation need no decomposition, so nothing is read back from a GPU, and gradients are finite.
    The exact gradient holds 1 / (s_i^2 - s_j^2), unbounded for nearly equal singular values; here it is that fraction's
    geometric series, cut off after 2^SQUARINGS x STEPS terms: for singular values one percent apart, 1e-9 of it is
    lost. Vectors of (relatively) vanishing singular values are 0.

    Args:
        x: (B, C, H, W), float32 or float64; with the columns in front, (B, W, C, H), the vectors are in their space.
        count: at most min(C, H * W).

    Returns:
        (B, C, count) unit vectors of either sign, and (B, count) singular values, without gradient.
    """
    x = x.flatten(2)
    wider = x.shape[1] > x.shape[2]
    gram = x.mT @ x if wider else x @ x.mT  # the smaller Gram matrix; both share their eigenvalues
    scale = _trace(gram.detach(), torch.finfo(x.dtype).tiny)
    gram = gram / scale
    rounding = 32 * torch.finfo(x.dtype).eps
    vectors, values = [], []
    for _ in range(count):
        vector = _dominant(gram, rounding)
        vector = torch.where(vector.mT @ gram @ vector > rounding, vector, 0)
        value = vector.mT @ gram @ vector
        gram = gram - value * vector @ vector.mT
        vectors.append(vector)
        values.append((value * scale).detach().clamp_min(0).sqrt()[:, 0, 0])
    vectors = torch.cat(vectors, 2)
    return F.normalize(x @ vectors, dim=1) if wider else vectors, torch.stack(values, 1)


def _trace(gram: Tensor, least: float) -> Tensor:
    """Return the traces of (B, N, N) as (B, 1, 1), at least `least`."""
    return gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(least)[:, None, None]


def _dominant(gram: Tensor, rounding: float) -> Tensor:
    """Return the eigenvectors (B, N, 1) of the largest eigenvalue of symmetric matrices (B, N, N); matrices with a
    trace below `rounding` are not scaled up."""
    power = _squared(gram / _trace(gram.detach(), rounding))
    with torch.no_grad():
        limit = _squared(power)
        # All columns of a matrix of rank one are parallel: the longest is the most precise.
        longest = limit.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None].expand(-1, limit.shape[1], 1)
        vector = F.normalize(limit.gather(2, longest), dim=1)
    for _ in range(STEPS):
        vector = F.normalize(power @ vector, dim=1)
    return vector


def _squared(matrix: Tensor) -> Tensor:
    """Return matrices (B, N, N) to the power 2^SQUARINGS, up to a factor, which has no gradient."""
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
        matrix = matrix / _trace(matrix.detach(), torch.finfo(matrix.dtype).tiny)
    return matrix


def upright(vectors: Tensor) -> Tensor:
    """Return vectors (B, C, n), each with its sign flipped if its components sum to less than 0."""
    return torch.where(vectors.sum(1, keepdim=True) < 0, -vectors, vectors)


def aligned(vectors: Tensor, targets: Tensor) -> Tensor:
    """Return, for each target (B, C, k), the most parallel of the vectors (B, C, n), with the target's sign."""
    cosine = (vectors.mT @ targets).detach()
    strength = cosine.abs()
    choice = torch.where(strength == strength.amax(1, keepdim=True), cosine.sign(), 0)
    return vectors @ choice


@register_method("kdsvd", KdsvdOptions, "KDSVD")
class Kdsvd(SingleLoss):
    """Sum over adjacent stages of squared differences of RBF distances exp(-(a_i - b_j)^2 / 8) between all components
    of their vectors, averaged over images.

    Vectors are weighted by the teacher's singular values, normalised over the k. A singular vector's sign is arbitrary,
    and the distance of two stages depends on it; here each teacher vector has components of non-negative sum (after a
    ReLU the first one has them anyway, up to one common sign) and the student's follow, so the loss does not depend on
    the device. Stages are paired from the deepest up; sizes may differ, channels may not (with "columns" it is the
    other way round). ConfigError for channels (widths) that differ, or maps with fewer than k + 3 singular vectors.
    """

    def __init__(self, context: Context, options: KdsvdOptions) -> None:
        super().__init__(context, options)
        pairs = pair_stages(*(shapes.stages for shapes in context.shapes))
        self.by_column = options.vectors == "columns"
        axis = 2 if self.by_column else 0
        check_alike("kdsvd", "level", pairs, first=1, axis=axis)
        for level, (s, t) in enumerate(pairs, 1):
            for shape, needed in ((s, options.k + SPARE), (t, options.k)):
                most = min(shape[axis], math.prod(shape) // shape[axis])
                if most < needed:
                    raise ConfigError(
                        f"kdsvd with k = {options.k} needs {needed} singular vectors, but level {level} of shape "
                        f"{shape} has {most}; lower k or take larger images"
                    )

    def loss(self, batch: Batch) -> Tensor:
        k = self.options.k
        with no_autocast(batch.student.logits):
            ours, theirs = [], []
            for pair in pair_stages(batch.student.stages, batch.teacher.stages):
                student, teacher = (x.permute(0, 3, 1, 2) for x in pair) if self.by_column else pair
                with torch.no_grad():
                    target, values = leading_vectors(upcast(teacher), k)
                    target, importance = upright(target), F.normalize(values, dim=1)[:, None]
                vectors, _ = leading_vectors(upcast(student), k + SPARE)
                theirs.append(target * importance)
                ours.append(aligned(vectors, target) * importance)
            distances = [
                (_rbf(*s) - _rbf(*t)).square().sum()
                for s, t in zip(pairwise(ours), pairwise(theirs), strict=True)
            ]
            return torch.stack(distances).sum() / len(batch.labels)


def _rbf(a: Tensor, b: Tensor) -> Tensor:
    """(B, C_a, k) and (B, C_b, k) -> (B, C_a, C_b, k)."""
    return torch.exp(-(a[:, :, None] - b[:, None]).square() / 8)
