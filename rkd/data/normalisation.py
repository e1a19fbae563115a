"""Means and standard deviations that published code subtracts and divides by, by preset name.

Pixel values are in [0, 1]. Published code for CIFAR-100 disagrees, and a teacher must be fed what it was
trained on:

| preset | used by |
|---|---|
| `cifar10_reviewkd` | ReviewKD and its reproduction, for CIFAR-100 too (they are CIFAR-10's statistics) |
| `cifar100_crd` | RepDistiller and what grew from it: mdistiller, SemCKD, ModReduce, KDrefine |
| `cifar100` | CIFAR-100's own statistics, four digits |
| `cifar100_torchdistill` | torchdistill |
| `cifar10` | CIFAR-10's own statistics, four digits |
| `embedded` | the embedded set's training images, seed 0 (see `rkd.data.embedded`) |
| `half` | 0.5 and 0.5: maps [0, 1] to [-1, 1] |
"""

from dataclasses import dataclass

from rkd.errors import unknown

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (red, green, blue) mean and standard deviation of pixel values in [0, 1]."""

    mean: Triple
    std: Triple


PRESETS: dict[str, Normalisation] = {
    "cifar10_reviewkd": Normalisation(
        (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
    ),
    "cifar100_crd": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cifar100_torchdistill": Normalisation(
        (0.5070754, 0.48655024, 0.44091907), (0.26733398, 0.25643876, 0.2761503)
    ),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "embedded": Normalisation((0.3521, 0.3582, 0.337), (0.2045, 0.2121, 0.1945)),
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def preset(name: str) -> Normalisation:
    """The preset of that name.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise unknown("normalisation", name, PRESETS)
    return PRESETS[name]
