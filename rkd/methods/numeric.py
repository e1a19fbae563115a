"""Arithmetic that several methods share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in a precision that may be squared, exponentiated and normalised: bf16 and fp16 become fp32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> torch.autocast:
    """A `with` block in which products on the device of `x` are computed in the precision of their factors."""
    return torch.autocast(x.device.type, enabled=False)


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 sum p_t log(p_t / p_s) / B with p = softmax(logits / T) (Hinton et al. 2015), a scalar.

    Args:
        student_logits, teacher_logits: (B, classes), of any floating type; computed in fp32 or better.
        temperature: T; the factor T^2 keeps the gradient's size independent of it.
    """
    log_s = F.log_softmax(wide(student_logits) / temperature, 1)
    log_t = F.log_softmax(wide(teacher_logits) / temperature, 1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
