"""The order of most verdicts per second: on drawn needs, and on the declared claims."""

import random

import pytest
from evidence import record

from rkd.experiments.estimate import remaining_macs
from rkd.experiments.runner import unfinished
from rkd.experiments.selectors import Selectors
from rkd.judge import load_claims
from rkd.judge.order import can_be_decided, missing_runs, rank_groups


def drawn(draw):
    runs = [f"r{i}" for i in range(draw.randint(2, 7))]
    seconds = {run: draw.choice([0.5, 1, 2, 3, 7.25]) for run in runs}
    needs = {
        f"c{i}": frozenset(draw.sample(runs, draw.randint(1, min(4, len(runs)))))
        for i in range(draw.randint(1, 8))
    }
    return needs, seconds


@pytest.mark.parametrize("seed", range(8))
def test_every_run_is_trained_once_and_every_claim_decided_when_its_last_run_is(seed):
    needs, seconds = drawn(random.Random(100 + seed))
    trained, decided = set(), set()
    for runs, claims in rank_groups(needs, seconds):
        assert runs and claims and not trained & set(runs)
        trained |= set(runs)
        new = {claim for claim, need in needs.items() if need <= trained} - decided
        assert set(claims) == new
        decided |= new
    assert decided == set(needs) and trained == frozenset().union(*needs.values())


def test_a_shared_teacher_is_paid_once_and_what_it_opens_comes_first():
    """Alone, "a-value" costs more than "solo"; with all that its runs decide, it costs less a claim."""
    needs = {
        "a-value": {"t", "a"}, "a-beats-b": {"t", "a", "b"}, "a-gain": {"t", "a", "b"}, "b-value": {"b"},
        "solo": {"s"}, "late": {"t", "z"},
    }  # fmt: skip
    seconds = {"t": 3.0, "a": 2.0, "b": 1.0, "s": 1.8, "z": 9.0}
    order = rank_groups(needs, seconds)
    assert [runs for runs, _ in order] == [["b"], ["t", "a"], ["s"], ["z"]], "teachers first"
    assert set(order[1][1]) == {"a-value", "a-beats-b", "a-gain"}
    assert rank_groups({}, seconds) == []


# --- the declared claims ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def selectors():
    """Runs as they would be trained here, which is what a sweep plans."""
    return Selectors("paper", settled=True)


@pytest.fixture(scope="module")
def claims():
    """Those that Tables 1 and 3 answer."""
    return [claim for claim in load_claims(check=False) if set(claim.chapters) <= {"table1", "table3"}]


def planned(claims, selectors, store):
    """The groups, each with the configs of its runs."""
    needs = missing_runs(claims, selectors, store)
    configs = {run: config for need in needs.values() for run, config in need.items()}
    left = unfinished(configs.values(), store)
    price = remaining_macs(left, store, "data")
    order = rank_groups({claim: set(need) for claim, need in needs.items()}, price)
    return [(set(claims), [configs[run] for run in runs]) for runs, claims in order]


@pytest.mark.slow
def test_teachers_come_before_their_students_and_what_is_recorded_is_not_planned_again(
    claims, selectors, store
):
    plan = planned(claims, selectors, store)
    trained = set()
    for decided, configs in plan:
        for config in configs:
            assert not config.teacher or config.teacher.run.id in trained
            trained.add(config.id)
        assert decided
    (_, first), *later = plan
    for config in first:
        store.save(record(config, 70.0))
        store.folder(config.id).mkdir(parents=True)
        (store.folder(config.id) / "best.pt").touch()
    after = planned(claims, selectors, store)
    assert [decided for decided, _ in after] == [decided for decided, _ in later]


@pytest.mark.slow
def test_a_claim_is_left_out_once_too_many_of_its_runs_diverged(claims, selectors, store):
    claim = next(claim for claim in claims if claim.id == "table1-resnet20-alone")
    assert can_be_decided(claim, selectors)
    runs = selectors.runs(claim.selectors)
    assert set(missing_runs([claim], selectors, store)[claim.id]) == set(runs)
    assert missing_runs([claim], selectors, store, runs=list(runs)[1:]) == {}, "one is not to be trained"
    store.save(record(next(iter(runs.values())), 1.0, status="diverged"))
    assert missing_runs([claim], selectors, store) == {}


def test_short_runs_decide_directions_alone_and_from_three_seeds(store):
    """A gain has one, an accuracy has none; of runs on a part of the images nothing is said. No more than three seeds a
    side are asked for."""
    claims = {claim.id: claim for claim in load_claims(check=False)}
    gain, value = claims["table1-resnet20-resnet56-gain"], claims["table1-resnet20-resnet56-report"]
    for given, decided in (({}, True), ({"seeds": [0, 1]}, False), ({"train_images": 500}, False)):
        selectors = Selectors("short", given)
        assert can_be_decided(gain, selectors) == decided, given
        assert not can_be_decided(value, selectors), given
    needed = missing_runs([gain], Selectors("short", {"seeds": [0, 1, 2, 3, 4]}), store)[gain.id]
    assert sorted(config.seed for config in needed.values()) == [0, 0, 1, 1, 2, 2]
