"""What a run group does in one step, as one function of tensors that stay where they are.

Augmentation, teacher, every student's forward and backward pass, optimiser and meters: nothing is read back to the
host, and whatever changes from step to step (position in the epoch, learning rate, loss weights) is a tensor. On the
CPU the function is called; on CUDA it is captured once per batch size and replayed.
"""

import functools
from collections.abc import Sequence

import torch

from rkd.data import Batches, ImageSet
from rkd.training import capture as graphs
from rkd.training.capture import Body, Capture
from rkd.training.state import TrainState
from rkd.training.teacher import FrozenTeacher


class GroupStep:
    """The step of a run group.

    Args:
        states: their configs agree in everything but seed, network, method, loss weights and optimiser. Those of one
            seed share batches and teacher pass; each seed has its own data order.
        images: the data set, on the states' device.
        teacher: for states with a method.
        capture: turns a function into a faster one that does the same, or gives it back as it is (see
            `capture.cuda_graph`); None calls it as it is.
    """

    def __init__(
        self,
        states: Sequence[TrainState],
        images: ImageSet,
        teacher: FrozenTeacher | None,
        capture: Capture | None = None,
    ) -> None:
        config = states[0].config
        self.states, self.teacher, self.capture = list(states), teacher, capture
        self.batch_size, self.drop_last = config.batch_size, config.drop_last
        self._dtype = states[0].arithmetic.master
        device = images.train_x.device
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._stages = [state.stage for state in states]
        seeds = dict.fromkeys(state.config.seed for state in states)
        self._groups = [
            (
                seed,
                Batches(images, config.data.padding, config.data.flip, config.data.padding_mode),
                [state for state in states if state.config.seed == seed],
            )
            for seed in seeds
        ]
        # In a captured graph nobody waits for what is not needed: the teacher of each seed and every student get a
        # branch of their own.
        parallel = capture is not None and device.type == "cuda"
        branches = len(self._groups) + len(self.states)
        self._branches = graphs.streams(device, branches)[1:] if parallel else None
        self._captured: dict[int, Body] = {}

    def serves(self, states: Sequence[TrainState]) -> bool:
        """Whether this is the step of these states in their present stages."""
        return self.states == list(states) and self._stages == [state.stage for state in states]

    def begin(self, epoch: int, start: int = 0) -> list[int]:
        """Prepare an epoch, counted from the first stage on, from its image `start` on; returns the sizes of the
        batches to come."""
        for seed, batches, _ in self._groups:
            batches.begin(epoch, seed)
        self._position.fill_(start)
        return self._groups[0][1].sizes(self.batch_size, start, self.drop_last)

    def __call__(self, size: int) -> None:
        """The next batch, of `size` images, for every state."""
        if self.capture is None:
            self._body(size)
        else:
            if size not in self._captured:
                self._captured[size] = self._capture(size)
            self._captured[size]()
        for state in self.states:
            state.stepped(size)

    def _capture(self, size: int) -> Body:
        def body() -> None:
            self._body(size)

        changed = [self._position, *(t for state in self.states for t in state.tensors())]
        moving = [[self._position], *(state.moving() for state in self.states)]
        replay = self.capture(body, changed, moving)
        if replay is body:  # not captured: one kernel after another, and no branches
            self._branches = None
        return replay

    def _body(self, size: int) -> None:
        if self._branches is not None:
            self._branched(size, self._branches)
            return
        for _, batches, members in self._groups:
            x, labels, indices = batches.take(self._position, size)
            x = x.to(self._dtype)
            taps = self.teacher.taps(x) if self.teacher is not None else None
            for state in members:
                state.step(x, labels, indices, taps)
        self._position += size

    def _branched(self, size: int, branches: Sequence[torch.cuda.Stream]) -> None:
        """The same on CUDA, as a graph that forks and joins: students wait for their teacher only before their losses,
        and for each other not at all."""
        main = torch.cuda.current_stream(self._position.device)
        free = iter(branches)
        used = []  # with what lies on a branch, kept until all have joined
        for _, batches, members in self._groups:
            x, labels, indices = batches.take(self._position, size)
            x = x.to(self._dtype)
            taps, seen = None, None
            if self.teacher is not None:
                branch = next(free)
                branch.wait_stream(main)
                with torch.cuda.stream(branch):
                    taps = self.teacher.taps(x)
                    seen = branch.record_event()
                used.append((branch, x, taps))
            for state in members:
                branch = next(free)
                branch.wait_stream(main)
                ready = None if seen is None else functools.partial(branch.wait_event, seen)
                with torch.cuda.stream(branch):
                    state.step(x, labels, indices, taps, ready)
                used.append((branch, x, labels, indices))
        for branch, *_ in used:
            main.wait_stream(branch)
        self._position += size
