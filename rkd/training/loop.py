"""The training loop: epochs of batches, one teacher forward, every student one step."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from rkd.data import ImageSet, used_images
from rkd.training.capture import Capture, on
from rkd.training.evaluation import Scores
from rkd.training.state import TrainState
from rkd.training.step import GroupStep
from rkd.training.teacher import FrozenTeacher
from rkd.training.threads import Threads

AHEAD = 32  # batches the host may be ahead of a GPU: enough to keep it busy, and to stop soon


def train(
    states: Sequence[TrainState],
    images: ImageSet,
    teacher: FrozenTeacher | None,
    *,
    capture: Capture | None = None,
    cold_seconds: float = 0.0,
    on_batch: Callable[[int, int, int], None] = lambda epoch, done, total: None,
    on_epoch: Callable[[TrainState], None] = lambda state: None,
    stop: Callable[[float], bool] = lambda needed: False,
    threads: Threads | None = None,
) -> bool:
    """Train all states to their last epoch, in lock-step.

    The states' configs agree in everything but seed, student, method, loss weights and optimiser, and have equal
    stages (see `experiments.runner.run_groups`). One that was resumed at a later epoch or batch joins when the others
    have reached it; one that diverges leaves. The batches of an epoch depend on seed and epoch alone, so a state's
    result does not depend on its company.

    Args:
        states: with networks on the images' device.
        images: the data set, on its device.
        teacher: for states with a method.
        capture: see GroupStep.
        cold_seconds: expected for the first step, which may compile or capture.
        on_batch: called with (epoch, images done, images in all) after each batch.
        on_epoch: called for each state after each of its epochs, scores included: saves checkpoints, reports.
        stop: asked before each batch and each evaluation with the seconds that piece is expected to take; True ends
            training there, in a state from which it can go on.
        threads: chooses how many compute a step; None: torch's own number.

    Returns:
        False when it was stopped.
    """
    with on(images.train_x.device):
        return _Training(
            states, images, teacher, capture, on_batch, on_epoch, stop, threads or Threads()
        ).run(cold_seconds)


class _Training:
    """What one call of `train` works with; arguments as there."""

    def __init__(
        self,
        states: Sequence[TrainState],
        images: ImageSet,
        teacher: FrozenTeacher | None,
        capture: Capture | None,
        on_batch: Callable[[int, int, int], None],
        on_epoch: Callable[[TrainState], None],
        stop: Callable[[float], bool],
        threads: Threads,
    ) -> None:
        self.states, self.images, self.teacher, self.capture = states, images, teacher, capture
        self.on_batch, self.on_epoch, self.stop, self.threads = on_batch, on_epoch, stop, threads
        self.device = images.train_x.device
        config = states[0].config
        self.epochs, self.batch_size = config.total_epochs, config.batch_size
        self.total = used_images(len(images.train_y), config.batch_size, config.drop_last)
        self.queue = _Queue(self.device)
        self.step: GroupStep | None = None
        self.scores: dict[tuple[int, ...], Scores] = {}
        self.batch_seconds, self.score_seconds = 0.0, 0.0

    def run(self, cold_seconds: float) -> bool:
        """All epochs; False when stopped."""
        self.batch_seconds = cold_seconds
        for epoch in range(min(state.epoch for state in self.states), self.epochs):
            active = [state for state in self.states if state.epoch == epoch and not state.diverged]
            if active and not (self._train(epoch, active) and self._end(active)):
                return False
        return True

    def _train(self, epoch: int, active: Sequence[TrainState]) -> bool:
        """The batches of an epoch. Whoever was interrupted further on in it joins where it was."""
        with _shared(active):
            for state in active:
                state.begin_epoch()
        starts = sorted({state.position for state in active})
        for start, end in zip(starts, [*starts[1:], self.total], strict=True):
            present = [state for state in active if state.position <= start]
            if not self._stretch(epoch, present, start, end):
                return False
        return True

    def _stretch(self, epoch: int, present: Sequence[TrainState], start: int, end: int) -> bool:
        if self.step is None or not self.step.serves(present):
            self.step = GroupStep(present, self.images, self.teacher, self.capture)
            self.threads.begin()
        with _shared(present):
            sizes = self.step.begin(epoch, start)
        done = start
        for size in sizes:
            if done >= end:
                break
            if self.stop(self.batch_seconds):
                with _shared(present):
                    self.queue.drain()
                return False
            used = str(self.threads.take())
            with _shared(present) as taken:
                self.step(size)
                self.queue.add()
            self.batch_seconds = taken()
            self.threads.took(taken(), whole=size == self.batch_size)
            for state in present:
                state.threads[used] = state.threads.get(used, 0) + 1
            done += size
            self.on_batch(epoch, done, self.total)
        with _shared(present):
            self.queue.drain()
        return True

    def _end(self, active: Sequence[TrainState]) -> bool:
        """Close an epoch and score it: on CUDA all networks at once, elsewhere one by one, which can be stopped
        sooner."""
        together = self.device.type == "cuda"
        for members in [active] if together else [[state] for state in active]:
            if self.stop(self.score_seconds):
                return False
            scored = []
            for state in members:
                staged = state.stage is not None
                state.end_epoch()
                if (
                    not staged or state.diverged
                ):  # a stage leaves nothing to score, but every record has a score
                    scored.append(state)
            if scored:
                self._score(scored)
            for state in members:
                self.on_epoch(state)
        return True

    def _score(self, states: Sequence[TrainState]) -> None:
        started = time.perf_counter()
        named = [scored_networks(state) for state in states]
        networks = [network for found in named for network in found.values()]
        key = tuple(map(id, networks))
        if key not in self.scores:
            self.scores[key] = Scores(networks, self.images, states[0].arithmetic, self.capture)
        accuracies = iter(self.scores[key]())
        for state, found in zip(states, named, strict=True):
            state.score(
                **{
                    f"{part}_accuracy{suffix}": value
                    for suffix, parts in zip(found, accuracies, strict=False)
                    for part, value in parts.items()
                }
            )
        self.score_seconds = time.perf_counter() - started


def scored_networks(state: TrainState) -> dict[str, nn.Module]:
    """The student under "", and a method's further networks under "_NAME"."""
    further = {} if state.method is None else state.method.networks(state.student)
    return {"": state.student} | {f"_{name}": network for name, network in further.items()}


@contextmanager
def _shared(states: Sequence[TrainState]) -> Iterator[Callable[[], float]]:
    """Adds the time a block takes to its states, in equal shares; gives a function that tells it in seconds."""
    started = time.perf_counter()
    taken = [0.0]
    yield lambda: taken[0]
    taken[0] = time.perf_counter() - started
    for state in states:
        state.seconds += taken[0] / len(states)


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
