"""Synthetic records of runs that were never made: the right configs, accuracies as a test wants them."""

import numpy as np

from rkd.judge import Selectors
from rkd.records import Record

PAPER = Selectors("paper")


def record(config, last, best=None, status="finished"):
    """A finished run with given accuracies in percent."""
    best = last if best is None else best
    result = {"last_accuracy": last, "best_accuracy": best, "best_epoch": 0, "epochs": config.epochs}
    provenance = {"commit": None, "changed": None, "device_name": "none", "threads": 1, "ended": "never"}
    cost = {"train_seconds": 1.0, "images_per_second": 1.0, "energy_kj": None}
    return Record(config, status, {"test_accuracy": [last]}, result, cost, provenance)


def around(mean, sd=0.25, n=5):
    """`n` accuracies with exactly this mean and sample standard deviation."""
    steps = np.linspace(-1, 1, n)
    return mean + sd * steps / np.std(steps, ddof=1)


def put(store, selector, accuracies, optimism=0.0, selectors=PAPER):
    """Records of a line's first runs, one per accuracy; returns their ids."""
    runs = selectors.runs([selector])
    for config, accuracy in zip(runs.values(), accuracies, strict=False):
        store.save(record(config, float(accuracy), float(accuracy) + optimism))
    return list(runs)[: len(accuracies)]
