"""Ids of runs kept in the build folder: those of the configs, thrown away with what decided them."""

import json
import subprocess
import sys

import pytest

from rkd import paths
from rkd.errors import ConfigError
from rkd.experiments.selectors import Selectors
from rkd.judge import evaluate


@pytest.fixture
def build(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "build", lambda: tmp_path)
    return tmp_path


def test_ids_are_those_of_the_configs_and_are_read_again(build, monkeypatch):
    made = Selectors("paper")
    ids = made.ids("table6/full")
    assert list(ids) == list(made.runs(["table6/full"]))
    assert list(made.ids("table6/full", teachers=True)) == list(made.needed(["table6/full"]))
    config = next(iter(made.runs(["table6/full"]).values()))
    assert config.settled("fp16", "bf16").id in next(iter(ids.values()))
    monkeypatch.setattr(Selectors, "chapter", lambda *_: pytest.fail("a chapter is built"))
    again = Selectors("paper").ids("table6/full")
    assert {run: tuple(each) for run, each in again.items()} == ids
    with pytest.raises(ConfigError, match="unknown line of table6 'ful'"):
        Selectors("paper").ids("table6/ful")


def test_what_other_sources_made_is_not_read(build):
    ids = Selectors("smoke").ids("table6/full")
    (file,) = build.rglob("table6.json")
    kept = json.loads(file.read_text())
    kept["lines"] = {"full": [{"wrong": []}, {"wrong": []}]}
    file.write_text(json.dumps(kept))
    assert list(Selectors("smoke").ids("table6/full")) == ["wrong"]
    file.write_text(json.dumps({**kept, "key": "of other sources"}))
    assert Selectors("smoke").ids("table6/full") == ids


def test_several_processes_may_ask_at_once(tmp_path):
    """As parallel chapters of a book do on a new copy."""
    call = (
        "from pathlib import Path; from rkd import paths; "
        f"paths.build = lambda: Path({str(tmp_path)!r}); "
        "from rkd.experiments.selectors import Selectors; print(list(Selectors('smoke').ids('table6/full')))"
    )
    asked = [subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE) for _ in range(2)]
    assert len({process.communicate()[0] for process in asked}) == 1
    assert not any(process.returncode for process in asked)


def test_ids_that_name_the_content_of_a_file_are_not_kept(build):
    checkpoint = f"x.pth#sha256={'0' * 64}"
    profile = build / "own.yaml"
    text = (paths.params() / "smoke.yaml").read_text()
    profile.write_text(f"{text}\nteacher_checkpoint: {checkpoint!r}\n")
    assert Selectors(str(profile)).ids("table6/full") and not list(build.rglob("table6.json"))


def test_claims_are_evaluated_without_torch_where_nothing_is_recorded():
    evaluate()  # and keeps the ids
    call = "import sys, rkd.cli.verdicts; from rkd.judge import evaluate; evaluate(); "
    subprocess.run(
        [sys.executable, "-c", f"{call}assert not {{'torch', 'pandas'}} & set(sys.modules)"], check=True
    )


def test_status_counts_without_torch(build):
    (build / "results").mkdir()
    call = ["status", "--chapters", "table6", "--results", str(build / "results")]
    again = f"import sys; from rkd.cli import main; main({call}); sys.exit('torch' in sys.modules)"
    first, second = (
        subprocess.run([sys.executable, "-c", again], capture_output=True, text=True) for _ in "12"
    )
    assert (first.returncode, second.returncode) == (1, 0) and first.stdout == second.stdout
    assert "table6" in first.stdout and "missing" in first.stdout
