"""Fixtures of the live page's tests: a project folder of its own for each test, so that nothing lands in the real
results, and choices that train in seconds. A plugin, for there is one conftest only: the tests import from it."""

import shutil

import pytest

from rkd import paths
from rkd.explore.choices import Choices, plan_of
from rkd.explore.saved import saved_store
from rkd.explore.training import Runner, working_store

# Two students of two epochs and a teacher of one, two batches each: seconds.
TINY = {
    "teacher": "resnet14", "student": "resnet8", "images": 100, "test_images": 100, "epochs": 2, "teacher_epochs": 1,
}  # fmt: skip


@pytest.fixture
def tiny():
    """Choices by name."""
    return dict(TINY)


@pytest.fixture
def tiny_plan(home):
    """Makes a plan of them, some changed."""
    return lambda **values: plan_of(Choices.beginning_with({**TINY, **values}))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with profiles and recipes and nothing else."""
    folder = tmp_path / "project"
    shutil.copytree(paths.params(), folder / "params")
    monkeypatch.setenv("RKD_HOME", str(folder))
    return folder


@pytest.fixture
def working(home):
    return working_store()


@pytest.fixture
def kept(home):
    return saved_store()


@pytest.fixture
def runner(working):
    runner = Runner(working, device="cpu")
    yield runner
    runner.close()


@pytest.fixture
def files_of():
    """Names all files below a folder, locks aside."""
    return lambda folder: sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in ("lock", "saving.lock")
    )
