"""Fixtures of the live page's tests: a project folder for each test, so that nothing lands in the real results, and
choices that train in seconds. A plugin, for there is one conftest only: the tests import from it."""

import shutil

import pytest

from rkd import paths
from rkd.explore.choices import explored
from rkd.records import Record

# Two students of two epochs and a teacher of one, two batches each: seconds.
TINY = {
    "teacher": "resnet14", "student": "resnet8", "train_images": 100, "test_images": 100, "epochs": 2,
    "teacher_epochs": 1,
}  # fmt: skip


@pytest.fixture
def tiny():
    """Choices by name."""
    return dict(TINY)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with profiles, recipes, scripts and styles, and nothing else."""
    folder = tmp_path / "project"
    shutil.copytree(paths.params(), folder / "params")
    (folder / "book").mkdir()
    (folder / "book" / "_assets").symlink_to(paths.home() / "book" / "_assets")
    monkeypatch.setenv("RKD_HOME", str(folder))
    return folder


def finish(plan, **accuracies):
    """Records a plan's runs as if they were trained; their accuracies go up to the numbers given, in percent."""
    for name, run in plan.runs.items():
        last = accuracies.get(name.partition(" ")[0], 5.0)
        curves = {"lr": [0.1, 0.1], "test_accuracy": [1.0, last], "loss_ce": [4.0, 3.0]}
        result = {"last_accuracy": last, "best_accuracy": last, "best_epoch": 1, "epochs": 2}
        cost = {"train_seconds": 1.0, "images_per_second": 100.0, "gang": 1}
        made = {"labels": {}, "commit": "abc", "changed": False, "device_name": "an abacus"}
        explored().save(Record(run, "finished", curves, result, cost, made))
