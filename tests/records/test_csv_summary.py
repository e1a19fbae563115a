"""One line per configuration: grouping, the latest N, means and deviations, and what stands in the CSV."""

import csv
import dataclasses
import math

import pytest
from conftest import tiny_data, tiny_plain, tiny_review
from evidence import record

from rkd.errors import ConfigError
from rkd.records.csv_summary import summarise
from rkd.review import ReviewOptions

# Seeds by hour of ending: accuracies at the last and at the best epoch.
FOUR = {5: (1, 60.0, 61.0), 6: (0, 62.0, 64.0), 7: (3, 70.0, 71.0), 8: (2, 71.0, 75.0)}


def ended(config, last, best, hour, status="finished"):
    made = record(config, last, best, status)
    return dataclasses.replace(made, provenance={**made.provenance, "ended": f"2026-01-01T{hour:02}:00:00Z"})


def four_runs():
    return [
        ended(tiny_plain(seed=seed), last, best, hour)
        for hour, (seed, last, best) in sorted(FOUR.items(), key=lambda item: item[1])
    ]


def one(records, **options):
    (row,) = summarise(records, **options).itertuples()
    return row


def test_mean_and_sample_deviation_of_all_and_of_the_last_ones():
    s = one(four_runs())
    assert (s.n, s.seeds, s.last_mean) == (4, "1 0 3 2", (60 + 62 + 70 + 71) / 4)
    assert s.runs.split() == [tiny_plain(seed=seed).id for seed in (1, 0, 3, 2)]
    mean = (61 + 64 + 71 + 75) / 4
    assert s.best_mean == mean
    assert s.best_sd == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in (61, 64, 71, 75)) / 3))
    assert s.configuration == tiny_plain(seed=0).id and s.ended.endswith("T08:00:00Z")
    s = one(four_runs(), last=2)
    assert (s.n, s.seeds, s.last_mean, s.last_sd) == (2, "3 2", 70.5, pytest.approx(math.sqrt(0.5)))
    s = one(four_runs(), last=1)
    assert (s.n, s.last_mean) == (1, 71.0) and math.isnan(s.last_sd)
    with pytest.raises(ConfigError, match="last is 0"):
        summarise(four_runs(), last=0)


def test_no_mean_is_over_two_arithmetics():
    """The same run in another, or of a teacher in another, is a configuration of its own; each line names its own."""
    request = tiny_review(teacher_weights="last").request
    ways = [("fp32", "fp32"), ("fp16", "fp16"), ("fp16", "bf16")]
    found = summarise(
        record(dataclasses.replace(request, seed=seed), 60.0 + seed, arithmetic=own, teachers=theirs)
        for own, theirs in ways
        for seed in range(2)
    )
    assert list(found["n"]) == [2, 2, 2] and found["configuration"].is_unique
    assert set(found["arithmetic"]) == {"fp32", "fp16", "fp16 from a bf16 teacher"}


def test_configurations_are_apart_and_say_by_what():
    weights = [
        tiny_review(ReviewOptions(warmup_epochs=0, loss_weight=w), seed=s) for w in (1, 2) for s in (0, 1)
    ]
    longer = ended(tiny_plain(epochs=3), 50.0, 50.0, 1)
    found = summarise([*four_runs(), longer, *(ended(c, 40.0, 41.0, 2) for c in weights)])
    assert dict(zip(found["differs"], found["n"], strict=True)) == {
        "epochs=2": 4, "epochs=3": 1, "options.loss_weight=1.0": 2, "options.loss_weight=2.0": 2,
    }  # fmt: skip


def test_diverged_runs_are_counted_and_leave_the_mean_alone():
    gone = ended(tiny_plain(seed=1), 1.0, 1.0, 2, "diverged")
    s = one([ended(tiny_plain(), 60.0, 61.0, 1), gone])
    assert (s.n, s.diverged, s.last_mean) == (1, 1, 60.0) and math.isnan(s.last_sd)
    s = one([gone])
    assert (s.n, s.diverged) == (0, 1) and math.isnan(s.last_mean)


def test_command_and_its_csv(store, tmp_path, rkd):
    call, file = f"summary --results {store.records}", tmp_path / "s.csv"
    status, out, _ = rkd(call)
    assert status == 1 and "no runs are recorded" in out
    for made in (*four_runs(), ended(tiny_plain(data=tiny_data(train_images=None)), 1, 2, 3)):
        store.save(made)
    status, out, _ = rkd(f"{call} --last 3 --csv {file}")
    assert status == 0 and tiny_plain().id in out and "67.67" in out and "4 runs of 2 configurations" in out
    rows = list(csv.DictReader(file.open()))
    assert {"configuration", "student", "arithmetic", "differs", "seeds", "runs", "best_sd"} < {*rows[0]}
    by_images = {row["train_images"]: row for row in rows}
    assert by_images["100"]["seeds"] == "0 3 2" and by_images["100"]["last_mean"] == "67.6667"
    assert by_images[""]["last_sd"] == "" and by_images[""]["teacher"] == ""
