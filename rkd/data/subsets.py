"""Class-balanced, nested subsets of images."""

import numpy as np

from rkd.data.streams import stream_seed
from rkd.errors import DataError


def choose(
    labels: np.ndarray, classes: int, images: int | None, holdout: int, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices, ascending, of the images kept and of those held out.

    Every class has one permutation, fixed by `seed`, `what` and its number. Kept images are taken from its front and
    held-out ones from its end, so that neither choice depends on the size of the other. Where there are fewer images
    than asked for, in all or in one class, all that are not held out are kept.

    Args:
        labels: (N,) int64.
        images: how many to keep; None keeps all that are not held out.
        what: "training" or "test", for messages and the stream.

    Raises:
        DataError: no image would be left to keep, or a class has fewer images than are to be held out of it.
    """
    if holdout >= len(labels):
        raise DataError(f"{holdout} {what} images are to be held out; the data set has {len(labels)} in all")
    if images is not None and images + holdout >= len(labels):
        images = None
    kept_of, held_of = _per_class(images, classes), _per_class(holdout, classes)
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        # Raw PCG64 output: NumPy keeps it the same for ever, unlike its permutations.
        keys = np.random.PCG64(stream_seed(seed, "subset", what, label)).random_raw(len(members))
        members = members[np.argsort(keys, kind="stable")]
        front = len(members) - held_of[label]
        if front < 0:
            said = f"{held_of[label]} {what} images of class {label} are to be held out"
            raise DataError(f"{said}, which has {len(members)}")
        front = front if images is None else min(front, kept_of[label])
        chosen[0].append(members[:front])
        chosen[1].append(members[len(members) - held_of[label] :])
    return np.sort(np.concatenate(chosen[0])), np.sort(np.concatenate(chosen[1]))


def _per_class(images: int | None, classes: int) -> list[int]:
    each, more = divmod(images or 0, classes)
    return [each + (label < more) for label in range(classes)]
