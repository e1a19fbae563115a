"""Accuracy of networks on a set of images."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rkd.data import ImageSet, evaluation_batches
from rkd.data.batches import affine, scaled
from rkd.training import capture as graphs
from rkd.training.arithmetic import Arithmetic, exact_kernels
from rkd.training.capture import Body, Capture


@torch.no_grad()
def accuracy(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int | None = None,
) -> float:
    """Top-1 accuracy in percent, in the network's own precision and by exact kernels, in eval mode, every image counted
    once; the training flag is left as it was.

    Args:
        network: gives logits (B, classes).
        x: (N, H, W, 3) uint8, on the network's device.
        y: (N,) int64.
        mean, std: normalisation, in units of pixel values in [0, 1].
        batch_size: images at a time; None: see `usual_batch`.
    """
    training = network.training
    network.eval()
    dtype = next(network.parameters()).dtype
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    with exact_kernels():
        for images, labels in evaluation_batches(x, y, mean, std, batch_size or usual_batch(x.device)):
            correct += (network(images.to(dtype)).argmax(1) == labels).sum()
    network.train(training)
    return 100.0 * correct.item() / len(y)


def usual_batch(device: torch.device) -> int:
    """Images that are scored at a time."""
    return 2000 if device.type == "cuda" else 500


class Scores:
    """Scores several networks on the same images again and again, under the arithmetic they are trained in: on CUDA as
    one captured graph, each network on a branch of its own.

    Args:
        networks: give logits (B, classes); on the device of the images.
        images: test and held-out images are scored.
        numbers: the arithmetic.
        capture: see GroupStep.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        images: ImageSet,
        numbers: Arithmetic,
        capture: Capture | None = None,
    ) -> None:
        self.networks, self._images = list(networks), images
        self._numbers, self._capture = numbers, capture
        device = images.test_x.device
        parallel = capture is not None and device.type == "cuda"
        self._branches = graphs.streams(device, len(self.networks))[1:] if parallel else None
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._correct = torch.zeros(len(self.networks), dtype=torch.int64, device=device)
        self._size = usual_batch(device)
        self._affine = affine(images.test_x.shape[1:3], images.mean, images.std, device)
        self._captured: dict[tuple[str, int], Body] = {}

    @torch.no_grad()
    def __call__(self) -> list[Mapping[str, float]]:
        """Top-1 accuracies in percent per network: "test", and before it "holdout" where images are held out."""
        training = [network.training for network in self.networks]
        for network in self.networks:
            network.eval()
        found = {part: self._score(part) for part in ("holdout", "test") if len(self._part(part)[1])}
        for network, flag in zip(self.networks, training, strict=True):
            network.train(flag)
        return [{part: values[i] for part, values in found.items()} for i in range(len(self.networks))]

    def _part(self, part: str) -> tuple[Tensor, Tensor]:
        return getattr(self._images, f"{part}_x"), getattr(self._images, f"{part}_y")

    def _score(self, part: str) -> list[float]:
        count = len(self._part(part)[1])
        self._position.zero_()
        self._correct.zero_()
        for start in range(0, count, self._size):
            size = min(self._size, count - start)
            if self._capture is None:
                self._body(part, size)
                continue
            if (part, size) not in self._captured:
                changed = [self._position, self._correct]
                body = self._of(part, size)
                self._captured[part, size] = self._capture(body, changed, [[self._position]])
                if self._captured[part, size] is body:
                    self._branches = None
            self._captured[part, size]()
        return [100.0 * correct / count for correct in self._correct.tolist()]

    def _of(self, part: str, size: int) -> Body:
        return lambda: self._body(part, size)

    @torch.no_grad()
    def _body(self, part: str, size: int) -> None:
        x, y = self._part(part)
        here = torch.arange(size, device=x.device) + self._position
        batch = scaled(x.index_select(0, here), *self._affine).to(self._numbers.master)
        labels = y.index_select(0, here)
        main = torch.cuda.current_stream(x.device) if self._branches is not None else None
        for i, network in enumerate(self.networks):
            if main is None:
                self._count(i, network, batch, labels)
                continue
            branch = self._branches[i]
            branch.wait_stream(main)
            with torch.cuda.stream(branch):
                self._count(i, network, batch, labels)
        for branch in self._branches or ():
            main.wait_stream(branch)
        self._position += size

    def _count(self, i: int, network: nn.Module, batch: Tensor, labels: Tensor) -> None:
        low = self._numbers.low
        with torch.autocast(batch.device.type, dtype=low, enabled=low is not None):
            logits = network(batch)
        self._correct[i] += (logits.argmax(1) == labels).sum()
