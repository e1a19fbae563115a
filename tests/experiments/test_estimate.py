"""How long the rest takes: multiply-adds counted by hand, rates of made-up records, positions of unfinished runs."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import tiny_data, tiny_plain, tiny_review

from rkd.data import DataConfig
from rkd.errors import DataError, RecordError
from rkd.experiments import estimate as module
from rkd.experiments.estimate import begun, estimate, lockstep, method_macs, sizes, unfinished, work
from rkd.records import Record
from rkd.records.teachers import teacher_file
from rkd.review import ReviewOptions
from rkd.training import arithmetic, checkpoint

EMBEDDED = sizes(tiny_data(), "nowhere")


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
    made = Record(
        config, "finished", {"lr": [0.1]}, {"epochs": config.epochs, "last_accuracy": 1.0, "best_accuracy": 1.0},
        {"train_seconds": float(seconds), "gang": group, **cost},
        {"device": "cpu", "device_name": device, "threads": threads, "train_images": images, "ended": ended},
    )  # fmt: skip
    store.save(made)
    for which in ("last", "best"):
        store.folder(config.id).mkdir(parents=True, exist_ok=True)
        (store.folder(config.id) / f"{which}.pt").touch()


def begin(store, config, epoch, position=0, seconds=0.0):
    checkpoint.save(
        {"run": config.id, "epoch": epoch, "position": position, "seconds": seconds, "curves": {}},
        store.folder(config.id) / "checkpoint.pt",
    )


def seconds(runs, store, machine="machine A", **more):
    return estimate(runs, store, machine, **more).seconds


def test_sizes_without_reading():
    assert sizes(DataConfig(), "nowhere") == module.Sizes(50_000, 10_000, 100, 32)
    assert sizes(DataConfig(name="cifar10"), "nowhere").classes == 10
    assert (EMBEDDED.train, EMBEDDED.test, EMBEDDED.classes, EMBEDDED.pixels) == (10_000, 2_000, 100, 32)
    with pytest.raises(DataError, match=r"mine\.npz"):
        sizes(DataConfig(name="mine.npz"), "nowhere")


def test_work_of_a_plain_run():
    need = work(tiny_plain(), EMBEDDED)
    assert (need.image, need.teacher, need.images) == (3 * resnet_macs(8), 0, 100)
    assert need.evaluation == 100 * resnet_macs(8)
    held = work(
        tiny_plain(data=DataConfig(name="cifar100", holdout=5000)), module.Sizes(50_000, 10_000, 100, 32)
    )
    assert held.images == 45_000 and held.evaluation == 15_000 * resnet_macs(8)


def test_work_of_the_review_mechanism():
    """Level i projects every student map j >= i by a 1x1 convolution to the teacher's channels."""
    maps = [(16, 32), (32, 16), (64, 8), (64, 1)]
    by_hand = sum(
        maps[j][0] * maps[i][0] * maps[j][1] ** 2 for i in range(len(maps)) for j in range(i, len(maps))
    )
    options = ReviewOptions(connector="mechanism", loss="l2")
    assert method_macs("resnet8", "resnet14", "reviewkd", options) == by_hand
    need = work(tiny_review(options), EMBEDDED)
    assert need.image == 3 * (resnet_macs(8) + by_hand) and need.teacher == resnet_macs(14)


def test_work_of_abf_lies_between_its_convolutions_with_and_without_attention():
    maps = [(16, 32), (32, 16), (64, 8), (64, 1)]
    convolutions = sum(c * 64 * s**2 + 64 * c * 9 * s**2 for c, s in maps)
    attention = sum(128 * 2 * s**2 for _, s in maps[:-1])
    without = method_macs("resnet8", "resnet14", "reviewkd", ReviewOptions(attention=False))
    both = method_macs("resnet8", "resnet14", "reviewkd", ReviewOptions())
    assert without == convolutions and convolutions < both <= convolutions + attention


def test_counting_draws_no_random_numbers():
    method_macs.cache_clear(), module._network.cache_clear(), module._forward.cache_clear()
    before = torch.random.get_rng_state()
    work(tiny_review(), EMBEDDED)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_is_left(store):
    record(store, tiny_plain(), 10)
    found = estimate([tiny_plain()], store, "machine A")
    assert found.seconds == 0 and found.runs == 0 and str(found) == "nothing is left to train"


def test_unknown_before_anything_was_trained_here(store):
    found = estimate([tiny_plain()], store, "machine A")
    assert found.seconds is None and found.runs == 1 and found.each == {tiny_plain().id: None}
    assert str(found) == "unknown until the first run has been trained on this machine"
    record(store, tiny_plain(seed=1), 10, device="machine B")
    assert seconds([tiny_plain()], store) is None and seconds([tiny_plain()], store, "machine B") > 0


def test_time_of_an_equal_run_is_its_own_plus_the_evaluations(store):
    """Training: three passes of 100 images; evaluation: one pass of 100 images: a third on top."""
    record(store, tiny_plain(), 30)
    found = estimate([tiny_plain(seed=1)], store, "machine A")
    assert found.seconds == pytest.approx(30 * (1 + 1 / 3))
    assert str(found) == "about 40 s (the rates of runs recorded on machine A)"


def test_time_scales_with_images_epochs_and_networks(store):
    record(store, tiny_plain(), 30)
    other = tiny_plain(network="resnet20", epochs=7, data=tiny_data(train_images=500))
    passes = 7 * (3 * 500 + 100) * resnet_macs(20)
    rate = 2 * 3 * 100 * resnet_macs(8) / 30
    assert seconds([other], store) == pytest.approx(passes / rate)


def test_a_group_shares_its_teacher(store):
    options = ReviewOptions(connector="mechanism", loss="l2", warmup_epochs=0)
    made = tiny_review(options)
    need = work(made, EMBEDDED)
    record(store, made, 20)
    rate = 200 * (need.image + need.teacher) / 20
    group = [dataclasses.replace(made, ce_weight=w) for w in (0.1, 0.2, 0.3, 0.4)]
    together = 4 * (200 * (need.image + need.teacher / 4) + 2 * need.evaluation) / rate
    apart = 4 * (200 * (need.image + need.teacher) + 2 * need.evaluation) / rate
    assert seconds(group, store) == pytest.approx(together)
    assert seconds(group, store, group=1) == pytest.approx(apart)


def test_the_rate_is_that_of_runs_most_alike_and_their_median(store):
    want = tiny_review()
    ours = [tiny_review(seed=seed) for seed in (1, 2, 3)]
    for config, took in zip(ours, (10, 11, 90), strict=True):
        record(store, config, took, group=1)
    expected = seconds([want], store)
    need = work(want, EMBEDDED)
    assert expected == pytest.approx(need.left(want, None, 1) / (need.training(200, 1) / 11))
    record(store, tiny_plain(), 1)  # no teacher: less alike
    record(store, tiny_review(seed=5), 1000, group=2)  # the same networks, other company
    record(store, tiny_review(seed=6, network="resnet14"), 1)
    assert seconds([want], store) == pytest.approx(expected)


def test_a_plain_run_is_most_like_a_plain_run(store):
    record(store, tiny_review(), 1)
    record(store, tiny_plain(network="resnet14"), 50)
    rate = 200 * 3 * resnet_macs(14) / 50
    assert seconds([tiny_plain()], store) == pytest.approx(2 * 400 * resnet_macs(8) / rate)


def test_old_records_do_not_count_once_there_are_enough_new_ones(store):
    for seed in range(module.LATEST):
        record(store, tiny_plain(seed=seed + 1), 10, ended=f"2026-02-{seed + 1:02d}")
    now = seconds([tiny_plain()], store)
    for seed in range(100, 120):
        record(store, tiny_plain(seed=seed), 1000, ended="2025-12-01")
    assert seconds([tiny_plain()], store) == now


def test_another_arithmetic_does_not_tell_the_rate(store):
    record(store, tiny_plain(precision="bf16"), 10)
    found = estimate([tiny_plain()], store, "machine A")
    assert found.seconds is None
    assert str(found) == "unknown until the first run in fp32 has been trained on this machine"
    assert seconds([tiny_plain(precision="bf16", seed=1)], store) > 0
    both = estimate([tiny_plain(), tiny_plain(precision="bf16", seed=1)], store, "machine A")
    assert both.seconds is None and sorted(v is None for v in both.each.values()) == [False, True]


def test_what_an_automatic_choice_came_to_counts(store):
    """A record says which arithmetic was used; "auto" is one of them, on each device its own."""
    record(store, tiny_plain(precision="bf16", seed=1), 10)
    record(store, tiny_plain(precision="fp16", seed=2), 20)
    assert seconds([tiny_plain(precision="bf16")], store) == pytest.approx(10 * 4 / 3)
    assert seconds([tiny_plain(precision="fp16")], store) == pytest.approx(20 * 4 / 3)
    assert seconds([tiny_plain(precision="fp64")], store) is None
    took = {"bf16": 10, "fp16": 20, "fp32": 30}
    record(store, tiny_plain(seed=3), took["fp32"])
    for device in ("cpu", "cuda"):
        name = arithmetic("auto", torch.device(device)).name
        assert seconds([tiny_plain(precision="auto")], store, device=device) == pytest.approx(
            took[name] * 4 / 3
        )


def test_compiled_runs_tell_of_compiled_ones_first(store):
    record(store, tiny_plain(seed=1), 30, compiled=False)
    record(store, tiny_plain(seed=2), 10, compiled=True)
    assert seconds([tiny_plain()], store) == pytest.approx(40)
    assert seconds([tiny_plain()], store, compiled=True) == pytest.approx(40 / 3)
    record(store, tiny_plain(network="resnet14", seed=3), 99, compiled=True)
    assert seconds([tiny_plain()], store, compiled=True) == pytest.approx(40 / 3), "networks first"


def test_threads_tell_the_rate_of_a_cpu(store):
    record(store, tiny_plain(seed=1), 10, threads=8)
    assert seconds([tiny_plain()], store, threads=1) is None
    assert seconds([tiny_plain()], store, threads=8) == seconds([tiny_plain()], store) > 0


def test_a_begun_run_has_less_left(store):
    record(store, tiny_plain(seed=1), 30)
    config = tiny_plain(epochs=4)
    whole = seconds([config], store)
    begin(store, config, epoch=1, position=64)
    assert begun(store, config.id) == module.Begun(1, 64, 0.0)
    share = (3 * (400 - 164) + 3 * 100) / (3 * 400 + 4 * 100)
    assert seconds([config], store) == pytest.approx(whole * share)


def test_without_records_the_begun_runs_tell_the_rate(store):
    config, other = tiny_plain(epochs=4), tiny_plain(epochs=4, seed=1)
    begin(store, config, epoch=1, position=50, seconds=15.0)
    found = estimate([config, other], store, "machine A")
    per_image = 15 / 150
    assert found.each[config.id] == pytest.approx(per_image * (250 + 3 * 100 / 3))
    assert found.each[other.id] == pytest.approx(per_image * (400 + 4 * 100 / 3))
    assert "runs begun" in str(found)


def test_a_damaged_checkpoint_is_told_and_one_that_vanishes_is_not(store, monkeypatch):
    path = store.folder("abc") / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    with pytest.raises(RecordError, match="is damaged"):
        begun(store, "abc")
    load = checkpoint.load

    def ended_meanwhile(path):
        path.unlink()
        return load(path)

    monkeypatch.setattr(checkpoint, "load", ended_meanwhile)
    assert begun(store, "abc") is None
    assert begun(store, "never begun") is None


def test_a_damaged_record_of_another_run_is_left_aside_and_said(store):
    record(store, tiny_plain(seed=1), 30)
    store.path("0" * 12).write_text("{", encoding="utf-8")
    assert "1 unreadable records left aside" in str(estimate([tiny_plain()], store, "machine A"))


def test_records_on_other_data_do_not_count(store):
    record(store, tiny_plain(data=DataConfig(name="cifar10", train_images=100), seed=1), 30)
    assert seconds([tiny_plain()], store) is None


def test_missing_data_are_named(store):
    config = tiny_plain(data=DataConfig(name="mine.npz", train_images=100))
    record(store, tiny_plain(), 30)
    assert str(estimate([config], store, "machine A")).startswith("unknown until the data set is here: ")


def test_what_is_unfinished_includes_teachers_whose_weights_are_lost(store):
    student = tiny_review(teacher_weights="best")
    teacher = student.teacher.run
    assert [r.id for r in unfinished([student], store)] == [teacher.id, student.id]
    record(store, teacher, 10)
    assert [r.id for r in unfinished([student], store)] == [student.id]
    (store.folder(teacher.id) / "last.pt").unlink()
    assert [r.id for r in unfinished([student], store)] == [student.id], "only the best weights are needed"
    (store.folder(teacher.id) / "best.pt").unlink()
    assert [r.id for r in unfinished([student], store)] == [teacher.id, student.id]
    committed = teacher_file(store, teacher.id, "best")
    committed.parent.mkdir()
    committed.touch()
    assert [r.id for r in unfinished([student], store)] == [student.id], "a committed teacher serves as well"
    committed.unlink()
    record(store, student, 10)
    assert unfinished([student], store) == [], "no run needs the teacher any more"


def test_a_gpu_trains_seeds_together():
    runs = [tiny_review(seed=seed) for seed in (0, 1, 2)]
    assert [len(g) for g in lockstep(runs, 8)] == [1, 1, 1] and [
        len(g) for g in lockstep(runs, 8, "cuda")
    ] == [3]


def test_groups_in_the_order_of_the_executor():
    runs = [
        tiny_plain(network="resnet20"),
        tiny_review(teacher_weights="best"),
        tiny_plain(network="resnet14", epochs=1),
    ]
    assert [[r.network for r in group] for group in lockstep(runs, 8)] == [
        ["resnet14"],
        ["resnet20"],
        ["resnet8"],
    ]


def test_counts_are_kept_for_later_processes_and_added_to_by_several(tmp_path, monkeypatch):
    """Two threads count at once; what was kept is not counted again."""
    monkeypatch.setattr(module.paths, "build", lambda: tmp_path)
    module.method_macs.cache_clear()
    counted = []

    def count(student, *rest):
        counted.append(student)
        time.sleep(0.05)  # both are under way
        return len(student)

    monkeypatch.setattr(module, "_counted", count)
    names = ["a" * n for n in range(1, 9)]
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda name: module.method_macs(name, "t", "kd", None), names))
        assert found == list(range(1, 9))
        module.method_macs.cache_clear()
    assert sorted(counted) == names


def test_a_measured_step_tells_the_rate_where_no_record_does(store):
    """A step of two runs in lock-step took half a second: a quarter each for a batch of 64."""
    run = tiny_plain(seed=3, precision="fp32")
    sample = module.measured_sample(run, 2, 0.5, device="cpu", compiled=False, data_root="nowhere")
    image = 3 * resnet_macs(8)
    assert sample.rate == pytest.approx(64 * image / 0.25)
    found = estimate([run], store, "machine A", measured=[sample])
    left = run.epochs * (100 * image + 100 * resnet_macs(8))
    assert found.seconds == pytest.approx(left / sample.rate) and found.basis == "the step measured here"


def test_costs_are_multiply_adds_left_and_no_less_than_those_of_resnet20(store):
    small, large = tiny_plain(network="resnet8"), tiny_plain(network="resnet56")
    found = module.costs([small, large], store, device="cpu", group=8, data_root="nowhere")
    evaluation = 100 * resnet_macs(8)
    assert found[small.id] == small.epochs * (100 * 3 * 41_000_000 + evaluation)
    assert found[large.id] == large.epochs * 100 * 4 * resnet_macs(56)
