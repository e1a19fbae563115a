"""Keeping a run under a name."""

import json
import math

import numpy as np
import pytest

from rkd.errors import ConfigError, RecordError
from rkd.explore.saved import checked_name, save, saved_runs
from rkd.explore.text import saved_table
from rkd.records import Record

pytest_plugins = ["exploring"]


def record(config, accuracy):
    curves = {"lr": [0.1, 0.1], "test_accuracy": [1.0, accuracy], "train_accuracy": [1.0, 2.0]}
    result = {"last_accuracy": accuracy, "best_accuracy": accuracy, "best_epoch": 1, "epochs": 2}
    cost = {"train_seconds": 1.0, "images_per_second": 100.0, "gang": 1}
    return Record(config, "finished", curves, result, cost, {"labels": {"page": "explore"}, "commit": "abc"})


def finish(plan, store, with_, without):
    store.save(record(plan.alone, without))
    store.save(record(plan.distilled, with_))
    path = store.maps(plan.distilled.id)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, run=plan.distilled.id)


def test_saved_run_is_a_record_with_its_name(home, working, kept, tiny_plan, files_of):
    plan = tiny_plan()
    finish(plan, working, 12.5, 10.0)
    save(plan, "  first try ", working, kept)
    run = plan.distilled.id
    assert kept.records == home / "results" / "explore"
    assert files_of(kept.records) == sorted([f"{run}.json", f"{plan.alone.id}.json", f"maps/{run}.npz"])
    loaded = kept.load(run)
    assert loaded.config == plan.distilled and loaded.curves == working.load(run).curves
    assert loaded.provenance == {"labels": {"name": "first try"}, "commit": "abc"}
    (shown,) = saved_runs(kept)
    assert (shown.name, shown.record.accuracy(), shown.alone.accuracy()) == ("first try", 12.5, 10.0)
    table = saved_table([shown])
    for said in ("first try", "12.50", "10.00", "+2.50", "ResNet-8 ← ResNet-14", run):
        assert said in table


def test_two_runs_may_share_the_run_beside_them(working, kept, tiny_plan):
    one, two = tiny_plan(), tiny_plan(loss_weight=3.0)
    finish(one, working, 12.5, 10.0)
    finish(two, working, 9.0, 10.0)
    save(two, "heavy", working, kept)
    save(one, "Light", working, kept)
    assert [run.name for run in saved_runs(kept)] == ["heavy", "Light"]
    assert [run.alone.id for run in saved_runs(kept)] == [one.alone.id] * 2
    assert len(kept.ids()) == 3


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "the name is empty"),
        ("  \t", "the name is empty"),
        ("First", "the name 'First' is taken"),
        ("a" * 61, "61 characters; 60 is the most"),
        ("two\nlines", "holds a line break"),
    ],
)
def test_a_name_that_cannot_be_taken_is_one_sentence(name, sentence):
    with pytest.raises(ConfigError) as caught:
        checked_name(name, ["first"])
    assert sentence in str(caught.value)


def test_a_name_that_cannot_be_taken_writes_nothing(home, working, kept, tiny_plan, files_of):
    one, two = tiny_plan(), tiny_plan(loss_weight=3.0)
    finish(one, working, 12.5, 10.0)
    finish(two, working, 9.0, 10.0)
    save(one, "first", working, kept)
    before = files_of(home / "results")
    with pytest.raises(ConfigError, match="is taken"):
        save(two, "FIRST", working, kept)
    with pytest.raises(ConfigError, match="kept already, as 'first'"):
        save(one, "second", working, kept)
    assert files_of(home / "results") == before


def test_an_unfinished_run_cannot_be_saved(working, kept, tiny_plan):
    plan = tiny_plan()
    working.save(record(plan.alone, 10.0))
    with pytest.raises(RecordError, match="train it to its end first"):
        save(plan, "half", working, kept)
    assert saved_runs(kept) == [] and not kept.ids()


def test_names_are_text_not_markup(working, kept, tiny_plan):
    plan = tiny_plan()
    finish(plan, working, 12.5, 10.0)
    save(plan, "<b>bold</b>", working, kept)
    assert "<b>bold" not in saved_table(saved_runs(kept))
    assert (
        json.loads(kept.path(plan.distilled.id).read_text())["provenance"]["labels"]["name"] == "<b>bold</b>"
    )


def test_a_lost_companion_leaves_a_dash(working, kept, tiny_plan):
    plan = tiny_plan()
    finish(plan, working, 12.5, 10.0)
    save(plan, "alone now", working, kept)
    kept.path(plan.alone.id).unlink()
    (shown,) = saved_runs(kept)
    assert shown.alone is None
    assert "–" in saved_table([shown]) and not math.isnan(shown.record.accuracy())
