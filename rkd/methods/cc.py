"""CC, correlation congruence (Peng et al. 2019), in the form RepDistiller made its table with: embedded pooled vectors,
consecutive images of a batch."""

from dataclasses import dataclass

from torch import Tensor, nn

from rkd.methods.base import Batch, Context, SingleLoss, register_method
from rkd.methods.numeric import wide
from rkd.methods.options import Options, at_least
from rkd.models import tap_shapes


@dataclass(frozen=True)
class CcOptions(Options):
    """
    Attributes:
        loss_weight: 0.02 in RepDistiller's scripts. KD-Zoo has 100 for another loss under this name.
        dim: length of the embeddings; 128 in RepDistiller.

    Raises:
        ConfigError: dim < 1.
    """

    loss_weight: float = 0.02
    dim: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("dim", self.dim, 1)


class Cc(SingleLoss):
    """Mean over consecutive images of the product delta_i . delta_(i+1), where delta = |student - teacher|, entry by
    entry, of two trained linear embeddings. A batch of one image has loss 0.

    Args:
        student, teacher: channels of the pooled vectors.
    """

    def __init__(self, student: int, teacher: int, options: CcOptions) -> None:
        super().__init__("cc", options)
        self.student = nn.Linear(student, options.dim)
        self.teacher = nn.Linear(teacher, options.dim)

    def loss(self, batch: Batch) -> Tensor:
        ours = wide(self.student(wide(batch.student.pooled)))
        delta = (ours - wide(self.teacher(wide(batch.teacher.pooled)))).abs()
        return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


@register_method("cc", CcOptions, "CC")
def build_cc(context: Context, options: CcOptions) -> Cc:
    """CC for the pair in `context`."""
    ours, theirs = (tap_shapes(net, context.image_size).pooled for net in (context.student, context.teacher))
    return Cc(ours, theirs, options)
