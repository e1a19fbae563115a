"""The training loop: epochs of batches, one teacher forward, every student one step."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from rkd.data import ImageSet, used_images
from rkd.training.capture import Capture, on
from rkd.training.evaluation import Scores
from rkd.training.step import GroupStep, TrainState
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
        capture: see `capture.Replayed`.
        cold_seconds: expected for the first step, which may compile or capture.
        on_batch: called with (epoch, images done, images in all) after each batch.
        on_epoch: called for each state after each of its epochs, scores included: saves checkpoints, reports.
        stop: asked before each batch and each evaluation with the seconds that piece is expected to take; True ends
            training there, in a state from which it can go on.
        threads: chooses how many compute a step; None: torch's own number.

    Returns:
        False when it was stopped.
    """
    run = _Training(
        images, teacher, capture, on_batch, on_epoch, stop, threads or Threads(), states[0].config.batch_size,
        used_images(len(images.train_y), states[0].config.batch_size, states[0].config.drop_last), cold_seconds,
    )  # fmt: skip
    with on(images.train_x.device):
        for epoch in range(min(state.epoch for state in states), states[0].config.total_epochs):
            active = [state for state in states if state.epoch == epoch and not state.diverged]
            if active and not (run.epoch(epoch, active) and run.end(active)):
                return False
    return True


@dataclass
class _Training:
    """What one call of `train` works with; fields as there, and:

    Attributes:
        total: images of an epoch.
        batch_seconds, score_seconds: the latest ones.
        launched: batches on a GPU that may not have been finished.
    """

    images: ImageSet
    teacher: FrozenTeacher | None
    capture: Capture | None
    on_batch: Callable[[int, int, int], None]
    on_epoch: Callable[[TrainState], None]
    stop: Callable[[float], bool]
    threads: Threads
    batch_size: int
    total: int
    batch_seconds: float
    score_seconds: float = 0.0
    step: GroupStep | None = None
    scores: dict[tuple[int, ...], Scores] = field(default_factory=dict)
    launched: deque[torch.cuda.Event] = field(default_factory=deque)

    @property
    def on_gpu(self) -> bool:
        return self.images.train_x.device.type == "cuda"

    def epoch(self, epoch: int, active: Sequence[TrainState]) -> bool:
        """The batches of an epoch. Whoever was interrupted further on in it joins where it was."""

        def begin() -> None:
            for state in active:
                state.begin_epoch()

        _timed(active, begin)
        starts = sorted({state.position for state in active})
        return all(
            self._stretch(epoch, [state for state in active if state.position <= start], start, end)
            for start, end in zip(starts, [*starts[1:], self.total], strict=True)
        )

    def _stretch(self, epoch: int, present: Sequence[TrainState], start: int, end: int) -> bool:
        if self.step is None or not self.step.serves(present):
            self.step = GroupStep(present, self.images, self.teacher, self.capture)
            self.threads.begin()
        sizes: list[int] = []
        _timed(present, lambda: sizes.extend(self.step.begin(epoch, start)))
        done, stopped = start, False
        for size in sizes:
            if done >= end or (stopped := self.stop(self.batch_seconds)):
                break
            used = str(self.threads.take())
            self.batch_seconds = _timed(present, lambda size=size: self._launch(size))
            self.threads.took(self.batch_seconds, whole=size == self.batch_size)
            for state in present:
                state.threads[used] = state.threads.get(used, 0) + 1
            done += size
            self.on_batch(epoch, done, self.total)
        _timed(present, self._finish)
        return not stopped

    def _launch(self, size: int) -> None:
        """The step; on a GPU, wait for the oldest when there are too many, so that time is told as it passes."""
        self.step(size)
        if self.on_gpu:
            self.launched.append(torch.cuda.current_stream().record_event())
            if len(self.launched) > AHEAD:
                self.launched.popleft().synchronize()

    def _finish(self) -> None:
        """Wait for all that was launched."""
        if self.on_gpu:
            torch.cuda.synchronize()
        self.launched.clear()

    def end(self, active: Sequence[TrainState]) -> bool:
        """Close an epoch and score it: on CUDA all networks at once, elsewhere one by one, which can be stopped
        sooner."""
        for members in [active] if self.on_gpu else [[state] for state in active]:
            if self.stop(self.score_seconds):
                return False
            scored = []
            for state in members:
                staged = state.stage is not None
                state.end_epoch()
                # A stage leaves nothing to score, but every record has a score.
                scored += [state] if not staged or state.diverged else []
            if scored:
                self._score(scored)
            for state in members:
                self.on_epoch(state)
        return True

    def _score(self, states: Sequence[TrainState]) -> None:
        started = time.perf_counter()
        named = [(state, suffix, network) for state in states for suffix, network in state.networks.items()]
        networks = [network for *_, network in named]
        key = tuple(map(id, networks))
        if key not in self.scores:
            self.scores[key] = Scores(networks, self.images, states[0].arithmetic, self.capture)
        found: dict[int, dict[str, float]] = {}
        for (state, suffix, _), parts in zip(named, self.scores[key](), strict=True):
            values = {f"{part}_accuracy{suffix}": value for part, value in parts.items()}
            found.setdefault(id(state), {}).update(values)
        for state in states:
            state.score(**found[id(state)])
        self.score_seconds = time.perf_counter() - started


def _timed(states: Sequence[TrainState], work: Callable[[], object]) -> float:
    """Do some work; its seconds, which are added to those of the states in equal shares."""
    started = time.perf_counter()
    work()
    taken = time.perf_counter() - started
    for state in states:
        state.seconds += taken / len(states)
    return taken
