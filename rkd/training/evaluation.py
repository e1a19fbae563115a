"""Accuracy of networks on a set of images."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rkd.data.batches import Rows, affine, scaled
from rkd.models.taps import evaluating
from rkd.training.arithmetic import Arithmetic, exact_kernels
from rkd.training.capture import Capture, Replayed

OF_TABLES = 32 * 32  # pixels of an image


def accuracy(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int | None = None,
) -> float:
    """Top-1 accuracy in percent, in the network's own precision and by exact kernels, in eval mode.

    Args:
        x: (N, H, W, 3) uint8, on the network's device or on the CPU.
        y: (N,) int64, on the network's device.
        mean, std: normalisation, in units of pixel values in [0, 1].
        batch_size: images at a time; None: see `usual_batch`.
    """
    numbers = Arithmetic("own", next(network.parameters()).dtype)
    with exact_kernels():
        (found,) = Scores([network], {"": (x, y)}, (mean, std), numbers, batch_size=batch_size)()
    return found[""]


def usual_batch(device: torch.device, area: int) -> int:
    """Images of `area` pixels that are scored at a time: fewer of larger ones, whose maps would fill the memory."""
    return max(1, (2000 if device.type == "cuda" else 500) * OF_TABLES // max(area, OF_TABLES))


class Scores(Replayed):
    """Scores several networks on the same images again and again, in the arithmetic they are trained in. `parts` are
    images and labels by name, `normalisation` mean and std, both as of `accuracy`."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        parts: Mapping[str, tuple[Tensor, Tensor]],
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
        numbers: Arithmetic,
        capture: Capture | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.networks, self._numbers = list(networks), numbers
        x, y = next(iter(parts.values()))
        self._parts = {part: (Rows(images, y.device), labels) for part, (images, labels) in parts.items()}
        self._position = torch.zeros((), dtype=torch.int64, device=y.device)
        self._correct = torch.zeros(len(self.networks), dtype=torch.int64, device=y.device)
        self._affine = affine(x.shape[1:3], *normalisation, y.device)
        self._batch_size = batch_size or usual_batch(y.device, x.shape[1] * x.shape[2])
        super().__init__(capture, y.device, len(self.networks))

    @torch.no_grad()
    def __call__(self) -> list[Mapping[str, float]]:
        """Top-1 accuracies in percent of each network, by part; every image counted once, each network's mode left as
        it was."""
        found: list[dict[str, float]] = [{} for _ in self.networks]
        with evaluating(*self.networks):
            for part, (rows, y) in self._parts.items():
                self._position.zero_()
                self._correct.zero_()
                for places in torch.arange(len(y)).split(self._batch_size):
                    rows.bring(places)
                    self.launch(part, len(places))
                for accuracies, correct in zip(found, self._correct.tolist(), strict=True):
                    accuracies[part] = 100.0 * correct / len(y)
        return found

    def changes(self) -> tuple[list[Tensor], list[list[Tensor]]]:
        return [self._position, self._correct], [[self._position]]

    @torch.no_grad()
    def body(self, part: str, size: int) -> None:
        rows, y = self._parts[part]
        here = torch.arange(size, device=y.device) + self._position
        batch = scaled(rows.take(here), *self._affine).to(self._numbers.master)
        labels = y.index_select(0, here)
        with self.forked() as branch:
            for i, network in enumerate(self.networks):
                with branch(batch, labels):
                    with self._numbers.autocast(batch.device):
                        logits = network(batch)
                    self._correct[i] += (logits.argmax(1) == labels).sum()
        self._position += size
