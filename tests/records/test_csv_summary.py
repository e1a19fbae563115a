"""One line per configuration: grouping, the latest N, means and deviations, and what stands in the CSV."""

import csv
import dataclasses
import io
import math

import pytest
from conftest import tiny_plain, tiny_review
from evidence import record

from rkd.cli import main
from rkd.errors import ConfigError
from rkd.records.csv_summary import as_csv, summarise
from rkd.review import ReviewOptions


def ended(config, last, best, hour, status="finished"):
    made = record(config, last, best, status)
    return dataclasses.replace(made, provenance={**made.provenance, "ended": f"2026-01-01T{hour:02}:00:00Z"})


def four_runs():
    """Seeds 0 to 3 in this order of ending: 1, 0, 3, 2."""
    values = {1: (60.0, 61.0, 5), 0: (62.0, 64.0, 6), 3: (70.0, 71.0, 7), 2: (71.0, 75.0, 8)}
    return [ended(tiny_plain(seed=seed), *v) for seed, v in sorted(values.items())]


def test_mean_and_sample_deviation_of_all_and_of_the_last_ones():
    (s,) = summarise(four_runs())
    assert (s.n, s.seeds, s.last_mean) == (4, (1, 0, 3, 2), (60 + 62 + 70 + 71) / 4)
    mean = (61 + 64 + 71 + 75) / 4
    assert s.best_mean == mean
    assert s.best_sd == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in (61, 64, 71, 75)) / 3))
    assert s.configuration == tiny_plain(seed=0).id and s.ended.endswith("T08:00:00Z")
    (s,) = summarise(four_runs(), last=2)
    assert (s.n, s.seeds, s.last_mean, s.last_sd) == (2, (3, 2), 70.5, pytest.approx(math.sqrt(0.5)))
    (s,) = summarise(four_runs(), last=1)
    assert (s.n, s.last_mean, s.last_sd) == (1, 71.0, None)
    with pytest.raises(ConfigError, match="last is 0"):
        summarise(four_runs(), last=0)


def test_no_mean_is_over_two_arithmetics():
    """The same run in another, or of a teacher in another, is a configuration of its own; each line names its own."""
    request = tiny_review(teacher_weights="last").request
    ways = [("fp32", "fp32"), ("fp16", "fp16"), ("fp16", "bf16")]
    made = [
        record(dataclasses.replace(request, seed=seed), 60.0 + seed, arithmetic=own, teachers=theirs)
        for own, theirs in ways
        for seed in range(2)
    ]
    found = summarise(made)
    assert [s.n for s in found] == [2, 2, 2] and len({s.configuration for s in found}) == 3
    assert {s.arithmetic for s in found} == {"fp32", "fp16", "fp16 from a bf16 teacher"}
    assert "fp16 from a bf16 teacher" in as_csv(found)


def test_configurations_are_apart_and_say_by_what():
    weights = [
        tiny_review(ReviewOptions(warmup_epochs=0, loss_weight=w), seed=s) for w in (1, 2) for s in (0, 1)
    ]
    longer = tiny_plain(epochs=3)
    records = [*four_runs(), ended(longer, 50.0, 50.0, 1), *(ended(c, 40.0, 41.0, 2) for c in weights)]
    found = summarise(records)
    assert [s.n for s in found] == [1, 4, 2, 2] or [s.n for s in found] == [4, 1, 2, 2]
    assert {s.differs for s in found} == {
        "epochs=2",
        "epochs=3",
        "options.loss_weight=1.0",
        "options.loss_weight=2.0",
    }
    assert {s.method for s in found} == {"", "reviewkd"} and {s.teacher for s in found} == {"", "resnet14"}


def test_diverged_runs_are_counted_and_leave_the_mean_alone():
    (s,) = summarise([ended(tiny_plain(), 60.0, 61.0, 1), ended(tiny_plain(seed=1), 1.0, 1.0, 2, "diverged")])
    assert (s.n, s.diverged, s.last_mean, s.last_sd) == (1, 1, 60.0, None)
    (s,) = summarise([ended(tiny_plain(), 1.0, 1.0, 2, "diverged")])
    assert (s.n, s.diverged, s.last_mean) == (0, 1, None)


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(as_csv(summarise(four_runs())))))
    assert len(rows) == 1 and rows[0]["seeds"] == "1 0 3 2" and rows[0]["last_mean"] == "65.7500"
    assert rows[0]["teacher"] == "" and rows[0]["dataset"] == "embedded"


def test_command(store, tmp_path, capsys):
    assert main(["summary", "--results", str(tmp_path / "records")]) == 1
    assert "no runs are recorded" in capsys.readouterr().out
    for one in four_runs():
        store.save(one)
    file = tmp_path / "s.csv"
    assert main(["summary", "--results", str(tmp_path / "records"), "--last", "3", "--csv", str(file)]) == 0
    out = capsys.readouterr().out
    assert tiny_plain().id in out and "67.67" in out and "3 runs of 1 configurations" in out
    assert float(next(csv.DictReader(file.open()))["last_mean"]) == pytest.approx(
        (62 + 70 + 71) / 3, abs=1e-4
    )
    assert main(["summary", "--last", "0", "--results", str(tmp_path / "records")]) == 2
    assert main(["summary", "--profile", "papr"]) == 2
