"""ModReduce (Abbas et al. 2022): a response, a relational and a feature student of one teacher, trained at once.

Each learns one kind of knowledge from the teacher, and all learn from the group the three make together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method, register_method
from rkd.methods.modreduce.aggregation import AGGREGATIONS, Aggregator
from rkd.methods.modreduce.options import ModReduceOptions, consistency, is_online, mean_decay, online_share
from rkd.methods.modreduce.students import STUDENTS, Learning, softened_kl
from rkd.methods.numeric import no_autocast, wide


@register_method("modreduce", ModReduceOptions, "ModReduce")
class ModReduce(Method):
    """Three students, of which the run's own is the response student.

    Offline, from the teacher, a student's loss is factor x the weighted mean of its cross-entropy, its KL to the
    teacher and its method's loss. Online, from the group, it is the KL to the group's logits, or for PCL to the running
    means of its two peers. Losses are named "<student>_<part>"; "aggregation" is the cross-entropy of the group, which
    trains the aggregator alone.

    Raises:
        ConfigError: see `Learning`.
    """

    def __init__(self, context: Context, options: ModReduceOptions) -> None:
        super().__init__()
        self.options = options
        networks = self._names(context)
        self.relational = Learning(context, networks[1], options.relational, options.relational_weight)
        self.feature = Learning(context, networks[2], options.feature, options.feature_weight)
        self.aggregator: Aggregator = AGGREGATIONS[options.aggregation](context.classes)
        self.means = nn.ModuleDict()
        if self._pcl:  # initialised by themselves: after a cutoff most of that stays, as in the released code
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

    def _names(self, context: Context) -> tuple[str, ...]:
        """Of the students' networks."""
        chosen = (None, self.options.relational_student, self.options.feature_student)
        return tuple(name or context.network for name in chosen)

    @property
    def _pcl(self) -> bool:
        return self.options.aggregation == "pcl"

    @property
    def _owned(self) -> dict[str, Learning]:
        return {"relational": self.relational, "feature": self.feature}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if batch.images is None:
            raise ConfigError("modreduce trains two networks of its own and needs the images of a batch")
        o = self.options
        taps = {"response": batch.student}
        taps |= {name: learning.network.taps(batch.images) for name, learning in self._owned.items()}
        logits = {name: wide(taps[name].logits) for name in STUDENTS}
        with torch.no_grad():
            means = {name: network(batch.images) for name, network in self.means.items()}
        with no_autocast(batch.labels):
            group, self._pending = self.aggregator(
                torch.stack([logits[name].detach() for name in STUDENTS]), batch.images
            )
            found: dict[str, Tensor] = {}
            for name in STUDENTS:
                found[f"{name}_ce"] = F.cross_entropy(logits[name], batch.labels)
                found[f"{name}_kd"] = softened_kl(logits[name], batch.teacher.logits, o.temperature)
                if self._pcl:
                    peers = [mean for peer, mean in means.items() if peer != name]
                    said = [softened_kl(logits[name], mean, o.peer_temperature) for mean in peers]
                    found[f"{name}_peers"] = torch.stack(said).sum()
                else:
                    found[f"{name}_online"] = softened_kl(logits[name], group, o.temperature)
            if not self._pcl:
                found["aggregation"] = F.cross_entropy(group, batch.labels)
        for name, learning in self._owned.items():
            found |= {f"{name}_{k}": v for k, v in learning.losses(batch, taps[name]).items()}
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
            own = {} if learning is None else dict(learning.distiller.weights(epoch))
            divisor = 2 + peers + (0.0 if learning is None else learning.weight)
            offline = o.loss_weight * (1 - share) * factor / divisor
            found[f"{name}_ce"] = offline
            found[f"{name}_kd"] = offline * taught
            if self._pcl:
                found[f"{name}_peers"] = offline * peers
            else:
                found[f"{name}_online"] = o.loss_weight * share
            found |= {f"{name}_{k}": offline * weight for k, weight in own.items()}
        if not self._pcl:
            found["aggregation"] = float(is_online(epoch, o))
        return found

    def rates(self, epoch: int, lr: float) -> dict[str, float]:
        """The aggregator's constant rate, 0 before the cutoff, as it is not trained before it (weight decay alone fills
        its momentum by then, with 0.005 of its weights); those of students that do not learn at the run's."""
        o = self.options
        found = {} if self._pcl else {"aggregator.": o.aggregator_lr if is_online(epoch, o) else 0.0}
        for name, learning in self._owned.items():
            own = learning.rates(epoch, lr, getattr(o, f"{name}_rate"))
            found |= {f"{name}.{prefix}": rate for prefix, rate in own.items()}
        return found

    def begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        same = self.counted == epoch  # an epoch that is resumed goes on counting
        self.shares.mul_(same)
        self.steps.mul_(same)
        self.counted.fill_(epoch)
        for learning in self._owned.values():
            learning.distiller.begin_epoch(epoch)

    @torch.no_grad()
    def after_step(self) -> None:
        self.shares.add_(self._pending)
        self.steps.add_(1)
        self.aggregator.after_step()
        for learning in self._owned.values():
            learning.distiller.after_step()

    @torch.no_grad()
    def end_epoch(self, student: nn.Module) -> None:
        """Renew the running means of PCL: of parameters, once an epoch."""
        for learning in self._owned.values():
            learning.distiller.end_epoch(learning.network)
        if not self._pcl or not is_online(self._epoch, self.options):
            return
        keep = mean_decay(self._epoch, self.options)
        for name, network in self._students(student).items():
            for mean, now in zip(self.means[name].parameters(), network.parameters(), strict=True):
                mean.mul_(keep).add_(now, alpha=1 - keep)

    def networks(self, student: nn.Module) -> dict[str, nn.Module]:
        """The other two students, and the group: its aggregated logits (for PCL the mean of the students')."""
        students = self._students(student)
        group = Ensemble(list(students.values()), self.aggregator)
        return {**{name: students[name] for name in STUDENTS[1:]}, "group": group}

    def report(self) -> dict[str, float]:
        """Mean share of each student in the group over the epoch's steps (see each aggregation), and the share of
        online learning in the loss (for PCL its weight c)."""
        shares = (self.shares / self.steps).tolist()
        share = consistency if self._pcl else online_share
        found = {f"weight_{name}": value for name, value in zip(STUDENTS, shares, strict=True)}
        found["online_share"] = share(self._epoch, self.options)
        for name, learning in self._owned.items():
            found |= {f"{name}_{k}": v for k, v in learning.distiller.report().items()}
        return found

    def _students(self, student: nn.Module) -> dict[str, nn.Module]:
        return {"response": student, **{name: learning.network for name, learning in self._owned.items()}}


class Ensemble(nn.Module):
    """The group as one network, images -> logits.

    Args:
        students: response, relational and feature student.
        aggregator: of their logits.
    """

    def __init__(self, students: list[nn.Module], aggregator: Aggregator) -> None:
        super().__init__()
        self.students = nn.ModuleList(students)
        self.aggregator = aggregator

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([wide(student(images)) for student in self.students])
        return self.aggregator(logits, images)[0]
