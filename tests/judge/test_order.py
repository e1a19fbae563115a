"""The order of most verdicts per second: against brute force, and on the declared claims."""

import itertools
import random

import pytest
from evidence import record

from rkd.experiments.estimate import costs, unfinished
from rkd.experiments.selectors import Selectors
from rkd.judge import load_claims
from rkd.judge.order import _densest, can_be_decided, lacking, ranked


def subsets(items):
    return itertools.chain.from_iterable(itertools.combinations(items, n) for n in range(1, len(items) + 1))


def union(needs, chosen):
    return frozenset().union(*(needs[claim] for claim in chosen))


def brute_density(needs, seconds):
    """Claims per second of the best of all sets of claims."""
    best = 0.0
    for chosen in subsets(needs):
        runs = union(needs, chosen)
        gained = sum(need <= runs for need in needs.values())
        best = max(best, gained / sum(seconds[run] for run in runs))
    return best


def drawn(draw):
    runs = [f"r{i}" for i in range(draw.randint(2, 7))]
    seconds = {run: draw.choice([0.5, 1, 2, 3, 7.25]) for run in runs}
    needs = {
        f"c{i}": frozenset(draw.sample(runs, draw.randint(1, min(4, len(runs)))))
        for i in range(draw.randint(1, 8))
    }
    return needs, seconds


@pytest.mark.parametrize("seed", range(40))
def test_the_densest_set_is_that_of_brute_force(seed):
    needs, seconds = drawn(random.Random(seed))
    found = _densest(needs, seconds)
    runs = union(needs, found)
    assert len(found) / sum(seconds[run] for run in runs) == pytest.approx(brute_density(needs, seconds))


@pytest.mark.parametrize("seed", range(20))
def test_every_run_is_trained_once_and_every_claim_decided_when_its_last_run_is(seed):
    needs, seconds = drawn(random.Random(100 + seed))
    trained, decided = set(), set()
    for group in ranked(needs, seconds):
        assert group.runs and group.claims and not trained & set(group.runs)
        assert group.seconds == pytest.approx(sum(seconds[run] for run in group.runs))
        trained |= set(group.runs)
        new = {claim for claim, need in needs.items() if need <= trained} - decided
        assert set(group.claims) == new
        decided |= new
    assert decided == set(needs) and trained == union(needs, needs)


@pytest.mark.parametrize("seed", range(20))
def test_no_plan_decides_more_for_what_the_first_set_costs(seed):
    needs, seconds = drawn(random.Random(200 + seed))
    block = _densest(needs, seconds)
    spent = sum(seconds[run] for run in union(needs, block))
    for chosen in subsets(seconds):
        if sum(seconds[run] for run in chosen) <= spent:
            assert sum(need <= set(chosen) for need in needs.values()) <= sum(
                need <= union(needs, block) for need in needs.values()
            )


def test_a_shared_teacher_is_paid_once_and_what_it_opens_comes_first():
    """Alone, "a-value" costs more than "solo"; with all that its runs decide, it costs less a claim."""
    needs = {
        "a-value": {"t", "a"}, "a-beats-b": {"t", "a", "b"}, "a-gain": {"t", "a", "b"}, "b-value": {"b"},
        "solo": {"s"}, "late": {"t", "z"},
    }  # fmt: skip
    seconds = {"t": 3.0, "a": 2.0, "b": 1.0, "s": 1.8, "z": 9.0}
    order = ranked(needs, seconds)
    assert [set(group.runs) for group in order] == [{"b"}, {"t", "a"}, {"s"}, {"z"}]
    assert set(order[1].claims) == {"a-value", "a-beats-b", "a-gain"}
    assert order[1].runs == ("t", "a"), "in the order of the costs, teachers first"
    assert ranked({}, seconds) == []


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
    needs = lacking(claims, selectors, store)
    configs = {run: config for need in needs.values() for run, config in need.items()}
    left = unfinished(configs.values(), store)
    price = costs(left, store, device="cuda", group=8, data_root="data")
    order = ranked({claim: set(need) for claim, need in needs.items()}, price)
    return [(group, [configs[run] for run in group.runs]) for group in order]


@pytest.mark.slow
def test_the_first_column_of_table_1_comes_first_and_what_is_recorded_is_not_planned_again(
    claims, selectors, store
):
    (taught, states), (alone, students), *later = planned(claims, selectors, store)
    assert [c.network for c in states] == ["resnet56"] + ["resnet20"] * 5, "the teacher, then five seeds"
    assert {(c.method, c.teacher.name) for c in states[1:]} == {("reviewkd", "resnet56")}
    assert {c.seed for c in states[1:]} == {c.seed for c in students} == set(range(5))
    assert {(c.network, c.teacher) for c in students} == {("resnet20", None)}
    column = {
        c.id for c in claims if {s.rpartition("-")[0] for s in c.selectors} == {"table1/resnet20-resnet56"}
    }
    assert column == {*taught.claims, *alone.claims} and len(column) >= 11
    for config in (*states, *students):
        store.save(record(config, 70.0))
    folder = store.folder(states[0].id)
    folder.mkdir(parents=True)
    (folder / "best.pt").touch()
    after = planned(claims, selectors, store)
    assert [set(group.claims) for group, _ in after] == [set(group.claims) for group, _ in later]


@pytest.mark.slow
def test_a_claim_is_left_out_once_too_many_of_its_runs_diverged(claims, selectors, store):
    claim = next(claim for claim in claims if claim.id == "table1-resnet20-alone")
    assert can_be_decided(claim, selectors)
    runs = selectors.runs(claim.selectors)
    assert set(lacking([claim], selectors, store)[claim.id]) == set(runs)
    assert lacking([claim], selectors, store, runs=list(runs)[1:]) == {}, "not among the runs to be trained"
    store.save(record(next(iter(runs.values())), 1.0, status="diverged"))
    assert lacking([claim], selectors, store) == {}
