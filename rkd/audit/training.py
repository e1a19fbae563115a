"""Training recipe and data: learning rate, warm-up, updates, input statistics."""

from dataclasses import dataclass

import pandas as pd

from rkd import published
from rkd.data import preset
from rkd.experiments.chapters import get_chapter
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import resolve
from rkd.models import display_name
from rkd.training import SGDConfig

RECIPES = ("text", "authors", "reproduction")
TRAIN_IMAGES = 50_000  # of CIFAR-10 and of CIFAR-100


def schedules(epochs: int = 240) -> pd.DataFrame:
    """Learning rate and weight of the review loss, epoch by epoch.

    Columns: epoch (0-based); "decayed before" and "decayed after" (learning rate when the decay is applied as the
    epochs 150, 180 and 210 begin, or once they have ended); "warm-up" and "no warm-up" (share of lambda).
    """
    rules = {f"decayed {when}": SGDConfig(decay_when=when) for when in ("before", "after")}
    table = {"epoch": list(range(epochs))}
    table |= {name: [sgd.lr_at(epoch) for epoch in range(epochs)] for name, sgd in rules.items()}
    table["warm-up"] = [min(1.0, epoch / 20) for epoch in range(epochs)]
    table["no warm-up"] = [1.0] * epochs
    return pd.DataFrame(table)


def epochs_per_rate() -> pd.DataFrame:
    """Number of epochs spent at each learning rate, under both rules."""
    table = schedules()
    rows = []
    for rule in ("decayed before", "decayed after"):
        counts = table[rule].round(10).value_counts()
        rows.append(
            {"rule": rule, **{f"{rate:g}": int(counts[rate]) for rate in sorted(counts.index, reverse=True)}}
        )
    return pd.DataFrame(rows)


def learning_rates() -> pd.DataFrame:
    """The first learning rate of every student of Tables 1 and 2 under each recipe."""
    students = dict.fromkeys(
        student for _, student in (*get_chapter("table1").pairs, *get_chapter("table2").pairs)
    )
    builders = {name: Builder(resolve("table1", {"profile": "paper", "recipe": name})) for name in RECIPES}
    return pd.DataFrame(
        {
            "student": display_name(student),
            **{f"recipe {n}": b.plain(student, 0).optimiser.lr for n, b in builders.items()},
        }
        for student in students
    )


def warm_up() -> pd.DataFrame:
    """The review loss's weight under each recipe: in the first epoch, the first epoch of full strength (0-based), and
    the mean over all epochs, as shares of lambda."""
    rows = []
    for name in RECIPES:
        run = Builder(resolve("table3", {"profile": "paper", "recipe": name})).review(
            "resnet56", "resnet20", 0
        )
        n = run.options.warmup_epochs
        shares = [min(1.0, epoch / n) if n else 1.0 for epoch in range(run.epochs)]
        rows.append(
            {
                "recipe": name,
                "warm-up epochs": n,
                "first epoch": shares[0],
                "full from epoch": shares.index(1.0),
                "mean of all epochs": sum(shares) / len(shares),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Committed:
    """The parameter file of the [Re] code, as committed (snapshot of April 2022)."""

    dataset: str = "cifar10"
    batch_size: int = 64
    epochs: int = 20
    decay_epochs: tuple[int, ...] = (12, 17)
    lr: float = 0.1
    weight_decay: float = 5e-4
    loss_weight: float = 0.6


def committed_settings() -> pd.DataFrame:
    """The setting the [Re] text reports beside the one its code was committed with, and the updates either makes."""
    said = {
        name: published.number(source="re_paper", table="text 3.2", metric=name)
        for name in ("batch_size", "epochs", "initial_lr", "weight_decay")
    }
    left, right = Committed(), said
    steps = "150, 180, 210"
    rows = [
        ("data set", "CIFAR-100", "CIFAR-10"),
        ("batch", f"{right['batch_size']:.0f}", str(left.batch_size)),
        ("epochs", f"{right['epochs']:.0f}", str(left.epochs)),
        ("learning rate", f"{right['initial_lr']:g}", f"{left.lr:g}"),
        ("decay epochs", steps, ", ".join(map(str, left.decay_epochs))),
        ("weight decay", f"{right['weight_decay']:g}", f"{left.weight_decay:g}"),
        (
            "updates in all",
            f"{updates(int(right['epochs']), int(right['batch_size'])):,}",
            f"{updates(left.epochs, left.batch_size):,}",
        ),
    ]
    return pd.DataFrame(rows, columns=["", "text", "committed"])


def updates(epochs: int, batch_size: int, images: int = TRAIN_IMAGES) -> int:
    """Steps of a run that keeps its last, partial batch."""
    return epochs * -(-images // batch_size)


def training_images() -> pd.DataFrame:
    """Training images as printed and as they are, with the steps an epoch would have."""
    printed = int(published.number(source="re_paper", metric="train_samples"))
    return pd.DataFrame(
        {"": who, "training images": n, "steps per epoch": updates(1, 128, n)}
        for who, n in (("[Re] section 3.2", printed), ("CIFAR-100", TRAIN_IMAGES))
    )


def normalised_with(name: str = "cifar10_reviewkd", data: str = "cifar100") -> pd.DataFrame:
    """Mean and standard deviation of a data set's pixels after normalisation with a preset, per colour channel.

    Computed from the data set's own statistics (preset `data`); with those, they would be 0 and 1.
    """
    own, used = preset(data), preset(name)
    return pd.DataFrame(
        {
            "channel": colour,
            "mean": (own.mean[i] - used.mean[i]) / used.std[i],
            "standard deviation": own.std[i] / used.std[i],
        }
        for i, colour in enumerate(("red", "green", "blue"))
    )
