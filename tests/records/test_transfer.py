"""Export and import: round trips, damage, conflicts, checkpoints, runs in use, folders in use."""

import dataclasses
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_review
from evidence import record

from rkd.cli import main
from rkd.cli.declare import size
from rkd.errors import ConfigError, RecordError
from rkd.records import Store, transfer
from rkd.records.transfer import archive, exporting, keeping, merging
from rkd.records.transfer.content import local, places
from rkd.training import TeacherConfig, checkpoint

STUDENT = tiny_review(teacher_weights="best", epochs=1)
TEACHER = STUDENT.teacher.run
BEGUN = tiny_review(teacher_weights="best", seed=1)
PART = 20_000  # the files are between 2 and 40 kB
PLANNED = [STUDENT, BEGUN]


def saved(run, scale=1.0, **values):
    """The bytes of a checkpoint file."""
    torch.manual_seed(0)
    student = {"a": scale * torch.randn(9_000), "n": torch.tensor(3)}
    file = io.BytesIO()
    torch.save({"run": run, "epoch": 1, "student": student, **values}, file)
    return file.getvalue()


def maps(run, epochs=(1,)):
    file = io.BytesIO()
    np.savez_compressed(file, run=np.array(run), epochs=np.array(epochs))
    return file.getvalue()


def put(store, files):
    for path, data in files.items():
        local(store, path).parent.mkdir(parents=True, exist_ok=True)
        local(store, path).write_bytes(data)
    return store


def text(config, **values):
    made = record(config, 50.0)
    return dataclasses.replace(made, **values).to_json().encode()


FILES = {
    f"records/{TEACHER.id}.json": text(TEACHER),
    f"records/{STUDENT.id}.json": text(STUDENT),
    f"work/{BEGUN.id}/checkpoint.pt": saved(BEGUN.id, method={"state": 1}),
    f"work/{TEACHER.id}/last.pt": saved(TEACHER.id),
    f"work/{TEACHER.id}/best.pt": saved(TEACHER.id, 2.0),
    f"maps/{STUDENT.id}.npz": maps(STUDENT.id),
}
OWN = {f"work/{STUDENT.id}/{which}.pt": saved(STUDENT.id) for which in ("last", "best")}


def store_in(folder):
    return Store(folder / "records", folder / "work")


@pytest.fixture
def here(tmp_path):
    """A store with a teacher, its student, and another student after one of its two epochs."""
    return put(store_in(tmp_path / "here"), FILES | OWN)


@pytest.fixture
def parts(here, tmp_path):
    """An export of it."""
    transfer.export(here, tmp_path / "parts", planned=PLANNED, max_part=PART)
    return tmp_path / "parts"


def craft(folder, files, tail=b"", most=10**9):
    """An export of given contents by path, as early versions wrote it: the files laid end to end."""
    folder.mkdir()

    def listed(data, **more):
        return {**more, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    blob, entries, parts = b"", [], []
    for path, data in files.items():
        run = path.split("/")[1].partition(".")[0]
        entries.append(listed(data, path=path, kind=places(run)[path], run=run, offset=len(blob)))
        blob += data
    blob += tail
    for start in range(0, len(blob), most):
        data = blob[start : start + most]
        name = f"part-{len(parts) + 1:04d}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        (folder / name).write_bytes(data)
        parts.append(listed(data, name=name))
    body = {"kind": "rkd export", "format": 1, "rkd": "0", "files": entries, "parts": parts}
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


def edited(parts, edit):
    body = json.loads((parts / "manifest.json").read_text())
    edit(body)
    (parts / "manifest.json").write_text(json.dumps(body))


def merged(store, files):
    """What becomes of files by path when they are merged."""
    with tempfile.TemporaryDirectory() as folder:
        return transfer.merge(store, craft(Path(folder) / "crafted", files))


def states(outcomes):
    return {outcome.path: outcome.state for outcome in outcomes}


def refusals(outcomes):
    return {outcome.path: outcome.why for outcome in outcomes if outcome.state == "refused"}


def snapshot(store):
    """Content and time of every file of a store but the locks."""
    found = [p for top in (store.records, store.work) for p in top.rglob("*") if p.is_file()]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in found if not p.name.endswith("lock")}


# Round trips


def test_parts_laid_end_to_end_are_a_tar_file(parts):
    body = json.loads((parts / "manifest.json").read_text())
    blob = b""
    for part in body["parts"]:
        data = (parts / part["name"]).read_bytes()
        assert len(data) == part["size"] <= PART and hashlib.sha256(data).hexdigest() == part["sha256"]
        blob += data
    assert [part["size"] for part in body["parts"][:-1]] == [PART] * (len(body["parts"]) - 1)
    assert {path.name for path in parts.iterdir()} == {"manifest.json", *(p["name"] for p in body["parts"])}
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        members = {member.name: member for member in tar}
        assert {name: tar.extractfile(name).read() for name in members} == FILES
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, 0, "")}
    assert {e["path"]: blob[e["offset"] : e["offset"] + e["size"]] for e in body["files"]} == FILES
    assert {e["path"]: hashlib.sha256(FILES[e["path"]]).hexdigest() for e in body["files"]} == {
        e["path"]: e["sha256"] for e in body["files"]
    }


def test_import_brings_the_same_bytes_and_twice_changes_nothing(here, parts, store):
    first = transfer.merge(store, parts)
    assert states(first) == dict.fromkeys(FILES, "added")
    assert {path: local(store, path).read_bytes() for path in FILES} == FILES
    for known in (store, here):
        before = snapshot(known)
        assert set(states(transfer.merge(known, parts)).values()) == {"here"} and snapshot(known) == before


def test_an_export_of_an_early_version_is_merged(store, tmp_path):
    """Without tar headers between the files."""
    outcomes = transfer.merge(store, craft(tmp_path / "early", FILES, most=PART))
    assert states(outcomes) == dict.fromkeys(FILES, "added")
    assert {path: local(store, path).read_bytes() for path in FILES} == FILES


def test_unchanged_store_gives_the_same_bytes(here, parts, tmp_path):
    for path in FILES:
        os.utime(local(here, path), (1, 1))
    transfer.export(here, tmp_path / "again", planned=PLANNED, max_part=PART)
    assert {p.name: p.read_bytes() for p in parts.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()
    }


def test_which_weights_go_along(here, tmp_path):
    def weights(**options):
        done = transfer.export(here, tmp_path / "out", **options)
        assert not done.left_out and not done.without_weights
        return {entry.run for entry in done.files if entry.kind == "weights"}

    assert weights() == {TEACHER.id} and weights(all_weights=True) == {TEACHER.id, STUDENT.id}
    # No student of the teacher is recorded or planned.
    assert weights(runs={TEACHER.id}) == set()
    assert weights(runs={TEACHER.id}, planned=[STUDENT]) == {TEACHER.id}
    # A checkpoint does not say from which run it learns: the teacher may be any run without one.
    assert weights(runs={TEACHER.id, BEGUN.id}) == {TEACHER.id}
    other = tiny_review(teacher_weights="random", seed=1)
    assert weights(runs={TEACHER.id, BEGUN.id}, planned=[BEGUN, other]) == {TEACHER.id}
    for which in ("last", "best"):
        (here.folder(TEACHER.id) / f"{which}.pt").unlink()
    assert transfer.export(here, tmp_path / "out").without_weights == [TEACHER.id]


# Damage on the way


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (flip, "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "instead of"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_files_of_a_spoilt_part_are_refused_and_all_others_merged(spoil, why, which, parts, store):
    body = json.loads((parts / "manifest.json").read_text())
    index = which % (len(body["parts"]) - 1)  # the last one holds the end of the tar file alone
    part = body["parts"][index]["name"]
    whole = (parts / part).read_bytes()
    spoil(parts / part)
    lost = {
        entry["path"]
        for entry in body["files"]
        if entry["offset"] < (index + 1) * PART and entry["offset"] + entry["size"] > index * PART
    }
    outcomes = transfer.merge(store, parts)
    assert set(refusals(outcomes)) == lost and 0 < len(lost) < len(body["files"])
    assert all(part in text and why in text for text in refusals(outcomes).values())
    assert not any(local(store, path).exists() for path in lost)
    (parts / part).write_bytes(whole)
    repaired = states(transfer.merge(store, parts))
    assert {path for path, state in repaired.items() if state == "added"} == lost


def outside(path):
    return lambda body: body["files"][0].update(path=path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside("../evil.json"), "'../evil.json' .* is no place in a store"),
        (outside(f"records/../{TEACHER.id}.json"), "no place in a store"),
        (outside(f"work/{TEACHER.id}/log.txt"), "no place in a store"),
        (lambda b: b["files"][0].update(kind="weights"), "no place in a store"),
        (lambda b: b["files"][0].update(run="../evil"), "no place in a store"),
        (lambda b: b["files"][0].update(offset=-1), "offset is -1; it must be a whole number >= 0"),
        (lambda b: b["files"][0].pop("offset"), "damaged.*offset"),
        (lambda b: b["parts"][0].update(name="../part"), "no name of a part"),
        (lambda b: b.pop("parts"), "damaged.*'parts'"),
        (lambda b: b.update(format=2), "it is 'rkd export' of format 2, not 'rkd export' of 1"),
        (lambda b: b.update(kind="other"), "no manifest of an export: it is 'other'"),
    ],
)
def test_manifest_that_reaches_outside_or_is_damaged_is_refused(edit, message, parts, store, tmp_path):
    edited(parts, edit)
    before = {path for path in tmp_path.rglob("*") if parts not in path.parents}
    with pytest.raises(RecordError, match=message):
        transfer.merge(store, parts)
    assert {path for path in tmp_path.rglob("*") if parts not in path.parents} == before


def test_damaged_or_absent_manifest_is_named(parts, store, tmp_path):
    (parts / "manifest.json").write_text((parts / "manifest.json").read_text()[:-30])
    with pytest.raises(RecordError, match=r"manifest\.json is damaged"):
        transfer.merge(store, parts)
    with pytest.raises(RecordError, match="holds no export"):
        transfer.merge(store, tmp_path)


def test_content_that_is_not_what_the_manifest_says_is_refused(parts, store):
    """Announced sizes beyond what is there, too: they are not read, and nothing is reserved for them."""

    def edit(body):
        files = {entry["path"]: entry for entry in body["files"]}
        first, second = (files[f"records/{run.id}.json"] for run in (TEACHER, STUDENT))
        for name in ("offset", "size", "sha256"):
            first[name], second[name] = second[name], first[name]
        files[f"work/{BEGUN.id}/checkpoint.pt"]["sha256"] = "0" * 64
        files[f"maps/{STUDENT.id}.npz"]["size"] = 10**18

    edited(parts, edit)
    said = refusals(transfer.merge(store, parts))
    for own, other in ((TEACHER, STUDENT), (STUDENT, TEACHER)):
        assert f"belongs to run {other.id}" in said.pop(f"records/{own.id}.json")
    for path in (f"work/{BEGUN.id}/checkpoint.pt", f"maps/{STUDENT.id}.npz"):
        assert "hold other content" in said.pop(path)
    assert set(said) == {f"work/{TEACHER.id}/{which}.pt" for which in ("last", "best")}
    assert not snapshot(store)
    edited(parts, lambda body: body["parts"][0].update(size=10**18))
    assert len(refusals(transfer.merge(store, parts))) == len(FILES) and not snapshot(store)


def test_links_and_paths_in_tar_headers_lead_nowhere(store, tmp_path):
    """They are not followed: what counts is the manifest."""
    file, path = io.BytesIO(), f"records/{TEACHER.id}.json"
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind in (("../evil", tarfile.REGTYPE), (path, tarfile.SYMTYPE), ("big", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member, io.BytesIO())
    crafted = craft(tmp_path / "crafted", {path: b""}, tail=file.getvalue())
    before = {*tmp_path.rglob("*")}
    assert "damaged" in refusals(transfer.merge(store, crafted))[path]
    assert all(store.work in p.parents or p == store.work for p in {*tmp_path.rglob("*")} - before)
    assert not snapshot(store)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("checkpoint.pt", saved("0" * 12), "belongs to run 000000000000"),
        ("checkpoint.pt", saved(BEGUN.id, student=None), "no checkpoint of a run"),
        ("checkpoint.pt", saved(BEGUN.id, epoch="one"), "no counts"),
        ("checkpoint.pt", pickle.dumps(Evil(), protocol=2), "damaged"),
        ("checkpoint.pt", saved(BEGUN.id, epoch=Evil()), "damaged"),
        ("last.pt", saved(BEGUN.id, student={"a": 1}), "more than named tensors"),
        ("last.pt", saved(BEGUN.id, student={"a": torch.zeros(1).to_sparse()}), "more than named tensors"),
        ("maps.npz", b"no maps", "no maps of a run"),
    ],
)
def test_files_are_read_before_they_are_put_in_place(name, data, why, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusals(merged(store, {f"work/{BEGUN.id}/{name}": data}))
    assert [why in text for text in said.values()] == [True]
    assert not snapshot(store) and not (tmp_path / "evil").exists()


def test_damaged_files_here_are_left_out_by_name(here, tmp_path):
    here.path(STUDENT.id).write_bytes(FILES[f"records/{STUDENT.id}.json"][:-40])
    (here.folder(BEGUN.id) / "checkpoint.pt").write_bytes(b"half")
    here.maps(STUDENT.id).write_bytes(b"half")
    (here.records / "notes.json").write_text("{}")
    done = transfer.export(here, tmp_path / "out")
    assert all("damaged" in why for why in done.left_out.values())
    assert set(done.left_out) == {
        f"records/{STUDENT.id}.json",
        f"work/{BEGUN.id}/checkpoint.pt",
        "records/notes.json",
    }
    assert {entry.run for entry in done.files} == {TEACHER.id}


# What is here already


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"curves": {"test_accuracy": [4.0]}}, "curves"),
        ({"status": "diverged"}, "status"),
        ({"result": {"last_accuracy": 99.0}}, "result"),
        ({"cost": {"train_seconds": 9.0}, "provenance": {"torch": "9"}}, None),
    ],
)
def test_record_with_another_outcome_is_a_conflict(values, what, here):
    path, weights, other = (
        f"records/{TEACHER.id}.json",
        f"work/{TEACHER.id}/last.pt",
        f"records/{STUDENT.id}.json",
    )
    local(here, weights).unlink()
    before = snapshot(here)
    files = {path: text(TEACHER, **values), weights: FILES[weights], other: FILES[other]}
    outcomes = merged(here, files)
    if what is None:
        assert list(states(outcomes).values()) == ["here", "added", "here"]
        return
    said = refusals(outcomes)
    assert said.pop(path) == f"conflict: the record here has another {what}; it stays"
    assert "record" in said.pop(weights) and not said, "weights of another outcome"
    assert snapshot(here) == before


def test_infinite_losses_equal_themselves_and_places_of_teachers_do_not_matter(store):
    def files(place, **values):
        config = tiny_review(
            teacher=TeacherConfig(checkpoint=f"{place}/t.pth", sha256="0" * 64, network="resnet14")
        )
        made = text(config, status="diverged", curves={"loss_ce": [float("nan")]}, **values)
        return {f"records/{config.id}.json": made}

    put(store, files("a"))
    outcomes = merged(store, files("b", cost={"train_seconds": 1.0}))
    assert set(states(outcomes).values()) == {"here"}


@pytest.mark.parametrize(("scale", "state"), [(3.0, "refused"), (float("nan"), "refused"), (2.0, "here")])
def test_weights_are_compared_as_tensors(scale, state, here):
    path = f"work/{TEACHER.id}/best.pt"
    data = saved(TEACHER.id, scale, note="other bytes")
    before = snapshot(here)
    outcomes = merged(here, {path: data})
    assert states(outcomes) == {path: state} and snapshot(here) == before
    assert all("conflict" in why for why in refusals(outcomes).values())
    put(here, {path: saved(TEACHER.id, float("nan"))})
    nan = saved(TEACHER.id, float("nan"), note="")
    assert states(merged(here, {path: nan})) == {path: "here"}, "bit for bit"


@pytest.mark.parametrize(
    ("mine", "theirs", "state"),
    [
        ({"epoch": 1}, {"epoch": 2}, "added"),
        ({"epoch": 2}, {"epoch": 1, "position": 90}, "here"),
        ({"epoch": 1, "position": 64}, {"epoch": 1, "position": 65}, "added"),
        ({"epoch": 1, "position": 64}, {"epoch": 1}, "here"),
        ({"epoch": 1}, {"epoch": 1, "position": 0, "note": ""}, "here"),
    ],
)
def test_state_further_on_stays(mine, theirs, state, store):
    path = f"work/{BEGUN.id}/checkpoint.pt"
    before, data = saved(BEGUN.id, **mine), saved(BEGUN.id, **theirs)
    assert states(merged(put(store, {path: before}), {path: data})) == {path: state}
    assert local(store, path).read_bytes() == (data if state == "added" else before)


def test_maps_with_more_epochs_stay(store):
    path = f"work/{BEGUN.id}/maps.npz"
    put(store, {path: maps(BEGUN.id, (1, 2))})
    for epochs, state in (((3,), "here"), ((1, 2, 3), "added"), ((1, 2, 4), "here")):
        assert states(merged(store, {path: maps(BEGUN.id, epochs)})) == {path: state}
    assert local(store, path).read_bytes() == maps(BEGUN.id, (1, 2, 3))


def test_record_and_checkpoint_of_one_run_do_not_stand_beside_each_other(here, store):
    """Where the run is recorded its checkpoint is ignored; a record that comes removes the checkpoint here."""
    files = {f"work/{STUDENT.id}/checkpoint.pt": saved(STUDENT.id)}
    before = snapshot(here)
    assert set(states(merged(here, files)).values()) == {"here"}
    assert snapshot(here) == before
    path = put(store, files).folder(STUDENT.id) / "checkpoint.pt"
    files |= {f"records/{STUDENT.id}.json": FILES[f"records/{STUDENT.id}.json"]}
    assert list(states(merged(store, files)).values()) == ["here", "added"]
    assert store.ids() == [STUDENT.id] and not path.exists()


def test_damaged_file_here_is_named_and_stays(here, parts):
    paths = [f"records/{TEACHER.id}.json", f"work/{BEGUN.id}/checkpoint.pt", f"maps/{STUDENT.id}.npz"]
    put(here, dict.fromkeys(paths, b"half"))
    said = refusals(transfer.merge(here, parts))
    for path in paths:
        assert local(here, path).read_bytes() == b"half"
        assert f"delete {local(here, path)} and import again" in said[path]
        local(here, path).unlink()
    assert refusals(transfer.merge(here, parts)) == {}


# Others at work


def test_run_in_training_is_refused_by_name(parts, store):
    with store.lock(BEGUN.id) as ours:
        assert ours
        outcomes = transfer.merge(store, parts)
    path = f"work/{BEGUN.id}/checkpoint.pt"
    assert refusals(outcomes) == {
        path: f"run {BEGUN.id} is being trained here now; import again when it has ended"
    }
    assert not local(store, path).exists() and len(store.ids()) == 2
    assert [path for path, s in states(transfer.merge(store, parts)).items() if s == "added"] == [path]


def test_a_look_at_a_run_is_not_taken_for_training(parts, store):
    """`rkd status` takes each lock for an instant."""
    seen = threading.Event()

    def look():
        with store.lock(BEGUN.id):
            seen.set()
            time.sleep(0.06)

    thread = threading.Thread(target=look)
    thread.start()
    seen.wait()
    assert refusals(transfer.merge(store, parts)) == {}
    thread.join()


def test_two_imports_at_once(parts, store, monkeypatch):
    """The second one starts when the first is at its first file, and a slow disk keeps that one long at each."""
    theirs, place = {}, merging.place
    other = threading.Thread(target=lambda: theirs.update(states(transfer.merge(store, parts))))

    def slowly(path, data):
        if other.ident is None:
            other.start()
        time.sleep(0.1)
        place(path, data)

    monkeypatch.setattr(merging, "place", slowly)
    assert states(transfer.merge(store, parts)) == dict.fromkeys(FILES, "added")
    other.join(60)
    assert theirs == dict.fromkeys(FILES, "here")


def test_export_of_a_run_that_is_saved_all_the_time(here, store, tmp_path):
    """Each export holds one of the states whole."""
    stop = threading.Event()

    def put_state(epoch):  # the student's tensors and the count agree in every whole state
        state = {"run": BEGUN.id, "epoch": epoch, "student": {"a": torch.full((9_000,), epoch)}}
        checkpoint.save(state, here.folder(BEGUN.id) / "checkpoint.pt")

    def save():
        for epoch in itertools.count(2):
            put_state(epoch)
            if stop.wait(0.001):
                return

    put_state(1)
    thread = threading.Thread(target=save)
    thread.start()
    seen = set()
    try:
        for index in range(8):
            out = tmp_path / f"out{index % 2}"
            assert transfer.export(here, out).left_out == {} and refusals(transfer.merge(store, out)) == {}
            got = checkpoint.load(store.folder(BEGUN.id) / "checkpoint.pt")
            assert (got["student"]["a"] == got["epoch"]).all()
            seen.add(got["epoch"])
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 1


def test_run_that_ends_during_the_export_comes_with_its_record(here, tmp_path, monkeypatch):
    def ending(store, path):
        if path == f"work/{STUDENT.id}/checkpoint.pt":
            put(here, {f"records/{STUDENT.id}.json": FILES[f"records/{STUDENT.id}.json"]})
        return local(store, path)

    here.path(STUDENT.id).unlink()
    monkeypatch.setattr(exporting, "local", ending)
    done = transfer.export(here, tmp_path / "out", runs={STUDENT.id})
    assert [entry.kind for entry in done.files] == ["record", "maps"]


# The folder


def test_export_replaces_an_export_and_removes_surplus_parts(here, tmp_path, store):
    out = tmp_path / "out"
    many = transfer.export(here, out, max_part=PART)
    (out / many.parts[0].name).write_bytes(b"damaged")
    assert transfer.export(here, out, max_part=PART).parts == many.parts
    assert (out / many.parts[0].name).stat().st_size == PART
    few = transfer.export(here, out, max_part=2 * PART)
    assert len(many.parts) > len(few.parts) and not {*many.parts} & {*few.parts}
    assert {p.name for p in out.glob("*.bin")} == {part.name for part in few.parts}
    assert set(states(transfer.merge(store, out)).values()) == {"added"}


@pytest.mark.parametrize("moment", ["parts", "move", "manifest"])
def test_export_that_fails_leaves_the_one_before(moment, here, tmp_path, store, monkeypatch):
    out = tmp_path / "out"
    transfer.export(here, out, max_part=PART)

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    where = {
        "parts": (archive, "place"),
        "move": (exporting.shutil, "move"),
        "manifest": (exporting, "place"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[moment], full_disk)
        with pytest.raises(RecordError, match=r"failed: .*No space left"):
            transfer.export(here, out, max_part=2 * PART)
    assert set(states(transfer.merge(store, out)).values()) == {"added"}
    done = transfer.export(here, out, max_part=2 * PART)
    names = {path.name for path in out.iterdir()}
    assert names == {"manifest.json", *(part.name for part in done.parts)}, "what the failed one left is gone"
    assert not (here.work / ".export").exists()


def test_folder_with_anything_else_is_refused_by_name(here, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (own / "thesis.tex").write_text("x")
    for wrong in (
        lambda: transfer.export(here, own),
        lambda: transfer.KeptExport(here, own, PLANNED, PART, None),
    ):
        with pytest.raises(RecordError, match=r"no part of an export \(thesis.tex\)"):
            wrong()
    assert [path.name for path in own.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecordError, match="is not a folder"):
        transfer.export(here, own / "thesis.tex")
    (other / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(RecordError, match="no manifest of an export"):
        transfer.export(here, other)


def test_nothing_to_export(store, tmp_path):
    with pytest.raises(RecordError, match="nothing to export"):
        transfer.export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_of_files_takes_records_first_then_weights_then_checkpoints(here, tmp_path):
    parts, order = tmp_path / "limited", [*FILES]
    order = [p for kind in ("records/", "/last", "/best", "/checkpoint", "maps/") for p in order if kind in p]
    assert len(order) == len(FILES)
    for count in range(2, len(order) + 1):
        writer = archive.TarWriter(tmp_path, 10**9)
        for path in order[: count - 1]:
            writer.add(path, FILES[path])
        room = writer.size_with(len(FILES[order[count - 1]]))
        writer.add(order[count - 1], FILES[order[count - 1]])
        writer.close()
        assert writer.tell() == room
        done = transfer.export(here, parts, planned=PLANNED, max_part=-(-room // 2), max_files=3)
        assert {path.name for path in parts.iterdir()} == {"manifest.json", *(p.name for p in done.parts)}
        assert len(done.parts) <= 2 and max(part.size for part in done.parts) <= -(-room // 2)
        assert {*order[:count]} <= {entry.path for entry in done.files} | {*done.no_room}
        assert {entry.path for entry in done.files} | {*done.no_room} == {*order}
        assert [entry.path for entry in done.files][:count] == order[:count], "later ones where they fit"
        assert {o.state for o in transfer.merge(store_in(tmp_path / str(count)), parts)} == {"added"}
    assert done.no_room == []
    with pytest.raises(ConfigError, match="max_files is 1; an export has at least 2"):
        transfer.export(here, parts, max_files=1)


def test_an_export_is_kept_up_to_date_while_runs_are_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(keeping, "LEAST_SECONDS", 0.02)
    store, folder, planned = store_in(tmp_path), tmp_path / "carry", [TEACHER, STUDENT, BEGUN]

    def arrives(path):
        local(store, path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy").write_bytes(FILES[path])
        os.replace(tmp_path / "copy", local(store, path))
        deadline = time.monotonic() + 60
        while path not in (found := [e.path for e in kept.last.files] if kept.last else []):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    with transfer.KeptExport(store, folder, planned, 10 * PART, 8) as kept:
        assert kept.last is None
        arrives(f"work/{BEGUN.id}/checkpoint.pt")
        arrives(f"records/{TEACHER.id}.json")
    assert set(states(transfer.merge(store_in(tmp_path / "2"), folder)).values()) == {"added"}
    # The next call carries on what is in the folder, and not what was here before either began.
    put(store, {f"records/{STUDENT.id}.json": FILES[f"records/{STUDENT.id}.json"]})
    with transfer.KeptExport(store, folder, planned, 10 * PART, 8) as kept:
        pass
    assert {e.run for e in kept.last.files} == {BEGUN.id, TEACHER.id}


# The command line


def call(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_commands(here, tmp_path, capsys):
    there, out = tmp_path / "there", tmp_path / "out"
    shutil.copytree(here.records, there)
    shutil.copytree(here.work, there / "work")
    status, said, _ = call(capsys, "export", "--out", out, "--results", there, "--max-part", "0.03MB")
    rows = {row[0]: row[1] for line in said.splitlines() if len(row := line.split()) == 3}
    assert status == 0 and rows == {"records": "2", "checkpoints": "1", "weights": "2", "maps": "1"}
    assert max(path.stat().st_size for path in out.glob("*.bin")) == 30_000

    status, said, _ = call(capsys, "import", out, "--results", tmp_path / "target")
    assert status == 0 and "nothing was changed" not in said
    status, said, _ = call(capsys, "import", out, "--results", tmp_path / "target")
    assert status == 0 and "nothing was changed: all of it is here already" in said
    next(out.glob("part-0001*")).unlink()
    status, said, _ = call(capsys, "import", out, "--results", tmp_path / "second")
    lines = [line for line in said.splitlines() if line.startswith("refused records/")]
    assert status == 1 and lines and all("part-0001" in line and "is missing" in line for line in lines)

    (there / "notes.json").write_text("{}")
    status, said, _ = call(capsys, "export", "--out", out, "--results", there, "--all-weights")
    assert status == 1 and "left out records/notes.json" in said and "weights           4" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "either --out DIR, for the parts, or --teachers"),
        (["export", "--out", "x", "--teachers"], "not both"),
        (["export", "--teachers", "--max-part", "1MB"], "--max-part goes with --out"),
        (["export", "--out", "x", "--max-part", "15XB"], "'15XB' is not a size"),
        (["export", "--out", "x", "--chapters", "tabel3"], "did you mean 'table3'"),
        (["import", "nowhere"], "nowhere holds no export"),
        (["import", "nowhere", "--profile", "papr"], "did you mean 'paper'"),
    ],
)
def test_wrong_calls(arguments, message, capsys):
    status, _, err = call(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1


def test_sizes():
    expected = {
        "15MB": 15e6, "900kB": 9e5, "900KB": 9e5, "1GiB": 2**30, "1.5 MiB": 1.5 * 2**20, "2000000": 2e6, "5000b": 5e3,
    }  # fmt: skip
    assert {text: size(text) for text in expected} == expected
    for wrong in ("", "MB", "15 parts", "-1MB", "1e6", "0MB", "999B", "nanMB", "1,5MB", "٣MB"):
        with pytest.raises(ConfigError, match="is not a size of at least 1kB"):
            size(wrong)
