"""The training loop: epochs of batches, one teacher forward, every learner one step."""

import time
from collections.abc import Callable, Sequence

import torch

from rkd.data import ImageSet
from rkd.training.evaluation import accuracy
from rkd.training.learner import Learner
from rkd.training.program import Capture, Program
from rkd.training.teacher import FrozenTeacher


def train(
    learners: Sequence[Learner],
    images: ImageSet,
    teacher: FrozenTeacher | None,
    *,
    capture: Capture | None = None,
    on_batch: Callable[[int, int, int], None] = lambda epoch, done, total: None,
    on_epoch: Callable[[Learner], None] = lambda learner: None,
    stop: Callable[[float], bool] = lambda needed: False,
) -> bool:
    """Train all learners to their last epoch, in lock-step.

    The learners' configs agree in everything but seed, student, method, loss weights and optimiser (see
    `experiments.gangs.gangs`). A learner that was resumed at a later epoch or batch joins when the others have reached
    it; one that diverges leaves. The batches of an epoch depend on seed and epoch alone, so a learner's result does
    not depend on its company.

    Args:
        learners: with networks on the images' device.
        images: the data set, on its device.
        teacher: for learners with a method.
        capture: see Program.
        on_batch: called with (epoch, images done, images in all) after each batch.
        on_epoch: called for each learner after each of its epochs, scores included: saves checkpoints, reports.
        stop: asked before each batch and each evaluation with the seconds that piece is expected to take; True ends
            training there, in a state from which it can go on.

    Returns:
        False when it was stopped.
    """
    total, epochs = len(images.train_y), learners[0].config.epochs
    device = images.train_x.device.type
    program: Program | None = None
    batch_seconds = score_seconds = 0.0
    for epoch in range(min(learner.epoch for learner in learners), epochs):
        active = [learner for learner in learners if learner.epoch == epoch and not learner.diverged]
        if not active:
            continue
        for learner in active:
            learner.begin_epoch()
        # Whoever was interrupted further on in this epoch joins where it was.
        starts = sorted({learner.position for learner in active})
        for start, end in zip(starts, [*starts[1:], total], strict=True):
            present = [learner for learner in active if learner.position <= start]
            if program is None or program.learners != present:
                program = Program(present, images, teacher, capture)
            started, before = time.perf_counter(), [learner.seconds for learner in present]
            stopped, done = False, start
            for size in program.begin(epoch, start):
                if done >= end:
                    break
                if stopped := stop(batch_seconds):
                    break
                batch_started = time.perf_counter()
                program.step(size)
                batch_seconds = time.perf_counter() - batch_started
                done += size
                share = (time.perf_counter() - started) / len(present)
                for learner, seconds in zip(present, before, strict=True):
                    learner.seconds = seconds + share
                on_batch(epoch, done, total)
            if device == "cuda":
                torch.cuda.synchronize()
                share = (time.perf_counter() - started) / len(present)
                for learner, seconds in zip(present, before, strict=True):
                    learner.seconds = seconds + share
            if stopped:
                return False
        for learner in active:
            if stop(score_seconds):
                return False
            learner.end_epoch()
            started = time.perf_counter()
            evaluate(learner, images)
            score_seconds = time.perf_counter() - started
            on_epoch(learner)
    return True


def evaluate(learner: Learner, images: ImageSet) -> None:
    """Score the student on the held-out split, where there is one, and on the test set."""
    scores = {}
    if len(images.holdout_y):
        scores["holdout_accuracy"] = accuracy(
            learner.student, images.holdout_x, images.holdout_y, images.mean, images.std
        )
    scores["test_accuracy"] = accuracy(learner.student, images.test_x, images.test_y, images.mean, images.std)
    learner.score(**scores)
