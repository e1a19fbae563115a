"""Readings of a card, with a driver of our own."""

import sys
import types

import torch

from rkd.records.energy import joules


def test_joules_of_a_card_and_none_where_nothing_counts(monkeypatch):
    class NVMLError(Exception):
        pass

    def refuse(handle):
        raise NVMLError

    cuda = torch.device("cuda")
    driver = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 1_500_000 if handle == "GPU-1234" else 0,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="1234")
    )
    assert joules(cuda) == 1500.0 and joules(torch.device("cpu")) == 0.0
    driver.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert joules(cuda) == 0.0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert joules(cuda) == 0.0
