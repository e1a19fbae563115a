"""Commands find what is recorded in any arithmetic, and never train it again."""

import dataclasses
import itertools

from evidence import PAPER, record

from rkd.cli import main
from rkd.experiments.chapters import get_chapter
from rkd.experiments.settings import resolve
from rkd.records import Store, transfer
from rkd.records.transfer import ExportResult


def test_status_counts_them_as_recorded(tmp_path, capsys):
    """On a machine without the device too."""
    given = {"train_images": 100, "test_images": 100, "seeds": [0], "results": str(tmp_path)}
    store = Store(tmp_path, tmp_path / "work")
    for line in get_chapter("table5").lines(resolve("table5", given)):
        for run in line.runs:
            store.save(record(run, 40.0, arithmetic="fp16", teachers="fp16"))
    more = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    assert main(["status", "--chapters", "table5", "--device", "cuda", *more]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("table5"))
    assert row.split()[1:5] == [str(len(store.ids())), "0", "0", "0"]


def test_an_export_of_a_chapter_takes_every_arithmetic_along(tmp_path, monkeypatch):
    run = next(iter(PAPER.runs(["table3/rm"]).values()))
    asked = set()
    monkeypatch.setattr(
        transfer, "export", lambda store, folder, runs, **more: asked.update(runs) or ExportResult()
    )
    main(["export", "--out", str(tmp_path), "--profile", "paper", "--chapters", "table3"])
    for own, teachers in itertools.product(("fp32", "fp16", "bf16"), repeat=2):
        assert run.settled(own, teachers).id in asked
    assert dataclasses.replace(run, seed=99).settled("fp16", "fp16").id not in asked
