"""The loop: the teacher's modes, streams of random numbers, divergence, meters."""

import pytest
import torch
from conftest import make, tiny_review
from test_engine import small, small_plain

from rkd import data
from rkd.experiments.runner import Runner
from rkd.training import FrozenTeacher, SGDConfig, train
from rkd.training.build import build_network


def test_batch_norm_modes_of_the_teacher():
    config = tiny_review()
    network = build_network(config.teacher.run, 100)
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3
    network.train()
    by_batch = network.taps(x).logits.detach()  # train mode: this also moves the running statistics
    drifted = {k: v.clone() for k, v in network.state_dict().items()}
    network.eval()
    by_running = network.taps(x).logits.detach()
    teacher = FrozenTeacher(network, "batch")
    torch.testing.assert_close(teacher.taps(x).logits, by_batch)
    for name, value in network.state_dict().items():
        assert torch.equal(value, drifted[name]), "the frozen teacher's statistics must not move"
    loaded = build_network(config.teacher.run, 100)
    loaded.load_state_dict(drifted)
    running = FrozenTeacher(loaded, "running")
    assert running.folded == 15 and teacher.folded == 0  # ResNet-14: 13 convolutions and 2 projections
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
    config = small_plain()
    state, _ = make(config)
    seen = []
    original = state.losses

    def spy(x, labels, *more):
        losses, logits = original(x, labels, *more)
        seen.append((losses["ce"].item(), (logits.argmax(1) == labels).sum().item(), len(labels)))
        return losses, logits

    state.losses = spy
    train([state], data.load(config.data), None)
    assert [n for *_, n in seen] == [24, 16, 24, 16]
    for epoch in range(2):
        part = seen[2 * epoch : 2 * epoch + 2]
        mean = sum(loss * n for loss, _, n in part) / 40
        assert state.curves["loss_ce"][epoch] == pytest.approx(mean, rel=1e-6)
        assert state.curves["train_accuracy"][epoch] == pytest.approx(sum(c for _, c, _ in part) / 0.4)
