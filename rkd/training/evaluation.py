"""Accuracy of networks on a set of images, and what their features are worth."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd.data import ImageSet, evaluation_batches
from rkd.data.batches import affine, scaled
from rkd.training.arithmetic import Arithmetic, exact_kernels
from rkd.training.capture import Capture, Replayed


@contextmanager
def evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """All in eval mode; afterwards in the modes they were in."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


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
    dtype = next(network.parameters()).dtype
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    with evaluating([network]), exact_kernels():
        for images, labels in evaluation_batches(x, y, mean, std, batch_size or usual_batch(x.device)):
            correct += (network(images.to(dtype)).argmax(1) == labels).sum()
    return 100.0 * correct.item() / len(y)


def usual_batch(device: torch.device) -> int:
    """Images that are scored at a time."""
    return 2000 if device.type == "cuda" else 500


class Scores(Replayed):
    """Scores several networks on the same images again and again, under the arithmetic they are trained in.

    Args:
        networks: give logits (B, classes); on the device of the images.
        images: test and held-out images are scored.
        numbers: the arithmetic.
        capture: see Replayed.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        images: ImageSet,
        numbers: Arithmetic,
        capture: Capture | None = None,
    ) -> None:
        self.networks, self._numbers = list(networks), numbers
        self._parts = {
            "holdout": (images.holdout_x, images.holdout_y),
            "test": (images.test_x, images.test_y),
        }
        device = images.test_x.device
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._correct = torch.zeros(len(self.networks), dtype=torch.int64, device=device)
        self._affine = affine(images.test_x.shape[1:3], images.mean, images.std, device)
        super().__init__(capture, device, len(self.networks))

    @torch.no_grad()
    def __call__(self) -> list[Mapping[str, float]]:
        """Top-1 accuracies in percent per network: "test", and before it "holdout" where images are held out."""
        found: dict[str, list[float]] = {}
        with evaluating(self.networks):
            for part, (_, y) in self._parts.items():
                if not len(y):
                    continue
                self._position.zero_()
                self._correct.zero_()
                for sized in y.split(usual_batch(y.device)):
                    self.launch(part, len(sized))
                found[part] = [100.0 * correct / len(y) for correct in self._correct.tolist()]
        return [{part: values[i] for part, values in found.items()} for i in range(len(self.networks))]

    def changes(self) -> tuple[list[Tensor], list[list[Tensor]]]:
        return [self._position, self._correct], [[self._position]]

    @torch.no_grad()
    def body(self, part: str, size: int) -> None:
        x, y = self._parts[part]
        here = torch.arange(size, device=x.device) + self._position
        batch = scaled(x.index_select(0, here), *self._affine).to(self._numbers.master)
        labels = y.index_select(0, here)
        with self.forked() as branch:
            for i, network in enumerate(self.networks):
                with branch(batch, labels):
                    with self._numbers.autocast(batch.device):
                        logits = network(batch)
                    self._correct[i] += (logits.argmax(1) == labels).sum()
        self._position += size


@torch.no_grad()
def linear_probe(network: nn.Module, images: ImageSet, ridge: float = 1e-2) -> float:
    """Test accuracy in percent of a linear classifier on the pooled features, fitted on the training images, the
    network itself untouched.

    The layer solves ridge regression onto one-hot labels in closed form, in float64, on standardised features:
    deterministic, no learning rate to choose.

    Args:
        network: with `taps`, on the images' device; left in eval mode.
        images: the data set.
        ridge: penalty per training image.
    """
    network.eval()
    dtype = next(network.parameters()).dtype

    def features(x: Tensor, y: Tensor) -> Tensor:
        batches = evaluation_batches(x, y, images.mean, images.std, 500)
        return torch.cat([network.taps(batch.to(dtype)).pooled.double() for batch, _ in batches])

    with exact_kernels():
        train, test = features(images.train_x, images.train_y), features(images.test_x, images.test_y)
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    x, tested = (F.pad((found - mean) / std, (0, 1), value=1.0) for found in (train, test))  # (N, C + 1)
    targets = F.one_hot(images.train_y, images.classes).double()
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ targets)  # (C + 1, classes)
    return 100.0 * ((tested @ weights).argmax(1) == images.test_y).double().mean().item()
