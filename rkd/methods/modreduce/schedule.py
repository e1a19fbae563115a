"""When ModReduce's students begin to learn from each other, and how much."""

import math

from rkd.methods.modreduce.options import ModReduceOptions

CUTOFF = 220  # of 240 epochs


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
