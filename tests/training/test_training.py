"""The loop: the teacher's modes, streams of random numbers, divergence, meters."""

import copy

import pytest
import torch
from conftest import make, small, small_plain, trained

from rkd import models
from rkd.experiments.runner import Runner
from rkd.training import FrozenTeacher, SGDConfig


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
