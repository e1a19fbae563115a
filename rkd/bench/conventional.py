"""ReviewKD the conventional way: what the released CIFAR codes do, in our own plain words.

Two worker processes crop and mirror PIL images; float32, eager, NCHW; both networks as they are; attention on a
concatenated tensor; HCL pools both maps at every size; a loop over parameters in SGD; two host reads a step; the test
set, every epoch, through the fusion modules. It is the baseline `rkd bench` compares with, and the reference the tests
hold the fast step against: it shares the networks with `rkd`, and nothing else.

The layout followed is that of the authors' CIFAR code, https://github.com/dvlab-research/ReviewKD (CIFAR-100/train.py
and model/reviewkd.py at commit cede6ea): names of modules, so that state dicts agree, the order of a step, and what is
read back in it. The lines are our own, and the authors' code itself is not run.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from rkd.data import ImageSet


class PlainABF(nn.Module):
    """Paper Figure 4a, literally. `deepest` blocks fuse nothing."""

    def __init__(self, channels_in: int, mid: int, channels_out: int, deepest: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels_in, mid, 1, bias=False), nn.BatchNorm2d(mid))
        self.conv2 = nn.Sequential(
            nn.Conv2d(mid, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out)
        )
        self.att_conv = None if deepest else nn.Sequential(nn.Conv2d(2 * mid, 2, 1), nn.Sigmoid())

    def forward(self, x: Tensor, y: Tensor | None, out_size: int) -> tuple[Tensor, Tensor]:
        x = self.conv1(x)
        if self.att_conv is not None:
            y = F.interpolate(y, x.shape[-2:], mode="nearest")
            z = self.att_conv(torch.cat([x, y], dim=1))
            x = x * z[:, 0].view(len(x), 1, *x.shape[-2:]) + y * z[:, 1].view(len(x), 1, *x.shape[-2:])
        if x.shape[-1] != out_size:
            x = F.interpolate(x, (out_size, out_size), mode="nearest")
        return self.conv2(x), x


def plain_hcl(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over levels; full size with weight 1, then 4, 2, 1 with half the weight of the size before."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        loss, weight, weights = F.mse_loss(s, t), 1.0, 1.0
        for size in (4, 2, 1):
            if size >= s.shape[2]:
                continue
            weight /= 2
            loss = loss + weight * F.mse_loss(F.adaptive_avg_pool2d(s, size), F.adaptive_avg_pool2d(t, size))
            weights += weight
        total = total + loss / weights
    return total


class PlainReviewKD(nn.Module):
    """A student with its fusion blocks, deepest first: forward gives the reviewed maps and the logits.

    Args:
        student, teacher: networks with taps.
        image_size: height and width of the images, in pixels.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, image_size: int = 32) -> None:
        super().__init__()
        self.student = student
        ours, theirs = (
            self._dry_maps(network, image_size, pre) for network, pre in ((student, False), (teacher, True))
        )
        count = min(len(ours), len(theirs))
        mid = min(512, ours[-1].shape[1])
        self.abfs = nn.ModuleList(
            PlainABF(s.shape[1], mid, t.shape[1], deepest=i == 0)
            for i, (s, t) in enumerate(zip(ours[: -count - 1 : -1], theirs[: -count - 1 : -1], strict=True))
        )
        self.sizes = [t.shape[-1] for t in theirs[-count:]]

    @staticmethod
    def maps(network: nn.Module, x: Tensor, pre: bool) -> list[Tensor]:
        """Stage maps, shallow to deep, before (`pre`) or after their last ReLU, and the pooled vector as a 1x1 map."""
        taps = network.taps(x)
        return [*(taps.stages_pre if pre else taps.stages), taps.pooled[:, :, None, None]]

    @classmethod
    @torch.no_grad()
    def _dry_maps(cls, network: nn.Module, image_size: int, pre: bool) -> list[Tensor]:
        """Maps of two blank images, for their shapes; the network stays as it is."""
        training = network.training
        maps = cls.maps(network.eval(), torch.zeros(2, 3, image_size, image_size), pre)
        network.train(training)
        return maps

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        taps = self.student.taps(x)
        maps = [*taps.stages, taps.pooled[:, :, None, None]][-len(self.sizes) :]
        reviewed: list[Tensor] = []
        passed_on = None
        for block, map_, size in zip(self.abfs, reversed(maps), reversed(self.sizes), strict=True):
            output, passed_on = block(map_, passed_on, size)
            reviewed.insert(0, output)
        return reviewed, taps.logits


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
    """Training batches by `workers` PIL processes, test batches by one.

    An epoch goes through the training images once; or through `epoch_images`, drawn from a smaller set again and again:
    worker processes start anew with every epoch, which must not happen more often than on a set of full size.
    """
    finish = [transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]
    size = images.train_x.shape[1]
    augment = transforms.Compose(
        [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip(), *finish]
    )
    train = _PilImages(images.train_x, images.train_y, augment)
    test = _PilImages(images.test_x, images.test_y, transforms.Compose(finish))
    order = RandomSampler(train, num_samples=epoch_images)
    pin = torch.cuda.is_available()
    return (
        DataLoader(train, batch_size, sampler=order, num_workers=workers, pin_memory=pin),
        DataLoader(test, batch_size, num_workers=1),
    )


class Conventional:
    """The conventional training loop of one student.

    Args:
        student, teacher: networks; both are moved to `device`.
        images: the data set, on the CPU.
        batch_norm: of the teacher: "batch" (train mode, as ReviewKD and the [Re] code leave it) or "running".
        device: "cpu" or "cuda".
        batch_size: images a step.
        loss_weight: of the review loss.
        epoch_images: see `loaders`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        images: ImageSet,
        batch_norm: str,
        device: torch.device,
        batch_size: int = 128,
        loss_weight: float = 0.6,
        epoch_images: int | None = None,
    ) -> None:
        self.model = PlainReviewKD(student, teacher, images.train_x.shape[1]).to(device).train()
        self.teacher = teacher.requires_grad_(False).to(device).train(batch_norm == "batch")
        self.device, self.loss_weight = device, loss_weight
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        self.train_loader, self.test_loader = loaders(images, batch_size, epoch_images=epoch_images)
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.train_loader

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Total loss of one batch, and the logits."""
        theirs = PlainReviewKD.maps(self.teacher, x, pre=True)[-len(self.model.sizes) :]
        reviewed, logits = self.model(x)
        return F.cross_entropy(logits, y) + self.loss_weight * plain_hcl(reviewed, theirs), logits

    def step(self) -> int:
        """One batch from the loader to the updated weights; returns its number of images."""
        x, y = next(self._batches)
        x, y = x.to(self.device), y.to(self.device)
        loss, logits = self.loss(x, y)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        loss.item()
        (logits.argmax(1) == y).sum().item()
        return len(y)

    def close(self) -> None:
        """End the loader's processes."""
        self._batches.close()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Test accuracy in percent, fusion modules and all."""
        self.model.eval()
        correct = total = 0
        for x, y in self.test_loader:
            _, logits = self.model(x.to(self.device))
            correct += (logits.argmax(1) == y.to(self.device)).sum().item()
            total += len(y)
        self.model.train()
        return 100.0 * correct / total
