"""Early records that say "auto": renamed with all that goes with them, once, and nothing is lost on the way."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_plain, tiny_review
from evidence import record

from rkd.errors import RecordError
from rkd.experiments.gang import weights_file
from rkd.experiments.snapshots import load_snapshots
from rkd.records import Record, Store
from rkd.records import migrate as module
from rkd.records.migrate import main
from rkd.records.teachers import load_teacher, save_teacher, teacher_file
from rkd.training import checkpoint

LABELS = {"profile": "mini", "alone_of": "kept"}


def early(store, request, own, **cost):
    """Write a record as early versions did: under the request's id, the arithmetic in its cost alone."""
    made = record(request, 70.0, arithmetic=own, teachers=own)
    made.cost["arithmetic"] = own
    body = json.loads(made.to_json())
    body |= {"config": request.to_dict(), "id": request.id, "cost": {**body["cost"], **cost}}
    body["provenance"] |= {"labels": LABELS}
    if request.teacher:
        body["provenance"]["teacher"] = {"run": request.teacher.run.id, "accuracy": 70.0}
    store.records.mkdir(parents=True, exist_ok=True)
    store.path(request.id).write_text(json.dumps(body))
    return request.id


def taught(weights="best", **values):
    run = tiny_review(teacher_weights=weights, **values)
    return run.request


@pytest.fixture
def store(tmp_path):
    """As of a profile: teachers lie beside the folder of records."""
    return Store(tmp_path / "mini", tmp_path / "mini" / "work")


@pytest.fixture
def old(store):
    """A teacher in fp16, a student of it in bf16 with maps and weights, one of an untrained teacher, one in fp32 that
    was asked for by name."""
    student, untrained = taught(), taught("random")
    teacher = student.teacher.run
    early(store, teacher, "fp16")
    early(store, student, "bf16")
    early(store, untrained, "fp32")
    store.save(record(tiny_plain(seed=7), 50.0))
    header = {
        "run": teacher.id, "network": "resnet14", "weights": "best", "accuracy": 70.0, "accuracy_fp16": 70.1,
        "data": "embedded", "normalisation": "embedded",
    }  # fmt: skip
    save_teacher(teacher_file(store, teacher.id, "best"), {"w": torch.tensor([0.1, 2.0])}, header)
    maps = {
        "run": np.array(student.id),
        "epochs": np.array([1]),
        "levels": np.array(["deep"]),
        "labels": np.array([0]),
    }
    maps |= {"classes": np.array(["cat"]), "size": np.array(32)}
    store.maps(student.id).parent.mkdir()
    np.savez_compressed(store.maps(student.id), **maps)
    for which in ("last", "best"):
        state = {"run": student.id, "epoch": 1, "student": {"w": torch.ones(2)}}
        checkpoint.save(state, store.folder(student.id) / f"{which}.pt")
    return {
        teacher.id: teacher.settled("fp16", ""),
        student.id: student.settled("bf16", "fp16"),
        untrained.id: untrained.settled("fp32", "fp32"),
    }


def content(store):
    root = store.records
    files = [*root.rglob("*"), *(root.parent / "teachers").glob("*")]
    return {str(p.relative_to(root.parent)): p.read_bytes() for p in files if p.is_file()}


def test_an_early_record_is_refused_with_what_to_do(store, old):
    run = next(iter(old))
    with pytest.raises(RecordError, match=r'"auto".*python -m rkd.records.migrate FOLDER --write') as caught:
        store.load(run)
    assert "\n" not in str(caught.value)


def test_dry_changes_nothing_and_says_what_would(store, old, capsys):
    before = content(store)
    assert main([str(store.records)]) == 0
    said = capsys.readouterr().out
    assert content(store) == before and "3 records to rename; --write does it" in said
    for run, config in old.items():
        assert f"{run} -> {config.id}" in said


def test_everything_goes_along_and_twice_is_once(store, old, capsys):
    bodies = {run: json.loads(store.path(run).read_text()) for run in old}
    assert main([str(store.records), "--write"]) == 0
    after = content(store)
    assert main([str(store.records), "--write"]) == 0 and content(store) == after
    assert "0 records renamed" in capsys.readouterr().out
    assert store.ids() == sorted([tiny_plain(seed=7).id, *(config.id for config in old.values())])
    assert not any(run in name for run in old for name in after), "nothing is left under an old name"
    for run, config in old.items():
        made = store.load(config.id)
        assert made.config == config and made.config.request.id == run
        was, now = bodies[run], json.loads(made.to_json())
        for name in ("result", "cost", "curves", "status", "format"):
            assert now[name] == was[name]
        assert made.provenance["labels"] == LABELS
        if config.teacher:
            assert made.provenance["teacher"] == {"run": config.teacher.run.id, "accuracy": 70.0}
    teacher, student, _ = old.values()
    weights, header = load_teacher(teacher_file(store, teacher.id, "best"))
    assert header["run"] == teacher.id and header["accuracy_fp16"] == "70.1"
    assert torch.equal(weights["w"], torch.tensor([0.1, 2.0]).half().float())
    assert load_snapshots(store, student.id).classes == ("cat",)
    state = checkpoint.load(weights_file(store, student.id, "last"))
    assert state["run"] == student.id and torch.equal(state["student"]["w"], torch.ones(2))
    assert list(store.recorded(taught())) == [student]


@pytest.mark.parametrize("place", ["unlink", "save", "rename"])
def test_an_interrupted_call_is_taken_up(place, store, old, monkeypatch):
    """Whatever step it dies at."""
    whole = Store(store.records.parent / "copy" / "mini", store.records.parent / "copy" / "mini" / "work")
    shutil.copytree(store.records, whole.records)
    shutil.copytree(store.records.parent / "teachers", whole.records.parent / "teachers")
    assert main([str(whole.records), "--write"]) == 0

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    owner = {"unlink": module.Path, "save": Store, "rename": module.os}[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, die)
        with pytest.raises(Killed):
            main([str(store.records), "--write"])
    assert main([str(store.records), "--write"]) == 0
    here, there = content(store), content(whole)
    assert here.keys() == there.keys()
    assert {k: v for k, v in here.items() if k.endswith((".json", ".safetensors"))} == {
        k: v for k, v in there.items() if k.endswith((".json", ".safetensors"))
    }


def test_what_cannot_be_named_or_read_stays_and_is_named(store, old, capsys):
    lonely = taught(seed=5, network="resnet20")
    lonely = lonely.from_dict(lonely.to_dict() | {"teacher": {**lonely.to_dict()["teacher"], "run": {
        **lonely.to_dict()["teacher"]["run"], "seed": 9}}})  # fmt: skip
    early(store, lonely, "bf16")
    silent = early(store, tiny_plain(precision="auto", seed=3), "bf16", arithmetic=None)
    store.path("0" * 12).write_text("{")
    edited = early(store, tiny_plain(precision="auto", seed=4), "bf16")
    store.path(edited).write_text(store.path(edited).read_text().replace('"seed": 4', '"seed": 44'))
    before = content(store)
    assert main([str(store.records), "--write"]) == 1
    said = capsys.readouterr().out
    assert f"{lonely.id}.json stays: which arithmetic its teacher {lonely.teacher.run.id}" in said
    assert f"{silent}.json stays: it does not say what it was computed in" in said
    assert (
        "000000000000.json stays: it is damaged" in said
        and f"{edited}.json stays: it says id {edited}" in said
    )
    assert "3 records renamed" in said, "the others are none the worse"
    left = {f"mini/{name}.json" for name in (lonely.id, silent, "0" * 12, edited)}
    assert all(content(store)[name] == before[name] for name in left)


def test_a_place_that_is_taken_is_not_overwritten(store, old, capsys):
    taken = next(iter(old.values()))
    store.save(Record(taken, "finished", {"lr": [1.0]}, {"last_accuracy": 1.0}, {}, {}))
    before = store.path(taken.id).read_text()
    assert main([str(store.records), "--write"]) == 1
    assert "says something else; both stay" in capsys.readouterr().out
    assert store.path(taken.id).read_text() == before and store.has(next(iter(old)))


def test_a_teacher_that_was_renamed_before_is_found(store):
    student = taught()
    store.save(record(student.teacher.run, 70.0, arithmetic="fp16"))
    early(store, student, "bf16")
    assert main([str(store.records), "--write"]) == 0
    assert list(store.recorded(student)) == [student.settled("bf16", "fp16")]


def test_unfinished_runs_and_runs_in_training_stay(store, old, capsys):
    checkpoint.save({"run": "a" * 12}, store.folder("a" * 12) / "checkpoint.pt")
    with store.lock(list(old)[1], wait=False):
        assert main([str(store.records), "--write"]) == 1
    said = capsys.readouterr().out
    assert "begin anew: aaaaaaaaaaaa" in said and "it is being trained now" in said
    assert main([str(store.records), "--write"]) == 0 and (store.folder("a" * 12) / "checkpoint.pt").exists()


def test_where_working_files_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("RKD_HOME", str(tmp_path))
    (tmp_path / "params" / "recipes").mkdir(parents=True)
    results = tmp_path / "results"
    assert module._work(results / "mini") == tmp_path / "checkpoints" / "mini"
    assert module._work(tmp_path / "own") == tmp_path / "own" / "work"
    assert module._work(tmp_path / "smoke" / "records") == tmp_path / "smoke" / "work"
    assert main([str(tmp_path / "nowhere")]) == 2
