"""Logits: mean squared error of logits (Ba and Caruana 2014), or, in some code, of the pooled vectors before them."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rkd.config import frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import upcast


@frozen
class LogitsOptions(Options):
    """
    Attributes:
        loss_weight: 1 in KnowledgeDistillation, 0.1 in KD-Zoo.
        on: "logits" as in the paper and KD-Zoo; "pooled" compares the pooled vectors, which is what gave the row
            "Logits" of KnowledgeDistillation's table.
    """

    on: Literal["logits", "pooled"] = "logits"


@register_method("logits", LogitsOptions, "Logits")
class Logits(SingleLoss):
    """Mean over images and entries of (student - teacher)^2; ConfigError for pooled vectors of different widths."""

    def __init__(self, context: Context, options: LogitsOptions) -> None:
        super().__init__(context, options)
        ours, theirs = (shapes.pooled for shapes in context.shapes)
        if options.on == "pooled" and ours != theirs:
            raise ConfigError(
                f"method logits with on='pooled' compares pooled vectors of equal width, but the student's has {ours} "
                f"channels and the teacher's {theirs}; set on='logits' or pair networks of one width"
            )

    def loss(self, batch: Batch) -> Tensor:
        student, teacher = (upcast(getattr(taps, self.options.on)) for taps in (batch.student, batch.teacher))
        return F.mse_loss(student, teacher)
