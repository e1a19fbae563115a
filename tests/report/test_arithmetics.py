"""Pages, commands and costs find what is recorded in any arithmetic, and never train it again."""

import dataclasses

import pytest
from evidence import PAPER, record

from rkd.bench.costs import recorded
from rkd.cli import main
from rkd.experiments.chapters import get_chapter
from rkd.experiments.frames import mean_sd
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import resolve
from rkd.records import Store, transfer
from rkd.records.transfer import Exported
from rkd.report.experiment import Experiment

GIVEN = {"profile": "smoke", "train_images": 100, "test_images": 100, "seeds": [0], "on_missing": "error"}
CHAPTER = "table5"


@pytest.fixture
def results(tmp_path):
    """Every run of a chapter, recorded in fp16 but for one line in bf16."""
    folder = tmp_path / "results"
    store = Store(folder, folder / "work")
    settings = resolve(CHAPTER, {**GIVEN, "results": str(folder)})
    for place, line in enumerate(get_chapter(CHAPTER).lines(settings)):
        for run in line.runs:
            name = "bf16" if place == 1 else "fp16"
            store.save(record(run, 40.0 + place, arithmetic=name, teachers="fp16"))
    return folder


def test_a_page_shows_records_of_any_arithmetic_and_names_them(results, capsys):
    of = Experiment(get_chapter(CHAPTER), {**GIVEN, "results": str(results)})
    runs = of.run()
    assert "were recorded, 0 were trained now, 0 are missing" in capsys.readouterr().out
    assert sorted(runs["accuracy"].unique()) == [40.0 + place for place in range(len(of.lines))]
    assert set(runs["arithmetic"]) > {"fp16"}
    table = of.show(runs.groupby("name").apply(mean_sd).to_frame()).data
    assert "Not all of these runs were computed in one arithmetic" in table and "bf16" in table
    assert not any(run.open[0] for line in of.lines for run in line.runs)


def test_status_and_sweep_count_them_as_recorded(results, capsys):
    """On a machine without the device too."""
    more = [
        "--results",
        str(results),
        "--set",
        "train_images=100",
        "--set",
        "test_images=100",
        "--set",
        "seeds=[0]",
    ]
    assert main(["status", "--chapters", CHAPTER, "--device", "cuda", *more]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(CHAPTER))
    found = len(
        {
            run.id
            for run in Selectors("smoke", {**GIVEN, "results": str(results)}, settled=True).plan([CHAPTER])[
                1
            ][CHAPTER]
        }
    )
    assert int(row.split()[1]) == found and row.split()[2:5] == ["0", "0", "0"]


def test_costs_count_each_record(store):
    run = next(iter(Selectors("paper").runs(["table3/rm"]).values()))
    for name in ("fp16", "bf16"):
        store.save(record(run, 70.0, arithmetic=name))
    assert sorted(r.config.precision for r in recorded([run], store).values()) == ["bf16", "fp16"]


def test_an_export_of_a_chapter_takes_every_arithmetic_along(tmp_path, monkeypatch):
    run = next(iter(PAPER.runs(["table3/rm"]).values()))
    asked = {}
    monkeypatch.setattr(
        transfer, "export", lambda store, folder, runs, **more: asked.update(ids=runs) or Exported()
    )
    main(["export", "--out", str(tmp_path), "--profile", "paper", "--chapters", "table3"])
    for own in ("fp32", "fp16", "bf16"):
        for teachers in ("fp32", "fp16", "bf16"):
            assert run.settled(own, teachers).id in asked["ids"]
    assert dataclasses.replace(run, seed=99).settled("fp16", "fp16").id not in asked["ids"]
