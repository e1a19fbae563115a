"""Synthetic records of runs that were never made: the right configs, accuracies as a test wants them."""

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.records import Record

PAPER = Selectors("paper")


def record(config, last, best=None, status="finished", arithmetic="fp32", teachers="fp32"):
    """A finished run with given accuracies in percent, in an arithmetic where the config leaves it open."""
    best = last if best is None else best
    result = {"last_accuracy": last, "best_accuracy": best, "best_epoch": 0, "epochs": config.epochs}
    provenance = {"commit": None, "changed": None, "device_name": "none", "threads": 1, "ended": "never"}
    cost = {"train_seconds": 1.0, "images_per_second": 1.0, "energy_kj": None}
    if config.data.name.startswith("cifar"):
        provenance["train_images"] = config.data.train_images or 50_000
    return Record(
        config.settled(arithmetic, teachers), status, {"test_accuracy": [last]}, result, cost, provenance
    )


def around(mean, sd=0.25, n=5):
    """`n` accuracies with exactly this mean and sample standard deviation."""
    steps = np.linspace(-1, 1, n)
    return mean + sd * steps / np.std(steps, ddof=1)


def put(store, selector, accuracies, optimism=0.0, selectors=PAPER, first=0, **arithmetic):
    """Records of a line's runs from the `first` on, one per accuracy; returns their ids."""
    made = [
        record(config, float(accuracy), float(accuracy) + optimism, **arithmetic)
        for config, accuracy in zip(
            list(selectors.runs([selector]).values())[first:], accuracies, strict=False
        )
    ]
    for one in made:
        store.save(one)
    return [one.id for one in made]
