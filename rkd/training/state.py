"""One student in training: its network, its method, its optimiser, its curves."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd import models
from rkd.data import stream_seed
from rkd.methods import Batch, Context, Method, get_method
from rkd.models.taps import Taps
from rkd.training.arithmetic import Arithmetic, arithmetic
from rkd.training.config import RunConfig
from rkd.training.low import LowWeights

# Loss scale of fp16: halved, and the step left out, when a gradient overflows; doubled after so many steps without, but
# never beyond where it began, so that no step is lost to trying.
FP16_LOSS_SCALE = 1024.0
FP16_RECOVERY_STEPS = 2000
# An epoch with more than this share of its steps left out has diverged.
MOST_LEFT_OUT = 0.5


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
    labels: Tensor | None = None,
) -> Method | None:
    """The run's method with its extra modules, initialised from a stream of their own; arguments as in `Context`."""
    if config.method is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "method"))
        context = Context(
            student,
            teacher,
            image_size,
            classes,
            train_images,
            labels=None if labels is None else labels.cpu(),
            batch_size=config.batch_size,
            seed=config.seed,
            network=config.network,
        )
        return get_method(config.method).build(context, config.options)


def student_taps(student: nn.Module, x: Tensor, numbers: Arithmetic) -> Taps:
    """The student's taps of a batch (B, 3, H, W), with gradient."""
    with torch.autocast(x.device.type, dtype=numbers.low, enabled=numbers.low is not None):
        return student.taps(x)


def method_losses(
    method: Method | None,
    taps: Taps,
    teacher: Taps | None,
    labels: Tensor,
    indices: Tensor,
    images: Tensor,
    numbers: Arithmetic,
) -> tuple[dict[str, Tensor], Tensor]:
    """Named, unweighted losses of one batch, cross-entropy's among them, and the logits (B, classes)."""
    with torch.autocast(images.device.type, dtype=numbers.low, enabled=numbers.low is not None):
        extra, seen = {}, taps.logits
        if method is not None:
            extra = method.losses(Batch(taps, teacher, labels, indices, images))
            seen = method.classified(taps)
    ce = F.cross_entropy(seen.to(numbers.master), labels)
    return {"ce": ce, **extra}, taps.logits.to(numbers.master)


@functools.cache
def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    """`student_taps` or `method_losses` as one graph, which every run of one make shares: networks and methods are
    arguments, whose tensors are inputs of the graph. What a method reads of its options as plain numbers is part of the
    make, and so is the batch's size. A method of one's own that cannot be one graph runs in pieces."""
    return torch.compile(part, dynamic=False)


PARTS = (student_taps, method_losses)  # of the losses of one batch, one after the other


class TrainState:
    """The state of one run in training, and its step. Several states fed the same batches form a run group.

    Everything a step reads or writes (learning rate, loss weights, meters, momentum, loss scale) is a tensor that
    stays where it is, and a step reads nothing back: one sequence of kernels serves every step of a run.

    The fused optimiser updates all tensors of a group in one call already. One flat tensor in their place would need a
    copy of every gradient that has no place in a buffer of `low.py`, and checkpoints of another layout.

    Args:
        config: the run.
        student: network on its device.
        method: its method, on the same device, or None.
        compile: see Engine.

    Attributes:
        epoch: epochs finished, those of stages included.
        stage: of the epoch in progress; None: the main training.
        position: images of the epoch in progress that are done.
        curves: per-epoch values, as records keep them; those of stages have names of their own.
        threads: steps made with each number of threads.
        seconds, joules: this run's share of what its group has taken so far; 0 joules where nothing counts them.
        best: {"epoch", "score", "student"} of the best epoch so far, counted from 0 without stages.
    """

    def __init__(
        self, config: RunConfig, student: nn.Module, method: Method | None, compile: bool = False
    ) -> None:
        self.config = config
        self.student = student
        self.method = method
        modules = [m for m in (student, method) if m is not None]
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.arithmetic = arithmetic(config.precision, self.device)
        sgd = config.optimiser
        wide = torch.float32 if self.device.type == "cuda" else torch.float64  # what the fused kernels read
        self._lr = torch.tensor(sgd.lr, dtype=wide, device=self.device)
        self._own_lr = {
            prefix: torch.tensor(lr, dtype=wide, device=self.device)
            for prefix, lr in ({} if method is None else method.rates(0, sgd.lr)).items()
        }
        self.optimiser = torch.optim.SGD(
            self._groups(),
            self._lr,
            sgd.momentum,
            weight_decay=sgd.weight_decay,
            nesterov=sgd.nesterov,
            fused=True,
        )
        if sgd.momentum:  # zero momentum is what a first step amounts to
            for p in self.parameters:
                self.optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=FP16_LOSS_SCALE,
            growth_interval=FP16_RECOVERY_STEPS,
            enabled=self.arithmetic.low is torch.float16,
        )
        self.scaler.scale(torch.zeros((), device=self.device))  # places its tensors
        self._counters = _BatchNormCounters(modules)
        self._parts = tuple(map(_compiled, PARTS)) if compile else PARTS
        self.epoch = 0
        self.position = 0
        self.diverged = False
        self.curves: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.joules = 0.0
        self.threads: dict[str, int] = {}
        self.best: dict[str, Any] | None = None
        self._enter_stage()

    def _groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: what learns at the run's rate, and what a method gives its own."""
        named = dict(() if self.method is None else self.method.named_parameters())
        own = {
            prefix: [p for name, p in named.items() if name.startswith(prefix) and p.requires_grad]
            for prefix in self._own_lr
        }
        apart = {id(p) for group in own.values() for p in group}
        return [
            {"params": [p for p in self.parameters if id(p) not in apart]},
            *({"params": group, "lr": self._own_lr[prefix]} for prefix, group in own.items()),
        ]

    def _enter_stage(self) -> None:
        """What depends on the stage of the epoch: the losses, their weights and meters."""
        self.stage, _ = self.config.stage_at(self.epoch)
        if self.stage is not None:
            names = list(self.stage.losses)
        else:
            names = ["ce", *({} if self.method is None else self.method.weights(0))]
        self._loss_names = names
        self._low = LowWeights([m for m in (self.student, self.method) if m is not None], self.arithmetic.low)
        self._weights = torch.ones(len(names), dtype=self.arithmetic.master, device=self.device)
        # Sums over images of each loss and of hits, then images counted, then steps left out.
        self._meters = torch.zeros(len(names) + 3, dtype=torch.float64, device=self.device)

    def begin_epoch(self) -> None:
        """Set the learning rate and loss weights of the epoch; clear the meters, unless it was interrupted."""
        stage, epoch = self.config.stage_at(self.epoch)
        if stage != self.stage:
            self._enter_stage()
        sgd = self.config.optimiser
        if self.position == 0:
            self._meters.zero_()
            # Each stage, and the main training, has an optimiser of its own.
            if epoch == 0 and self.config.stages:
                for state in self.optimiser.state.values():
                    state["momentum_buffer"].zero_()
        if self.method is not None:
            self.method.train()
        if stage is not None:
            self._lr.fill_(sgd.lr if stage.lr is None else stage.lr)
            self.student.train(stage.trains_student)
        else:
            self._lr.fill_(sgd.lr_at(epoch))
            weights = {"ce": self.config.ce_weight}
            if self.method is not None:
                weights |= self.method.weights(epoch)
                for prefix, lr in self.method.rates(epoch, sgd.lr_at(epoch)).items():
                    self._own_lr[prefix].fill_(lr)
                self.method.begin_epoch(epoch)
            self._weights.copy_(torch.tensor([weights[n] for n in self._loss_names], dtype=torch.float64))
            self.student.train()
        self._counters.pause()

    def step(
        self,
        x: Tensor,
        labels: Tensor,
        indices: Tensor,
        teacher: Taps | None,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """One update of student and method on one batch.

        Args:
            x: (B, 3, H, W), normalised.
            labels, indices: (B,) int64.
            teacher: the teacher's taps of x; None for a run without method.
            ready: called between the student's forward pass and the losses: waits until `teacher` has been computed.
        """
        with self._low.used():
            # What a first step is watched for, compiled code does not show.
            parts = self._parts if self._low.known else PARTS
            losses, logits = self.losses(x, labels, indices, teacher, ready, parts)
        values = torch.stack([losses[name].to(self.arithmetic.master) for name in self._loss_names])
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale((values * self._weights).sum()).backward()
        self._low.hand_back()
        self.scaler.step(self.optimiser)
        left_out = self._left_out()
        self.scaler.update()
        with torch.no_grad():
            if self.scaler.is_enabled():
                self.scaler._scale.clamp_(max=FP16_LOSS_SCALE)
            correct = labels.new_zeros(()) if logits is None else (logits.argmax(1) == labels).sum()
            images = torch.full_like(self._meters[:1], len(labels))
            seen = torch.cat([values.double() * len(labels), correct.double()[None], images])
            # A loss that overflowed is no part of a mean: its step was left out.
            counted = torch.where(left_out > 0, torch.zeros_like(seen), seen)
            self._meters += torch.cat([counted, left_out.double()[None]])
            if self.method is not None and self.stage is None:
                self.method.after_step()

    def _left_out(self) -> Tensor:
        """1 where the scaler found a gradient that is not finite and left the step out, else 0; scalar."""
        found = self.scaler._found_inf_per_device(self.optimiser) if self.scaler.is_enabled() else {}
        return next(iter(found.values()), self._meters.new_zeros(()))

    def losses(
        self,
        x: Tensor,
        labels: Tensor,
        indices: Tensor,
        teacher: Taps | None,
        ready: Callable[[], None] | None = None,
        parts: Sequence[Callable[..., Any]] | None = None,
    ) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Named, unweighted losses of one batch in the present stage, and the logits (B, classes), which a stage before
        the main training has not. Arguments as of `step`; `parts` stand for `PARTS`, None: as this one has them."""
        taps_of, losses_of = parts or self._parts
        trains = self.stage is None or self.stage.trains_student
        taps = taps_of(self.student, x, self.arithmetic) if trains else None
        if ready is not None:
            ready()
        if self.stage is None:
            return losses_of(self.method, taps, teacher, labels, indices, x, self.arithmetic)
        low = self.arithmetic.low
        with torch.autocast(x.device.type, dtype=low, enabled=low is not None):
            return self.method.stage_losses(self.stage.name, Batch(taps, teacher, labels, indices, x)), None

    def stepped(self, images: int) -> None:
        """Count a step that was made (a captured step cannot count itself)."""
        self.position += images
        if self.stage is None or self.stage.trains_student:
            self._counters.steps += 1

    def tensors(self) -> list[Tensor]:
        """Every tensor a step changes, each once: what has to be put back after a trial step."""
        modules = [m for m in (self.student, self.method) if m is not None]
        kept = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        momentum = [t for s in self.optimiser.state.values() for t in s.values() if isinstance(t, Tensor)]
        scale = [self.scaler._scale, self.scaler._growth_tracker] if self.scaler.is_enabled() else []
        return list({id(t): t for t in [*kept, *momentum, *scale, self._meters]}.values())

    def moving(self) -> list[Tensor]:
        """Tensors of which every step changes one at least: trained parameters, and the loss scale where steps can be
        left out."""
        scale = [self.scaler._scale] if self.scaler.is_enabled() else []
        return [*self.parameters, *scale]

    def end_epoch(self) -> None:
        """Read the meters once, append to the curves, note divergence: a loss that is not finite in a step that was
        made, or more than half of the epoch's steps left out (only fp16 leaves any out)."""
        self._counters.resume()
        *sums, images, left_out = self._meters.tolist()
        *means, correct = (total / images if images else math.nan for total in sums)
        left_out_share = 1 - images / self.position
        prefix = "" if self.stage is None else f"{self.stage.name}_"
        if self.stage is None:
            _, epoch = self.config.stage_at(self.epoch)
            self._add("lr", self.config.optimiser.lr_at(epoch))
            self._add("train_accuracy", 100.0 * correct)
        for name, mean in zip(self._loss_names, means, strict=True):
            self._add(f"{prefix}loss_{name}", mean)
        if self.stage is None and self.method is not None:
            with torch.no_grad():
                self.method.end_epoch(self.student)
            for name, value in self.method.report().items():
                self._add(name, value)
        if self.scaler.is_enabled():
            self._add(f"{prefix}left_out_steps", left_out)
        self.diverged = left_out_share > MOST_LEFT_OUT or not all(math.isfinite(mean) for mean in means)
        self.epoch += 1
        self.position = 0

    def score(self, **accuracies: float) -> None:
        """Record this epoch's accuracies in percent; the first one named decides which epoch is best."""
        for name, value in accuracies.items():
            self._add(name, value)
        score = next(iter(accuracies.values()))
        if self.best is None or score > self.best["score"]:
            self.best = {
                "epoch": len(self.curves["test_accuracy"]) - 1,
                "score": score,
                "student": {k: v.detach().clone() for k, v in self.student.state_dict().items()},
            }

    def _add(self, name: str, value: float) -> None:
        self.curves.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values; between any two steps."""
        with self._counters.shown():
            return {
                "run": self.config.id,
                "epoch": self.epoch,
                "position": self.position,
                "student": dict(self.student.state_dict()),
                "method": None if self.method is None else dict(self.method.state_dict()),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "meters": self._meters.tolist(),
                "curves": self.curves,
                "seconds": self.seconds,
                "joules": self.joules,
                "threads": self.threads,
                "best": self.best,
                "diverged": self.diverged,
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.student.load_state_dict(state["student"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group, rate in zip(self.optimiser.param_groups, (self._lr, *self._own_lr.values()), strict=True):
            group["lr"] = rate
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
            self.scaler.scale(torch.zeros((), device=self.device))
        for name in ("epoch", "position", "curves", "seconds", "joules", "best", "diverged"):
            setattr(self, name, state[name])
        self.threads = dict(state.get("threads", {}))  # early checkpoints do not tell
        if state["position"]:  # between epochs the meters are empty, and may be those of another stage
            self._enter_stage()
            meters = state["meters"]
            if len(meters) == len(self._meters) - 2:  # of a version that counted no steps left out
                meters = [*meters, state["position"], 0]
            self._meters.copy_(torch.tensor(meters, dtype=torch.float64))


class _BatchNormCounters:
    """Counts the batches each BatchNorm has seen on the host, instead of one tiny kernel per layer and step.

    The counters are bookkeeping (they decide nothing while momentum is a number), but networks of other codes carry
    them in their state dicts, and so do ours.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.steps = 0
        self._paused: list[tuple[nn.Module, Tensor]] = []
        self._layers = [
            layer
            for module in modules
            for layer in module.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and layer.num_batches_tracked is not None
            and layer.momentum is not None
        ]

    def pause(self) -> None:
        if not self._paused:
            self._paused = [(layer, layer.num_batches_tracked) for layer in self._layers]
            for layer in self._layers:
                layer.num_batches_tracked = None

    def resume(self) -> None:
        for layer, counter in self._paused:
            layer.num_batches_tracked = counter.add_(self.steps)
        self._paused, self.steps = [], 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The counters as state dicts have them, for the length of a with block."""
        paused = bool(self._paused)
        self.resume()
        yield
        if paused:
            self.pause()
