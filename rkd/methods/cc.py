"""CC, correlation congruence (Peng et al. 2019), in the form behind RepDistiller's table: embedded pooled vectors of
consecutive images in a batch."""

from torch import Tensor, nn

from rkd.config import Count, Weight, frozen
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import no_autocast, upcast


@frozen
class CcOptions(Options):
    """
    Attributes:
        loss_weight: 0.02 in RepDistiller's scripts. KD-Zoo has 100 for another loss under this name.
        dim: length of the embeddings; 128 in RepDistiller.
    """

    loss_weight: Weight = 0.02
    dim: Count = 128


@register_method("cc", CcOptions, "CC")
class Cc(SingleLoss):
    """Mean over consecutive images of the product delta_i . delta_(i+1), where delta = |student - teacher|, entry by
    entry, of two trained linear embeddings. A batch of one image has loss 0."""

    def __init__(self, context: Context, options: CcOptions) -> None:
        super().__init__(context, options)
        self.student, self.teacher = (nn.Linear(shapes.pooled, options.dim) for shapes in context.shapes)

    def loss(self, batch: Batch) -> Tensor:
        with no_autocast(batch.student.pooled):
            ours, theirs = (
                self.student(upcast(batch.student.pooled)),
                self.teacher(upcast(batch.teacher.pooled)),
            )
        delta = (ours - theirs).abs()
        return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)
