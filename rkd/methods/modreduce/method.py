"""ModReduce (Abbas et al. 2022): a response, a relational and a feature student of one teacher, trained at once.

Each learns one kind of knowledge from the teacher, and all learn from the group the three make together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Method, register_method
from rkd.methods.modreduce.aggregation import AGGREGATIONS, Aggregator
from rkd.methods.modreduce.options import ModReduceOptions
from rkd.methods.modreduce.schedule import consistency, is_online, mean_decay, online_share
from rkd.methods.modreduce.students import STUDENTS, Learning, softened_kl
from rkd.methods.numeric import no_autocast, wide


class ModReduce(Method):
    """Three students, of which the run's own is the response student.

    Offline, from the teacher, a student's loss is factor x the weighted mean of its cross-entropy, its KL to the
    teacher and its method's loss. Online, from the group, it is the KL to the group's logits, or for PCL to the running
    means of its two peers. Losses are named "<student>_<part>"; "aggregation" is the cross-entropy of the group, which
    trains the aggregator alone.

    Args:
        context: of the run.
        options: the switches of the method.

    Raises:
        ConfigError: see `ModReduceOptions` and `Learning`.
    """

    def __init__(self, context: Context, options: ModReduceOptions) -> None:
        super().__init__()
        self.options = options
        self.relational = Learning(
            context,
            options.relational_student or context.network,
            options.relational,
            options.relational_weight,
        )
        self.feature = Learning(
            context, options.feature_student or context.network, options.feature, options.feature_weight
        )
        self.aggregator: Aggregator = AGGREGATIONS[options.aggregation](context.classes)
        self.means = nn.ModuleDict(_running_means(context, options) if self._pcl else {})
        # For the report: sums over the steps of an epoch, and the epoch they belong to.
        self.register_buffer("shares", torch.zeros(len(STUDENTS)))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("counted", torch.full((), -1, dtype=torch.int64))
        self._epoch = 0
        self._pending: Tensor | None = None

    @property
    def _pcl(self) -> bool:
        return self.options.aggregation == "pcl"

    @property
    def _owned(self) -> dict[str, Learning]:
        return {"relational": self.relational, "feature": self.feature}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if batch.images is None:
            raise ConfigError("modreduce trains two networks of its own and needs the images of a batch")
        taps = {"response": batch.student}
        taps |= {name: learning.network.taps(batch.images) for name, learning in self._owned.items()}
        logits = {name: wide(taps[name].logits) for name in STUDENTS}
        means = self._mean_logits(batch.images)
        with no_autocast(batch.labels):
            group, self._pending = self.aggregator(
                torch.stack([logits[name].detach() for name in STUDENTS]), batch.images
            )
            found: dict[str, Tensor] = {}
            for name in STUDENTS:
                found[f"{name}_ce"] = F.cross_entropy(logits[name], batch.labels)
                found[f"{name}_kd"] = softened_kl(
                    logits[name], batch.teacher.logits, self.options.temperature
                )
                if self._pcl:
                    found[f"{name}_peers"] = torch.stack(
                        [
                            softened_kl(logits[name], mean, self.options.peer_temperature)
                            for peer, mean in means.items()
                            if peer != name
                        ]
                    ).sum()
                else:
                    found[f"{name}_online"] = softened_kl(logits[name], group, self.options.temperature)
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
        return {"relational": self.relational.network, "feature": self.feature.network, "group": group}

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
        return {
            "response": student, "relational": self.relational.network, "feature": self.feature.network
        }  # fmt: skip

    @torch.no_grad()
    def _mean_logits(self, images: Tensor) -> dict[str, Tensor]:
        return {name: network(images) for name, network in self.means.items()}


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


def _running_means(context: Context, options: ModReduceOptions) -> dict[str, nn.Module]:
    """One network per student, initialised by itself. The first mean taken at epoch 0 leaves nothing of that; after a
    cutoff the decay is large at once and most of it stays, as in the released code."""
    names = (
        context.network,
        options.relational_student or context.network,
        options.feature_student or context.network,
    )
    if not context.network:
        raise ConfigError("modreduce with 'pcl' needs the name of the run's network")
    return {
        student: context.build(name).requires_grad_(False)
        for student, name in zip(STUDENTS, names, strict=True)
    }


@register_method("modreduce", ModReduceOptions, "ModReduce")
def build_modreduce(context: Context, options: ModReduceOptions) -> ModReduce:
    """ModReduce for the pair in `context`."""
    return ModReduce(context, options)
