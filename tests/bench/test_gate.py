"""The accuracy gate: pairs that differ in arithmetic alone, statistics by hand, a tiny run."""

import dataclasses
import math

import pytest
from conftest import tiny_plain

from rkd.bench import committed, gate, load, save
from rkd.cli import main
from rkd.errors import ConfigError
from rkd.experiments.settings import resolve
from rkd.records import Record

TINY = ["dataset=embedded", "train_images=100", "test_images=100", "epochs=1", "teacher=resnet8"]


def record(run, last, status="finished"):
    result = {"last_accuracy": last, "best_accuracy": last, "best_epoch": 0, "epochs": 1}
    return Record(run, status, {}, result, {}, {})


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
    assert gate.table(found).iloc[-2:, -1].tolist() == ["", f"+0.17 ± {error:.2f}"]
    assert found.diverged and not found.equal
    assert gate.last_accuracy(record(tiny_plain(), 70.0, "diverged")) is None
    alone = gate.Gate({}, "bf16", found.pairs[:1])
    assert math.isnan(alone.interval[0]) and not alone.equal and not alone.diverged
    save(tmp_path / "gate.json", found)
    assert load(tmp_path / "gate.json", gate.Gate) == found
    same = gate.Gate({}, "bf16", tuple(gate.Pair(seed, 70.0, 70.1) for seed in range(3)))
    assert same.equal and not gate.Gate({}, "bf16", ()).equal


def test_the_gates_on_record_load():
    (found,) = committed(gate.Gate).values()
    assert found.finding.startswith(f"{found.arithmetic} against fp32: ") and found.setting[0] == "cifar100"


def test_a_tiny_gate_is_trained_once_and_written(tmp_path, capsys):
    out = tmp_path / "gate.json"
    call = ["gate", "--profile", "smoke", "--seeds", "0", "--precision", "fp64", "--device", "cpu"]
    call += [part for entry in TINY for part in ("--set", entry)]
    call += ["--work", str(tmp_path / "work"), "--out", str(out)]
    assert main(call) == 0
    text = capsys.readouterr().out
    assert "fp64, %" in text and "mean ± standard error" in text
    records = sorted((tmp_path / "work" / "records").glob("*.json"))
    assert len(records) == 3, "a teacher and two students"
    times = [path.stat().st_mtime_ns for path in records]
    first = load(out, gate.Gate)
    assert first.arithmetic == "fp64" and first.header["train_images"] == 100 and len(first.pairs) == 1
    assert main(call) == 0
    assert times == [path.stat().st_mtime_ns for path in records]
    assert load(out, gate.Gate).pairs == first.pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a,b"], "seeds is 'a'"),
        (["--precision", "fp32"], "nothing to compare"),
        (["--precision", "fp8"], "unknown precision 'fp8'"),
        (["--chapter", "table9"], "unknown chapter 'table9'"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, message, capsys):
    assert main(["gate", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
