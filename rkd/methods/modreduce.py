"""ModReduce (Abbas et al. 2022): a response, a relational and a feature student of one teacher, trained together.

Each learns one kind of knowledge from the teacher, and all learn from the group that the three form. Defaults are
the values of the released code.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.config import Count, Natural, Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method, Options, register_method
from rkd.methods.numeric import no_autocast, upcast
from rkd.methods.sum import get_method

if TYPE_CHECKING:
    from rkd.records import Record

STUDENTS = ("response", "relational", "feature")
FLOOR = 1e-7  # added to the target probabilities
CUTOFF = 220  # of 240 epochs
# Options of the students' methods that differ from these methods' defaults.
VALUES = {"fitnet": {"hint_layer": 1}, "rkd": {"on": "logits"}}


@frozen
class ModReduceOptions(Options):
    """The method computes the cross-entropy of all three students itself, so a run's own `ce_weight` has to be 0 (as
    the recipe `modreduce` has it); otherwise the response student's counts twice.

    Attributes:
        loss_weight: factor of all students' losses (not of the aggregator's).
        aggregation: how the students' logits become those of the group, which teaches them in turn.
            "wavg": one weight per student; after each step the weights are replaced by their softmax, as the
            released code does before each use; "wavg_fixed": the softmax of free weights, not replaced;
            "one": weights for each image, from the image (ONE); "fc": a linear layer on all logits;
            "pcl": no group: each student learns from running means of its two peers (PCL).
        cutoff_epochs: 0: students teach each other from the start, with a growing share ("synchronous"); else from
            this epoch on, with a constant share ("asynchronous"; the released scripts take 220 of 240).
        relational, feature: registered methods, without stages, by which these two students learn.
            RKD compares logits here, and FitNet the first stage, as the released code has it.
        relational_weight, feature_weight: of these losses; None: the method's own default (crd 0.8, rkd 1, semckd
            400, fitnet 100).
        relational_student, feature_student: their networks; None: that of the run, the response student's.
        relational_rate, feature_rate: their learning rates, as a multiple of the run's (the released code trains
            MobileNetV2 and ShuffleNets at a fifth of the others' rate).
        factors: of the weighted mean of each student's losses: response, relational, feature.
        temperature: of distillation from the teacher and from the group.
        peer_temperature: of distillation from running means ("pcl").
        online_start, online_weight, growth_steps, growth_epochs: a synchronous share is multiplied by
            (online_weight / online_start) ** (1 / growth_steps) at epoch 0 and every `growth_epochs` after it, up to
            online_weight (the released code has growth_steps = epochs // growth_epochs). An asynchronous one is
            online_weight.
        ramp_epochs: how long the weight of what students say rises ("pcl").
        mean_decay: largest decay of the running means ("pcl").
        aggregator_lr: constant learning rate of the aggregator; its momentum and weight decay are the run's.
    """

    aggregation: Literal["wavg", "wavg_fixed", "one", "fc", "pcl"] = "wavg"
    cutoff_epochs: Natural = 0
    relational: str = "crd"
    feature: str = "semckd"
    relational_weight: Weight | None = None
    feature_weight: Weight | None = None
    relational_student: str | None = None
    feature_student: str | None = None
    relational_rate: Positive = 1.0
    feature_rate: Positive = 1.0
    factors: tuple[Weight, ...] = (10.0, 1.0, 100.0)
    temperature: Positive = 4.0
    peer_temperature: Positive = 3.0
    online_start: Positive = 0.01
    online_weight: Positive = 0.7
    growth_steps: Count = 24
    growth_epochs: Count = 10
    ramp_epochs: Count = 80
    mean_decay: Weight = 0.999
    aggregator_lr: Weight = 0.1

    def __post_init__(self) -> None:
        for name in ("relational", "feature"):
            if getattr(self, name) == "modreduce":
                raise ConfigError(f"{name} is 'modreduce'; its students cannot learn by ModReduce themselves")
        if len(self.factors) != 3:
            raise ConfigError(f"factors is {list(self.factors)}; it must be three numbers, one per student")
        if not self.online_start <= self.online_weight <= 1:
            bounds = f"between online_start, {self.online_start}, and 1"
            raise ConfigError(f"online_weight is {self.online_weight}; it must lie {bounds}")
        if self.mean_decay >= 1:
            raise ConfigError(f"mean_decay is {self.mean_decay}; it must be >= 0 and < 1")

    def unread(self) -> set[str]:
        # PCL's options without PCL, the group's with PCL, and those of growth where the share does not grow.
        if self.aggregation == "pcl":
            return {"aggregator_lr", "online_start", "online_weight", "growth_steps", "growth_epochs"}
        names = {"peer_temperature", "ramp_epochs", "mean_decay"}
        if self.cutoff_epochs:
            names |= {"online_start", "growth_steps", "growth_epochs"}
        return names


def is_online(epoch: int, options: ModReduceOptions) -> bool:
    """Whether students learn from each other in the 0-based `epoch`."""
    return epoch >= options.cutoff_epochs


def online_share(epoch: int, options: ModReduceOptions) -> float:
    """Return the group's share w in a student's loss, w x online + (1 - w) x offline.

    >>> [round(online_share(epoch, ModReduceOptions()), 4) for epoch in (0, 100, 150, 230)]
    [0.0119, 0.0701, 0.1698, 0.7]
    """
    if options.cutoff_epochs:
        return options.online_weight if is_online(epoch, options) else 0.0
    growth = (options.online_weight / options.online_start) ** (1 / options.growth_steps)
    return min(options.online_weight, options.online_start * growth ** (epoch // options.growth_epochs + 1))


def consistency(epoch: int, options: ModReduceOptions) -> float:
    """Return PCL's weight c of teacher and peers: exp(-5 (1 - epoch / ramp)^2) until the ramp ends, then 1; 0 before
    the cutoff, where students learn offline."""
    if not is_online(epoch, options):
        return 0.0
    return math.exp(-5 * (1 - min(1.0, epoch / options.ramp_epochs)) ** 2)


def mean_decay(epoch: int, options: ModReduceOptions) -> float:
    """Return PCL's decay of the running means at the end of the 0-based `epoch`; at first they are plain means."""
    return min(1 - 1 / (epoch + 1), options.mean_decay)


def cutoff_of(epochs: int, whole: int) -> int:
    """Return the cutoff of the released scripts' asynchronous runs, epoch 220 of 240; in runs too short to leave one
    epoch after it, the latest that does. It counts epochs of the whole schedule, like all such options."""
    return CUTOFF if round(CUTOFF * epochs / whole) < epochs else (epochs - 1) * whole // epochs


def growth_steps_of(epochs: int, whole: int) -> int:
    """Return how often the online share grows, by the released code's rule: 24 times in 240 epochs, every 10; in
    shorter runs as often as the scaled interval fits, so that it ends at the same share."""
    return max(1, epochs // max(1, round(ModReduceOptions.growth_epochs * epochs / whole)))


def softened_kl(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return T^2 sum q log(q / p) / B with p = softmax(logits / T), q = softmax(target / T) + 1e-7 of (B, classes), in
    fp32 or better, without gradient to `target`."""
    log_p = F.log_softmax(upcast(logits) / temperature, 1)
    q = F.softmax(upcast(target.detach()) / temperature, 1) + FLOOR
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")


class Mean(nn.Module):
    """Group logits as the mean of the students'. PCL trains no aggregator: this is the group that is scored. The other
    aggregators derive from this class; each is built for a number of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the group's logits (B, classes), and each student's share in them (3,), of sum 1.

        Args:
            logits: (3, B, classes), of response, relational and feature student.
            images: (B, 3, H, W), for aggregations that look at them.
        """
        return logits.mean(0), logits.new_full((len(STUDENTS),), 1 / len(STUDENTS))

    def after_step(self, made: Tensor) -> None:
        """See `Method.after_step`."""


class ReplacedAverage(Mean):
    """One weight per student. The released code replaces the stored weights by their softmax before each use, once a
    step; doing so after each step is the same, and leaves `forward` without side effects."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.weights = nn.Parameter(
            torch.full((len(STUDENTS),), 1 / len(STUDENTS))
        )  # the softmax of equal weights

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (self.weights[:, None, None] * logits).sum(0), self.weights.detach().clone()

    @torch.no_grad()
    def after_step(self, made: Tensor) -> None:
        self.weights.copy_(torch.where(made, self.weights.softmax(0), self.weights))


class FreeAverage(Mean):
    """The softmax of one free weight per student: what `wavg` would be without its replacements."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.weights = nn.Parameter(torch.zeros(len(STUDENTS)))

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shares = self.weights.softmax(0)
        return (shares[:, None, None] * logits).sum(0), shares.detach()


class GatedAverage(Mean):
    """Shares for each image from the means of its own four quarters (ONE's gate, on pixels)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.gate = nn.Linear(3 * 2 * 2, len(STUDENTS))

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        quarters = F.adaptive_avg_pool2d(images.to(logits.dtype), 2).flatten(1)
        shares = self.gate(quarters).relu().softmax(1)
        return torch.einsum("bs,sbc->bc", shares, logits), shares.detach().mean(0)


class LinearLayer(Mean):
    """A linear layer on the logits of all students. A student's share is the norm of its block of the matrix over the
    sum of the three norms."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.linear = nn.Linear(len(STUDENTS) * classes, classes)

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        norms = self.linear.weight.detach().unflatten(1, (len(STUDENTS), -1)).square().sum((0, 2)).sqrt()
        return self.linear(torch.cat(tuple(logits), 1)), norms / norms.sum()


AGGREGATIONS: dict[str, type[Mean]] = {
    "wavg": ReplacedAverage, "wavg_fixed": FreeAverage, "one": GatedAverage, "fc": LinearLayer, "pcl": Mean,
}  # fmt: skip


class Learning(nn.Module):
    """A further student, `network`, with the registered method by which it learns from the teacher, `distiller`, and
    the weight of its loss (None: the method's own). ConfigError for a network without a name, an unknown network or
    method, or a method with stages."""

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
            raise ConfigError(f"modreduce cannot let a student learn by {method!r}, which trains in stages")
        self.network = context.build(network)
        taught = dataclasses.replace(context, student=self.network, network=network)
        self.distiller: Method = entry.build(taught, options)
        self.weight = options.loss_weight

    def rates(self, epoch: int, lr: float, ratio: float) -> dict[str, float]:
        """Return learning rates by prefix, this student's being `ratio` x the run's `lr`; the method's own stay."""
        own = {f"distiller.{prefix}": rate for prefix, rate in self.distiller.rates(epoch, lr).items()}
        if ratio == 1:
            return own
        return {"network.": ratio * lr, **own} if own else {"": ratio * lr}


@register_method("modreduce", ModReduceOptions, "ModReduce")
class ModReduce(Method):
    """Three students, of which the run's own is the response student.

    Offline, from the teacher, a student's loss is factor x the weighted mean of its cross-entropy, its KL to the
    teacher and its method's loss. Online, from the group, it is the KL to the group's logits, or for PCL to the running
    means of its two peers. Losses are named "<student>_<part>"; "aggregation" is the cross-entropy of the group, which
    trains the aggregator alone. ConfigError as for `Learning`.
    """

    def __init__(self, context: Context, options: ModReduceOptions) -> None:
        super().__init__(context, options)
        self._pcl = options.aggregation == "pcl"
        self._mutual = "peers" if self._pcl else "online"
        chosen = (None, options.relational_student, options.feature_student)
        networks = [name or context.network for name in chosen]
        self.relational = Learning(context, networks[1], options.relational, options.relational_weight)
        self.feature = Learning(context, networks[2], options.feature, options.feature_weight)
        self.aggregator = AGGREGATIONS[options.aggregation](context.classes)
        self.means = nn.ModuleDict()
        if self._pcl:  # with weights of their own: after a cutoff most of these stay, as in the released code
            if not context.network:
                raise ConfigError("modreduce with 'pcl' needs the name of the run's network")
            for name, network in zip(STUDENTS, networks, strict=True):
                self.means[name] = context.build(network).requires_grad_(False)
        # For the report: sums over the steps of an epoch, and the epoch they belong to.
        self.register_buffer("shares", torch.zeros(len(STUDENTS)))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("counted", torch.full((), -1, dtype=torch.int64))
        self._epoch = 0
        self._pending: Tensor | None = None

    @property
    def _owned(self) -> dict[str, Learning]:
        return {name: getattr(self, name) for name in STUDENTS[1:]}

    def _students(self, student: nn.Module) -> dict[str, nn.Module]:
        return {STUDENTS[0]: student, **{name: learning.network for name, learning in self._owned.items()}}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if batch.images is None:
            raise ConfigError("modreduce trains two networks of its own and needs the images of a batch")
        o = self.options
        taps = {"response": batch.student}
        taps |= {name: learning.network.taps(batch.images) for name, learning in self._owned.items()}
        logits = {name: upcast(taps[name].logits) for name in STUDENTS}
        with torch.no_grad():
            means = {name: network(batch.images) for name, network in self.means.items()}
        with no_autocast(batch.labels):
            stacked = torch.stack([logits[name].detach() for name in STUDENTS])
            group, self._pending = self.aggregator(stacked, batch.images)
            found: dict[str, Tensor] = {}
            for name in STUDENTS:
                found[f"{name}_ce"] = F.cross_entropy(logits[name], batch.labels)
                found[f"{name}_kd"] = softened_kl(logits[name], batch.teacher.logits, o.temperature)
                heard, at = [group], o.temperature
                if self._pcl:
                    heard, at = [mean for peer, mean in means.items() if peer != name], o.peer_temperature
                said = [softened_kl(logits[name], target, at) for target in heard]
                found[f"{name}_{self._mutual}"] = torch.stack(said).sum()
            if not self._pcl:
                found["aggregation"] = F.cross_entropy(group, batch.labels)
        for name, learning in self._owned.items():
            own = learning.distiller.losses(dataclasses.replace(batch, student=taps[name]))
            found |= {f"{name}_{k}": v for k, v in own.items()}
        return found

    def weights(self, epoch: int) -> dict[str, float]:
        o = self.options
        # Before the cutoff, PCL's students learn offline as all others do.
        peers = consistency(epoch, o) if self._pcl else 0.0
        taught = peers if self._pcl and is_online(epoch, o) else 1.0
        share = 0.0 if self._pcl else online_share(epoch, o)
        found: dict[str, float] = {}
        for name, factor in zip(STUDENTS, o.factors, strict=True):
            learning = self._owned.get(name)
            own = {} if learning is None else learning.distiller.weights(epoch)
            divisor = 2 + peers + (0.0 if learning is None else learning.weight)
            offline = o.loss_weight * (1 - share) * factor / divisor
            found[f"{name}_ce"] = offline
            found[f"{name}_kd"] = offline * taught
            found[f"{name}_{self._mutual}"] = offline * peers if self._pcl else o.loss_weight * share
            found |= {f"{name}_{k}": offline * weight for k, weight in own.items()}
        if not self._pcl:
            found["aggregation"] = float(is_online(epoch, o))
        return found

    def rates(self, epoch: int, lr: float) -> dict[str, float]:
        """Return the aggregator's constant rate, 0 before the cutoff as it is not trained until then (weight decay
        alone fills its momentum, with 0.005 of its weights), and those of students that do not learn at the run's."""
        o = self.options
        found = {} if self._pcl else {"aggregator.": o.aggregator_lr if is_online(epoch, o) else 0.0}
        for name, learning in self._owned.items():
            own = learning.rates(epoch, lr, getattr(o, f"{name}_rate"))
            found |= {f"{name}.{prefix}": rate for prefix, rate in own.items()}
        return found

    def begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        same = self.counted == epoch  # a resumed epoch goes on counting
        self.shares.mul_(same)
        self.steps.mul_(same)
        self.counted.fill_(epoch)
        for learning in self._owned.values():
            learning.distiller.begin_epoch(epoch)

    @torch.no_grad()
    def after_step(self, made: Tensor) -> None:
        self.shares.add_(torch.where(made, self._pending, 0.0))
        self.steps.add_(made)
        self.aggregator.after_step(made)
        for learning in self._owned.values():
            learning.distiller.after_step(made)

    @torch.no_grad()
    def end_epoch(self, student: nn.Module) -> None:
        """Update PCL's running means, of parameters, once an epoch."""
        for learning in self._owned.values():
            learning.distiller.end_epoch(learning.network)
        if not self._pcl or not is_online(self._epoch, self.options):
            return
        keep = mean_decay(self._epoch, self.options)
        for name, network in self._students(student).items():
            for mean, now in zip(self.means[name].parameters(), network.parameters(), strict=True):
                mean.mul_(keep).add_(now, alpha=1 - keep)

    def networks(self, student: nn.Module) -> dict[str, nn.Module]:
        """Return the other two students, and the group: its aggregated logits (for PCL the mean of the students')."""
        _, *others = (students := self._students(student))
        group = Ensemble(students.values(), self.aggregator)
        return {**{name: students[name] for name in others}, "group": group}

    def report(self) -> dict[str, float]:
        """Return each student's mean share in the group over the epoch's steps (see each aggregation), and the share of
        online learning in the loss (for PCL its weight c)."""
        shares = (self.shares / self.steps).tolist()
        found = {f"weight_{name}": value for name, value in zip(STUDENTS, shares, strict=True)}
        found["online_share"] = (consistency if self._pcl else online_share)(self._epoch, self.options)
        for name, learning in self._owned.items():
            found |= {f"{name}_{k}": v for k, v in learning.distiller.report().items()}
        return found


class Ensemble(nn.Module):
    """The group as one network, images -> logits, made of response, relational and feature student."""

    def __init__(self, students: Iterable[nn.Module], aggregator: Mean) -> None:
        super().__init__()
        self.students = nn.ModuleList(students)
        self.aggregator = aggregator

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([upcast(student(images)) for student in self.students])
        return self.aggregator(logits, images)[0]


def student_accuracies(record: "Record", which: str = "last") -> dict[str, float]:
    """Return the test accuracies in percent of a run's three students at the "last" epoch, or at each one's "best" on
    the test set; NaN for a diverged run. The run's own network is the response student."""
    further = {name: record.result[f"{which}_accuracy_{name}"] for name in STUDENTS[1:]}
    alive = record.status == "finished"
    return {STUDENTS[0]: record.accuracy(which)} | {n: v if alive else math.nan for n, v in further.items()}
