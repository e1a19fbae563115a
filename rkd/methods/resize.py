"""Which map of the student meets which of the teacher, and at what size."""

from collections.abc import Sequence
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor

S = TypeVar("S")
T = TypeVar("T")


def match(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller of their sizes: the larger is average-pooled (adaptively, where one size does not divide
    the other). Channels stay as they are.

    Args:
        student: (B, C_s, H_s, W_s).
        teacher: (B, C_t, H_t, W_t).

    Example:
        >>> import torch
        >>> s, t = match(torch.zeros(1, 2, 16, 16), torch.zeros(1, 5, 8, 8))
        >>> tuple(s.shape), tuple(t.shape)
        ((1, 2, 8, 8), (1, 5, 8, 8))
    """
    height, width = map(min, zip(student.shape[-2:], teacher.shape[-2:], strict=True))
    return pool(student, height, width), pool(teacher, height, width)


def pool(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, height, width) by adaptive average pooling; `x` itself where it has that size."""
    return x if x.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))


def paired(student: Sequence[S], teacher: Sequence[T]) -> list[tuple[S, T]]:
    """Maps (or their shapes) of two networks in pairs, from the deepest up, listed shallow to deep. Where one network
    has more of them, its shallowest ones stay without partner.

    >>> paired(["s1", "s2", "s3"], ["t1", "t2", "t3", "t4"])
    [('s1', 't2'), ('s2', 't3'), ('s3', 't4')]
    """
    count = min(len(student), len(teacher))
    return list(zip(student[len(student) - count :], teacher[len(teacher) - count :], strict=True))
