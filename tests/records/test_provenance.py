"""Which commit a record names where the checkout's .git did not travel, and what a card has used."""

import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from conftest import tiny_plain

import rkd
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.records import provenance

COMMIT, CHANGED = "0123456789abcdef" * 2 + "01234567", "abcdef012345"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The package seems to lie in a folder without .git."""
    (tmp_path / "rkd").mkdir()
    monkeypatch.setattr(rkd, "__file__", str(tmp_path / "rkd" / "__init__.py"))
    monkeypatch.delenv("RKD_COMMIT", raising=False)
    provenance.code_state.cache_clear()
    yield tmp_path
    provenance.code_state.cache_clear()


def found():
    provenance.code_state.cache_clear()
    state = provenance.code_state()
    return state["commit"], state["changed"]


def test_commit_comes_from_the_variable_else_from_the_file(copied, monkeypatch):
    assert found() == (None, None)
    (copied / ".commit").write_text(f"{COMMIT}+{CHANGED}\n", encoding="utf-8")
    assert found() == (COMMIT, CHANGED)
    monkeypatch.setenv("RKD_COMMIT", "f" * 40)
    assert found() == ("f" * 40, None)


def test_a_checkout_wins_over_what_is_told(monkeypatch):
    provenance.code_state.cache_clear()
    if not (Path(rkd.__file__).parent.parent / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout")
    own = found()
    monkeypatch.setenv("RKD_COMMIT", "f" * 40)
    assert found() == own and own[0] != "f" * 40
    monkeypatch.setenv("RKD_COMMIT", "nonsense")
    assert found() == own
    provenance.code_state.cache_clear()


def test_a_malformed_commit_is_refused_before_anything_is_trained(copied, monkeypatch, store, silent):
    for text in ("main", "F" * 40, "f" * 39, "f" * 40 + "+12"):
        monkeypatch.setenv("RKD_COMMIT", text)
        provenance.code_state.cache_clear()
        with pytest.raises(ConfigError, match=r"^\$RKD_COMMIT is .*; it must be a commit of 40 hexadecimal"):
            Runner(store, copied, "cpu", progress=silent).run([tiny_plain()])
    assert not silent.titles and not store.ids()


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
    card = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert provenance.joules(cuda) == 1500.0 and provenance.joules(torch.device("cpu")) == 0.0
    driver.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert provenance.joules(cuda) == 0.0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert provenance.joules(cuda) == 0.0
