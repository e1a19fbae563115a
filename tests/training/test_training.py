"""The loop: one step against plain torch, the teacher's modes, divergence, meters, a killed process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import make, tiny_review
from test_engine import small, small_plain

from rkd import data
from rkd.experiments.runner import Runner
from rkd.methods import Batch
from rkd.records import Record
from rkd.review import ReviewKD, ReviewOptions
from rkd.training import FrozenTeacher, SGDConfig, checkpoint, train
from rkd.training.build import build_network


def test_one_step_equals_plain_torch_in_float64():
    """SGD with Nesterov momentum and weight decay on every parameter, fusion modules included, written out by hand."""
    config = small(precision="fp64", ce_weight=0.7, options=ReviewOptions(loss_weight=0.6, warmup_epochs=0))
    (state, teacher), student = make(config), make(config)[0].student
    torch.manual_seed(data.stream_seed(config.seed, "method"))
    review = ReviewKD(student, teacher.network, config.options).double()
    reference = [*student.parameters(), *review.parameters()]
    velocity = [torch.zeros_like(p) for p in reference]
    generator = torch.Generator().manual_seed(0)
    state.begin_epoch()
    student.train(), review.train()
    for _ in range(3):
        x = torch.randn(8, 3, 32, 32, dtype=torch.float64, generator=generator)
        y = torch.randint(0, 100, (8,), generator=generator)
        state.step(x, y, y, teacher.taps(x))
        taps = student.taps(x)
        loss = (
            0.7 * F.cross_entropy(taps.logits, y)
            + 0.6 * review.losses(Batch(taps, teacher.taps(x), y, y))["review"]
        )
        gradients = torch.autograd.grad(loss, reference)
        with torch.no_grad():
            for p, v, g in zip(reference, velocity, gradients, strict=True):
                g = g + 5e-4 * p
                v.mul_(0.9).add_(g)
                p.sub_(0.05 * (g + 0.9 * v))
    ours = [*state.student.parameters(), *state.method.parameters()]
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


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


COMMAND = [
    "run", "--student", "resnet8", "--teacher", "resnet14", "--set", "train_images=100", "--set", "test_images=50",
    "--set", "epochs=2", "--set", "batch_size=20",
]  # fmt: skip


def start(results):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "rkd", *COMMAND, "--results", str(results)]
    return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_sigkill_in_mid_epoch_then_resume_gives_the_same_bits(tmp_path):
    undisturbed = start(tmp_path / "a")
    assert undisturbed.wait(120) == 0, undisturbed.stdout.read()
    names = sorted(p.stem for p in (tmp_path / "a").glob("*.json"))
    assert len(names) == 2, "the teacher's run and the student's"

    killed = tmp_path / "b"
    for _ in range(2):
        process = start(killed)
        deadline, seen = time.monotonic() + 60, len(_logged(killed))
        while len(_logged(killed)) == seen and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)  # an epoch has just been saved: the next one is under way
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(killed)
    assert process.wait(120) == 0, process.stdout.read()
    assert not list(killed.rglob("*.tmp")), "half-written files were left"
    for name in names:
        for which in ("last", "best"):
            a, b = (checkpoint.load(tmp_path / d / "work" / name / f"{which}.pt")["student"] for d in "ab")
            assert all(torch.equal(a[k], b[k]) for k in a), (name, which)
        one, two = (Record.from_json((tmp_path / d / f"{name}.json").read_text(), name) for d in "ab")
        assert one.curves == two.curves and one.result == two.result


def _logged(folder: Path):
    return [
        line for log in sorted((folder / "work").glob("*/log.txt")) for line in log.read_text().splitlines()
    ]
