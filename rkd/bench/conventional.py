"""ReviewKD the conventional way: what the released CIFAR codes do, in plain code of our own.

Two worker processes crop and mirror PIL images; float32, eager, NCHW; both networks unchanged; attention on a
concatenated tensor; HCL pools both maps at every size; SGD loops over the parameters; two host reads per step; the test
set goes through the fusion modules every epoch. This is the baseline of `rkd bench speed`.

It follows the layout of the authors' CIFAR code, https://github.com/dvlab-research/ReviewKD (CIFAR-100/train.py and
model/reviewkd.py at commit cede6ea): the modules' names, the order of a step, and what a step reads back. The lines
are our own, and the authors' code itself is not run.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from rkd.data import ImageSet
from rkd.models import tap_shapes
from rkd.review.reference import Review, hcl


def maps(network: nn.Module, x: Tensor, pre: bool) -> tuple[list[Tensor], Tensor]:
    """Return the stage maps, shallow to deep, before (`pre`) or after their last ReLU, followed by the pooled vector
    as a 1x1 map; and the logits."""
    taps = network.taps(x)
    return [*(taps.stages_pre if pre else taps.stages), taps.pooled[:, :, None, None]], taps.logits


class PlainReviewKD(nn.Module):
    """A student with its fusion blocks, for square images of `image_size` pixels a side. Networks of different depth
    are paired from the deepest map up."""

    def __init__(self, student: nn.Module, teacher: nn.Module, image_size: int = 32) -> None:
        super().__init__()
        self.student = student
        ours, theirs = (tap_shapes(network, image_size) for network in (student, teacher))
        self.count = 1 + min(len(ours.stages), len(theirs.stages))
        channels = [[*(c for c, *_ in shapes.stages), shapes.pooled] for shapes in (ours, theirs)]
        self.review = Review(*(found[-self.count :] for found in channels))
        self.sizes = [*(h for _, h, _ in theirs.stages), 1][-self.count :]

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the reviewed maps, shallow to deep, and the logits."""
        found, logits = maps(self.student, x, pre=False)
        return self.review.reviewed(found[-self.count :], self.sizes), logits

    def loss(self, x: Tensor, y: Tensor, teacher: nn.Module, loss_weight: float) -> tuple[Tensor, Tensor]:
        """Return the sum of cross-entropy and weighted review loss of one batch, and the logits."""
        theirs, _ = maps(teacher, x, pre=True)
        reviewed, logits = self(x)
        review = sum(hcl(s, t) for s, t in zip(reviewed, theirs[-self.count :], strict=True))
        return F.cross_entropy(logits, y) + loss_weight * review, logits


class _PilImages(Dataset):
    def __init__(self, pixels: Tensor, labels: Tensor, transform: object) -> None:
        self.pixels, self.labels, self.transform = pixels.numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loaders(
    images: ImageSet, batch_size: int, workers: int = 2, epoch_images: int | None = None
) -> tuple[DataLoader, DataLoader]:
    """Return loaders of training batches, with `workers` PIL processes, and of test batches, with one.

    An epoch is one pass through the training images, or `epoch_images` of them drawn from a smaller set repeatedly:
    worker processes are restarted every epoch, which must not happen more often than with a full-sized set.
    """
    finish = [transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]
    size = images.train_x.shape[1]
    crop = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()]
    train = _PilImages(images.train_x, images.train_y, transforms.Compose([*crop, *finish]))
    test = _PilImages(images.test_x, images.test_y, transforms.Compose(finish))
    order = RandomSampler(train, num_samples=epoch_images)
    pin = torch.cuda.is_available()
    return (
        DataLoader(train, batch_size, sampler=order, num_workers=workers, pin_memory=pin),
        DataLoader(test, batch_size, num_workers=1),
    )


class Conventional:
    """The conventional training loop of one student. Networks are moved to `device`; images stay on the CPU. The
    teacher's `batch_norm` is "batch" (train mode, as ReviewKD and the [Re] code leave it) or "running"."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, images: ImageSet, batch_norm: str, device: torch.device,
        batch_size: int, loss_weight: float, epoch_images: int | None = None,
    ) -> None:  # fmt: skip
        self.model = PlainReviewKD(student, teacher, images.train_x.shape[1]).to(device).train()
        self.teacher = teacher.requires_grad_(False).to(device).train(batch_norm == "batch")
        self.device, self.loss_weight = device, loss_weight
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        self.train_loader, self.test_loader = loaders(images, batch_size, epoch_images=epoch_images)
        self._batches = self._endless()

    def context(self) -> AbstractContextManager[object]:
        """Set up cuDNN as the released code does: deterministic, with TF32 where torch uses it by default."""
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.train_loader

    def step(self) -> None:
        """Make one step, from the loader's next batch to the updated weights."""
        x, y = next(self._batches)
        x, y = x.to(self.device), y.to(self.device)
        loss, logits = self.model.loss(x, y, self.teacher, self.loss_weight)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        loss.item()
        (logits.argmax(1) == y).sum().item()

    eagerly = step

    def close(self) -> None:
        """End the training loader's worker processes."""
        self._batches.close()  # type: ignore[attr-defined]

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the test accuracy in percent, with the test images going through the fusion modules, too."""
        self.model.eval()
        correct = total = 0
        for x, y in self.test_loader:
            _, logits = self.model(x.to(self.device))
            correct += (logits.argmax(1) == y.to(self.device)).sum().item()
            total += len(y)
        self.model.train()
        return 100.0 * correct / total
