"""One training step: of one student (`TrainState`), and of all students that share batches and a teacher (`GroupStep`).

Whatever a step reads or writes, and whatever changes from step to step (position in the epoch, learning rates, loss
weights, meters, momentum, loss scale), is a tensor that keeps its memory, and nothing is read back to the host: one
sequence of kernels serves every step of a run. `rkd.training.capture` explains what a GPU gains from that.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rkd.data import Batches, ImageSet
from rkd.errors import RecordError, one_line
from rkd.methods import Batch, Method
from rkd.models.taps import Taps
from rkd.training.arithmetic import Arithmetic, arithmetic
from rkd.training.capture import Body, Capture, forked, streams
from rkd.training.config import RunConfig
from rkd.training.low import LowWeights
from rkd.training.teacher import FrozenTeacher

# Loss scale of fp16: halved, and the step skipped, when a gradient overflows; doubled after FP16_RECOVERY_STEPS steps
# without overflow, but never beyond its initial value, so that no step is lost to trying a larger one.
FP16_LOSS_SCALE = 1024.0
FP16_RECOVERY_STEPS = 2000
# An epoch with more than this share of its steps left out has diverged.
MOST_LEFT_OUT = 0.5


def student_taps(student: nn.Module, x: Tensor, numbers: Arithmetic) -> Taps:
    """Return the student's taps of a batch (B, 3, H, W), with gradient."""
    with numbers.autocast(x.device):
        return student.taps(x)


def method_losses(
    method: Method | None, batch: Batch, numbers: Arithmetic
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the named, unweighted losses of one batch, cross-entropy included, and the logits (B, classes)."""
    extra, seen = {}, batch.student.logits
    if method is not None:
        with numbers.autocast(batch.images.device):
            extra = method.losses(batch)
            seen = method.classified(batch.student)
    ce = F.cross_entropy(seen.to(numbers.master), batch.labels)
    return {"ce": ce, **extra}, batch.student.logits.to(numbers.master)


@functools.cache
def compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    """Return `student_taps` or `method_losses` compiled as one graph, shared by all runs of the same kind: networks and
    methods are arguments, and their tensors are inputs of the graph. Runs differ in kind by the batch size and by the
    options that a method reads as plain numbers. A user's method that cannot become one graph runs in pieces."""
    return torch.compile(part, dynamic=False)


class TrainState:
    """The state of one run in training, and its step. Student and method are on one device; `compile`: see Engine.

    Attributes:
        epoch: epochs finished, those of stages included.
        stage: stage of the epoch in progress; None: the main training.
        position: number of images done in the epoch in progress.
        curves: per-epoch values, as records keep them; stages have curves under names of their own.
        threads: steps made with each number of threads.
        seconds, joules: this run's share of what its group has used so far; 0 joules where energy is not measured.
        best: {"epoch", "score", "student"} of the best epoch so far, counted from 0 without stages.
        diverged: whether a loss was not finite, or most steps of an epoch were skipped.
    """

    SAVED = ("epoch", "position", "curves", "seconds", "joules", "threads", "best", "diverged")

    def __init__(
        self, config: RunConfig, student: nn.Module, method: Method | None, compile: bool = False
    ) -> None:
        self.config, self.student, self.method, self._compile = config, student, method, compile
        self._modules = [m for m in (student, method) if m is not None]
        self.parameters = [p for m in self._modules for p in m.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.arithmetic = arithmetic(config.precision, self.device)
        self.optimiser = self._optimiser()
        scaling = {"init_scale": FP16_LOSS_SCALE, "growth_interval": FP16_RECOVERY_STEPS}
        fp16 = self.arithmetic.low is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, **scaling, enabled=fp16)
        self.scaler.scale(torch.zeros((), device=self.device))  # places its tensors
        # BatchNorm's batch counters have no effect while momentum is a number, but networks of other codes have them in
        # their state dicts, and so do ours. A step increments them all at once, not with one kernel per layer.
        norms = [m for module in self._modules for m in module.modules() if isinstance(m, _BatchNorm)]
        self._counted = [n for n in norms if n.momentum is not None and n.num_batches_tracked is not None]
        self._counters = [layer.num_batches_tracked for layer in self._counted]
        self.epoch = self.position = 0
        self.diverged = False
        self.curves: dict[str, list[float]] = {}
        self.seconds = self.joules = 0.0
        self.threads: dict[str, int] = {}
        self.best: dict[str, Any] | None = None
        self._enter_stage()

    def _optimiser(self) -> torch.optim.SGD:
        """Return SGD whose first parameter group uses the run's learning rate, and each further one a rate set by the
        method; being fused, it updates all tensors of a group in one call."""
        sgd, method = self.config.optimiser, self.method
        wide = torch.float32 if self.device.type == "cuda" else torch.float64  # what the fused kernels read
        rates = {"": sgd.lr, **({} if method is None else method.rates(0, sgd.lr))}
        self._rates = {p: torch.tensor(lr, dtype=wide, device=self.device) for p, lr in rates.items()}
        _, *prefixes = rates
        named = [] if method is None else [(n, p) for n, p in method.named_parameters() if p.requires_grad]
        own = [[p for name, p in named if name.startswith(prefix)] for prefix in prefixes]
        apart = {id(p) for group in own for p in group}
        groups = [[p for p in self.parameters if id(p) not in apart], *own]
        optimiser = torch.optim.SGD(
            [{"params": ps, "lr": lr} for ps, lr in zip(groups, self._rates.values(), strict=True)],
            self._rates[""], sgd.momentum, weight_decay=sgd.weight_decay, nesterov=sgd.nesterov, fused=True,
        )  # fmt: skip
        if sgd.momentum:  # a zero buffer gives the same first step as none
            for p in self.parameters:
                optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimiser

    def _momenta(self) -> dict[nn.Parameter, Tensor]:
        """Return the optimiser's momentum buffers by parameter; empty if the run's momentum is 0."""
        return {p: s["momentum_buffer"] for p, s in self.optimiser.state.items() if "momentum_buffer" in s}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks to score: the student under "", and a method's further networks under "_NAME"."""
        further = {} if self.method is None else self.method.networks(self.student)
        return {"": self.student} | {f"_{name}": network for name, network in further.items()}

    @property
    def _trains_student(self) -> bool:
        return self.stage is None or self.stage.trains_student

    def _enter_stage(self) -> None:
        """Set up what depends on the epoch's stage: the losses, their weights and meters."""
        self.stage, _ = self.config.stage_at(self.epoch)
        of_method = {} if self.method is None else self.method.weights(0)
        names = ["ce", *of_method] if self.stage is None else self.stage.losses
        self._loss_names = list(names)
        self._low = LowWeights(self._modules, self.arithmetic.low)
        self._weights = torch.ones(len(names), dtype=self.arithmetic.master, device=self.device)
        # Sums over images of each loss and of correct answers, then the images counted, then the steps skipped.
        self._meters = torch.zeros(len(names) + 3, dtype=torch.float64, device=self.device)

    def begin_epoch(self) -> None:
        """Set the epoch's learning rates and loss weights; clear the meters unless resuming within the epoch."""
        stage, epoch = self.config.stage_at(self.epoch)
        if stage != self.stage:
            self._enter_stage()
        sgd, method = self.config.optimiser, self.method
        if self.position == 0:
            self._meters.zero_()
            # Each stage, and the main training, starts with a fresh optimiser.
            if epoch == 0 and self.config.stages:
                for momentum in self._momenta().values():
                    momentum.zero_()
        for module in self._modules:
            module.train()
        if stage is not None:
            self._rates[""].fill_(sgd.lr if stage.lr is None else stage.lr)
            self.student.train(stage.trains_student)
            return
        rates, weights = {"": sgd.lr_at(epoch)}, {"ce": self.config.ce_weight}
        if method is not None:
            weights |= method.weights(epoch)
            rates |= method.rates(epoch, sgd.lr_at(epoch))
            method.begin_epoch(epoch)
        for prefix, lr in rates.items():
            self._rates[prefix].fill_(lr)
        self._weights.copy_(torch.tensor([weights[n] for n in self._loss_names], dtype=torch.float64))

    def losses(
        self, x: Tensor, labels: Tensor, indices: Tensor, teacher: Taps | None, ready: Body = lambda: None
    ) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """Return the named, unweighted losses of one batch (see `methods.Batch`) in the current stage, and the logits
        (B, classes), or None in stages before the main training. `ready` waits for the teacher's taps; it is called
        between the student's forward pass and the losses."""
        # The first step is watched for casts of weights (see LowWeights), which compiled code would hide.
        made = compiled if self._compile and not self._low.watching else lambda part: part
        with self._uncounted():
            taps = made(student_taps)(self.student, x, self.arithmetic) if self._trains_student else None
            ready()
            batch = Batch(taps, teacher, labels, indices, x)
            if self.stage is None:
                return made(method_losses)(self.method, batch, self.arithmetic)
            with self.arithmetic.autocast(x.device):
                return self.method.stage_losses(self.stage.name, batch), None

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Keep BatchNorm layers from counting batches within the `with` block."""
        for layer in self._counted:
            layer.num_batches_tracked = None
        try:
            yield
        finally:
            for layer, counter in zip(self._counted, self._counters, strict=True):
                layer.num_batches_tracked = counter

    def step(self, *batch: Any) -> None:
        """Update student and method on one batch; arguments as for `losses`."""
        with self._low.used():
            losses, logits = self.losses(*batch)
        labels = batch[1]
        values = torch.stack([losses[name].to(self.arithmetic.master) for name in self._loss_names])
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale((values * self._weights).sum()).backward()
        self._low.hand_back()
        self.scaler.step(self.optimiser)
        # 1 if a gradient was not finite and the scaler skipped the step.
        found = self.scaler._found_inf_per_device(self.optimiser) if self.scaler.is_enabled() else {}
        left_out = next(iter(found.values()), self._meters.new_zeros(()))
        self.scaler.update()
        with torch.no_grad():
            if self.scaler.is_enabled():
                self.scaler._scale.clamp_(max=FP16_LOSS_SCALE)
            correct = labels.new_zeros(()) if logits is None else (logits.argmax(1) == labels).sum()
            images = torch.full_like(self._meters[:1], len(labels))
            seen = torch.cat([values.double() * len(labels), correct.double()[None], images])
            # A loss that overflowed does not enter the means: its step was skipped.
            made = left_out == 0
            counted = torch.where(made, seen, torch.zeros_like(seen))
            self._meters += torch.cat([counted, left_out.double()[None]])
            if self._counters and self._trains_student:
                torch._foreach_add_(self._counters, 1)
            if self.method is not None and self.stage is None:
                self.method.after_step(made)

    def tensors(self) -> list[Tensor]:
        """Return every tensor that a step changes, each once: what must be restored after a trial step."""
        kept = [t for m in self._modules for t in (*m.parameters(), *m.buffers())]
        scale = [self.scaler._scale, self.scaler._growth_tracker] if self.scaler.is_enabled() else []
        return list({id(t): t for t in [*kept, *self._momenta().values(), *scale, self._meters]}.values())

    def end_epoch(self) -> None:
        """Read the meters once, append to the curves and note divergence: a non-finite loss in a step that was made,
        or more than half of the epoch's steps skipped (only fp16 skips any)."""
        *sums, images, left_out = self._meters.tolist()
        *means, correct = (total / images if images else math.nan for total in sums)
        stage, epoch = self.config.stage_at(self.epoch)
        values: dict[str, float] = {}
        if stage is None:
            values = {"lr": self.config.optimiser.lr_at(epoch), "train_accuracy": 100.0 * correct}
        prefix = "" if stage is None else f"{stage.name}_"
        values |= {f"{prefix}loss_{n}": mean for n, mean in zip(self._loss_names, means, strict=True)}
        if stage is None and self.method is not None:
            with torch.no_grad():
                self.method.end_epoch(self.student)
            values |= self.method.report()
        if self.scaler.is_enabled():
            values[f"{prefix}left_out_steps"] = left_out
        self._append(values)
        mostly_left_out = 1 - images / self.position > MOST_LEFT_OUT
        self.diverged = mostly_left_out or not all(math.isfinite(mean) for mean in means)
        self.epoch += 1
        self.position = 0

    def score(self, **accuracies: float) -> None:
        """Record this epoch's accuracies in percent; the first one given decides which epoch is best."""
        self._append(accuracies)
        score, epoch = next(iter(accuracies.values())), len(self.curves["test_accuracy"]) - 1
        if self.best is None or score > self.best["score"]:
            student = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
            self.best = {"epoch": epoch, "score": score, "student": student}

    def _append(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors and plain values; may be called between any two steps."""
        return {
            "run": self.config.id,
            "config": self.config.to_dict(),
            "student": dict(self.student.state_dict()),
            "method": None if self.method is None else dict(self.method.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meters": self._meters.tolist(),
            **{name: getattr(self, name) for name in self.SAVED},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            RecordError: something is missing, does not fit this run, or holds NaN although the run has not diverged.
        """
        try:
            self._load(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RecordError(f"it does not fit its run: {one_line(error)}") from error
        moved = self._momenta()
        if self.config.optimiser.momentum and any(
            not isinstance(m := moved.get(p), Tensor) or m.shape != p.shape for p in self.parameters
        ):
            raise RecordError("it lacks momentum of its optimiser, or has that of other tensors")
        learned = [*self.parameters, *(m for m in moved.values() if isinstance(m, Tensor))]
        if not self.diverged and not all(tensor.isfinite().all() for tensor in learned):
            raise RecordError("a tensor it trains holds NaN or infinities, although it has not diverged")

    def _load(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
        own = [{k: v for k, v in g.items() if k != "params"} for g in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        # The optimiser's settings come from this run's config; its rates are tensors that keep their memory.
        for group, kept in zip(self.optimiser.param_groups, own, strict=True):
            group.update(kept)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
            self.scaler.scale(torch.zeros((), device=self.device))
        for name, value in {"threads": {}, **state}.items():  # early checkpoints have no threads
            if name in self.SAVED:
                setattr(self, name, value)
        if self.position:  # between epochs the meters are empty, and may belong to another stage
            self._enter_stage()
            meters = state["meters"]
            if len(meters) == len(self._meters) - 2:  # from a version that did not count skipped steps
                meters = [*meters, self.position, 0]
            if len(meters) != len(self._meters):
                raise ValueError(f"it has {len(meters)} meters, not {len(self._meters)}")
            self._meters.copy_(torch.tensor(meters, dtype=torch.float64))


class GroupStep:
    """The step of a run group (see `loop.train`): augmentation, teacher, every student's step. States of one seed share
    batches and the teacher's forward pass; each seed has its own data order.

    Without `capture` it runs kernel by kernel. With it, it is recorded once for each batch size and replayed: `capture`
    turns a function into a faster one that does the same, or returns it unchanged (see `cuda_graph`).
    """

    def __init__(
        self,
        states: Sequence[TrainState],
        images: ImageSet,
        teacher: FrozenTeacher | None,
        capture: Capture | None = None,
    ) -> None:
        self.config, self.states, self.teacher = states[0].config, list(states), teacher
        self._stages = [state.stage for state in states]
        device, data = images.train_y.device, self.config.data
        self._position, self._start = torch.zeros((), dtype=torch.int64, device=device), 0
        members: dict[int, list[TrainState]] = {}
        for state in states:
            members.setdefault(state.config.seed, []).append(state)
        batches = functools.partial(Batches, images, data.padding, data.flip, data.padding_mode)
        self._groups = [(seed, batches(), group) for seed, group in members.items()]
        self.capture, self._recorded = capture, dict[int, Body]()
        parallel = capture is not None and device.type == "cuda"
        self.branches = streams(device, len(self._groups) + len(states))[1:] if parallel else []

    def serves(self, states: Sequence[TrainState]) -> bool:
        """Whether this is the step for these states in their current stages."""
        return self.states == list(states) and self._stages == [state.stage for state in states]

    def begin(self, epoch: int, start: int = 0) -> list[int]:
        """Prepare an epoch, counted from the first stage on, from its image `start` on; return the sizes of the
        batches to come."""
        for seed, batches, _ in self._groups:
            batches.begin(epoch, seed)
        self._position.fill_(start)
        self._start = start
        return self._groups[0][1].sizes(self.config.batch_size, start, self.config.drop_last)

    def __call__(self, size: int) -> None:
        """Make every state's step on the next batch, of `size` images."""
        for _, batches, _ in self._groups:
            batches.bring(self._start, size)
        body = functools.partial(self._body, size)
        if self.capture is not None:
            if size not in self._recorded:
                changed = [self._position, *(t for state in self.states for t in state.tensors())]
                self._recorded[size] = self.capture(body, changed)
                if self._recorded[size] is body:  # not recorded: one kernel after another, and no branches
                    self.branches = []
            body = self._recorded[size]
        body()
        self._start += size
        for state in self.states:
            state.position += size

    def _body(self, size: int) -> None:
        """Make the step; students wait for their teacher only before their losses, and never for each other."""
        with forked(self._position.device, self.branches) as branch:
            for _, batches, members in self._groups:
                x, labels, indices = batches.take(self._position, size)
                x = x.to(self.states[0].arithmetic.master)
                batch, taught = (x, labels, indices, None), None
                if self.teacher is not None:
                    with branch(x) as stream:
                        batch = x, labels, indices, self.teacher.taps(x)
                        taught = None if stream is None else stream.record_event()
                for state in members:
                    with branch(*batch) as stream:
                        waits = [] if taught is None else [functools.partial(stream.wait_event, taught)]
                        state.step(*batch, *waits)
        self._position += size
