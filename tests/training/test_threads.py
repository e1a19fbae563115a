"""The number of threads: by step times that are given, not measured; then that training really computes with it."""

import math
import os

import pytest
import torch
from conftest import tiny_plain

from rkd import data
from rkd.cli import main
from rkd.cli.status import time_left
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.report.book.execution import threads_of
from rkd.training import Engine, TrainState, train
from rkd.training.state import build_network
from rkd.training.threads import PERIOD, SHARE, STEPS, Threads, better, fixed, numbers

CPU = torch.device("cpu")


@pytest.fixture
def cores(monkeypatch):
    """Says how many cores this process has, with OMP_NUM_THREADS not set."""

    def have(number):
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(number)), raising=False)

    yield have
    torch.set_num_threads(1)


class Machine:
    """Steps whose seconds depend on the number of threads: 20 times as long for more than `free` of them."""

    def __init__(self, threads, free=2, one=0.6, broken=20.0):
        self.threads, self.free, self.one, self.broken = threads, free, one, broken
        self.used, self.expected, self.seconds = [], [], 0.0

    def step(self, whole=True, seconds=None):
        number = self.threads.take()
        assert number == torch.get_num_threads()
        if seconds is None:
            seconds = self.one * self.broken if number > self.free else self.one / number
        self.used.append(number)
        self.seconds += seconds
        self.expected.append(self.threads.took(seconds, whole))
        return number

    def steps(self, count):
        return [self.step() for _ in range(count)]


@pytest.fixture
def machine():
    """Makes one that counts the changes of torch's number without starting threads."""
    made = []

    def make(choice=(1, 2), left=lambda: math.inf, first=1.0, **values):
        said = []
        made.append(Machine(Threads(choice, said.append, left, first), **values))
        made[-1].said = said
        return made[-1]

    yield make
    torch.set_num_threads(1)


def test_more_threads_are_taken_where_they_are_quicker(machine):
    m = machine(free=2)
    assert m.steps(12) == [1] * 4 + [2] * 8, "a cold step and three that count, of each; then the quicker"
    assert m.said == ["2 threads: 0.3 s a step, 1 thread: 0.6 s; going on with 2"]


def test_a_busy_machine_costs_one_slow_step(machine):
    m = machine(free=1)
    assert m.steps(30) == [1] * 4 + [2] + [1] * 25
    assert m.said == ["2 threads: 12 s a step, 1 thread: 0.6 s; going on with 1"]
    # The step's 12 s are no estimate of the next one's: a budget must not end training for them.
    assert m.expected == [0.6] * 30
    assert torch.get_num_threads() == 1


def test_the_number_on_trial_is_in_force_in_its_steps_alone(machine):
    m = machine(free=2)
    m.steps(5)
    assert m.used[-1] == 2 and torch.get_num_threads() == 1, "evaluation uses what is known to be good"
    m.steps(3)
    assert torch.get_num_threads() == 2


def test_it_is_tried_again_when_the_neighbour_has_gone(machine):
    m = machine(free=1)
    m.steps(40)
    assert m.used.count(2) == 1
    m.free = 2
    while m.step() == 1:
        assert m.seconds < 3 * PERIOD
    assert PERIOD < m.seconds < PERIOD + 20
    m.steps(10)
    assert m.used[-1] == 2 and len(m.said) == 2


def test_a_comparison_that_changes_nothing_is_told_once(machine):
    m = machine(free=1)
    while m.seconds < 4 * PERIOD:
        m.step()
    assert m.used.count(2) == 4 and len(m.said) == 1


def test_trials_take_a_small_share_of_the_time(machine):
    """Steps of a large group: one that is 20 times as slow takes 200 s, most of a period."""
    m = machine(free=1, one=10.0)
    while m.seconds < 100 * PERIOD:
        m.step()
    slow = 200 * m.used.count(2)
    assert m.used.count(2) > 3 and slow < 1.1 * SHARE * m.seconds + 200


def test_a_neighbour_that_arrives_is_noticed_at_once(machine):
    m = machine(free=2)
    m.steps(60)
    assert m.used[-1] == 2
    m.free = 1
    assert m.steps(12)[:4] == [2, 2, 1, 1] and m.used[-1] == 1
    assert "1 thread: 0.6 s a step, 2 threads: 12 s; going on with 1" in m.said


def test_a_machine_that_is_slower_as_a_whole_is_asked_once(machine):
    m = machine(free=2)
    m.steps(60)
    m.one *= 10
    m.steps(10)
    assert m.used[-1] == 2 and m.used[60:].count(1) == 4, "one trial"
    m.steps(20)
    assert m.used[60:].count(1) == 4


def test_many_cores_are_climbed_as_long_as_it_helps(machine):
    m = machine((1, 2, 4, 8, 12), free=4)
    m.steps(60)
    assert m.used[-1] == 4 and m.used.count(8) == 1 and 12 not in m.used
    m = machine((1, 2, 4, 6), free=8)
    m.steps(60)
    assert m.used[-1] == 6
    while m.seconds < 2 * PERIOD:  # then the neighbour below is tried, which is slower
        m.step()
    assert m.used[-1] == 6 and set(m.used[60:]) == {4, 6}


def test_no_trial_is_begun_at_the_end_of_a_budget(machine):
    left = [17.0]  # less than 30 steps of 0.6 s
    m = machine(free=1, left=lambda: left[0])
    assert m.steps(50) == [1] * 50
    left[0] = 19.0
    assert m.steps(2)[-1] == 2


def test_short_batches_and_first_steps_are_not_compared(machine):
    m = machine(free=2)
    m.step(seconds=30.0)  # cold
    m.steps(2)
    m.step(whole=False, seconds=0.01)
    m.steps(1)
    assert m.used == [1] * 5
    assert m.step(seconds=2.1) == 2, "its first step prepares kernels"
    m.step(whole=False, seconds=0.01)
    assert m.steps(STEPS + 1) == [2] * 4


def test_other_work_begins_a_comparison_anew(machine):
    m = machine(free=2)
    m.steps(5)
    assert m.used[-1] == 2
    m.threads.begin()
    m.one = 6.0
    assert m.steps(8) == [1] * 4 + [2] * 4
    m.steps(2)
    assert m.used[-1] == 2 and m.said == ["2 threads: 3 s a step, 1 thread: 6 s; going on with 2"]


def test_when_a_trial_is_decided():
    assert better([3.1], 1.0) is False and better([2.9], 1.0) is None
    assert better([80.0], 1.0, first=91.0) is None, "a compiled step is compiled once for each number"
    assert better([1.0, 2.1], 1.0) is False and better([1.0, 1.9], 1.0) is None
    assert better([9.0, 0.9, 12.0, 0.9], 10.0) is True and better([1.0, 0.96, 0.9, 0.96], 1.0) is False


def test_without_a_choice_nothing_is_touched():
    torch.set_num_threads(1)
    none = Threads()
    assert none.take() == 1 and none.took(5.0) == 5.0
    one = Threads((1,))
    assert [one.take() for _ in range(9) if one.took(1.0) == 1.0] == [1] * 9


def test_numbers_to_choose_from(cores, monkeypatch):
    assert numbers("auto", CPU) == (1,) and fixed("auto", CPU) == 1, "OMP_NUM_THREADS of the tests"
    for number, choice in ((1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        cores(number)
        assert numbers("auto", CPU) == choice
    assert fixed("auto", CPU) is None and fixed(3, CPU) == 3
    assert numbers(3, CPU) == (3,) and numbers("auto", torch.device("cuda")) == ()
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert numbers("auto", CPU) == (4,) and numbers(3, CPU) == (3,), "what is asked for by name wins"
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS is 'all'; it must be a whole number >= 1"):
        Engine().check(CPU)
    with pytest.raises(ConfigError, match="threads is 'many'; it must be auto or a whole number >= 1"):
        Engine(threads="many").check(CPU)


def test_threads_are_a_parameter_and_no_part_of_a_run(capsys):
    assert resolve("table3", {}).threads == "auto" and resolve("table3", {"threads": "2"}).threads == 2
    for value in ("0", "many"):
        assert main(["run", "--student", "resnet8", "--threads", value]) == 2
        err = capsys.readouterr().err
        assert f"threads is {value!r}; it must be auto or a whole number >= 1" in err and err.count("\n") == 1
    ids = []
    for more in ([], ["--threads", "2"]):
        assert main(["run", "--student", "resnet8", "--dry-run", *more]) == 0
        ids.append(capsys.readouterr().out)
    assert ids[0] == ids[1]


def test_chapters_side_by_side_share_the_cores(monkeypatch):
    monkeypatch.setattr("rkd.report.book.execution.cpus", lambda: 4)
    names = ["a", "b", "c", "performance"]
    assert [threads_of(name, names, 2, ["performance"]) for name in names] == [2, 2, 2, None]
    assert threads_of("a", names, 1, []) is None and threads_of("a", names, 9, []) == 1


# --- real steps ----------------------------------------------------------------------------------------


def ten_steps(**values):
    return tiny_plain(batch_size=10, **values)


def test_training_computes_with_the_number_and_the_record_says_so(cores, store, silent, tmp_path):
    cores(2)
    config = ten_steps()
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    counts = record.cost["threads"]
    assert set(counts) == {"1", "2"} and sum(counts.values()) == 20 and counts["1"] >= 4
    assert record.provenance["threads"] == int(max(counts, key=counts.get))
    (said,) = [text for text in silent.said if "going on with" in text]
    assert said.startswith("2 threads: ")


def test_each_step_has_its_number(monkeypatch):
    class Planned(Threads):
        """Two threads in every third step, whatever it takes; each next one is said to take 7 s."""

        def __init__(self):
            super().__init__((1, 2))
            self.made = 0

        def take(self):
            self.made += 1
            torch.set_num_threads(2 if self.made % 3 == 0 else 1)
            return torch.get_num_threads()

        def took(self, seconds, whole=True):
            return 7.0

    seen, asked = [], []
    config = ten_steps(epochs=1)
    state = TrainState(config, build_network(config, 100), None)
    step = TrainState.step

    def watched(self, *arguments):
        seen.append(torch.get_num_threads())
        step(self, *arguments)

    monkeypatch.setattr(TrainState, "step", watched)
    try:
        train(
            [state],
            data.load(config.data),
            None,
            threads=Planned(),
            stop=lambda needed: bool(asked.append(needed)),
        )
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 1, 2] * 3 + [1] and state.threads == {"1": 7, "2": 3}
    assert asked[1:10] == [7.0] * 9


def test_a_resumed_run_counts_all_its_steps(store, silent, tmp_path):
    config = ten_steps(epochs=1)
    asked = []
    stop = lambda needed: len(asked) > 6 or bool(asked.append(needed))  # noqa: E731
    Runner(store, tmp_path, "cpu", progress=silent, stop=stop).run([config])
    engine = Engine(threads=2)
    try:
        record = Runner(store, tmp_path, "cpu", progress=silent, engine=engine).run([config])[config.id]
    finally:
        torch.set_num_threads(1)
    counts = record.cost["threads"]
    assert counts["1"] + counts["2"] == 10 and counts["1"] >= 4 and counts["2"] >= 3
    assert record.provenance["threads"] == int(max(counts, key=counts.get))


def test_time_left_is_told_by_records_of_the_number_in_force(store, silent, tmp_path, cores):
    config = ten_steps(epochs=1)
    Runner(store, tmp_path, "cpu", progress=silent).run([config])
    left = [ten_steps(epochs=1, seed=1)]

    def seconds(**given):
        return time_left(left, resolve("run", {"data_root": str(tmp_path), **given}), store).seconds

    assert seconds(threads=1) > 0 and seconds(threads=2) is None
    cores(2)
    assert seconds() > 0, "measured while training: any record of this machine tells"
