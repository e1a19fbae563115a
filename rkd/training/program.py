"""What a gang does in one step, as one function of tensors that stay where they are.

Augmentation, teacher, every student's forward and backward pass, optimiser and meters: nothing is read back to the
host, and whatever changes from step to step (position in the epoch, learning rate, loss weights) is a tensor. On the
CPU the function is called; on CUDA it is captured once per batch size and replayed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rkd.data import Batches, ImageSet
from rkd.training.learner import Learner
from rkd.training.teacher import FrozenTeacher

Capture = Callable[[Callable[[], None], list[Tensor]], Callable[[], None]]


class Program:
    """The steps of a gang.

    Args:
        learners: their configs agree in everything but seed, network, method, loss weights and optimiser. Those of one
            seed share batches and teacher pass; each seed has its own data order.
        images: the data set, on the learners' device.
        teacher: for learners with a method.
        capture: turns a function without arguments, and the tensors it changes, into a faster one that does the same;
            None calls it as it is.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        images: ImageSet,
        teacher: FrozenTeacher | None,
        capture: Capture | None = None,
    ) -> None:
        config = learners[0].config
        self.learners, self.teacher, self.capture = list(learners), teacher, capture
        self.batch_size, self.drop_last = config.batch_size, config.drop_last
        self._dtype = learners[0].arithmetic.master
        device = images.train_x.device
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._stages = [learner.stage for learner in learners]
        seeds = dict.fromkeys(learner.config.seed for learner in learners)
        self._groups = [
            (
                seed,
                Batches(images, config.data.padding, config.data.flip, config.data.padding_mode),
                [learner for learner in learners if learner.config.seed == seed],
            )
            for seed in seeds
        ]
        # Students do not wait for each other: each gets a branch of its own in the captured graph.
        parallel = capture is not None and device.type == "cuda"
        self._branches = [torch.cuda.Stream(device) for _ in learners] if parallel else None
        self._captured: dict[int, Callable[[], None]] = {}

    def serves(self, learners: Sequence[Learner]) -> bool:
        """Whether this is the program of these learners in their present stages."""
        return self.learners == list(learners) and self._stages == [learner.stage for learner in learners]

    def begin(self, epoch: int, start: int = 0) -> list[int]:
        """Prepare an epoch, counted from the first stage on, from its image `start` on; returns the sizes of the
        batches to come."""
        for seed, batches, _ in self._groups:
            batches.begin(epoch, seed)
        self._position.fill_(start)
        return self._groups[0][1].sizes(self.batch_size, start, self.drop_last)

    def step(self, size: int) -> None:
        """The next batch, of `size` images, for every learner."""
        if self.capture is None:
            self._body(size)
        else:
            if size not in self._captured:
                changed = [self._position, *(t for learner in self.learners for t in learner.tensors())]
                self._captured[size] = self.capture(lambda: self._body(size), changed)
            self._captured[size]()
        for learner in self.learners:
            learner.stepped(size)

    def _body(self, size: int) -> None:
        branches = iter(self._branches or ())
        forked = []
        for _, batches, members in self._groups:
            x, labels, indices = batches.take(self._position, size)
            x = x.to(self._dtype)
            taps = self.teacher.taps(x) if self.teacher is not None else None
            for learner in members:
                branch = next(branches, None)
                if branch is None:
                    learner.step(x, labels, indices, taps)
                    continue
                branch.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(branch):
                    learner.step(x, labels, indices, taps)
                forked.append((branch, x, labels, indices, taps))  # kept until the branches have joined
        for branch, *_ in forked:
            torch.cuda.current_stream().wait_stream(branch)
        self._position += size


def cuda_graph(body: Callable[[], None], changed: list[Tensor]) -> Callable[[], None]:
    """Capture `body` as a CUDA graph.

    Kernels are chosen, and compiled, in trial steps before the capture; what they changed is put back.
    """
    kept = [tensor.detach().clone() for tensor in changed]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    with torch.no_grad():
        for tensor, value in zip(changed, kept, strict=True):
            tensor.copy_(value)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay
