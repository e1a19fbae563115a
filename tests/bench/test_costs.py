"""Sizes of pairs, time recorded, time projected."""

import pytest
from conftest import tiny_plain, tiny_review
from evidence import whole

from rkd.bench import costs
from rkd.experiments.estimate import sizes, work
from rkd.review import ReviewOptions


def save(store, run, seconds, **cost):
    provenance = {"device_name": "a GPU", "train_images": 100}
    cost = {"train_seconds": seconds, "gang": 1, "arithmetic": "fp16", **cost}
    store.save(whole(run, cost=cost, provenance=provenance))


def test_sizes_of_the_best_known_pair():
    """Parameters as the released networks have them; multiply-adds as half the operations counted in a step."""
    run = tiny_review(ReviewOptions(), network="resnet20", batch_size=128)
    parameters, macs = costs.pair_cost(run).T.to_numpy()
    assert parameters[0] == 278_324 and parameters[2] == 114_278 and macs[0] == 40_818_944
    step = work(run, sizes(run.data, "data")).training(128)
    assert step == 128 * (3 * (macs[0] + macs[2]) + macs[1])
    # 14.4 GFLOP of fusion in a step, forward and backward, for 64 channels at 8, 8, 16 and 32 pixels
    assert 2 * 3 * 128 * macs[2] == pytest.approx(14.4e9, rel=0.02)


def test_runs_that_chapters_share_count_once():
    runs = costs.paper_runs()
    assert set(runs) >= {"table1", "table3", "figure6"}
    assert not set(runs) & {"baselines", "kdrefine", "modreduce", "methods", "soft_targets_and_attention"}
    each = costs.once(runs)
    assert len(each) == len({run.id for part in runs.values() for run in part})
    assert len(each) < sum(len(part) for part in runs.values())


def test_rates_are_work_over_time(store):
    runs = [tiny_plain(precision="fp16"), tiny_review(precision="fp16"), tiny_plain(seed=1)]
    data = sizes(runs[0].data, "data")
    plain, review = (work(run, data) for run in runs[:2])
    save(store, runs[0], 4.0)
    save(store, runs[1], 6.0, gang=2)
    save(store, runs[2], 2.0, arithmetic="fp32")
    quick, single = costs.rates_of_records(runs, store)
    macs = 200 * plain.image + 200 * (review.image + review.teacher / 2)
    assert (quick["how"], quick["source"]) == ("fp16", "2 recorded runs")
    assert quick["macs_per_second"] == pytest.approx(macs / 10.0)
    assert single["macs_per_second"] == pytest.approx(200 * plain.image / 2.0)
    assert costs.total_macs(runs[:1]) == pytest.approx(200 * plain.image + 2 * plain.evaluation)
    assert costs.rates_of_records(runs, type(store)(store.records / "none", store.work)) == []
