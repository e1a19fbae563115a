"""What the committed scripts of the [Re] code cannot have produced, shown by doing what they do."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F

from rkd import models
from rkd.audit.training import Committed
from rkd.review.abf import DirectABF
from rkd.training import RunConfig

# Channels of the previous (deeper) block's output at stages 1 to 3 of resnet20: what the "residual = output" blocks are
# handed, and what the committed class builds them for.
PASSED, BUILT_FOR = (32, 64, 64), (1, 16, 32)


def mismatched_channels() -> pd.DataFrame:
    """The blocks of Table 6's column 3, deep to shallow, built with the committed channel counts and run.

    Columns: level, "built for" and "handed" (channels of the previous block's output), and what happens.
    """
    channels, sizes = (16, 32, 64, 64), (32, 16, 8, 1)  # of stages 1 to 3 and the pooled map
    rows = []
    for i in (2, 1, 0):
        block = DirectABF(channels[i], channels[i], residual_channels=BUILT_FOR[i])
        x = torch.zeros(2, channels[i], sizes[i], sizes[i])
        residual = torch.zeros(2, PASSED[i], sizes[i + 1], sizes[i + 1])
        happened = _said(partial(block, x, residual, x.shape[-2:]))
        rows.append(
            {
                "level": f"stage {i + 1}",
                "built for": BUILT_FOR[i],
                "handed": PASSED[i],
                "what happens": happened,
            }
        )
    return pd.DataFrame(rows)


def ten_classes(label: int = 57) -> str:
    """What cross-entropy of ten logits says to a CIFAR-100 label."""
    return _said(lambda: F.cross_entropy(torch.zeros(1, 10), torch.tensor([label])))


def _said(act: Callable[[], object]) -> str:
    """The first sentence of the error a call ends with, or "runs"."""
    try:
        act()
    except (RuntimeError, IndexError) as error:
        return str(error).splitlines()[0]
    return "runs"


def chained_students(updates: int = 3, seed: int = 0) -> pd.DataFrame:
    """Three rows trained one after the other, with one student object for all, and with a new one each.

    A small network learns one batch of random images; what matters is only where each row starts.

    Columns: row (in the script's order); for one student throughout, and for a new one each: updates it has behind it
    as the row begins, and its loss there.
    """
    random = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 3, 32, 32, generator=random), torch.randint(100, (16,), generator=random)
    shared = _student(seed)
    rows = []
    for i, row in enumerate(("RM + RLF", "RM", "none")):
        rows.append(
            {
                "row": row,
                "one student: updates before": i * updates,
                "first loss": _train(shared, x, y, updates),
                "new student: updates before": 0,
                "its first loss": F.cross_entropy(_student(seed)(x), y).item(),
            }
        )
    return pd.DataFrame(rows)


def _student(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.build("resnet8").train()


def _train(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, updates: int) -> float:
    """A few updates in place; the loss before the first."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(updates):
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0]


def mutated_parameters(runs: int = 3) -> pd.DataFrame:
    """The learning rate with which successive runs of one process begin, when training decays the entry of a shared
    dictionary and the caller does not set it back, and when each run has a frozen config.

    With the committed values: 0.1, multiplied by 0.1 at epochs 12 and 17.
    """
    values = Committed()
    shared = {"lr": values.lr, "decay": values.decay_epochs, "epochs": values.epochs}
    config = RunConfig("resnet8")
    return pd.DataFrame(
        {
            "run": run + 1,
            "shared dictionary": _decay_in_place(shared),
            "frozen config": config.optimiser.lr_at(0),
        }
        for run in range(runs)
    )


def _decay_in_place(parameters: dict[str, object]) -> float:
    """The schedule as the committed loop runs it; returns the rate it began with."""
    began = parameters["lr"]
    for epoch in range(parameters["epochs"]):
        if epoch in parameters["decay"]:
            parameters["lr"] *= 0.1
    return began


def frozen_config() -> str:
    """What a RunConfig says to an assignment."""
    try:
        RunConfig("resnet8").seed = 1
    except FrozenInstanceError as error:
        return f"{type(error).__name__}: {error}"
    return "runs"
