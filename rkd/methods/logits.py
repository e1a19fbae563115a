"""Logits: mean squared error of logits (Ba and Caruana 2014), or, as some code has it, of the vectors before them."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import wide
from rkd.methods.options import Options, one_of
from rkd.models import tap_shapes


@dataclass(frozen=True)
class LogitsOptions(Options):
    """
    Attributes:
        loss_weight: 1 in KnowledgeDistillation, 0.1 in KD-Zoo.
        on: "logits" as in the paper and KD-Zoo; "pooled" compares the pooled vectors, which is what gave the row
            "Logits" of KnowledgeDistillation's table.

    Raises:
        ConfigError: another `on`.
    """

    on: str = "logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("on", self.on, ("logits", "pooled"))


class Logits(SingleLoss):
    """Mean over images and entries of (student - teacher)^2."""

    def loss(self, batch: Batch) -> Tensor:
        student, teacher = (wide(getattr(taps, self.options.on)) for taps in (batch.student, batch.teacher))
        return F.mse_loss(student, teacher)


@register_method("logits", LogitsOptions, "Logits")
def build_logits(context: Context, options: LogitsOptions) -> Logits:
    """Logits for the pair in `context`; ConfigError for pooled vectors of different widths."""
    if options.on == "pooled":
        ours, theirs = (
            tap_shapes(net, context.image_size).pooled for net in (context.student, context.teacher)
        )
        if ours != theirs:
            raise ConfigError(
                f"method logits with on='pooled' compares pooled vectors of equal width, but the student's has {ours} "
                f"channels and the teacher's {theirs}; set on='logits' or pair networks of one width"
            )
    return Logits("logits", options)
