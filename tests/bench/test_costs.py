"""Sizes of pairs, time recorded, time projected."""

import pytest
from conftest import tiny_plain, tiny_review

from rkd.bench import costs
from rkd.experiments.estimate import sizes, work
from rkd.records import Record


def save(store, run, seconds, device="a GPU", **cost):
    provenance = {"device_name": device, "train_images": 100}
    cost = {"train_seconds": seconds, "gang": 1, "arithmetic": "fp16", **cost}
    store.save(Record(run, "finished", {}, {"epochs": 2}, cost, provenance))


def test_sizes_of_the_best_known_pair():
    """Parameters as the released networks have them; multiply-adds as half the operations counted in a step."""
    from rkd.review import ReviewOptions

    options = ReviewOptions()
    run = tiny_review(options, network="resnet20", batch_size=128)
    found = costs.pair_cost(run)
    assert (found.student, found.teacher) == ("resnet20", "resnet14")
    assert (found.parameters["student"], found.parameters["extra"]) == (278_324, 114_278)
    assert found.macs["student"] == 40_818_944
    learning = 3 * (found.macs["student"] + found.macs["extra"])
    assert found.step_macs == 128 * (learning + found.macs["teacher"])
    # 14.4 GFLOP of fusion in a step, forward and backward, for 64 channels at 8, 8, 16 and 32 pixels
    assert 2 * 3 * 128 * found.macs["extra"] == pytest.approx(14.4e9, rel=0.02)


def test_pairs_of_the_tables_come_once(monkeypatch):
    monkeypatch.setattr(costs, "pair_cost", lambda run: (run.teacher.name, run.network))
    found = costs.pair_costs()
    assert len(found) == len(set(found)) == 8 and found[0] == ("resnet56", "resnet20")


def test_runs_that_chapters_share_count_once():
    runs = costs.paper_runs()
    assert set(runs) >= {"table1", "table3", "figure6"}
    assert not set(runs) & {"baselines", "kdrefine", "modreduce", "methods", "soft_targets_and_attention"}
    each = costs.once(runs)
    assert len(each) == len({run.id for part in runs.values() for run in part})
    assert len(each) < sum(len(part) for part in runs.values())


def test_spent_sums_by_device(store):
    runs = [tiny_plain(seed=seed) for seed in range(4)]
    save(store, runs[0], 10.0)
    save(store, runs[1], 5.0, energy_kj=7.0)
    save(store, runs[2], 1.0, device="a CPU")
    found = costs.spent(runs, store)
    assert (found.runs, found.recorded) == (4, 3)
    assert found.seconds == {"a GPU": 15.0, "a CPU": 1.0}
    assert (found.energy_kj, found.energy_runs) == (7.0, 1)


def test_rates_are_work_over_time(store):
    runs = [tiny_plain(precision="fp16"), tiny_review(precision="fp16"), tiny_plain(seed=1)]
    data = sizes(runs[0].data, "data")
    plain, review = (work(run, data) for run in runs[:2])
    save(store, runs[0], 4.0)
    save(store, runs[1], 6.0, gang=2)
    save(store, runs[2], 2.0, arithmetic="fp32")
    quick, single = costs.rates_of_records(runs, store)
    macs = 200 * plain.image + 200 * (review.image + review.teacher / 2)
    assert (quick.how, quick.source) == ("fp16", "2 recorded runs")
    assert quick.macs_per_second == pytest.approx(macs / 10.0)
    assert single.macs_per_second == pytest.approx(200 * plain.image / 2.0)
    assert costs.total_macs(runs[:1]) == pytest.approx(200 * plain.image + 2 * plain.evaluation)
    assert costs.rates_of_records(runs, type(store)(store.records / "none", store.work)) == []
