"""The two students that ModReduce owns, and how any of the three is distilled."""

import dataclasses
import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method
from rkd.methods.numeric import wide
from rkd.methods.sum import get_method
from rkd.models.taps import Taps

if TYPE_CHECKING:
    from rkd.records import Record

STUDENTS = ("response", "relational", "feature")
FLOOR = 1e-7  # added to the probabilities that are to be matched
VALUES = {
    "fitnet": {"hint_layer": 1},
    "rkd": {"on": "logits"},
}  # options that differ from a method's defaults


def softened_kl(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 sum q log(q / p) / B with p = softmax(logits / T), q = softmax(target / T) + 1e-7; no gradient to `target`.

    Args:
        logits, target: (B, classes); computed in fp32 or better.
        temperature: T.
    """
    log_p = F.log_softmax(wide(logits) / temperature, 1)
    q = F.softmax(wide(target.detach()) / temperature, 1) + FLOOR
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")


class Learning(nn.Module):
    """A student with the method by which it learns from the teacher.

    Args:
        context: of the run.
        network: name of the student's network.
        method: name of a registered method.
        weight: of its loss; None: the method's own.

    Attributes:
        network: the student.
        distiller: its method.
        weight: of the method's loss.

    Raises:
        ConfigError: a network or method that does not exist, a method with stages, no name of a network.
    """

    def __init__(self, context: Context, network: str, method: str, weight: float | None) -> None:
        super().__init__()
        if not network:
            raise ConfigError(
                "modreduce needs the name of the run's network, or relational_student and feature_student"
            )
        entry = get_method(method)
        options = entry.options(**VALUES.get(method, {}))
        if weight is not None:
            options = dataclasses.replace(options, loss_weight=weight)
        if options.stages():
            raise ConfigError(
                f"modreduce cannot let a student learn by {method!r}, which trains in stages; take another method"
            )
        self.network = context.build(network)
        self.distiller: Method = entry.build(
            dataclasses.replace(context, student=self.network, network=network), options
        )
        self.weight = options.loss_weight

    def losses(self, batch: Batch, taps: Taps) -> dict[str, Tensor]:
        """The method's losses for this student's taps of the batch."""
        return dict(self.distiller.losses(dataclasses.replace(batch, student=taps)))

    def rates(self, epoch: int, lr: float, ratio: float) -> dict[str, float]:
        """Learning rates where this student's is `ratio` x the run's `lr`, by prefix; the method's own stand."""
        own = {f"distiller.{prefix}": rate for prefix, rate in self.distiller.rates(epoch, lr).items()}
        if ratio == 1:
            return own
        return {"network.": ratio * lr, **own} if own else {"": ratio * lr}


def student_accuracies(record: "Record", which: str = "last") -> dict[str, float]:
    """Test accuracies in percent of a run's three students at the "last" epoch, or at the "best" one of each on the
    test set; NaN for a diverged run. The run's own network is the response student."""
    further = {name: record.result[f"{which}_accuracy_{name}"] for name in STUDENTS[1:]}
    alive = record.status == "finished"
    return {STUDENTS[0]: record.accuracy(which)} | {n: v if alive else math.nan for n, v in further.items()}
