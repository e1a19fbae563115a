"""The switches of ModReduce, with the values of its released code as defaults; and what they say of an epoch: when its
students begin to learn from each other, and how much."""

import math
from typing import Literal

from rkd.config import Count, Natural, Positive, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Options

CUTOFF = 220  # of 240 epochs


@frozen
class ModReduceOptions(Options):
    """Options of ModReduce.

    The method computes the cross-entropy of all three students itself, so a run's own `ce_weight` has to be 0 (as the
    recipe `modreduce` has it); otherwise the response student's counts twice.

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

    loss_weight: Weight = 1.0
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
            raise ConfigError(
                f"online_weight is {self.online_weight}; it must lie between online_start, {self.online_start}, and 1"
            )
        if self.mean_decay >= 1:
            raise ConfigError(f"mean_decay is {self.mean_decay}; it must be >= 0 and < 1")

    def unread(self) -> set[str]:
        """PCL's options without PCL, the group's with it, those of growth where the share does not grow."""
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
    """Share w of what the group says in a student's loss, w x online + (1 - w) x offline.

    >>> [round(online_share(epoch, ModReduceOptions()), 4) for epoch in (0, 100, 150, 230)]
    [0.0119, 0.0701, 0.1698, 0.7]
    """
    if options.cutoff_epochs:
        return options.online_weight if is_online(epoch, options) else 0.0
    growth = (options.online_weight / options.online_start) ** (1 / options.growth_steps)
    return min(options.online_weight, options.online_start * growth ** (epoch // options.growth_epochs + 1))


def consistency(epoch: int, options: ModReduceOptions) -> float:
    """PCL: weight c of what teacher and peers say: exp(-5 (1 - epoch / ramp)^2), then 1; 0 before the cutoff, where
    students learn offline."""
    if not is_online(epoch, options):
        return 0.0
    return math.exp(-5 * (1 - min(1.0, epoch / options.ramp_epochs)) ** 2)


def mean_decay(epoch: int, options: ModReduceOptions) -> float:
    """PCL: decay of the running means at the end of the 0-based `epoch`: their own plain mean at first."""
    return min(1 - 1 / (epoch + 1), options.mean_decay)


def cutoff_of(epochs: int, whole: int) -> int:
    """The released scripts' asynchronous runs: students teach each other after epoch 220 of 240. In runs too short to
    leave one epoch after it, the latest that does. Counted in epochs of the whole schedule, like all such options."""
    return CUTOFF if round(CUTOFF * epochs / whole) < epochs else (epochs - 1) * whole // epochs


def growth_steps_of(epochs: int, whole: int) -> int:
    """How often the online share grows: 24 times in 240 epochs, every 10; in shorter runs as often as their scaled
    interval fits, so that it ends at the same share, by the released code's own rule."""
    return max(1, epochs // max(1, round(ModReduceOptions.growth_epochs * epochs / whole)))
