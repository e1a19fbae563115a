"""Arithmetic that several methods share: precision, KL, and which student map is compared with which teacher map."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rkd.errors import ConfigError

Shape = tuple[int, int, int]  # channels, height, width


def upcast(x: Tensor) -> Tensor:
    """Return `x` in a precision that is safe to square, exponentiate and normalise: bf16 and fp16 become fp32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> torch.autocast:
    """Return a context in which products on the device of `x` are computed in the precision of their factors."""
    return torch.autocast(x.device.type, enabled=False)


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 sum p_t log(p_t / p_s) / B with p = softmax(logits / T) of logits (B, classes) (Hinton et al. 2015), a
    scalar computed in fp32 or better. The factor T^2 keeps the gradient's size independent of the temperature T."""
    log_s = F.log_softmax(upcast(student_logits) / temperature, 1)
    log_t = F.log_softmax(upcast(teacher_logits) / temperature, 1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def match(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return two maps (B, C, H, W) at the smaller of their sizes: the larger is average-pooled (adaptively, where one
    size does not divide the other). Channels stay as they are.

    >>> s, t = match(torch.zeros(1, 2, 16, 16), torch.zeros(1, 5, 8, 8))
    >>> tuple(s.shape), tuple(t.shape)
    ((1, 2, 8, 8), (1, 5, 8, 8))
    """
    size = tuple(map(min, zip(student.shape[-2:], teacher.shape[-2:], strict=True)))
    return tuple(x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher))


def pair_stages(student: Sequence[Any], teacher: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pair the maps (or their shapes) of two networks from the deepest up, listed shallow to deep. Where one network
    has more, its shallowest ones stay without a partner.

    >>> pair_stages(["s1", "s2", "s3"], ["t1", "t2", "t3", "t4"])
    [('s1', 't2'), ('s2', 't3'), ('s3', 't4')]
    """
    count = min(len(student), len(teacher))
    return list(zip(student[len(student) - count :], teacher[len(teacher) - count :], strict=True))


def halving_sum(distances: Sequence[Tensor]) -> Tensor:
    """Return the sum of stages' distances, shallow to deep, where each stage counts half as much as the next deeper."""
    return sum(distance / 2 ** (len(distances) - 1 - i) for i, distance in enumerate(distances))


def check_alike(
    name: str, what: str, shapes: Sequence[tuple[Shape, Shape]], first: int, axis: int = 0
) -> None:
    """Raise ConfigError for a pair of shapes that differ in channels, or width (`axis` 2); pairs are numbered from
    `first`."""
    side = ("channels", "height", "width")[axis]
    for level, (s, t) in enumerate(shapes, first):
        if s[axis] != t[axis]:
            raise ConfigError(
                f"{name} compares {what}s of equal {side}, but {what} {level} is {s} in the student and {t} in the "
                f"teacher; choose a student with the teacher's {side}"
            )
