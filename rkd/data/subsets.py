"""Class-balanced, nested choices of images."""

import numpy as np

from rkd.data.streams import stream_seed
from rkd.errors import DataError


def choose(
    labels: np.ndarray, classes: int, images: int | None, holdout: int, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Indices, ascending, of the images kept and of those held out.

    Every class has one permutation, fixed by `seed`, `what` and its number. Kept images are taken from its
    front and held-out ones from its end, so that neither choice moves with the size of the other.

    Args:
        labels: (N,) int64.
        images: how many to keep; None keeps all that are not held out.
        what: "training" or "test", for messages and the stream.

    Raises:
        DataError: more images are asked for than there are, in all or in one class.
    """
    asked = (images or 0) + holdout
    if asked > len(labels) or (images is None and holdout >= len(labels)):
        held = f" and {holdout} held out" if holdout else ""
        kept = "all others" if images is None else images
        raise DataError(f"{kept} {what} images{held} were asked for, but the data set has {len(labels)}")
    kept_of, held_of = _per_class(images, classes), _per_class(holdout, classes)
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        members = members[
            np.argsort(_keys(len(members), stream_seed(seed, "subset", what, label)), kind="stable")
        ]
        front = len(members) - held_of[label] if images is None else kept_of[label]
        if front < 0 or front + held_of[label] > len(members):
            wanted = held_of[label] + (0 if images is None else kept_of[label])
            raise DataError(
                f"a class-balanced choice needs {wanted} {what} images of class {label}, "
                f"which has {len(members)}"
            )
        chosen[0].append(members[:front])
        chosen[1].append(members[len(members) - held_of[label] :])
    return np.sort(np.concatenate(chosen[0])), np.sort(np.concatenate(chosen[1]))


def _per_class(images: int | None, classes: int) -> list[int]:
    each, more = divmod(images or 0, classes)
    return [each + (label < more) for label in range(classes)]


def _keys(count: int, seed: int) -> np.ndarray:
    """Sort keys. Raw PCG64 output: NumPy keeps it the same for ever, unlike its permutations."""
    return np.random.PCG64(seed).random_raw(count)
