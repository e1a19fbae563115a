"""How long the rest takes: multiply-adds counted by hand, rates of made-up records, positions of unfinished runs."""

import pytest
import torch
from conftest import tiny_data, tiny_plain, tiny_review
from evidence import whole

from rkd import models
from rkd.data import DataConfig
from rkd.experiments import estimate as module
from rkd.experiments.estimate import (
    checkpoint_progress,
    dataset_sizes,
    estimate,
    method_macs,
    pair_cost,
    recorded_work,
    run_macs,
)
from rkd.methods import Options, SingleLoss, base, register_method
from rkd.models import registry
from rkd.models.resnet import cifar_resnet
from rkd.review import ReviewOptions
from rkd.training import checkpoint

EMBEDDED = dataset_sizes(tiny_data(), "nowhere")


def resnet_macs(depth, classes=100):
    """CIFAR ResNet of 6n + 2 layers on 32 x 32, convolution by convolution."""
    total, channels, size = 3 * 16 * 9 * 32**2, 16, 32
    for out in (16, 32, 64):
        for block in range((depth - 2) // 6):
            down = block == 0 and out > 16
            size = size // 2 if down else size
            total += (channels + out) * out * 9 * size**2 + (channels * out * size**2 if down else 0)
            channels = out
    return total + 64 * classes


def record(store, config, seconds, *, group=1, device="machine A", threads=1, ended="2026-01-01", **cost):
    """Put a record into the store of a run that took so long."""
    images = config.data.train_images
    made = whole(
        config, cost={"train_seconds": float(seconds), "gang": group, **cost},
        provenance={"device_name": device, "threads": threads, "train_images": images, "ended": f"{ended}T00:00:00Z"},
    )  # fmt: skip
    store.save(made)
    for which in ("last", "best"):
        store.folder(config.id).mkdir(parents=True, exist_ok=True)
        (store.folder(config.id) / f"{which}.pt").touch()


def begin(store, config, epoch, position=0, seconds=0.0):
    at = {"run": config.id, "epoch": epoch, "position": position, "seconds": float(seconds)}
    held = {"curves": {"lr": [0.1] * epoch}, "student": {"weight": torch.ones(1)}}
    checkpoint.save(at | held, store.folder(config.id) / "checkpoint.pt")


def seconds(runs, store, machine="machine A", **more):
    return estimate(runs, store, machine, **more).seconds


def test_work_of_a_plain_run():
    assert module.Sizes(10_000, 2_000, 100, 32) == EMBEDDED
    need = run_macs(tiny_plain(), EMBEDDED)
    assert (need.image, need.teacher, need.images) == (3 * resnet_macs(8), 0, 100)
    assert need.evaluation == 100 * resnet_macs(8)
    held = tiny_plain(data=DataConfig(name="cifar100", holdout=5000))
    held = run_macs(held, dataset_sizes(held.data, "nowhere"))
    assert held.images == 45_000 and held.evaluation == 15_000 * resnet_macs(8)


def test_work_of_the_review_mechanism():
    """Level i projects every student map j >= i by a 1x1 convolution to the teacher's channels."""
    maps = [(16, 32), (32, 16), (64, 8), (64, 1)]
    by_hand = sum(maps[j][0] * maps[i][0] * maps[j][1] ** 2 for i in range(4) for j in range(i, 4))
    options = ReviewOptions(connector="mechanism", loss="l2")
    assert method_macs(tiny_review(options)) == by_hand
    before = torch.random.get_rng_state()
    need = run_macs(tiny_review(options), EMBEDDED)
    assert need.image == 3 * (resnet_macs(8) + by_hand) and need.teacher == resnet_macs(14)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unknown_before_anything_was_trained_here(store):
    found = estimate([tiny_plain()], store, "machine A")
    assert found.seconds is None and found.each == {tiny_plain().id: None}
    assert str(found) == "unknown until the first run has been trained on this machine"
    record(store, tiny_plain(seed=1), 10, device="machine B")
    assert seconds([tiny_plain()], store) is None and seconds([tiny_plain()], store, "machine B") > 0
    record(store, tiny_plain(precision="bf16"), 10, threads=8)
    found = estimate([tiny_plain(), tiny_plain(precision="bf16", seed=1)], store, "machine A")
    assert found.seconds is None and sorted(v is None for v in found.each.values()) == [False, True]
    assert str(found) == "unknown until the first run in fp32 has been trained on this machine"
    bf16 = [tiny_plain(precision="bf16", seed=1)]
    assert seconds(bf16, store, threads=1) is None
    assert seconds(bf16, store, threads=8) == seconds(bf16, store) > 0


def test_time_of_an_equal_run_is_its_own_plus_the_evaluations(store):
    """Training: three passes of 100 images; evaluation: one pass of 100 images: a third on top."""
    record(store, tiny_plain(), 30)
    found = estimate([tiny_plain(seed=1)], store, "machine A")
    assert found.seconds == pytest.approx(30 * (1 + 1 / 3))
    assert str(found) == "about 40 s (the rates of runs recorded on machine A)"


def test_the_rate_is_the_median_of_runs_of_the_same_networks_else_of_all(store):
    """Multiply-adds of training over the time it took; evaluations come on top."""
    want = tiny_review()
    need = run_macs(want, EMBEDDED)
    other = tiny_plain(network="resnet20", epochs=7, data=tiny_data(train_images=500))
    record(store, other, 10)
    rate = 7 * 3 * 500 * resnet_macs(20) / 10
    assert seconds([want], store) == pytest.approx(need.left(want) / rate)
    for seed, took in ((1, 10), (2, 11), (3, 90)):
        record(store, tiny_review(seed=seed), took)
    assert seconds([want], store) == pytest.approx(need.left(want) / (need.training(200) / 11))


def test_a_begun_run_has_less_left(store):
    record(store, tiny_plain(seed=1), 30)
    config = tiny_plain(epochs=4)
    whole = seconds([config], store)
    begin(store, config, epoch=1, position=64)
    assert (checkpoint_progress(store, config.id).epoch, checkpoint_progress(store, config.id).position) == (
        1,
        64,
    )
    share = (3 * (400 - 164) + 3 * 100) / (3 * 400 + 4 * 100)
    assert seconds([config], store) == pytest.approx(whole * share)


def test_without_records_the_begun_runs_tell_the_rate(store, capsys):
    config, other = tiny_plain(epochs=4), tiny_plain(epochs=4, seed=1)
    begin(store, config, epoch=1, position=50, seconds=15.0)
    found = estimate([config, other], store, "machine A")
    per_image = 15 / 150
    assert found.each[config.id] == pytest.approx(per_image * (250 + 3 * 100 / 3))
    assert found.each[other.id] == pytest.approx(per_image * (400 + 4 * 100 / 3))
    assert "runs begun" in str(found)
    (store.folder(config.id) / "checkpoint.pt").write_bytes(b"half a file")
    assert checkpoint_progress(store, config.id) is None and "is damaged" in capsys.readouterr().err
    assert checkpoint_progress(store, "never begun") is None


def test_missing_data_are_named_and_damaged_records_of_others_left_aside(store):
    data = DataConfig(name="mine.npz", train_images=100)
    config = tiny_plain(data=data)
    record(store, tiny_plain(data=data, seed=1), 30)
    store.path("0" * 12).write_text("{", encoding="utf-8")
    assert str(estimate([config], store, "machine A")).startswith("unknown until the data set is here: ")


def test_costs_are_multiply_adds_left_and_no_less_than_asked(store):
    small, large = tiny_plain(network="resnet8"), tiny_plain(network="resnet56")
    found = module.remaining_macs([small, large], store, "nowhere", module.LEAST_IMAGE)
    assert found[small.id] == small.epochs * (100 * 3 * 41_000_000 + 100 * resnet_macs(8))
    assert found[large.id] == large.epochs * 100 * 4 * resnet_macs(56)


@pytest.mark.parametrize("own", ["method", "network"])
def test_counts_of_own_code_follow_it(own, tmp_path, monkeypatch):
    monkeypatch.setattr(module.paths, "build_folder", lambda: tmp_path)
    asked = {"network": {"network": "my_net"}, "method": {"method": "my_loss", "options": Options()}}[own]
    found = []
    for width in (3, 5):  # as a later process has it, whose code is another
        with monkeypatch.context() as patch:
            patch.setattr(base, "_METHODS", dict(base._METHODS))
            patch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
            module._network.cache_clear()
            models.register("my_net")(lambda classes, w=width: cifar_resnet(classes, 8, (16, w, 16, 16)))
            loss = {"loss": lambda self, batch, w=width: batch.student.pooled @ torch.ones(64, w)}
            register_method("my_loss")(type("MyLoss", (SingleLoss,), loss))
            found.append(method_macs(tiny_review(**asked)))
    assert found == [64 * 3, 64 * 5] if own == "method" else found[0] != found[1]


def test_counts_are_kept_for_later_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(module.paths, "build_folder", lambda: tmp_path)
    counted = []
    monkeypatch.setattr(module, "_counted", lambda *asked: counted.append(asked) or 7)
    assert [method_macs(run) for run in (tiny_review(), tiny_review(seed=1))] == [7, 7]
    assert len(counted) == 1 and method_macs(tiny_review(), pixels=64) == 7 and len(counted) == 2


def test_sizes_of_the_best_known_pair():
    """Parameters as the released networks have them; multiply-adds as half the operations counted in a step."""
    run = tiny_review(ReviewOptions(), network="resnet20", batch_size=128)
    parameters, macs = pair_cost(run).T.to_numpy()
    assert parameters[0] == 278_324 and parameters[2] == 114_278 and macs[0] == 40_818_944
    step = run_macs(run, EMBEDDED).training(128)
    assert step == 128 * (3 * (macs[0] + macs[2]) + macs[1])
    # 14.4 GFLOP of fusion in a step, forward and backward, for 64 channels at 8, 8, 16 and 32 pixels
    assert 2 * 3 * 128 * macs[2] == pytest.approx(14.4e9, rel=0.02)


def test_what_recorded_runs_reached(store):
    """A group shares its teacher's pass, and epochs of stages count; a diverged run and a network that is not built
    here have no row."""
    staged = tiny_review(method="ab", options={"init_epochs": 3})
    runs = [tiny_review(precision="fp16"), tiny_plain(), staged]
    record(store, runs[0], 6.0, group=2, threads=3)
    record(store, runs[1], 4.0)
    record(store, staged, 5.0)
    store.save(whole(tiny_plain(seed=9), status="diverged"))
    for odd, seconds in ((tiny_plain(network="os:_exit"), 1.0), (tiny_plain(seed=8), 0.0)):
        record(store, odd, seconds)
    found = recorded_work(store, "nowhere").set_index("run").loc[runs]
    assert len(recorded_work(store, "nowhere")) == len(runs)
    review, plain, ab = (run_macs(run, EMBEDDED) for run in runs)
    alone = [need.training(images) for need, images in ((review, 200), (plain, 200), (ab, 500))]
    assert found["macs"].tolist() == [200 * (review.image + review.teacher / 2), *alone[1:]]
    assert found["alone"].tolist() == alone
    assert found["arithmetic"].tolist() == ["fp16", "fp32", "fp32"] and found["threads"].tolist() == [3, 1, 1]
    assert found["seconds"].tolist() == [6, 4, 5] and set(found["device"]) == {"machine A"}
    bare = recorded_work(store, "nowhere", modules=False).set_index("run").loc[runs]
    assert bare["alone"].iloc[0] == 200 * (3 * resnet_macs(8) + resnet_macs(14))
