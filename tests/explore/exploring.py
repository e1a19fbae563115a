"""Fixtures of the live page's tests: a project folder for each test, so that nothing lands in the real results, and
choices that train in seconds. A plugin, for there is one conftest only: the tests import from it."""

import shutil

import pytest

from rkd import paths

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
