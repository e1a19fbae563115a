"""What is damaged, lies or cannot be written: noticed by who reads it, named, left where it is; the others go on."""

import dataclasses
import os
import random
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import Silent, StopAfter, small, small_plain

from rkd import files
from rkd.errors import RecordError
from rkd.experiments import group
from rkd.experiments.runner import Runner
from rkd.models.checkpoints import tensors_in
from rkd.records import Store
from rkd.records.damage import find_damaged
from rkd.training import checkpoint

STUDENT = small(weights="best")
TEACHER = STUDENT.teacher.run
STATE = f"work/{STUDENT.id}/checkpoint.pt"
BEST = f"work/{TEACHER.id}/best.pt"
RECORD = f"records/{TEACHER.id}.json"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A trained teacher, and its student after the first batch of the second of two epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    store = Store(folder / "records", folder / "work")
    Runner(store, folder, "cpu", progress=Silent()).run([TEACHER])
    # Of the group, three pieces of the first epoch, one of the second.
    Runner(store, folder, "cpu", progress=Silent(), stop=StopAfter(5)).run([STUDENT])
    return folder


@pytest.fixture
def there(stopped, tmp_path, monkeypatch):
    """A copy of it, and what trains there."""
    monkeypatch.setattr(group, "_MEASURED", set())
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    store = Store(tmp_path / "records", tmp_path / "work")
    runner = Runner(store, tmp_path, "cpu", progress=Silent(), group=2)
    return SimpleNamespace(folder=tmp_path, store=store, runner=runner)


def rewritten(folder, path, **values):
    state = checkpoint.load(folder / path)
    checkpoint.save(state | values, folder / path)


def lost(tensors, name):
    return {**tensors, name: torch.full_like(tensors[name], float("nan"))}


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


LIES = {
    "a later epoch": (lambda s: {"epoch": 99}, "epoch is 99, but its curves are of 1 epochs"),
    "no number": (lambda s: {"epoch": "1"}, "epoch is '1'"),
    "beyond the epoch": (lambda s: {"position": 10**6}, "position is 1000000, which no batch"),
    "within a batch": (lambda s: {"position": 7}, "position is 7, which no batch"),
    "longer curves": (lambda s: {"curves": {**s["curves"], "loss_ce": [1.0] * 3}}, "'loss_ce' has 3 values"),
    "other tensors": (lambda s: {"student": {"a": torch.ones(1)}, "best": {**s["best"], "student": {"a": 1}}},
                      "Missing key"),
    "no optimiser": (lambda s: {"optimiser": None}, "does not fit its run"),
    "no momentum": (lambda s: {"optimiser": {**s["optimiser"], "state": {}}}, "lacks momentum"),
    "no best epoch": (lambda s: {"best": None}, "lacks the weights of its best epoch"),
    "no method": (lambda s: {"method": {}}, "Missing key"),
    "short meters": (lambda s: {"meters": [1.0]}, "does not fit its run"),
    "NaN": (lambda s: {"student": lost(s["student"], next(iter(s["student"])))}, "holds NaN or infinities"),
    "NaN of the method": (lambda s: {"method": lost(s["method"], next(iter(s["method"])))}, "holds NaN or infinities"),
    "another run": (lambda s: {"run": "0" * 12}, "belongs to run '000000000000'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIES)
def test_a_checkpoint_that_lies_is_named_and_stays_and_others_go_on(kind, there):
    lie, said = LIES[kind]
    rewritten(there.folder, STATE, **lie(checkpoint.load(there.folder / STATE)))
    before, other = (there.folder / STATE).read_bytes(), dataclasses.replace(STUDENT, ce_weight=0.5)
    assert [*there.runner.run([STUDENT, other])] == [other.id], "they go in lock-step"
    why = there.runner.failed[STUDENT.id]
    assert said in why and str(there.folder / STATE) in why
    assert "delete it to start that run again" in "".join(there.runner.progress.said)
    assert (there.folder / STATE).read_bytes() == before and there.runner.run([STUDENT]) == {}


def test_a_checkpoint_goes_on_as_its_config_says(there):
    """Not as its optimiser's file does; and early ones tell no config."""
    state = checkpoint.load(there.folder / STATE)
    assert state["position"] == STUDENT.batch_size and state["epoch"] == 1
    state["optimiser"]["param_groups"][0].update(momentum=0.0, weight_decay=9.0)
    del state["config"]
    checkpoint.save(state, there.folder / STATE)
    again = there.runner.run([STUDENT])[STUDENT.id]
    whole = Store(there.folder / "whole", there.folder / "other")
    shutil.copytree(there.folder / "work" / TEACHER.id, whole.folder(TEACHER.id))
    whole.save(there.store.load(TEACHER.id))
    straight = Runner(whole, there.folder, "cpu", progress=Silent()).run([STUDENT])[STUDENT.id]
    assert (again.curves, again.result) == (straight.curves, straight.result)


def test_no_flipped_bit_goes_unnoticed(there):
    """Most are refused; the rest, in what fills a file up, change nothing that is read."""
    chance = random.Random(0)
    for path in (there.folder / STATE, there.folder / BEST):
        whole, wanted, noticed = path.read_bytes(), checkpoint.load(path), 0
        for bit in chance.sample(range(8 * len(whole)), 40):
            flip(path, bit)
            try:
                found = checkpoint.load(path)
            except RecordError as error:
                noticed += 1
                assert str(path) in str(error)
            else:
                for one, other in zip(tensors_in(found), tensors_in(wanted), strict=True):
                    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
            path.write_bytes(whole)
        assert noticed > 30


def test_a_flipped_bit_stops_everyone_who_reads_it(there, rkd):
    path = there.folder / BEST
    flip(path, 4 * path.stat().st_size)
    assert there.runner.run([STUDENT]) == {} and "checksum" in there.runner.failed[STUDENT.id]
    store = f"--results {there.folder / 'records'}"
    shutil.move(there.folder / "work", there.folder / "records" / "work")
    path = there.folder / "records" / BEST
    status, _, err = rkd(f"evaluate {TEACHER.id} --weights best {store}")
    assert status == 2 and str(path) in err and "checksum" in err
    status, out, _ = rkd(f"export --out {there.folder / 'out'} --all-weights {store}")
    assert status == 1 and f"left out {BEST}" in out
    status, out, _ = rkd(f"records check --quarantine {store}")
    assert status == 1 and f"{path}: it is damaged" in out and "1 of 4 files are damaged" in out
    assert not path.exists() and (there.folder / "records" / "damaged" / BEST).exists()
    status, out, _ = rkd(f"records check {store}")
    assert status == 0 and "0 of 3" in out


def test_a_teacher_is_measured_once_before_it_teaches(there):
    there.runner.run([STUDENT])
    assert [said for said in there.runner.progress.said if " % now" in said] == [
        f"teacher cases:Tiny: {(a := there.store.load(TEACHER.id).accuracy('best')):.2f} % now, {a:.2f} % in its record"
    ]
    again = Runner(there.store, there.folder, "cpu", progress=Silent())
    again.run([dataclasses.replace(STUDENT, ce_weight=0.5)])
    assert not any("teacher" in said and "now" in said for said in again.progress.said)


def test_a_teacher_that_is_not_its_record_teaches_nobody(there, monkeypatch):
    monkeypatch.setattr(group, "MOST_IMAGES_OFF", 0)
    record = there.store.load(TEACHER.id)
    there.store.save(dataclasses.replace(record, result={**record.result, "best_accuracy": 95.0}))
    assert there.runner.run([STUDENT]) == {}
    said = f"and 95.00 % in record {TEACHER.id}: the weights {there.folder / BEST} are not those"
    assert said in there.runner.failed[STUDENT.id]


def test_weights_that_hold_nan_are_said(there, rkd):
    rewritten(there.folder, BEST, student=lost(checkpoint.load(there.folder / BEST)["student"], "fc.weight"))
    shutil.move(there.folder / "work", there.folder / "records" / "work")
    status, _, err = rkd(f"evaluate {TEACHER.id} --weights best --results {there.folder / 'records'}")
    assert status == 1 and "fc.weight" in err


def test_a_damaged_record_is_named_and_neither_trained_over_nor_in_the_way(there):
    path = there.store.path(STUDENT.id)
    path.write_bytes(b"{")
    other = dataclasses.replace(STUDENT, ce_weight=0.5)
    assert [*there.runner.run([STUDENT, other])] == [other.id]
    assert path.read_bytes() == b"{" and "damaged" in there.runner.failed[STUDENT.id]
    there.store.path(TEACHER.id).write_bytes(b"[]")
    runner = Runner(there.store, there.folder, "cpu", progress=Silent())
    alone = small_plain(seed=3, epochs=1)
    assert [*runner.run([dataclasses.replace(STUDENT, ce_weight=0.25), alone])] == [alone.id]
    assert "no run record" in "".join(runner.failed.values())
    assert {name.partition("/")[0] for name, _, _ in find_damaged(there.store)} == {"records"}


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(there, rkd, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    store = there.folder / "records"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        for line in (
            f"run --student resnet8 --set train_images=20 --set test_images=20 --results {there.folder / 'new'}",
            f"show records --results {store} --csv {there.folder / 'found.csv'}",
        ):
            status, out, err = rkd(line)
            assert status == 1 and err.splitlines()[-1].endswith(": No space left on device")
            assert str(there.folder) in err.splitlines()[-1]
        assert "1 runs of 1 configurations" in out, "what was found is printed first"
    left = [path for path in there.folder.rglob("*") if path.name.endswith((".tmp", ".csv"))]
    assert not left and not [*(there.folder / "new").glob("*.json")]
    status, _, err = rkd(f"run --student resnet8 --results {there.store.path(TEACHER.id) / 'below'}")
    assert status == 1 and "Not a directory" in err.splitlines()[-1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rkd", "show", "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and done.stderr == "rkd show models: No space left on device\n"
