"""What the measurements look at: a committed teacher and some images; no download, no training."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from rkd import models, paths
from rkd.data import Batches, DataConfig, ImageSet, evaluation_batches, is_there, load
from rkd.errors import DataError
from rkd.records.teachers import load_teacher

BATCH = 128
TRAIN_BATCHES = 4
TEST_BATCHES = {"cifar100": 4, "embedded": 2}


@dataclass(frozen=True)
class Subject:
    """A trained network and images whose BatchNorm statistics are its running ones.

    Attributes:
        name: the network's registered name.
        network: frozen, in eval mode.
        images: the data set; `images.mean` and `images.std` normalise it.
        words: what both are, in one phrase.
        labels: whether the network was trained on these images' classes, so that its accuracy means something.
    """

    name: str
    network: nn.Module
    images: ImageSet
    words: str
    labels: bool

    def training(self, seed: int = 0) -> list[Tensor]:
        """Augmented training batches, each (128, 3, H, W), as distillation would feed them."""
        return [x for x, _, _ in Batches(self.images, padding=4, flip=True).epoch(0, seed, BATCH)]

    def test(self) -> list[tuple[Tensor, Tensor]]:
        """Test batches as they are: (128, 3, H, W) and labels (128,)."""
        im = self.images
        return list(evaluation_batches(im.test_x, im.test_y, im.mean, im.std, BATCH))

    def copy(self) -> nn.Module:
        """A copy of the network that may be changed."""
        return copy.deepcopy(self.network)


@lru_cache(maxsize=2)
def subject(data_root: str | Path = "data", seed: int = 0) -> Subject:
    """The smallest committed teacher, with CIFAR-100 if it lies under `data_root`, else with the embedded set.

    The teacher was trained on photographs. On the drawn images of the embedded set its classes mean nothing, but its
    maps are those of a trained network; its BatchNorm statistics are measured anew on them first, so that running
    and batch statistics describe the same images, as they do for a teacher and its own training set.

    Args:
        data_root: folder of the CIFAR files. Nothing is ever downloaded.
        seed: of the choice of images and their augmentation.

    Raises:
        DataError: damaged CIFAR files, or no committed teacher.
    """
    network, header = _committed_teacher()
    there = is_there(DataConfig(name="cifar100"), data_root)
    name = "cifar100" if there else "embedded"
    data = DataConfig(
        name=name,
        normalisation=header["normalisation"] if there else "embedded",
        train_images=TRAIN_BATCHES * BATCH,
        test_images=TEST_BATCHES[name] * BATCH,
        seed=seed,
    )
    images = load(data, data_root, progress=False, download=False)
    fed = (
        "CIFAR-100"
        if there
        else "the embedded set's drawn images, BatchNorm statistics measured anew on them"
    )
    accuracy = float(header["accuracy_fp16"])
    words = f"{models.display_name(header['network'])} ({accuracy:.1f} % on CIFAR-100), fed {fed}"
    found = Subject(header["network"], network, images, words, labels=there)
    if not there:
        settle(network, found.training(seed))
    return replace(found, network=network.eval())


def _committed_teacher() -> tuple[nn.Module, dict[str, str]]:
    folder = paths.home() / "results" / "teachers"
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    if not files:
        raise DataError(f"no committed teacher lies in {folder}; `rkd export --teachers` writes one")
    weights, header = load_teacher(files[0])
    network = models.build(header["network"], int(header["classes"]))
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval(), header


@torch.no_grad()
def settle(network: nn.Module, batches: list[Tensor]) -> None:
    """Measure BatchNorm's running statistics anew: the plain average over the batches."""
    layers = batch_norms(network)
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
    network.train()
    for x in batches:
        network(x)
    for layer, m in zip(layers, momentum, strict=True):
        layer.momentum = m
    network.eval()


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """Its BatchNorm layers, in order."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
