"""Which images a run sees, as written in profiles and records."""

from typing import Literal

from rkd.config import Count, Flag, Natural, frozen
from rkd.data.normalisation import preset
from rkd.data.sources import reader_of


@frozen
class DataConfig:
    """A data set and what is done to its images.

    Attributes:
        name: "cifar10", "cifar100", "embedded" (generated, needs no download) or the path of an npz file with
            uint8 arrays x_train, y_train, x_test, y_test.
        normalisation: preset of `rkd.data.normalisation`.
        train_images: size of a class-balanced subset of the training images; None takes all that are not held
            out. A smaller subset lies within a larger one of the same seed. Where the classes do not divide
            the number, the first classes have one image more.
        test_images: the same of the test images.
        holdout: training images set aside as a validation split, class-balanced likewise; no subset of the
            training images contains one.
        seed: of the choices above, and of the embedded set's images. Nothing else: order and augmentation
            follow the run's seed.
        padding: pixels added on each side before a random crop to the old size; 0 means no crop.
        padding_mode: what is added: "zeros", or the image mirrored at its border ("reflect").
        flip: mirror each training image left to right with probability 1/2.
        sha256: of the npz file, so that another file under the same name is another run; None for named sets.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "cifar100"
    normalisation: str = "cifar10_reviewkd"
    train_images: Count | None = None
    test_images: Count | None = None
    holdout: Natural = 0
    seed: Natural = 0
    padding: Natural = 4
    flip: Flag = True
    sha256: str | None = None
    padding_mode: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        reader_of(self.name)
        preset(self.normalisation)
