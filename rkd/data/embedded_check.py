"""How hard the embedded set is: trains a linear model and networks of rising depth on it, prints their accuracies.

Measured, mean ± standard deviation of seeds 0 and 1, on a shared x86-64 machine (AMD EPYC, two cores), one thread
per process, Python 3.11.7, torch 2.14.1, NumPy 2.4.6; "train %" is without augmentation, after training.

`OMP_NUM_THREADS=1 python -m rkd.data.embedded_check --epochs 10` (5000 training images, 2000 test images; resnet32
in a process of its own beside the others):

| network  | test %     | superclass % | train %    |
|----------|------------|--------------|------------|
| linear   |  8.7 ± 0.4 |   28.1 ± 0.8 | 13.7 ± 0.1 |
| resnet8  | 56.5 ± 0.9 |   85.7 ± 0.9 | 65.8 ± 0.6 |
| resnet20 | 79.7 ± 0.5 |   93.3 ± 0.4 | 86.3 ± 0.6 |
| resnet32 | 80.4 ± 0.3 |   92.2 ± 0.4 | 86.5 ± 0.7 |

`... --train-images 2000 --test-images 1000 --epochs 5 --networks linear resnet8 resnet20`, where chance is 1 % and
5 %; after so few steps seeds differ widely, and depth is not yet told apart:

| network  | test %     | superclass % | train %    |
|----------|------------|--------------|------------|
| linear   |  6.5 ± 0.0 |   22.8 ± 1.1 | 10.7 ± 0.2 |
| resnet8  |  7.1 ± 0.4 |   28.0 ± 0.2 | 11.2 ± 0.6 |
| resnet20 | 11.2 ± 7.3 |   32.4 ± 9.1 | 17.0 ± 9.4 |

With 1500 training images and 4 epochs resnet8 reaches 6.0 ± 0.4 and 22.2 ± 1.1.
"""

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
        # 0.01, 0.002, 0.0004 and 0.0001 gave 8.8, 8.4, 6.0 and 2.8 % (5000 images, 10 epochs, seed 0).
        lr /= 50
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
    parser = argparse.ArgumentParser(
        prog="python -m rkd.data.embedded_check", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--networks", nargs="+", default=[LINEAR, "resnet8", "resnet20", "resnet32"])
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
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
