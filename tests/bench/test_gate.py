"""The accuracy gate: pairs that differ in arithmetic alone, statistics by hand, a tiny run."""

import dataclasses
import math

import pytest

from rkd.bench import committed, gate, load, save
from rkd.errors import ConfigError
from rkd.experiments.settings import resolve


def test_pairs_differ_in_arithmetic_alone():
    settings = resolve("table3", {"profile": "mini", "seeds": [0, 3], "precision": "bf16"})
    pairs = gate.paired_runs(settings, "table3", "full", "auto")
    assert [a.seed for a, _ in pairs] == [0, 3]
    for a, b in pairs:
        assert (a.precision, b.precision) == ("fp32", "auto") and a.id != b.id
        assert dataclasses.replace(b, precision="fp32") == a
        assert a.teacher == b.teacher and a.teacher.run.precision == "fp32"
    with pytest.raises(ConfigError, match="unknown row of table3 'ful'"):
        gate.paired_runs(settings, "table3", "ful", "auto")


def test_statistics_by_hand(tmp_path):
    values = [(70.0, 70.5), (71.0, 70.0), (69.0, 70.0), (72.0, None)]  # +0.5, -1, +1
    found = gate.Gate({}, "bf16", tuple(gate.Pair(seed, *pair) for seed, pair in enumerate(values)))
    assert found.differences.tolist() == [0.5, -1.0, 1.0]
    deviations = [d - 0.5 / 3 for d in found.differences]
    error = math.sqrt(sum(d * d for d in deviations) / 2 / 3)
    assert found.interval == pytest.approx((0.5 / 3 - 2.919986 * error, 0.5 / 3 + 2.919986 * error))
    assert gate.accuracy_table(found).iloc[-2:, -1].tolist() == ["", f"+0.17 ± {error:.2f}"]
    assert found.diverged and not found.equal
    alone = gate.Gate({}, "bf16", found.pairs[:1])
    assert math.isnan(alone.interval[0]) and not alone.equal and not alone.diverged
    save(tmp_path / "gate.json", found)
    assert load(tmp_path / "gate.json", gate.Gate) == found
    same = gate.Gate({}, "bf16", tuple(gate.Pair(seed, 70.0, 70.1) for seed in range(3)))
    assert same.equal and not gate.Gate({}, "bf16", ()).equal


def test_the_gate_on_record_is_about_its_own_setting():
    """bf16 against fp32 on three seeds: 0.11 +- 2.92 * 0.127, within half a point; of 4 epochs on 12,000 images."""
    (found,) = committed(gate.Gate).values()
    half = 2.919986 * 0.12701705922171702
    assert found.interval == pytest.approx((0.11 - half, 0.11 + half)) and found.equal
    assert found.finding == (
        "bf16 against fp32: equal within 0.5 points (-0.26 to +0.48, 90 %) in 4 epochs on 12,000 images of cifar100"
    )
    assert not dataclasses.replace(found, pairs=(*found.pairs, gate.Pair(3, 25.0, None))).equal


def test_a_tiny_gate_is_trained_once_and_written(tmp_path, done):
    out, work = tmp_path / "gate.json", tmp_path / "work"
    call = "gate --profile smoke --seeds 0 --precision fp64 --device cpu"
    given = ("dataset=embedded", "train_images=20", "test_images=20", "epochs=1", "teacher=resnet8")
    call = " ".join([call, *(f"--set {entry}" for entry in given), f"--work {work} --out {out}"])
    text = done(call)
    assert "fp64, %" in text and "mean ± standard error" in text
    records = sorted((work / "records").glob("*.json"))
    assert len(records) == 3, "a teacher and two students"
    times, first = [path.stat().st_mtime_ns for path in records], load(out, gate.Gate)
    assert first.arithmetic == "fp64" and first.header["train_images"] == 20 and len(first.pairs) == 1
    done(call)
    assert times == [path.stat().st_mtime_ns for path in records]
    assert load(out, gate.Gate).pairs == first.pairs
