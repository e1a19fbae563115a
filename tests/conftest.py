"""Shared by all tests: small configs, and one thread per process so that results do not depend on the machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from rkd.records import Store
from rkd.review import ReviewOptions
from rkd.training import DataConfig, RunConfig, SGDConfig, TeacherConfig

torch.set_num_threads(1)


def tiny_data(**values):
    return DataConfig(
        **{"name": "embedded", "normalisation": "embedded", "train_images": 100, "test_images": 100, **values}
    )


def tiny_plain(**values):
    """A two-epoch run on 100 images, 2 batches an epoch (the second one short)."""
    defaults = {
        "network": "resnet8", "data": tiny_data(), "epochs": 2, "batch_size": 64,
        "optimiser": SGDConfig(lr=0.05, decay_epochs=(1,), decay_when="before"),
    }  # fmt: skip
    return RunConfig(**{**defaults, **values})


def tiny_review(options=None, teacher_weights="random", batch_norm="batch", **values):
    """The same with an untrained teacher, so that it needs no run before it."""
    teacher = TeacherConfig(
        run=tiny_plain(network="resnet14", epochs=1), weights=teacher_weights, batch_norm=batch_norm
    )
    values = {
        "method": "reviewkd",
        "options": options or ReviewOptions(warmup_epochs=0),
        "teacher": teacher,
        **values,
    }
    return tiny_plain(**values)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "records", tmp_path / "work")


class Silent:
    """A progress that keeps what it was told."""

    def __init__(self):
        self.titles, self.epochs, self.said = [], [], []

    def begin(self, title, epochs, images):
        self.titles.append(title)

    def batch(self, epoch, done, total):
        pass

    def epoch(self, learner):
        self.epochs.append((learner.config.id, learner.epoch))

    def end(self):
        pass

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def silent():
    return Silent()
