"""Records: round trip, atomic writing, damaged and foreign files, locks."""

import dataclasses
import getpass
import json
import socket

import pytest
from conftest import tiny_plain, tiny_review

from rkd.errors import RecordError
from rkd.experiments.runner import MissingRunsError, Runner
from rkd.records import Record, Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A student and the teacher it made to be trained first."""
    from conftest import Silent

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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t[: len(t) // 2], "cannot be read"),
        (lambda t: t.replace('"format": 1', '"format": 99'), "no run record of format 1"),
        (lambda t: t.replace('"seed": 0', '"seed": 5', 1), "it was edited"),
        (lambda t: t.replace('"epochs": 2', '"epochs": -2'), "cannot be read: epochs is -2"),
    ],
)
def test_damaged_records_are_named(made, tmp_path, spoil, message):
    store, config = made
    bad = Store(tmp_path / "r", tmp_path / "w")
    bad.records.mkdir()
    bad.path(config.id).write_text(spoil(store.path(config.id).read_text()))
    with pytest.raises(RecordError, match=message) as error:
        bad.load(config.id)
    assert config.id in str(error.value)


def test_renamed_record_is_foreign(made, tmp_path):
    store, config = made
    other = Store(tmp_path / "r", tmp_path / "w")
    other.records.mkdir()
    other.path("0123456789ab").write_text(store.path(config.id).read_text())
    with pytest.raises(RecordError, match="belongs to run"):
        other.load("0123456789ab")
    with pytest.raises(RecordError, match="not recorded"):
        other.load("ffffffffffff")


def test_on_missing(store, silent, tmp_path):
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    assert runner.run([tiny_plain()], on_missing="skip") == {}
    with pytest.raises(MissingRunsError, match="1 of 1 runs are not recorded"):
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
