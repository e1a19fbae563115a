"""The check of a device: what it compares, what it notices, and what it then does without."""

from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
import torch
from conftest import stand_in

from rkd.experiments import check as check_module
from rkd.experiments.check import LaunchMode, check_device
from rkd.training import Engine, TrainState, capture


@pytest.fixture
def capturing(monkeypatch):
    """A CPU that captures steps: recordings of their operations stand in for CUDA graphs."""
    monkeypatch.setattr(Engine, "check", lambda self, device: None)

    def captures(self, device, methods=()):
        return self.graph is not False and not self.eager & {m or "" for m in methods}

    monkeypatch.setattr(Engine, "captures", captures)
    monkeypatch.setattr(capture, "cuda_graph", stand_in)
    return LaunchMode(Engine(), 8)


class Here(Executor):
    """Does everything in this process, where stand-ins are known; counts how often it was made."""

    made = 0

    def __init__(self):
        Here.made += 1

    def submit(self, function, name, *rest):
        if name == "sp":
            raise BrokenProcessPool("terminated abruptly")
        future = Future()
        future.set_result(function(name, *rest))
        return future


def check(methods, way, precision="fp64", worker=Here):
    told, Here.made = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_module, "child_process", worker)
        way, broken = check_device(torch.device("cpu"), methods, precision, way, told.append)
    return SimpleNamespace(rows=told, way=way, broken=broken)


def faults(found):
    return {(row.method, row.arithmetic): row.fault for row in found.rows}


@pytest.mark.slow
def test_two_seeds_in_captured_lock_step_equal_one_alone(capturing):
    found = check([None], capturing, "fp32")
    assert found.way == capturing and not found.broken
    assert faults(found) == {("", "fp64"): "", ("", "fp32"): ""}
    assert all(row.difference <= 1e-6 for row in found.rows if row.arithmetic == "fp64")


def test_without_capture_the_company_is_checked_and_a_process_that_dies_takes_one_method_along():
    """As does a method that cannot be trained at all: it is named, and the others go on. Sums are checked by parts."""
    way = LaunchMode(Engine(graph=False), 8)
    found = check(["kd+sp"], way)
    assert found.way == way and faults(found) == {("kd", "fp64"): ""}
    assert found.broken == {"sp": "BrokenProcessPool: terminated abruptly"} and Here.made == 1


def test_a_capture_that_fails_is_noticed_and_done_without(capturing, monkeypatch):
    def failing(body, changed):
        raise capture.CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(capture, "cuda_graph", failing)
    found = check([None, "kd"], capturing)
    assert [row.fault for row in found.rows] == ["not captured", ""] * 2
    assert found.way == LaunchMode(Engine(eager=frozenset({"", "kd"})), 8)
    assert Here.made == 2, "a process in which a capture has failed does no more"


@pytest.mark.slow
def test_the_check_runs_in_a_process_of_its_own():
    found = check([None], LaunchMode(Engine(), 8), worker=check_module.child_process)
    assert faults(found) == {("", "fp64"): ""} and not found.broken


def test_company_that_changes_a_result_is_done_without(monkeypatch):
    """As if the second run of a group wrote into the first."""
    step, first = TrainState.step, []

    def leaking(self, *batch):
        step(self, *batch)
        if self.config.seed == 0:
            first[:] = [self]
        elif first:
            with torch.no_grad():
                first[0].parameters[0].add_(0.1)

    monkeypatch.setattr(TrainState, "step", leaking)
    found = check([None], LaunchMode(Engine(), 8))
    assert {row.fault for row in found.rows} == {"another result"} and found.way == LaunchMode(Engine(), 1)
