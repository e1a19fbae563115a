"""SRRL, softmax regression representation learning (Yang et al. 2021): the student's projected pooled vector should
equal the teacher's, and give the same logits in the teacher's classifier."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method, Options, register_method
from rkd.methods.numeric import no_autocast, upcast
from rkd.models.taps import TapShapes


@frozen
class SrrlOptions(Options):
    """
    Attributes:
        loss_weight: multiplies both terms, which the published codes add unweighted.
    """


@register_method("srrl", SrrlOptions, "SRRL")
class Srrl(Method):
    """Two losses, mean squared error each: "srrl_feature" between projected student vector and teacher's pooled vector,
    "srrl_logits" between the teacher's classifier on the projected vector and the teacher's logits.

    The projection is a trained linear layer without bias (the 1x1 convolution of the published code, on maps of one
    position), BatchNorm and ReLU; the classifier is a frozen copy. ConfigError for a teacher that does not have exactly
    one linear classifier.
    """

    def __init__(self, context: Context, options: SrrlOptions) -> None:
        super().__init__(context, options)
        student, teacher = context.shapes
        head = classifier(context.teacher, teacher)
        linear = nn.Linear(student.pooled, head.in_features, bias=False)
        self.projection = nn.Sequential(linear, nn.BatchNorm1d(head.in_features), nn.ReLU())
        self.head = copy.deepcopy(head).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        with no_autocast(batch.student.pooled):
            projected = self.projection(upcast(batch.student.pooled))
            logits = self.head(projected)
        return {
            "srrl_feature": F.mse_loss(projected, upcast(batch.teacher.pooled)),
            "srrl_logits": F.mse_loss(logits, upcast(batch.teacher.logits)),
        }

    def weights(self, epoch: int) -> dict[str, float]:
        return dict.fromkeys(("srrl_feature", "srrl_logits"), self.options.loss_weight)


def classifier(network: nn.Module, shapes: TapShapes) -> nn.Linear:
    """Return the one linear layer of `network` that turns pooled vectors into logits, identified by its sizes.
    ConfigError if there is none, or more than one."""
    sizes = (shapes.pooled, shapes.classes)
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    fitting = [name for name, m in linear.items() if (m.in_features, m.out_features) == sizes]
    if len(fitting) != 1:
        found = ", ".join(f"{name} {m.in_features} -> {m.out_features}" for name, m in linear.items())
        raise ConfigError(
            f"method srrl needs a teacher with exactly one linear layer {sizes[0]} -> {sizes[1]}, from its pooled "
            f"vector to its logits, but the linear layers of this {type(network).__name__} are: {found or 'none'}"
        )
    return linear[fitting[0]]
