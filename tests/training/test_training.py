"""The loop: the teacher's modes, streams of random numbers, divergence, meters."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from cases import Tiny
from conftest import make, small, small_plain, tiny_data, trained
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.training import FrozenTeacher, SGDConfig, TeacherConfig


def test_batch_norm_modes_of_the_teacher():
    network, x = models.build("resnet8"), 3 * torch.randn(16, 3, 32, 32)
    by_batch = network.train().taps(x).logits.detach()  # this also moves the running statistics
    drifted = copy.deepcopy(network).eval()
    by_running = drifted.taps(x).logits.detach()
    teacher = FrozenTeacher(network, "batch")
    torch.testing.assert_close(teacher.taps(x).logits, by_batch)
    for name, value in network.state_dict().items():
        assert torch.equal(drifted.state_dict()[name], value), "the frozen teacher's statistics must not move"
    running = FrozenTeacher(drifted, "running")
    assert running.folded == 9 and teacher.folded == 0
    torch.testing.assert_close(running.taps(x).logits, by_running)
    assert not torch.allclose(by_batch, by_running, atol=1e-3)
    assert not teacher.taps(x).pooled.requires_grad


def test_streams_are_separate():
    """Another method leaves the student's initialisation as it is; data order and augmentation know no method."""
    plain, review, other = (make(c)[0].student for c in (small_plain(), small(), small_plain(seed=1)))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), review.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))


def test_a_diverging_member_leaves_and_the_others_go_on(store, silent, tmp_path):
    good, bad = small(epochs=3), small(epochs=3, optimiser=SGDConfig(lr=1e30, decay_epochs=()))
    records = Runner(store, tmp_path, "cpu", progress=silent).run([good, bad])
    assert records[bad.id].status == "diverged" and records[bad.id].result["epochs"] < 3
    assert records[good.id].status == "finished" and records[good.id].result["epochs"] == 3
    assert torch.isnan(torch.tensor(records[bad.id].accuracy()))
    assert len(silent.titles) == 1, "they were one group"
    assert store.load(bad.id).status == "diverged"


def test_meters_are_means_over_images():
    """The short last batch counts by its images: the mean loss is that of the epoch, not the last batch's."""
    state, seen = make(small_plain())[0], []
    original = state.losses

    def spy(x, labels, *more):
        losses, logits = original(x, labels, *more)
        seen.append((losses["ce"].item(), (logits.argmax(1) == labels).sum().item(), len(labels)))
        return losses, logits

    state.losses = spy
    trained(state.config, state)
    assert [n for *_, n in seen] == [24, 16, 24, 16]
    for epoch in range(2):
        part = seen[2 * epoch : 2 * epoch + 2]
        mean = sum(loss * n for loss, _, n in part) / 40
        assert state.curves["loss_ce"][epoch] == pytest.approx(mean, rel=1e-6)
        assert state.curves["train_accuracy"][epoch] == pytest.approx(sum(c for _, c, _ in part) / 0.4)


ONE_CLASS = tiny_data(name="one.npz")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
        ({"data": tiny_data(train_images=1)}, "1 training image makes no batch of two"),
        ({"drop_last": True, "batch_size": 41}, "40 training images make no whole batch of 41"),
        ({"method": "crd", "data": ONE_CLASS}, "at least two classes"),
        ({"method": "dkd", "data": ONE_CLASS}, "DKD compares the classes beside"),
        ({"network": "test_training:Narrow"}, "two images of 32 x 32 and 100 classes cannot be taken"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is(
    values, sentence, store, silent, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    x, y = np.zeros((100, 32, 32, 3), np.uint8), np.zeros(100, int)
    np.savez("one.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    models.trust(["test_training:Narrow"])
    config = small_plain(**{name: value for name, value in values.items() if name != "method"})
    if "method" in values:
        teacher = TeacherConfig(run=small_plain(data=config.data))
        config = dataclasses.replace(config, method=values["method"], options={}, teacher=teacher)
    with pytest.raises(ConfigError, match=sentence):
        Runner(store, tmp_path, "cpu", progress=silent).run([config])
    assert not silent.titles, "not even its teacher"


class Narrow(Tiny):
    """Its classifier does not fit its maps."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.fc = nn.Linear(5, num_classes)


def test_that_an_image_is_left_out_is_said_once(store, silent, tmp_path):
    data = tiny_data(train_images=25, test_images=20)
    configs = [small_plain(data=data, seed=seed, epochs=1) for seed in range(2)]
    for record in Runner(store, tmp_path, "cpu", progress=silent).run(configs).values():
        assert record.status == "finished" and record.cost["images_per_second"] > 0
    assert [text for text in silent.said if "left out" in text] == [silent.said[0]]
    assert silent.said[0].startswith("of 25 training images one, another in every epoch, is left out")
