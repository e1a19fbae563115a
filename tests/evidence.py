"""Synthetic records of runs that were never made: the right configs, accuracies as a test wants them."""

from itertools import zip_longest

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.published.others import OtherRun
from rkd.records import Record

PAPER = Selectors("paper")


def whole(config, status="finished", curves=(), result=(), cost=(), provenance=()):
    """A record of a run that was never made, with all that records hold; given are the values a test looks at."""
    result = {
        "last_accuracy": 1.0,
        "best_accuracy": 1.0,
        "best_epoch": 0,
        "epochs": config.epochs,
        **dict(result),
    }
    flat = dict.fromkeys(("lr", "train_accuracy"), [0.1] * result["epochs"])
    flat["test_accuracy"] = [result["last_accuracy"]] * result["epochs"]
    costs = {
        "train_seconds": 1.0, "images_per_second": 1.0, "energy_kj": None, "peak_memory_mb": None, "parameters": 1,
        "extra_parameters": 0, "gang": 1, "arithmetic": config.precision, "compiled": False, "graph": False,
    }  # fmt: skip
    made = {
        "commit": None, "changed": None, "device": "cpu", "device_name": "none", "threads": 1, "cpus": 1, "cuda": None,
        "cudnn": None, "labels": {}, "data_sha256": "0" * 64, "train_images": config.data.train_images or 50_000,
        "test_images": config.data.test_images or 10_000, "teacher": None, "started": "2026-01-01T00:00:00Z",
        "ended": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    made |= dict.fromkeys(("rkd", "python", "torch", "torchvision", "numpy", "system"), "1")
    return Record(config, status, flat | dict(curves), result, costs | dict(cost), made | dict(provenance))


def record(config, last, best=None, status="finished", arithmetic="fp32", teachers="fp32"):
    """A finished run with given accuracies in percent, in an arithmetic where the config leaves it open."""
    result = {"last_accuracy": last, "best_accuracy": last if best is None else best}
    return whole(config.settled(arithmetic, teachers), status, result=result)


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


def told(line, last=(), best=(), **values):
    """Runs of a line as someone else tells them: by both epochs, or by one."""
    same = {"repository": "a/b", "dataset": "cifar100", "student": "resnet20", "method": "x", "epochs": 240}
    same |= {"lines": (line,), **values}
    return [OtherRun(**same, run=i, last=a, best=b) for i, (a, b) in enumerate(zip_longest(last, best), 1)]
