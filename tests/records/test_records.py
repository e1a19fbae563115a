"""Records: round trip, atomic writing, damaged and foreign files, locks."""

import dataclasses
import functools
import getpass
import json
import math
import os
import re
import shutil
import socket

import pytest
from conftest import ROOT, Silent, tiny_plain, tiny_review

from rkd.errors import RecordError, RkdError
from rkd.experiments.runner import Runner
from rkd.records import Record, Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A student and the teacher it made to be trained first."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(folder / "records", folder / "work")
    config = tiny_review(teacher_weights="best")
    Runner(store, folder, "cpu", progress=Silent(), labels={"profile": "test"}).run([config])
    return store, config


def test_a_missing_teacher_is_trained_first_and_a_second_call_trains_nothing(made, silent, tmp_path):
    store, config = made
    before = {p.name: p.stat().st_mtime_ns for p in store.records.iterdir()}
    teacher = store.load(config.teacher.run.id)
    assert set(store.ids()) == {config.id, teacher.id}
    told = {"network": "resnet14", "run": teacher.id, "weights": "best", "stored": "fp32"}
    assert store.load(config.id).provenance["teacher"] == {**told, "accuracy": teacher.accuracy("best")}
    Runner(store, tmp_path, "cpu", progress=silent).run([config])
    assert silent.titles == [] and before == {p.name: p.stat().st_mtime_ns for p in store.records.iterdir()}


def test_content_and_round_trip(made):
    store, config = made
    text = store.path(config.id).read_text()
    body = json.loads(text)
    assert list(body) == [*sorted(k for k in body if k != "curves"), "curves"] and body["id"] == config.id
    assert len(text) < 8000
    record = store.load(config.id)
    assert record.config == config and record.to_json() == text
    assert set(record.curves) == {"lr", "train_accuracy", "test_accuracy", "loss_ce", "loss_review"}
    assert all(len(v) == config.epochs for v in record.curves.values())
    assert record.curves["lr"] == [0.05, 0.005]
    assert {"torch", "device_name", "data_sha256", "ended", "commit", "labels"} <= {*record.provenance}
    assert socket.gethostname() not in text and str(store.records) not in text
    assert f'"{getpass.getuser()}"' not in text
    for key in ("train_seconds", "images_per_second", "peak_memory_mb", "parameters", "extra_parameters"):
        assert record.cost[key] > 0


def edited(text, place, value):
    """The text of a record with another value at a place."""
    body = json.loads(text)
    *outer, name = place.split(".")
    part = functools.reduce(dict.get, outer, body)
    part.update({name: value})
    return json.dumps(body)


TEXTS = (  # what is done to one, and what is said of it
    (lambda t: t[: len(t) // 2], "cannot be read"),
    (lambda t: "[" * 200_000, "it is nested too deeply"),
    (lambda t: "\x00\x7f", "cannot be read"),
    (lambda t: "[]", "no run record of format 1"),
    (lambda t: t.replace('"seed": 0', '"seed": 5', 1), "it was edited"),
    (lambda t: t.replace('"profile"', r'"\u001b[2J"', 1), r"'\\x1b\[2J' holds a control character"),
    (lambda t: t.replace('"resnet8"', r'"resnet8\u202e"', 1), "holds a control character"),
)
WRONG_ACCURACIES = (math.nan, 999, -5, None, "99", True)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        *((None, change, message) for change, message in TEXTS),
        ("format", 99, "no run record of format 1"),
        ("config.epochs", -2, "cannot be read: epochs is -2"),
        *(("result.last_accuracy", value, "in its result: last_accuracy is") for value in WRONG_ACCURACIES),
        ("result.last_accuracy_peer", 101, "last_accuracy_peer is 101; it must be a number between 0 and 100"),
        ("result", {}, "in its result: Result needs last_accuracy"),
        ("result.best_epoch", 2, "best_epoch is 2, of 2 epochs"),
        ("result.epochs", 3, "epochs is 3 in its result, and 2 in its config"),
        ("result.surprise", 1, "in its result: unknown Result setting 'surprise'"),
        ("cost", {}, "in its cost: Cost needs train_seconds"),
        ("cost", None, "cost is None; it must map names to values"),
        ("cost.train_seconds", math.inf, "train_seconds is 'Infinity'"),
        ("cost.gang", 10**400, "gang is 10{190,}.*; it must be a whole number >= 1"),
        ("provenance", [], r"provenance is \[\]; it must map names"),
        ("provenance.ended", "<script>", "in its provenance: ended is '<script>'"),
        ("provenance.labels", {"profile": 5}, "profile is 5; it must be text"),
        ("provenance.torch", "x" * 10**6, "in its provenance: torch is"),
        ("provenance.teacher.accuracy", -1, "accuracy is -1"),
        ("curves", {}, "curve lr is missing"),
        ("curves", [], "curves is"),
        ("curves.lr", "abc", "lr is 'abc'; it must be a list of numbers"),
        ("curves.lr", [], "it must be a list of numbers"),
        ("curves.lr", [0.1], "curve 'lr' has 1 values for 2 epochs"),
        ("curves.lr", [0.1, "9"], "it holds '9'"),
        ("curves.loss_ce", [0.1, math.nan], "it holds 'NaN'"),
        ("curves.test_accuracy", [50, 101], "curve test_accuracy is 101"),
        ("result.last_accuracy", "1e-3", "last_accuracy is '1e-3'; it must be a number between 0 and 100"),
        ("result.last_accuracy_of", "1e1", "last_accuracy_of is '1e1'; it must be a number between 0 and 100"),
        ("cost.train_seconds", "1e3", "train_seconds is '1e3'; it must be a finite number >= 0"),
        ("provenance.teacher.accuracy", "5e1", "accuracy is '5e1'; it must be a number between 0 and 100"),
        ("status", "<b>", "unknown status '<b>'"),
        ("surprise", 1, "unknown Record setting 'surprise'"),
        ("config", [], "damaged"),
        ("config.teacher", 5, "damaged"),
    ],
)  # fmt: skip
def test_a_record_says_nothing_that_a_run_does_not_leave(made, place, value, message):
    store, config = made
    text = store.path(config.id).read_text()
    text = edited(text, place, value) if place else value(text)
    with pytest.raises(RecordError, match=message) as error:
        Record.from_json(text, "results/x.json")
    said = str(error.value)
    assert "record results/x.json is damaged" in said and "`rkd records check" in said
    assert "\n" not in said and len(said) < 600


def test_committed_records_are_read_and_written_to_the_byte():
    files = [path for path in (ROOT / "results").rglob("*.json") if b'"curves"' in path.read_bytes()]
    assert len(files) > 80
    for path in files:
        kept = path.read_text(encoding="utf-8")
        ours = Record.from_json(kept, str(path)).to_json()
        late = ["image_size", "test_share", "record", "pretrained"]
        for entry in (*(f'"{name}": null' for name in late), '"vectors": "channels"'):  # with their defaults
            if entry.split(":")[0] not in kept:
                ours = re.sub(rf",\n *{entry}", "", ours)
        assert ours == kept, path


def test_readers_of_all_records_go_on_without_a_damaged_one_and_say_so_once(made, tmp_path, capsys):
    store, config = made
    shutil.copytree(store.records, tmp_path / "r")
    bad = Store(tmp_path / "r", tmp_path / "w")
    bad.path(config.id).unlink()
    os.mkfifo(bad.path(config.id))
    assert [record.id for record in bad] == [config.teacher.run.id] == [*bad.read(bad.ids())]
    said = capsys.readouterr().err
    assert said.count("no regular file") == 1 and str(bad.path(config.id)) in said


def test_a_renamed_record_is_foreign_and_a_damaged_one_named(made, store):
    known, config = made
    store.records.mkdir()
    store.path("0123456789ab").write_text(text := known.path(config.id).read_text())
    store.path("0123456789ac").write_text(text[:-40])
    for run, said in (("0123456789ab", "belongs to run"), ("0123456789ac", "0123456789ac.json is damaged")):
        with pytest.raises(RecordError, match=said):
            store.load(run)
    with pytest.raises(RecordError, match="not recorded"):
        store.load("ffffffffffff")


def test_on_missing(store, silent, tmp_path):
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    assert runner.run([tiny_plain()], on_missing="skip") == {}
    with pytest.raises(RkdError, match="1 of 1 runs are not recorded"):
        runner.run([tiny_plain()], on_missing="error")
    assert silent.titles == []


def test_locked_run_shows_as_running(store):
    with store.lock("0123456789ab") as ours:
        assert ours and store.running("0123456789ab")
    assert not store.running("0123456789ab") and not store.running("ffffffffffff")


def test_diverged_values_become_null(made):
    store, config = made
    record = store.load(config.id)
    curves = {**record.curves, "loss_ce": [1.0, float("nan")]}
    spoiled = dataclasses.replace(record, status="diverged", curves=curves)
    text = spoiled.to_json()
    assert '"loss_ce": [1.0, null]' in text and "NaN" not in text
    assert Record.from_json(text, "x").to_json() == text
