"""The number of threads: by step times that are given, not measured; then that training really computes with it."""

import os

import pytest
import torch
from conftest import small_plain

from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.training import Engine, TrainState
from rkd.training.threads import PERIOD, SHARE, Threads, convolution_seconds, thread_choices

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Says how many cores this process has, with OMP_NUM_THREADS not set."""

    def have(number):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(number)), raising=False)

    yield have
    torch.set_num_threads(1)


class Machine:
    """Work whose seconds depend on the number of threads: 20 times as long for more than `free` of them."""

    def __init__(self, choice=(1, 2), free=2):
        self.free, self.one, self.now, self.probed, self.said = free, 0.6, 0.0, [], []
        self.threads = Threads(choice, self.said.append, self.probe, lambda: self.now)

    def seconds(self, number):
        return 20 * self.one if number > self.free else self.one / number

    def probe(self, number):
        self.probed.append(number)
        self.now += 0.02
        return self.seconds(number) / 100

    def steps(self, count, whole=True, seconds=None):
        used = []
        for _ in range(count):
            used.append(self.threads.take())
            assert used[-1] == torch.get_num_threads()
            took = self.seconds(used[-1]) if seconds is None else seconds
            self.now += took
            self.threads.took(took, whole)
        return used


def test_as_many_threads_as_help_from_the_first_step_on():
    machine = Machine()
    assert machine.steps(30) == [2] * 30 and machine.probed == [1, 2]
    assert machine.said == ["going on with 2 threads (a convolution: 6 ms with 1, 3 ms with 2)"]
    assert Machine((1, 2, 4, 8), free=4).steps(3) == [4] * 3


def test_beside_a_busy_process_no_step_is_tried_with_more_threads_than_are_free():
    machine = Machine(free=1)
    assert machine.steps(400) == [1] * 400
    assert machine.probed == [1, 2] * 4 and len(machine.said) == 1, "240 s: at first, then once a minute"


def test_a_neighbour_that_arrives_costs_one_step_and_one_that_leaves_a_minute():
    machine = Machine()
    machine.steps(60)
    machine.free = 1
    assert machine.steps(4) == [2, 1, 1, 1]
    machine.free = 2
    used = machine.steps(120)
    assert used.index(2) == pytest.approx(PERIOD / 0.6, abs=4) and used[-1] == 2 and len(machine.said) == 3


def test_probes_take_a_small_share_of_the_time():
    machine = Machine()
    for i in range(200):  # every other step is slow: something has changed, all the time
        machine.steps(1, seconds=0.01 * (1 + 9 * (i % 2)))
    assert 0.02 * len(machine.probed) < 1.1 * SHARE * machine.now + 0.04


def test_what_cannot_be_compared_is_not():
    machine = Machine()
    machine.steps(10)
    machine.steps(1, whole=False, seconds=1e-3)  # a short batch
    machine.threads.begin()  # other steps from here on
    machine.one = 6.0
    machine.steps(4)
    assert machine.probed == [1, 2]


def test_without_a_choice_nothing_is_touched():
    none, one = Threads(), Threads((1,))
    assert none.take() == 1 and [one.take() for _ in range(9)] == [1] * 9


def test_numbers_to_choose_from(cores, monkeypatch):
    assert thread_choices("auto", CPU) == (1,), "OMP_NUM_THREADS of the tests"
    for number, choice in ((1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))):
        cores(number)
        assert thread_choices("auto", CPU) == choice
    assert thread_choices(3, CPU) == (3,) and thread_choices("auto", torch.device("cuda")) == (
        torch.get_num_threads(),
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert thread_choices("auto", CPU) == (4,) and thread_choices(3, CPU) == (3,), (
        "what is asked for by name wins"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS is 'all'; it must be a whole number >= 1"):
        Engine().check(CPU)
    with pytest.raises(ConfigError, match="threads is 'many'; it must be auto or a whole number >= 1"):
        Engine(threads="many")


def test_threads_are_a_parameter_and_no_part_of_a_run(rkd, done):
    assert resolve("table3", {}).threads == "auto" and resolve("table3", {"threads": "2"}).threads == 2
    status, _, err = rkd("run --student resnet8 --threads 0")
    assert (
        status == 2 and "threads is 0; it must be auto or a whole number >= 1" in err and err.count("\n") == 1
    )
    run = "run --student resnet8 --dry-run"
    assert done(run) == done(f"{run} --threads 2")


def test_a_resumed_run_computes_with_the_numbers_that_its_record_tells(
    cores, store, silent, tmp_path, monkeypatch
):
    """Measured at first, then fixed."""
    seen, step = [], TrainState.step

    def told(self, *batch):
        step(self, *batch)
        seen.append(torch.get_num_threads())

    monkeypatch.setattr(TrainState, "step", told)
    cores(2)
    config = small_plain(batch_size=4, epochs=1)
    Runner(store, tmp_path, "cpu", progress=silent, stop=lambda needed: len(seen) > 6).run([config])
    assert [text for text in silent.said if text.startswith("going on with ")] and convolution_seconds(1) < 1
    runner = Runner(store, tmp_path, "cpu", progress=silent, engine=Engine(threads=2))
    record = runner.run([config])[config.id]
    counts = record.cost["threads"]
    assert len(seen) == 10 and seen[7:] == [2] * 3
    assert counts == {str(n): seen.count(n) for n in sorted(set(seen), key=seen.index)}
    assert record.provenance["threads"] == int(max(counts, key=counts.get))
