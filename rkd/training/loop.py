"""The training loop: epochs of batches, one teacher forward, every learner one step."""

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from rkd.data import ImageSet, used_images
from rkd.training.evaluation import accuracy
from rkd.training.learner import Learner
from rkd.training.program import Capture, Program
from rkd.training.teacher import FrozenTeacher
from rkd.training.threads import Threads

AHEAD = 32  # batches the host may be ahead of a GPU: enough to keep it busy, and to stop soon


def train(
    learners: Sequence[Learner],
    images: ImageSet,
    teacher: FrozenTeacher | None,
    *,
    capture: Capture | None = None,
    cold_seconds: float = 0.0,
    on_batch: Callable[[int, int, int], None] = lambda epoch, done, total: None,
    on_epoch: Callable[[Learner], None] = lambda learner: None,
    stop: Callable[[float], bool] = lambda needed: False,
    threads: Threads | None = None,
) -> bool:
    """Train all learners to their last epoch, in lock-step.

    The learners' configs agree in everything but seed, student, method, loss weights and optimiser, and have equal
    stages (see `experiments.execute.gangs`). A learner that was resumed at a later epoch or batch joins when the others
    have reached it; one that diverges leaves. The batches of an epoch depend on seed and epoch alone, so a learner's
    result does not depend on its company.

    Args:
        learners: with networks on the images' device.
        images: the data set, on its device.
        teacher: for learners with a method.
        capture: see Program.
        cold_seconds: expected for the first step, which may compile or capture.
        on_batch: called with (epoch, images done, images in all) after each batch.
        on_epoch: called for each learner after each of its epochs, scores included: saves checkpoints, reports.
        stop: asked before each batch and each evaluation with the seconds that piece is expected to take; True ends
            training there, in a state from which it can go on.
        threads: chooses how many compute a step; None: torch's own number.

    Returns:
        False when it was stopped.
    """
    config = learners[0].config
    total = used_images(len(images.train_y), config.batch_size, config.drop_last)
    queue = _Queue(images.train_x.device)
    threads = threads or Threads()
    program: Program | None = None
    batch_seconds, score_seconds = cold_seconds, 0.0
    for epoch in range(min(learner.epoch for learner in learners), config.total_epochs):
        active = [learner for learner in learners if learner.epoch == epoch and not learner.diverged]
        if not active:
            continue
        for learner in active:
            learner.begin_epoch()
        # Whoever was interrupted further on in this epoch joins where it was.
        starts = sorted({learner.position for learner in active})
        for start, end in zip(starts, [*starts[1:], total], strict=True):
            present = [learner for learner in active if learner.position <= start]
            if program is None or not program.serves(present):
                program = Program(present, images, teacher, capture)
                threads.begin()
            done = start
            for size in program.begin(epoch, start):
                if done >= end:
                    break
                if stop(batch_seconds):
                    queue.drain()
                    return False
                used, started = threads.take(), time.perf_counter()
                program.step(size)
                queue.add()
                took = time.perf_counter() - started
                batch_seconds = threads.took(took, whole=size == config.batch_size)
                done += size
                for learner in present:
                    learner.seconds += took / len(present)
                    learner.threads[str(used)] = learner.threads.get(str(used), 0) + 1
                on_batch(epoch, done, total)
            started = time.perf_counter()
            queue.drain()
            for learner in present:
                learner.seconds += (time.perf_counter() - started) / len(present)
        for learner in active:
            if stop(score_seconds):
                return False
            staged = learner.stage is not None
            learner.end_epoch()
            if (
                not staged or learner.diverged
            ):  # a stage leaves nothing to score, but every record has a score
                started = time.perf_counter()
                evaluate(learner, images)
                score_seconds = time.perf_counter() - started
            on_epoch(learner)
    return True


class _Queue:
    """Batches launched on a GPU and not finished; on a CPU there are none."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: deque[torch.cuda.Event] = deque()

    def add(self) -> None:
        """One more was launched: wait for the oldest when there are too many, so that time is told as it passes."""
        if self._device.type != "cuda":
            return
        self._events.append(torch.cuda.current_stream(self._device).record_event())
        if len(self._events) > AHEAD:
            self._events.popleft().synchronize()

    def drain(self) -> None:
        """Wait for all."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._events.clear()


def evaluate(learner: Learner, images: ImageSet) -> None:
    """Score the student, and a method's further networks, on the test set, and before on a held-out split if there is
    one."""
    networks = {"": learner.student}
    if learner.method is not None:
        networks |= {f"_{name}": n for name, n in learner.method.networks(learner.student).items()}
    scores = {}
    for suffix, network in networks.items():
        if len(images.holdout_y):
            scores[f"holdout_accuracy{suffix}"] = accuracy(
                network, images.holdout_x, images.holdout_y, images.mean, images.std
            )
        scores[f"test_accuracy{suffix}"] = accuracy(
            network, images.test_x, images.test_y, images.mean, images.std
        )
    learner.score(**scores)
