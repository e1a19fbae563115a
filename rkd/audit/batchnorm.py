"""The teacher's BatchNorm while distilling: batch statistics (train mode) against running ones (eval mode)."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from rkd.audit.subject import BATCH, Subject, batch_norms
from rkd.audit.training import normalised_with
from rkd.models.taps import Taps
from rkd.training import FrozenTeacher


def drift(subject: Subject, steps: int = 60, seed: int = 0) -> pd.DataFrame:
    """How far the running means of a frozen teacher move while it stands in train mode.

    In train mode a map depends on batch statistics alone, so what BatchNorm's running average does over many steps
    follows exactly from the batch statistics, measured once per batch; the batches are repeated.

    Columns: step; and how far the running means are from where they started, as the root mean square over a layer's
    channels in units of their running standard deviation, in the layer that has moved furthest: "fed as trained";
    "fed other statistics" (inputs normalised with CIFAR-10's statistics where CIFAR-100's are due); "this package"
    (FrozenTeacher in batch mode).
    """
    batches = subject.training(seed)
    foreign = _with_other_statistics(batches)
    held = subject.copy()
    taps, before = FrozenTeacher(held, "batch").taps, _statistics(held)
    taps(batches[0])
    kept = _furthest(_statistics(held), before)
    return pd.DataFrame(
        {
            "step": range(steps + 1),
            "fed as trained": _averaged(subject.copy(), batches, steps),
            "fed other statistics": _averaged(subject.copy(), foreign, steps),
            "this package": [0.0] + [kept] * steps,
        }
    )


Statistics = list[tuple[Tensor, Tensor]]  # running mean and variance of each BatchNorm layer


@torch.no_grad()
def _averaged(network: nn.Module, batches: Sequence[Tensor], steps: int) -> list[float]:
    """Distance of the running means from the start after 0, 1, ... steps of train mode; the network is used up."""
    start, layers = _statistics(network), batch_norms(network.train())
    momentum = layers[0].momentum
    for layer in layers:
        layer.momentum = 1.0  # what is left after a batch is that batch's own
    seen = []
    for x in batches:
        network(x)
        seen.append(_statistics(network))
    now, distances = start, [0.0]
    for step in range(steps):
        batch = seen[step % len(seen)]
        now = [
            ((1 - momentum) * m + momentum * n, (1 - momentum) * v + momentum * w)
            for (m, v), (n, w) in zip(now, batch, strict=True)
        ]
        distances.append(_furthest(now, start))
    return distances


def _statistics(network: nn.Module) -> Statistics:
    return [(layer.running_mean.clone(), layer.running_var.clone()) for layer in batch_norms(network)]


def _furthest(now: Statistics, start: Statistics) -> float:
    shifts = [(n - m) / v.sqrt() for (n, _), (m, v) in zip(now, start, strict=True)]
    return max(shift.double().square().mean().sqrt().item() for shift in shifts)


def _with_other_statistics(batches: Sequence[Tensor]) -> list[Tensor]:
    """Inputs as they would be had they been normalised with CIFAR-10's statistics in place of CIFAR-100's."""
    off = normalised_with("cifar10_reviewkd", "cifar100_crd")
    scale, shift = (torch.tensor(off[c].tolist()).reshape(3, 1, 1) for c in ("standard deviation", "mean"))
    return [x * scale + shift for x in batches]


@torch.no_grad()
def two_modes(subject: Subject, seed: int = 0) -> pd.DataFrame:
    """What the student is asked to match, in both modes, per compared map.

    Columns, in percent: map; "running against batch": relative difference ||a - b|| / ||b|| of the same images' maps
    under running and under batch statistics; "same images, other company": of the maps of 64 images under batch
    statistics, when the other 64 images of their batch are exchanged. The latter is 0 under running statistics.
    """
    first, second = subject.training(seed)[:2]
    network = subject.copy()
    half = BATCH // 2
    running = network.eval().taps(first)
    batch = network.train().taps(first)
    other = network.taps(torch.cat([first[:half], second[half:]]))
    rows = []
    for name, pick in _maps(running).items():
        rows.append(
            {
                "map": name,
                "running against batch": 100 * _relative(pick(running), pick(batch)),
                "same images, other company": 100 * _relative(pick(other)[:half], pick(batch)[:half]),
            }
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def predictions(subject: Subject) -> pd.DataFrame:
    """How often a way of running the teacher gives the class that running statistics give, in percent; and, where the
    labels are those it was trained on, its accuracy in percent."""
    network = subject.copy()
    batches, labels = zip(*subject.test(), strict=True)
    y = torch.cat(labels)
    guesses = {"running statistics": _classes(network.eval(), batches)}
    guesses["batch statistics"] = _classes(network.train(), batches)
    other = _with_other_statistics(batches)
    guesses["running statistics, other input statistics"] = _classes(subject.copy(), other)
    rows = []
    for name, guess in guesses.items():
        row = {"teacher runs on": name, "same class, %": 100 * _share(guess == guesses["running statistics"])}
        if subject.labels:
            row["accuracy, %"] = 100 * _share(guess == y)
        rows.append(row)
    return pd.DataFrame(rows)


def _classes(network: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([network(x).argmax(1) for x in batches])


def _share(found: Tensor) -> float:
    return found.double().mean().item()


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).double().norm() / b.double().norm()).item()


def _maps(taps: Taps) -> dict[str, Callable[[Taps], Tensor]]:
    stages = {f"stage {i + 1}": (lambda t, i=i: t.stages_pre[i]) for i in range(len(taps.stages_pre))}
    return {**stages, "pooled": lambda t: t.pooled, "logits": lambda t: t.logits}
