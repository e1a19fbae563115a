"""How hard the embedded set is: `python -m rkd.data.embedded_check`."""

import argparse
import platform
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from rkd import models
from rkd.data import Batches, DataConfig, ImageSet, evaluation_batches, load, superclass

LINEAR = "linear"


def train(
    name: str, images: ImageSet, epochs: int, seed: int, lr: float = 0.1, batch_size: int = 64
) -> tuple[float, float, float]:
    """Train one network: SGD, Nesterov momentum 0.9, weight decay 5e-4, learning rate falling linearly to 0.

    Args:
        name: a network of `rkd.models`, or "linear": one layer on the pixels.

    Returns:
        Accuracies in percent: of the test classes, of their superclasses, of the training classes.
    """
    torch.manual_seed(seed)
    size = images.train_x.shape[1]
    if name == LINEAR:
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, images.classes))
        lr /= 50  # the largest power of ten parts that does not diverge on raw pixels
    else:
        network = models.build(name, images.classes).to(memory_format=torch.channels_last)
    batches = Batches(images, padding=4, flip=True)
    steps = epochs * -(-len(batches) // batch_size)
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps))
    for epoch in range(epochs):
        network.train()
        for x, y, _ in batches.epoch(epoch, seed, batch_size):
            loss = F.cross_entropy(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    classes, coarse = _accuracy(network, images.test_x, images.test_y, images)
    fitted, _ = _accuracy(network, images.train_x, images.train_y, images)
    return classes, coarse, fitted


@torch.no_grad()
def _accuracy(network: nn.Module, x: torch.Tensor, y: torch.Tensor, images: ImageSet) -> tuple[float, float]:
    batches = evaluation_batches(x, y, images.mean, images.std, 250)
    guess = torch.cat([network(part).argmax(1) for part, _ in batches])
    fine, coarse = guess == y, superclass(guess) == superclass(y)
    return 100 * fine.double().mean().item(), 100 * coarse.double().mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rkd.data.embedded_check", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=[LINEAR, "resnet8", "resnet20", "resnet32"])
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args(arguments)
    config = DataConfig(
        "embedded",
        normalisation="embedded",
        train_images=options.train_images,
        test_images=options.test_images,
    )
    started = time.perf_counter()
    images = load(config)
    print(
        f"{options.train_images} training images (made in {time.perf_counter() - started:.1f} s), "
        f"{options.test_images} test images, {options.epochs} epochs, batch 64, seeds {options.seeds}; "
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'network':10} {'test %':>18} {'superclass %':>18} {'train %':>18} {'s/run':>6}")
    for name in options.networks:
        started = time.perf_counter()
        runs = [train(name, images, options.epochs, seed) for seed in options.seeds]
        seconds = (time.perf_counter() - started) / len(runs)
        cells = " ".join(f"{_cell(column):>18}" for column in zip(*runs, strict=True))
        print(f"{name:10} {cells} {seconds:6.0f}", flush=True)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
