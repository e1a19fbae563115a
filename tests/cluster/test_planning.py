"""The plan of a sweep, and its simulation against schedules worked out by hand."""

import pytest
from conftest import small, small_plain, tiny_data
from evidence import whole

from rkd.bench import load, save
from rkd.cluster import planning
from rkd.cluster.planning import PlannedGroup, SweepPlan, simulate
from rkd.experiments.estimate import LEAST_IMAGE, run_macs
from rkd.experiments.runner import required

# Multiply-adds at 1 a second: teachers of 10 and 8 s, a student of 5 s of the first and one of 7 s of both.
LENGTHS = [(10, ()), (8, ()), (5, (0,)), (7, (0, 1))]


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.setattr(planning, "START_SECONDS", 0.0)
    groups = [
        PlannedGroup(1, macs, before, 4, 100, 800 * bool(before), macs == 10) for macs, before in LENGTHS
    ]
    return SweepPlan("own", 8, tuple(groups), 1.0, "as given")


@pytest.mark.parametrize(
    ("devices", "spans", "idle"),
    [
        (1, [(0, 10, 0), (10, 18, 0), (18, 23, 0), (23, 30, 0)], 0.0),
        (2, [(0, 10, 0), (0, 8, 1), (10, 15, 0), (10, 17, 1)], 1 - 30 / 34),
        (64, [(0, 10, 0), (0, 8, 1), (10, 15, 0), (10, 17, 1)], 1 - 30 / (64 * 17)),
    ],
)
def test_schedules_are_those_worked_out_by_hand(plan, devices, spans, idle):
    found = simulate(plan, devices)
    assert found.spans == tuple(spans) and found.idle == pytest.approx(idle)
    assert found.chain == 17 and found.seconds == spans[-1][1]
    assert simulate(plan, devices, 2.0).seconds == found.seconds / 2


def test_a_group_starts_slowly_and_its_checkpoints_travel(plan, monkeypatch):
    monkeypatch.setattr(planning, "START_SECONDS", 3.0)
    found = simulate(plan, 1)
    assert found.seconds == 42 and found.chain == 23
    pushes = (13 + 11 + 8 + 10) / planning.PUSH_SECONDS  # fewer than epochs
    weights = 2 * 800 + 4 * 2 * 100 + 3 * 100 * pushes
    assert found.traffic == pytest.approx(weights + 4 * planning.RECORD_BYTES)


def test_the_plan_of_runs_shares_the_teachers_pass_and_keeps_the_order(tmp_path, monkeypatch):
    students = [small(weights="best", seed=seed) for seed in (0, 1)]
    alone = small_plain(epochs=3)
    runs = required([*students, alone])
    made = planning.plan_sweep("own", runs, 8, tmp_path, 1e6)
    teacher, pair, other = made.groups
    assert (teacher.before, pair.before, other.before) == ((), (0,), ())
    assert (teacher.teaches, pair.runs, other.epochs) == (True, 2, 3)
    need = run_macs(students[0], planning.dataset_sizes(tiny_data(), tmp_path))
    need = need._replace(image=max(need.image, LEAST_IMAGE), teacher=need.teacher / 2)
    assert pair.macs == pytest.approx(2 * need.left(students[0]))
    assert pair.pulled == pair.weights, "two students, and last and best of the one teacher, of one network"
    save(tmp_path / "plan.json", made)
    assert load(tmp_path / "plan.json", SweepPlan).groups[1].before == (0,)


def test_the_rate_is_the_median_of_what_is_recorded(store, monkeypatch):
    monkeypatch.setattr(planning, "store_for", lambda profile: store)
    run = small_plain()
    for seed, seconds in enumerate((1.0, 2.0, 9.0)):
        store.save(whole(small_plain(seed=seed), cost={"train_seconds": seconds}))
    made = planning.plan_sweep("own", [run], 8, "data", None)
    assert made.rate == run_macs(run, planning.dataset_sizes(tiny_data(), "data")).training(80) / 2
    assert [group.runs for group in made.groups] == [1]
    assert made.source == "median of 9 recorded runs, none", "each of three profiles has them here"


def test_plans_are_simulated_and_written(done, tmp_path):
    out = done(f"cluster plan smoke --chapters table5 --gpus 1,3 --rate 1e9 --out {tmp_path}/plan.json")
    assert "runs in " in out and "at 1e+09 a second (as given):\n devices " in out and out.count("\n") >= 5
    assert load(tmp_path / "plan.json", SweepPlan).rate == 1e9


def test_without_a_record_the_rate_has_to_be_given(rkd, store, monkeypatch):
    monkeypatch.setattr(planning, "store_for", lambda profile: store)
    status, _, err = rkd("cluster plan smoke --chapters table5")
    assert status == 2 and "no recorded run tells the rate of a device; give --rate" in err


def test_the_page_shows_the_plans_on_file(monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    from rkd import paths
    from rkd.experiments.notebooks import read_notebook

    names = {"gpus": [1, 16], "rate": 2e13}
    for cell in read_notebook(paths.home() / "book" / "cluster.ipynb")["cells"]:
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            exec(cell["source"], names)
    plans = names["plans"]
    assert plans and {schedule.devices for _, schedule in names["rows"]} == {1, 16}
    for plan, schedule in names["rows"]:
        assert schedule.seconds == simulate(plan, schedule.devices, 2e13).seconds
        assert schedule.chain <= schedule.seconds and 0 <= schedule.idle < 1
        assert plan.tasks is None or plan.tasks[0] == 10_000
    assert len(names["said"]) == len(names["rows"])
    assert "16 devices, groups of 8: idle" in "; ".join(names["said"])
