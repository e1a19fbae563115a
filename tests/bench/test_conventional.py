"""The conventional loop: its batches, its steps, its evaluation. That its step computes what ours does, `test_engine`
and `test_reference` say."""

import dataclasses

import pytest
import torch
from conftest import tiny_data

from rkd import data
from rkd.bench.conventional import Conventional, loaders
from rkd.bench.steps import Workload
from rkd.data import normalise
from rkd.training import accuracy
from rkd.training.build import build_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return data.load(tiny_data())


def test_loaders_crop_normalise_and_count(images):
    train, test = loaders(images, 30, workers=0)
    assert [len(y) for _, y in train] == [30, 30, 30, 10]
    x = torch.cat([x for x, _ in test])
    torch.testing.assert_close(x, normalise(images.test_x, images.mean, images.std), rtol=1e-5, atol=1e-5)
    longer, _ = loaders(images, 30, workers=0, epoch_images=270)
    labels = torch.cat([y for _, y in longer])
    assert len(longer) == 9 and len(labels) == 270
    assert (torch.bincount(labels, minlength=100) >= 2).all()  # two whole passes and a part of a third


def test_steps_train_and_evaluation_agrees_with_ours(images):
    work = Workload("cases:Tiny", "cases:Tiny", 25, CPU)
    few = dataclasses.replace(images, test_x=images.test_x[:40], test_y=images.test_y[:40])
    student = build_network(work.config(), 100)
    loop = Conventional(student, work.teacher_network, few, "batch", CPU, 25, 0.6)
    before = loop.model.student.stem.weight.clone()
    loop.step()
    assert not torch.equal(before, loop.model.student.stem.weight)
    assert loop.model.training and loop.teacher.training
    expected = accuracy(loop.model.student, few.test_x, few.test_y, few.mean, few.std)
    assert loop.evaluate() == pytest.approx(expected)
    assert loop.model.training
    loop.close()
