"""Means and standard deviations that published code subtracts and divides by, by preset name.

Pixel values are in [0, 1]. Published code for CIFAR-100 disagrees, and a teacher must be fed what it was
trained on:

| preset | used by |
|---|---|
| `cifar10_reviewkd` | ReviewKD and its reproduction, for CIFAR-100 too (they are CIFAR-10's statistics) |
| `cifar100_crd` | RepDistiller and its descendants: mdistiller, SemCKD, ModReduce, KDrefine |
| `cifar100` | CIFAR-100's own statistics, four digits |
| `cifar100_torchdistill` | torchdistill |
| `cifar10` | CIFAR-10's own statistics, four digits |
| `cifar10_per_image` | much code for CIFAR-10: the same means, and the mean over images of each one's own deviation |
| `imagenet` | torchvision's networks, and most that are trained on photographs |
| `embedded` | the embedded set's training images, seed 0 (see `rkd.data.embedded`) |
| `half` | 0.5 and 0.5: maps [0, 1] to [-1, 1] |
| `measured` | a user's own set: the statistics of its training images, four digits |
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from rkd.config import Positive, Weight, from_values, frozen
from rkd.errors import ConfigError, unknown

MEASURED = "measured"


@frozen
class Normalisation:
    """Per-channel (red, green, blue) mean and standard deviation of pixel values in [0, 1]."""

    mean: tuple[Weight, Weight, Weight]
    std: tuple[Positive, Positive, Positive]

    def __post_init__(self) -> None:
        if max(self.mean + self.std) > 1:
            given = f"mean {self.mean} and std {self.std}"
            raise ConfigError(f"{given} are of pixel values in [0, 1]; divide those of 0 to 255 by 255")


def _statistics(value: Any) -> Any:
    return from_values(Normalisation, value) if isinstance(value, Mapping) else value


# The name of a preset, or {mean: [...], std: [...]}.
Statistics = Annotated[str | Normalisation, BeforeValidator(_statistics)]


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
    "cifar10_per_image": Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "embedded": Normalisation((0.3521, 0.3582, 0.337), (0.2045, 0.2121, 0.1945)),
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def preset(name: str | Normalisation) -> Normalisation | None:
    """Return the preset of a name, given statistics unchanged, or None for "measured", which the data set determines.
    ConfigError for any other name."""
    if isinstance(name, Normalisation) or name == MEASURED:
        return name if isinstance(name, Normalisation) else None
    if name not in PRESETS:
        raise unknown("normalisation", name, [*PRESETS, MEASURED])
    return PRESETS[name]
