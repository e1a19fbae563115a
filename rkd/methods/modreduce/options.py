"""The switches of ModReduce, with the values of its released code as defaults."""

from dataclasses import dataclass

from rkd.errors import ConfigError
from rkd.methods.modreduce.aggregation import AGGREGATIONS
from rkd.methods.options import Options, at_least, not_negative, one_of, positive


@dataclass(frozen=True)
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

    Raises:
        ConfigError: an unknown aggregation, a value out of range, not three factors.
    """

    loss_weight: float = 1.0
    aggregation: str = "wavg"
    cutoff_epochs: int = 0
    relational: str = "crd"
    feature: str = "semckd"
    relational_weight: float | None = None
    feature_weight: float | None = None
    relational_student: str | None = None
    feature_student: str | None = None
    relational_rate: float = 1.0
    feature_rate: float = 1.0
    factors: tuple[float, ...] = (10.0, 1.0, 100.0)
    temperature: float = 4.0
    peer_temperature: float = 3.0
    online_start: float = 0.01
    online_weight: float = 0.7
    growth_steps: int = 24
    growth_epochs: int = 10
    ramp_epochs: int = 80
    mean_decay: float = 0.999
    aggregator_lr: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("aggregation", self.aggregation, AGGREGATIONS)
        for name in ("relational", "feature"):
            if getattr(self, name) == "modreduce":
                raise ConfigError(f"{name} is 'modreduce'; its students cannot learn by ModReduce themselves")
            if getattr(self, f"{name}_weight") is not None:
                not_negative(f"{name}_weight", getattr(self, f"{name}_weight"))
            positive(f"{name}_rate", getattr(self, f"{name}_rate"))
        if len(self.factors) != 3:
            raise ConfigError(f"factors is {list(self.factors)}; it must be three numbers, one per student")
        for factor in self.factors:
            not_negative("factors", factor)
        positive("temperature", self.temperature)
        positive("peer_temperature", self.peer_temperature)
        positive("online_start", self.online_start)
        if not self.online_start <= self.online_weight <= 1:
            raise ConfigError(
                f"online_weight is {self.online_weight}; it must lie between online_start, {self.online_start}, and 1"
            )
        at_least("cutoff_epochs", self.cutoff_epochs, 0)
        at_least("growth_steps", self.growth_steps, 1)
        at_least("growth_epochs", self.growth_epochs, 1)
        at_least("ramp_epochs", self.ramp_epochs, 1)
        if not 0 <= self.mean_decay < 1:
            raise ConfigError(f"mean_decay is {self.mean_decay}; it must be >= 0 and < 1")
        not_negative("aggregator_lr", self.aggregator_lr)

    def unread(self) -> set[str]:
        """PCL's options without PCL, the group's with it, those of growth where the share does not grow."""
        if self.aggregation == "pcl":
            return {"aggregator_lr", "online_start", "online_weight", "growth_steps", "growth_epochs"}
        names = {"peer_temperature", "ramp_epochs", "mean_decay"}
        if self.cutoff_epochs:
            names |= {"online_start", "growth_steps", "growth_epochs"}
        return names
