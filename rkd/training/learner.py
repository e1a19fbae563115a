"""One student in training: its network, its method, its optimiser, its curves."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd import models
from rkd.data import stream_seed
from rkd.methods import Batch, Context, Method, get_method
from rkd.models.taps import Taps
from rkd.training.config import RunConfig

FP16_LOSS_SCALE = 1024.0


def build_network(config: RunConfig, classes: int) -> nn.Module:
    """The run's network as it stands before the first step: a function of its name, class count and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "network"))
        return models.build(config.network, classes)


def build_method(
    config: RunConfig,
    student: nn.Module,
    teacher: nn.Module,
    image_size: int,
    classes: int,
    train_images: int,
) -> Method | None:
    """The run's method with its extra modules, initialised from a stream of their own."""
    if config.method is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "method"))
        context = Context(student, teacher, image_size, classes, train_images)
        return get_method(config.method).build(context, config.options)


class Learner:
    """Trains one run, one batch at a time. Several learners fed the same batches form a gang.

    Args:
        config: the run.
        student: network on its device.
        method: its method, on the same device, or None.
    """

    def __init__(self, config: RunConfig, student: nn.Module, method: Method | None) -> None:
        self.config = config
        self.student = student
        self.method = method
        self.parameters = [
            p for m in (student, method) if m is not None for p in m.parameters() if p.requires_grad
        ]
        sgd = config.optimiser
        self.optimiser = torch.optim.SGD(
            self.parameters, sgd.lr, sgd.momentum, weight_decay=sgd.weight_decay, nesterov=sgd.nesterov
        )
        self.epoch = 0  # epochs finished
        self.diverged = False
        self.curves: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None  # {"epoch", "score", "student"}
        self._weights: dict[str, float] = {}
        self._meters: dict[str, Tensor] = {}
        self._images = 0

    def begin_epoch(self) -> None:
        """Set this epoch's learning rate and loss weights, and clear the meters."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.optimiser.lr_at(self.epoch)
        self._weights = {"ce": self.config.ce_weight}
        if self.method is not None:
            self._weights |= self.method.weights(self.epoch)
            self.method.train()
        self._meters, self._images = {}, 0
        self.student.train()

    def step(self, x: Tensor, labels: Tensor, indices: Tensor, teacher: Taps | None) -> None:
        """One update of student and method on one batch.

        Args:
            x: (B, 3, H, W), normalised.
            labels, indices: (B,) int64.
            teacher: the teacher's taps of x; None for a run without method.
        """
        losses, logits = self.losses(x, labels, indices, teacher)
        total = sum(self._weights[name] * loss for name, loss in losses.items())
        self.optimiser.zero_grad(set_to_none=True)
        if self.config.precision == "fp16":  # keeps small gradients out of fp16's underflow
            (total * FP16_LOSS_SCALE).backward()
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], FP16_LOSS_SCALE)
        else:
            total.backward()
        self.optimiser.step()
        size = len(labels)
        self._images += size
        with torch.no_grad():  # sums stay on the device: no wait for the GPU in a step
            correct = (logits.argmax(1) == labels).sum()
            for name, value in (
                *((f"loss_{k}", v.detach() * size) for k, v in losses.items()),
                ("correct", correct),
            ):
                value = value.double()
                self._meters[name] = self._meters[name] + value if name in self._meters else value

    def losses(
        self, x: Tensor, labels: Tensor, indices: Tensor, teacher: Taps | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Named, unweighted losses of one batch, and the logits (B, classes)."""
        low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.precision)
        with torch.autocast(x.device.type, dtype=low, enabled=low is not None):
            taps = self.student.taps(x)
            extra = {} if self.method is None else self.method.losses(Batch(taps, teacher, labels, indices))
        logits = taps.logits if taps.logits.dtype == torch.float64 else taps.logits.float()
        return {"ce": F.cross_entropy(logits, labels), **extra}, logits

    def end_epoch(self, seconds: float) -> None:
        """Read the meters once, append to the curves, note divergence.

        Args:
            seconds: wall time spent on this epoch by this learner.
        """
        means = {name: (total / self._images).item() for name, total in self._meters.items()}
        self._add("lr", self.config.optimiser.lr_at(self.epoch))
        self._add("train_accuracy", 100.0 * means.pop("correct"))
        for name, mean in means.items():
            self._add(name, mean)
        self.diverged = not all(math.isfinite(mean) for mean in means.values())
        self.seconds += seconds
        self.epoch += 1

    def score(self, **accuracies: float) -> None:
        """Record this epoch's accuracies in percent; the first one named decides which epoch is best."""
        for name, value in accuracies.items():
            self._add(name, value)
        score = next(iter(accuracies.values()))
        if self.best is None or score > self.best["score"]:
            self.best = {
                "epoch": self.epoch - 1,
                "score": score,
                "student": copy.deepcopy(self.student.state_dict()),
            }

    def _add(self, name: str, value: float) -> None:
        self.curves.setdefault(name, []).append(value)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values."""
        return {
            "run": self.config.id,
            "epoch": self.epoch,
            "student": self.student.state_dict(),
            "method": None if self.method is None else self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "curves": self.curves,
            "seconds": self.seconds,
            "best": self.best,
            "diverged": self.diverged,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.student.load_state_dict(state["student"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in ("epoch", "curves", "seconds", "best", "diverged"):
            setattr(self, name, state[name])
