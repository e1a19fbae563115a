"""The training loop: epochs of batches, one teacher forward, every learner one step."""

import time
from collections.abc import Callable, Sequence

import torch

from rkd.data import Batches, ImageSet
from rkd.training.evaluation import accuracy
from rkd.training.learner import Learner
from rkd.training.teacher import FrozenTeacher


def train(
    learners: Sequence[Learner],
    images: ImageSet,
    teacher: FrozenTeacher | None,
    *,
    on_batch: Callable[[int, int, int], None] = lambda epoch, done, total: None,
    on_epoch: Callable[[Learner], None] = lambda learner: None,
) -> None:
    """Train all learners to their last epoch, in lock-step on the same batches.

    The learners' configs agree in everything but student, method and optimiser (see `experiments.execute.gangs`).
    A learner that was resumed at a later epoch joins when the others have reached it; one that diverges leaves. The
    batches of an epoch depend on seed and epoch alone, so a learner's result does not depend on its company.

    Args:
        learners: with networks on the images' device.
        images: the data set, on its device.
        teacher: for learners with a method.
        on_batch: called with (epoch, images done, images in all) after each batch.
        on_epoch: called for each learner after each of its epochs, scores included: saves checkpoints, reports.
    """
    config = learners[0].config
    batches = Batches(images, config.data.padding, config.data.flip)
    total = len(images.train_y)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    dtype = torch.float64 if config.precision == "fp64" else torch.float32
    device = images.train_x.device.type
    for epoch in range(min(learner.epoch for learner in learners), config.epochs):
        active = [learner for learner in learners if learner.epoch == epoch and not learner.diverged]
        if not active:
            continue
        started = time.perf_counter()
        for learner in active:
            learner.begin_epoch()
        done = 0
        for x, labels, indices in batches.epoch(epoch, config.seed, config.batch_size):
            x = x.to(dtype)
            with torch.autocast(device, dtype=low, enabled=low is not None):
                taps = teacher.taps(x) if teacher is not None else None
            for learner in active:
                learner.step(x, labels, indices, taps)
            done += len(labels)
            on_batch(epoch, done, total)
        if device == "cuda":
            torch.cuda.synchronize()
        share = (time.perf_counter() - started) / len(active)
        for learner in active:
            learner.end_epoch(share)
            evaluate(learner, images)
            on_epoch(learner)


def evaluate(learner: Learner, images: ImageSet) -> None:
    """Score the student on the held-out split, where there is one, and on the test set."""
    scores = {}
    if len(images.holdout_y):
        scores["holdout_accuracy"] = accuracy(
            learner.student, images.holdout_x, images.holdout_y, images.mean, images.std
        )
    scores["test_accuracy"] = accuracy(learner.student, images.test_x, images.test_y, images.mean, images.std)
    learner.score(**scores)
