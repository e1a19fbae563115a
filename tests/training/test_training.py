"""The loop: one step against plain torch, determinism, group equals solo, resume, divergence."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_data, tiny_plain, tiny_review

from rkd import data, models
from rkd.experiments.runner import Runner
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions
from rkd.training import FrozenTeacher, TrainState, checkpoint, train
from rkd.training.build import build_method, build_network


def make_state(config, teacher=None):
    dtype = torch.float64 if config.precision == "fp64" else torch.float32
    student = build_network(config, 100)
    method = build_method(config, student, teacher, 32, 100, 100) if config.method else None
    return TrainState(config, student.to(dtype), None if method is None else method.to(dtype))


def frozen(config):
    dtype = torch.float64 if config.precision == "fp64" else torch.float32
    return FrozenTeacher(build_network(config.teacher.run, 100).to(dtype), config.teacher.batch_norm)


def all_state(state):
    return {
        **state.student.state_dict(),
        **({} if state.method is None else {f"m.{k}": v for k, v in state.method.state_dict().items()}),
    }


def test_one_step_equals_plain_torch_in_float64():
    """SGD with Nesterov momentum and weight decay on every parameter, fusion modules included, written out by hand."""
    config = tiny_review(
        precision="fp64", ce_weight=0.7, options=ReviewOptions(loss_weight=0.6, warmup_epochs=0)
    )
    state, teacher = make_state(config, build_network(config.teacher.run, 100)), frozen(config)
    student, review = make_state(config, build_network(config.teacher.run, 100)).student, None
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


def test_same_config_same_bits(store, silent, tmp_path):
    config = tiny_review()
    first = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    weights = checkpoint.load(store.folder(config.id) / "last.pt")["student"]
    other = dataclasses.replace(store, records=tmp_path / "r2", work=tmp_path / "w2")
    second = Runner(other, tmp_path, "cpu", progress=silent).run([config])[config.id]
    again = checkpoint.load(other.folder(config.id) / "last.pt")["student"]
    assert first.curves == second.curves
    assert all(torch.equal(weights[k], again[k]) for k in weights)


def test_streams_are_separate():
    """Another method leaves the student's initialisation, the data order and the augmentation as they are."""
    plain, review = make_state(tiny_plain()), make_state(tiny_review(), models.build("resnet14"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.student.parameters(), review.student.parameters(), strict=True)
    )
    other = make_state(tiny_plain(seed=1))
    assert not all(
        torch.equal(a, b) for a, b in zip(plain.student.parameters(), other.student.parameters(), strict=True)
    )


GROUP = [
    {},
    {"options": ReviewOptions(connector="mechanism", loss="l2", stem=True, warmup_epochs=0)},
    {"options": ReviewOptions(attention=False, warmup_epochs=1)},
    {"options": ReviewOptions(loss_weight=5.0, warmup_epochs=0), "ce_weight": 0.0},
]


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_group_equals_solo_in_float64(batch_norm):
    few = {"data": tiny_data(train_images=40, test_images=20), "batch_size": 24}
    configs = [tiny_review(precision="fp64", batch_norm=batch_norm, **few, **values) for values in GROUP]
    images = data.load(configs[0].data)
    together = [make_state(c, build_network(c.teacher.run, 100)) for c in configs]
    train(together, images, frozen(configs[0]))
    for config, member in zip(configs, together, strict=True):
        alone = make_state(config, build_network(config.teacher.run, 100))
        train([alone], images, frozen(config))
        for name, value in all_state(alone).items():
            torch.testing.assert_close(all_state(member)[name], value, rtol=1e-12, atol=1e-14, msg=name)
        assert alone.curves.keys() == member.curves.keys()
        for name in alone.curves:
            assert member.curves[name] == pytest.approx(alone.curves[name], rel=1e-10, abs=1e-12)


def test_a_diverging_member_leaves_and_the_others_go_on(store, silent, tmp_path):
    from rkd.training import SGDConfig

    good, bad = tiny_review(epochs=3), tiny_review(epochs=3, optimiser=SGDConfig(lr=1e30, decay_epochs=()))
    records = Runner(store, tmp_path, "cpu", progress=silent).run([good, bad])
    assert records[bad.id].status == "diverged" and records[bad.id].result["epochs"] < 3
    assert records[good.id].status == "finished" and records[good.id].result["epochs"] == 3
    assert torch.isnan(torch.tensor(records[bad.id].accuracy()))
    assert len(silent.titles) == 1, "they were one group"
    assert store.load(bad.id).status == "diverged"


def test_meters_are_means_over_images():
    """The short last batch counts by its images: the mean loss is that of the epoch, not the last batch's."""
    state = make_state(tiny_plain())
    images = data.load(tiny_data())
    seen = []
    original = state.losses

    def spy(x, labels, *more):
        losses, logits = original(x, labels, *more)
        seen.append((losses["ce"].item(), (logits.argmax(1) == labels).sum().item(), len(labels)))
        return losses, logits

    state.losses = spy
    train([state], images, None)
    assert [n for *_, n in seen] == [64, 36, 64, 36]
    for epoch in range(2):
        part = seen[2 * epoch : 2 * epoch + 2]
        assert state.curves["loss_ce"][epoch] == pytest.approx(
            sum(loss * n for loss, _, n in part) / 100, rel=1e-6
        )
        assert state.curves["train_accuracy"][epoch] == pytest.approx(sum(c for _, c, _ in part))


def test_holdout_chooses_the_best_epoch(store, silent, tmp_path):
    config = tiny_plain(data=tiny_data(holdout=100), epochs=3)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    held = record.curves["holdout_accuracy"]
    assert len(held) == 3 and record.result["best_epoch"] == held.index(max(held))
    assert record.result["best_accuracy"] == record.curves["test_accuracy"][record.result["best_epoch"]]


def test_last_and_best_weights_give_the_recorded_accuracies(store, silent, tmp_path):
    config = tiny_plain(epochs=3)
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    record = runner.run([config])[config.id]
    for which in ("last", "best"):
        assert runner.evaluate(config, which) == pytest.approx(record.accuracy(which), abs=1e-4)


def test_every_extra_module_is_saved_and_restored(tmp_path):
    config = tiny_review(epochs=3)
    images, path = data.load(config.data), tmp_path / "c.pt"
    whole = make_state(config, build_network(config.teacher.run, 100))

    def keep(state):
        if state.epoch == 1:
            checkpoint.save(state.state_dict(), path)

    train([whole], images, frozen(config), on_epoch=keep)
    resumed = make_state(config, build_network(config.teacher.run, 100))
    resumed.load_state_dict(checkpoint.load(path))
    assert resumed.epoch == 1
    train([resumed], images, frozen(config))
    for name, value in all_state(whole).items():
        assert torch.equal(all_state(resumed)[name], value), name
    assert any(name.startswith("m.") for name in all_state(whole))
    assert {k: v for k, v in resumed.curves.items()} == whole.curves


@pytest.mark.parametrize("precision", ["bf16"])
def test_low_precision_stays_near_single(precision, store, silent, tmp_path):
    configs = [tiny_review(precision=p) for p in ("fp32", precision)]
    records = Runner(store, tmp_path, "cpu", progress=silent).run(configs)
    a, b = (records[c.id].curves["loss_ce"] for c in configs)
    assert b == pytest.approx(a, rel=0.05) and a != b


COMMAND = [
    "run", "--student", "resnet8", "--teacher", "resnet14", "--set", "train_images=200", "--set", "test_images=100",
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

    killed, kills = tmp_path / "b", 0
    for _ in range(8):
        process = start(killed)
        deadline, seen = time.monotonic() + 60, len(_logged(killed))
        while len(_logged(killed)) == seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        time.sleep(0.05)  # an epoch has just been saved: the next one is under way
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.wait() == 0 and kills >= 2, process.stdout.read()
    assert not list(killed.rglob("*.tmp")), "half-written files were left"
    for name in names:
        for which in ("last", "best"):
            a, b = (checkpoint.load(tmp_path / d / "work" / name / f"{which}.pt")["student"] for d in "ab")
            assert all(torch.equal(a[k], b[k]) for k in a), (name, which)
        from rkd.records import Record

        one, two = (Record.from_json((tmp_path / d / f"{name}.json").read_text(), name) for d in "ab")
        assert one.curves == two.curves and one.result == two.result


def _logged(folder: Path):
    return [
        line for log in sorted((folder / "work").glob("*/log.txt")) for line in log.read_text().splitlines()
    ]
