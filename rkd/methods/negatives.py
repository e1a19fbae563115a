"""Which images an image is contrasted with in CRD: K negatives of other classes and one positive, drawn per epoch and
gathered per step without a loop over images."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from rkd.data.streams import stream_seed
from rkd.errors import ConfigError

_WORKER = ThreadPoolExecutor(1)  # starts its thread with the first draw ahead


class Contrasts(nn.Module):
    """Negatives and positives of every training image, drawn anew for each epoch.

    For every class there is a row with all images of the other classes in a random order of its own, continued
    cyclically; an image's negatives are K neighbours in its class's row, from a random place of its own on. So every
    image's negatives are a uniformly drawn set of K different images of other classes, as a draw without replacement
    gives them; where K exceeds the M images of other classes, each of these comes floor(K / M) or ceil(K / M) times.
    What is shared: within an epoch, two images of one class draw from one order, so the overlap of their sets varies
    more than that of independent draws.

    All that is drawn lies in buffers, renewed in place: a function of seed and epoch, and so no part of the state dict.

    Args:
        labels: (N,) int64, classes of the training images, on the CPU.
        count: K, negatives per image.
        positive: "exact": an image's positive is itself; "relax": an image of its class, itself among them, drawn
            uniformly per image and epoch.

    Memory: classes x (N + K) x 4 bytes; 26 MB for 100 classes, N = 50,000, K = 16,384.

    Raises:
        ConfigError: images of one class only, which have no negatives.
    """

    def __init__(self, labels: Tensor, count: int, seed: int, positive: str = "exact") -> None:
        super().__init__()
        self.count, self.seed, self.positive = count, seed, positive
        sizes = torch.bincount(labels)
        if int((sizes > 0).sum()) < 2:
            raise ConfigError("contrastive negatives need training images of at least two classes")
        self._labels, self._sizes = labels, sizes
        self._firsts = sizes.cumsum(0) - sizes
        self._by_class = labels.argsort(stable=True).int()
        self._width = len(labels) - int(sizes[sizes > 0].min()) + count - 1  # of the longest row
        table = torch.zeros(len(sizes), self._width, dtype=torch.int32)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("starts", torch.zeros_like(labels), persistent=False)
        self.register_buffer("mates", torch.arange(len(labels)), persistent=False)
        self._ahead: tuple[int, Future[tuple[Tensor, Tensor, Tensor]]] | None = None
        self.draw(0)

    def draw(self, epoch: int) -> None:
        """Renew everything for an epoch (0-based). On CUDA the next epoch's is drawn meanwhile, by another thread: an
        epoch may be over sooner than it takes."""
        ahead, self._ahead = self._ahead, None
        drawn = ahead[1].result() if ahead is not None and ahead[0] == epoch else self._drawn(epoch)
        for buffer, values in zip((self.starts, self.table, self.mates), drawn, strict=True):
            buffer.copy_(values, non_blocking=True)
        if self._on_gpu():
            self._ahead = epoch + 1, _WORKER.submit(self._drawn, epoch + 1)

    def _drawn(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Starts, table and mates of an epoch, on the CPU; in pinned memory where they are to be copied to a GPU."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "crd", "negatives", epoch))
        others = len(self._labels) - self._sizes
        place = torch.rand(len(self._labels), generator=generator, dtype=torch.float64)
        starts = self._labels * self._width + (place * others[self._labels]).long()
        table = torch.zeros(len(self._sizes), self._width, dtype=torch.int32)
        for row, first, size in zip(table, self._firsts.tolist(), self._sizes.tolist(), strict=True):
            if size:  # nobody asks for the negatives of a class without images
                others = len(self._labels) - size
                order = torch.randperm(others, dtype=torch.int32, generator=generator)
                order += (order >= first).int() * size  # steps over the class's own, in the order by class
                length = others + self.count - 1
                row[:length] = self._by_class.index_select(0, order).repeat(-(-length // others))[:length]
        mates = torch.arange(len(self._labels))
        if self.positive == "relax":
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "crd", "positives", epoch))
            place = torch.rand(len(self._labels), generator=generator, dtype=torch.float64)
            within = (place * self._sizes[self._labels]).long()
            mates = self._by_class[self._firsts[self._labels] + within].long()
        drawn = starts, table, mates
        return tuple(values.pin_memory() for values in drawn) if self._on_gpu() else drawn

    def _on_gpu(self) -> bool:
        """Tensors that only stand in for a GPU's have none behind them."""
        return self.table.is_cuda and torch.cuda.is_available()

    def forward(self, indices: Tensor) -> Tensor:
        """The positive of each image of `indices` (B,) int64 and then its negatives: (B, 1 + K) int64."""
        out = torch.empty(len(indices), 1 + self.count, dtype=torch.int64, device=indices.device)
        out[:, 0] = self.mates.index_select(0, indices)
        windows = self.table.view(-1).as_strided((self.table.numel() - self.count + 1, self.count), (1, 1))
        out[:, 1:] = windows.index_select(0, self.starts.index_select(0, indices))
        return out
