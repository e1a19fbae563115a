"""Energy shares, with a driver of our own."""

import sys
import types

import pytest
import torch

from rkd.records import energy


@pytest.fixture
def driver(monkeypatch):
    """A card that has used 1 kJ when the driver was loaded, and 500 J more at each reading."""

    class NVMLError(Exception):
        pass

    used = iter(range(1_000_000, 10_000_000, 500_000))
    fake = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(used),
        asked=[],
    )
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return fake


def test_shares_are_differences_in_joules(driver):
    shares = energy.EnergyShares(torch.device("cuda"))
    assert shares.share(4) == 125.0 and shares.share(1) == 500.0


def test_a_card_that_does_not_count(driver):
    def refuse(handle):
        raise driver.NVMLError

    driver.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert energy.joules(torch.device("cuda")) is None
    assert energy.EnergyShares(torch.device("cuda")).share(1) == 0.0


def test_nothing_is_counted_without_a_card_or_the_package(monkeypatch):
    assert energy.joules(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.joules(torch.device("cuda")) is None
