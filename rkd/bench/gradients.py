"""How near each arithmetic's gradient comes to that of double precision."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rkd.bench.variants import Workload
from rkd.data import evaluation_batches
from rkd.experiments.gang import place
from rkd.training import FrozenTeacher, Learner
from rkd.training.learner import build_method


@dataclass(frozen=True)
class Agreement:
    """The gradient of one step against float64, at the same first weights and the same images; all parameters, those of
    the fusion modules included, as one vector.

    Attributes:
        arithmetic: "fp32", "bf16", "fp16".
        images: of the batch.
        cosine: of the angle between the two.
        relative_error: length of the difference over the length of the float64 gradient.
    """

    arithmetic: str
    images: int
    cosine: float
    relative_error: float


def gradient(work: Workload, precision: str, batch_norm: str, images: int) -> Tensor:
    """Gradient of the total loss (cross-entropy and weighted review loss), (parameters,) float64, on the CPU.

    Args:
        work: pair, weights, data, device.
        precision: of student, fusion and teacher alike.
        batch_norm: of the teacher.
        images: the first so many training images, as they are.
    """
    config = work.config(precision, batch_norm)
    student, teacher, data = work.student_network(), work.teacher_network(), work.images
    method = build_method(
        config, student, teacher, data.train_x.shape[1], data.classes, len(data.train_y)
    ).train()
    student, method, teacher = (place(m, config, work.device) for m in (student, method, teacher))
    learner = Learner(config, student.train(), method)
    frozen = FrozenTeacher(teacher, batch_norm, learner.arithmetic)
    x, labels = next(
        evaluation_batches(data.train_x[:images], data.train_y[:images], data.mean, data.std, images)
    )
    x, labels = x.to(work.device, learner.arithmetic.master), labels.to(work.device)
    losses, _ = learner.losses(x, labels, labels, frozen.taps(x))
    weights = {"ce": config.ce_weight, **method.weights(0)}
    total = sum(weight * losses[name] for name, weight in weights.items())
    learner.scaler.scale(total).backward()
    scale = learner.scaler.get_scale() if learner.scaler.is_enabled() else 1.0
    return torch.cat([p.grad.double().flatten().cpu() / scale for p in learner.parameters])


def agreements(
    work: Workload, precisions: list[str], batch_norm: str, images: int, exact: Tensor | None = None
) -> list[Agreement]:
    """One for each precision.

    Args:
        work, batch_norm, images: as of `gradient`.
        precisions: "fp32", "bf16", "fp16".
        exact: the gradient to compare with; None: in float64.
    """
    exact = gradient(work, "fp64", batch_norm, images) if exact is None else exact
    found = []
    for precision in precisions:
        ours = gradient(work, precision, batch_norm, images)
        found.append(Agreement(precision, images, cosine(ours, exact), relative_error(ours, exact)))
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two vectors."""
    return (a @ b / (a.norm() * b.norm())).item()


def relative_error(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return ((a - b).norm() / b.norm()).item()
