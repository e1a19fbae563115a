"""The training loop: for each batch of each epoch, one teacher forward pass and one step of every student."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter as now
from typing import Any

import torch

from rkd.data import ImageSet, used_images
from rkd.training.capture import Capture, device_guard
from rkd.training.evaluation import accuracy
from rkd.training.step import GroupStep, TrainState
from rkd.training.teacher import FrozenTeacher
from rkd.training.threads import Threads

AHEAD = 32  # batches the host may be ahead of a GPU: enough to keep it busy, few enough to stop soon


def train(states: Sequence[TrainState], images: ImageSet, teacher: FrozenTeacher | None, **how: Any) -> bool:
    """Train all states to their last epoch, in lockstep; return False when training was stopped early.

    The states' configs agree in everything but seed, student, method, loss weights and optimiser, and have equal
    stages (see `experiments.runner.run_groups`). A state resumed at a later epoch or batch joins when the others have
    reached it; one that diverges drops out. The batches of an epoch depend on seed and epoch alone, so a state's
    result does not depend on which others it is trained with.

    The networks must be on the images' device; for the other arguments see `Training`.
    """
    return Training(images, teacher, **how).run(states)


@dataclass
class Training:
    """The arguments of `train`, and what it keeps while it runs."""

    images: ImageSet
    teacher: FrozenTeacher | None
    capture: Capture | None = None  # see `step.GroupStep`
    batch_seconds: float = 0.0  # expected for the first step, which may compile; then, of the latest step
    # Called before the first batch and after each, with the epoch, the images done and their total.
    on_batch: Callable[[int, int, int], None] = lambda epoch, done, total: None
    # Called for each state after each of its epochs, once it is scored: saves checkpoints, reports.
    on_epoch: Callable[[TrainState], None] = lambda state: None
    # Called before each batch and each evaluation with the seconds it is expected to take; returning True ends
    # training there, in a state from which it can be resumed.
    stop: Callable[[float], bool] = lambda needed: False
    threads: Threads = field(default_factory=Threads)
    score_seconds: float = field(default=0.0, init=False)
    step: GroupStep | None = field(default=None, init=False)
    launched: deque[torch.cuda.Event] = field(default_factory=deque, init=False)  # may not have finished

    def run(self, states: Sequence[TrainState]) -> bool:
        """See `train`."""
        with device_guard(self.images.train_y.device):
            for epoch in range(min(state.epoch for state in states), states[0].config.total_epochs):
                active = [state for state in states if state.epoch == epoch and not state.diverged]
                if active and not (self._epoch(epoch, active) and self._end(active)):
                    return False
        return True

    @property
    def _on_gpu(self) -> bool:
        return self.images.train_y.device.type == "cuda"

    def _epoch(self, epoch: int, active: Sequence[TrainState]) -> bool:
        """Run the batches of an epoch; a state that was interrupted within it joins at that point."""
        started = now()
        for state in active:
            state.begin_epoch()
        _spent(started, active)
        config, starts = active[0].config, sorted({state.position for state in active})
        total = used_images(len(self.images.train_y), config.batch_size, config.drop_last)
        return all(
            self._stretch(epoch, [s for s in active if s.position <= start], start, end, total)
            for start, end in zip(starts, [*starts[1:], total], strict=True)
        )

    def _stretch(self, epoch: int, present: Sequence[TrainState], start: int, end: int, total: int) -> bool:
        """Run the batches of an epoch from image `start` to image `end` for `present`; return False when stopped."""
        if self.step is None or not self.step.serves(present):
            self.step = GroupStep(present, self.images, self.teacher, self.capture)
            self.threads.begin()
        started, done, stopped = now(), start, False
        sizes = self.step.begin(epoch, start)
        _spent(started, present)
        self.on_batch(epoch, done, total)
        for size in sizes:
            if done >= end or (stopped := self.stop(self.batch_seconds)):
                break
            self._batch(size, present)
            done += size
            self.on_batch(epoch, done, total)
        started = now()
        if self._on_gpu:
            torch.cuda.synchronize()
        self.launched.clear()
        _spent(started, present)
        return not stopped

    def _batch(self, size: int, present: Sequence[TrainState]) -> None:
        """Make one step and count it under its number of threads. On a GPU, wait for the oldest step once more than
        AHEAD are pending, so that measured time keeps up with real time."""
        used, started = str(self.threads.take()), now()
        self.step(size)
        if self._on_gpu:
            self.launched.append(torch.cuda.current_stream().record_event())
            if len(self.launched) > AHEAD:
                self.launched.popleft().synchronize()
        self.batch_seconds = _spent(started, present)
        self.threads.took(self.batch_seconds, whole=size == present[0].config.batch_size)
        for state in present:
            state.threads[used] = state.threads.get(used, 0) + 1

    def _end(self, active: Sequence[TrainState]) -> bool:
        """Close and score the epoch of one state after another; return False when stopped."""
        for state in active:
            if self.stop(self.score_seconds):
                return False
            state.end_epoch()
            # A stage leaves nothing to score, but every record has a score.
            if state.stage is None or state.diverged:
                self._score(state)
            self.on_epoch(state)
        return True

    def _score(self, state: TrainState) -> None:
        started, images = now(), self.images
        parts = {"holdout": (images.holdout_x, images.holdout_y)} if len(images.holdout_y) else {}
        parts["test"] = images.test_x, images.test_y
        state.score(**{
            f"{part}_accuracy{suffix}": accuracy(
                network, *shown, images.mean, images.std, numbers=state.arithmetic
            )
            for suffix, network in state.networks.items()
            for part, shown in parts.items()
        })  # fmt: skip
        self.score_seconds = now() - started


def _spent(since: float, states: Sequence[TrainState]) -> float:
    """Return the seconds passed since `since`, after adding them to the states' seconds in equal shares."""
    taken = now() - since
    for state in states:
        state.seconds += taken / len(states)
    return taken
