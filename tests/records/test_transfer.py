"""Export and import: round trips, damage, conflicts, checkpoints, runs in use, folders in use."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_review
from evidence import whole
from numpy.lib import format as npformat

from rkd.config import size
from rkd.errors import ConfigError, RecordError
from rkd.files import write_atomic
from rkd.records import Store, transfer
from rkd.records.transfer import archive, exporting
from rkd.records.transfer.archive import local_path
from rkd.training import TeacherConfig

STUDENT = tiny_review(teacher_weights="best", epochs=1)
TEACHER = STUDENT.teacher.run
BEGUN = tiny_review(teacher_weights="best", seed=1)
PART = 20_480  # the files are between 2 and 40 kB
PLANNED = [STUDENT, BEGUN]


def saved(run, scale=1.0, epoch=1, **values):
    """The bytes of a checkpoint file."""
    torch.manual_seed(0)
    student = {"a": scale * torch.randn(9_000), "n": torch.tensor(3)}
    state = {"run": run, "epoch": epoch, "student": student, "curves": {"lr": [0.1] * epoch}}
    if run == BEGUN.id:
        state["config"] = BEGUN.to_dict()
    file = io.BytesIO()
    torch.save(state | values, file)
    return file.getvalue()


def maps(run, epochs=(1,), **values):
    file = io.BytesIO()
    arrays = {"size": np.array(32), "levels": np.array(["pooled"]), "labels": np.arange(2)}
    arrays["classes"] = np.array(["a", "b"])
    arrays["student_0"] = arrays["teacher_0"] = np.ones((2, 1, 1), np.float16)
    np.savez_compressed(file, **{"run": np.array(run), "epochs": np.array(epochs), **arrays, **values})
    return file.getvalue()


def forged(run, form, shape, zeros=0):
    """Maps with a header of an array of that shape, and so many bytes of zeros."""
    file, header = io.BytesIO(maps(run)), {"descr": form, "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as whole, whole.open("places.npy", "w") as array:
        npformat.write_array_header_1_0(array, header)
        array.write(bytes(zeros))
    return file.getvalue()


def put(store, files):
    for path, data in files.items():
        local_path(store, path).parent.mkdir(parents=True, exist_ok=True)
        local_path(store, path).write_bytes(data)
    return store


def text(config, status="finished", **parts):
    return whole(config, status, **parts).to_json().encode()


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


def merged(store, files):
    """What becomes of files by path when they are merged."""
    with tempfile.TemporaryDirectory() as folder:
        data, entries = b"".join(files.values()), []
        for path, content in files.items():
            start = sum(entry["size"] for entry in entries)
            entries.append({"path": path, "start": start, "size": len(content)})
        name = f"part-0001-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        (Path(folder) / name).write_bytes(data)
        body = {"format": archive.FORMAT, "part_size": len(data), "parts": [name], "files": entries}
        (Path(folder) / "manifest.json").write_text(json.dumps(body))
        return transfer.merge(store, Path(folder))


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def states(outcomes):
    return {outcome.path: outcome.state for outcome in outcomes}


def refusals(outcomes):
    return {outcome.path: outcome.why for outcome in outcomes if outcome.state == "refused"}


def snapshot(store):
    """Content and time of every file of a store but the locks."""
    found = [p for top in (store.records, store.work) for p in top.rglob("*") if p.is_file()]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in found if not p.name.endswith("lock")}


def test_parts_laid_end_to_end_are_a_tar_file_of_a_store(parts, tmp_path):
    names = sorted(path.name for path in parts.glob("part-*"))
    assert json.loads((parts / "manifest.json").read_text())["parts"] == names and len(names) > len(FILES) / 2
    pieces = [(parts / name).read_bytes() for name in names]
    assert max(map(len, pieces)) == PART
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}
        assert {m.name: tar.extractfile(m).read() for m in tar} == FILES


def test_import_brings_the_same_bytes_and_twice_changes_nothing(here, parts, store, tmp_path):
    assert states(transfer.merge(store, parts)) == dict.fromkeys(FILES, "added")
    assert {path: local_path(store, path).read_bytes() for path in FILES} == FILES
    for known in (store, here):
        before = snapshot(known)
        assert set(states(transfer.merge(known, parts)).values()) == {"here"} and snapshot(known) == before
    for path in FILES:
        os.utime(local_path(here, path), (1, 1))
    transfer.export(here, tmp_path / "again", planned=PLANNED, max_part=PART)
    assert content_of(parts) == content_of(tmp_path / "again"), "an unchanged store gives the same bytes"


def test_which_weights_go_along(here, tmp_path):
    def weights(**options):
        done = transfer.export(here, tmp_path / "out", **options)
        assert not done.left_out and not done.without_weights
        return {entry.run for entry in done.files if entry.kind == "weights"}

    assert weights() == {TEACHER.id} and weights(all_weights=True) == {TEACHER.id, STUDENT.id}
    # No student of the teacher is recorded or planned.
    assert weights(runs={TEACHER.id}) == set()
    assert weights(runs={TEACHER.id}, planned=[STUDENT]) == {TEACHER.id}
    for which in ("last", "best"):
        (here.folder(TEACHER.id) / f"{which}.pt").unlink()
    assert transfer.export(here, tmp_path / "out").without_weights == [TEACHER.id]


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def flip(path):
    path.write_bytes(flipped(path.read_bytes()))


def to_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def to_a_link(path):
    path.symlink_to(path.rename(path.parent.with_suffix(".elsewhere")))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (flip, "is damaged"), (Path.unlink, "is missing"), (to_a_pipe, "no regular file"), (to_a_link, "is a link"),
    ],
)  # fmt: skip
def test_files_of_a_spoilt_part_are_refused_and_all_others_merged(spoil, why, parts, store):
    body = json.loads((parts / "manifest.json").read_text())
    part = body["parts"][1]
    whole = (parts / part).read_bytes()
    spoil(parts / part)
    touched = {e["path"] for e in body["files"] if e["start"] < 2 * PART and e["start"] + e["size"] > PART}
    said = refusals(transfer.merge(store, parts))
    assert said.keys() == touched and 0 < len(said) < len(FILES)
    assert all(part in text and why in text for text in said.values())
    assert not any(local_path(store, path).exists() for path in said)
    (parts / part).unlink(missing_ok=True)
    (parts / part).write_bytes(whole)
    assert {path for path, s in states(transfer.merge(store, parts)).items() if s == "added"} == touched


NO_MANIFEST = b"", b"\xff\xfe", b"[]", b"[" * 200_000, b'{"files": 5}'


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b["files"][0].update(path=f"records/../{TEACHER.id}.json"), "is no place of"),
        (lambda b: b["files"][0].update(path=f"/work/{TEACHER.id}/last.pt"), "is no place of"),
        (lambda b: b["files"][0].update(size=-1), "size is -1; it must be a whole number >= 0"),
        (lambda b: b["parts"].append("../part"), "parts is '../part'"),
        (lambda b: b["files"].append([[]] * 5), "no manifest of an export"),
        (lambda b: b.pop("parts"), "needs parts"),
        (lambda b: b.update(format=1), "no manifest of an export: unknown format 1; allowed: rkd export 3"),
        *((text, "damaged, or no manifest of an export") for text in NO_MANIFEST),
    ],
)
def test_manifest_that_reaches_outside_or_is_damaged_is_refused(edit, message, parts, store, tmp_path):
    body = json.loads((parts / "manifest.json").read_text())
    if callable(edit):
        edit(body)
    (parts / "manifest.json").write_bytes(json.dumps(body).encode() if callable(edit) else edit)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(RecordError, match=message) as error:
        transfer.merge(store, parts)
    assert {*tmp_path.rglob("*")} == before and len(str(error.value)) < 600


def test_sizes_that_a_manifest_makes_up_take_no_memory(parts, store):
    body = json.loads((parts / "manifest.json").read_text())
    body["files"][0]["size"] = 10**15
    (parts / "manifest.json").write_text(json.dumps(body | {"part_size": 10**15}))
    assert "the parts end before" in refusals(transfer.merge(store, parts))[body["files"][0]["path"]]


HUGE = torch.zeros(1).expand(2**20, 2**20)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("checkpoint.pt", saved("0" * 12), "belongs to run '000000000000'"),
        ("checkpoint.pt", saved(BEGUN.id, method=Evil()), "damaged"),
        ("last.pt", saved(BEGUN.id, student={"a": 1}), "no weights of run"),
        ("last.pt", saved(BEGUN.id, student={}), "is empty"),
        ("checkpoint.pt", saved(BEGUN.id, student={}), "its student has no tensors"),
        ("checkpoint.pt", saved(BEGUN.id, student={"a": HUGE}), "more than the file"),
        ("checkpoint.pt", saved(BEGUN.id, float("nan")), "a of its student holds NaN"),
        ("checkpoint.pt", saved(BEGUN.id, curves={}), "epoch is 1, but its curves are of 0 epochs"),
        (
            "checkpoint.pt",
            saved(BEGUN.id, curves={"lr": [0], "loss_ce": [1.0] * 9}),
            "'loss_ce' has 9 values",
        ),
        ("checkpoint.pt", saved(BEGUN.id, curves={"lr": "a"}), "lr is 'a'; it must be a list of numbers"),
        ("checkpoint.pt", saved(BEGUN.id, epoch=9), "its curves are of 9 epochs, but the run has 2"),
        ("checkpoint.pt", saved(BEGUN.id, position=10**6), "position is 1000000, which no batch"),
        ("checkpoint.pt", saved(BEGUN.id, epoch=2, position=64), "but its last epoch is done"),
        ("checkpoint.pt", saved(BEGUN.id, config=STUDENT.to_dict()), f"config is that of run {STUDENT.id}"),
        ("checkpoint.pt", flipped(saved(BEGUN.id)), "does not match its checksum"),
        ("maps.npz", b"no maps", "no maps of run"),
        ("maps.npz", maps("0" * 12), "holds maps of run '000000000000'"),
        ("maps.npz", maps(BEGUN.id, labels=np.arange(2.0)), "an array 'labels' of float64"),
        ("maps.npz", forged(BEGUN.id, "|i1", (10**8,), 10**8), "its arrays take 100,0"),
        ("maps.npz", forged(BEGUN.id, "<i8", (36 * 2**30,)), "of which the file holds less"),
    ],
)
def test_files_are_read_before_they_are_put_in_place(name, data, why, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusals(merged(store, {f"work/{BEGUN.id}/{name}": data}))
    assert [why in text for text in said.values()] == [True]
    assert not snapshot(store) and not (tmp_path / "evil").exists()


def test_damaged_files_here_are_named_and_stay(here, parts, tmp_path):
    here.path(STUDENT.id).write_bytes(FILES[f"records/{STUDENT.id}.json"][:-40])
    (here.folder(BEGUN.id) / "checkpoint.pt").write_bytes(b"half")
    (here.records / "notes.json").write_text("{}")
    said = (done := transfer.export(here, tmp_path / "out")).left_out
    assert "no place of a run's file" in said.pop("records/notes.json")
    assert said.keys() == {f"records/{STUDENT.id}.json", f"work/{BEGUN.id}/checkpoint.pt"}
    assert all("damaged" in why for why in said.values())
    assert {entry.run for entry in done.files} == {TEACHER.id}
    said = refusals(transfer.merge(here, parts))
    path = here.folder(BEGUN.id) / "checkpoint.pt"
    assert path.read_bytes() == b"half" and f"delete {path} and import again" in "".join(said.values())


def test_record_with_another_outcome_is_a_conflict_and_so_are_its_weights(here):
    path, weights = f"records/{TEACHER.id}.json", f"work/{TEACHER.id}/last.pt"
    local_path(here, weights).unlink()
    before = snapshot(here)
    for values in {"curves": {"test_accuracy": [4.0] * TEACHER.epochs}}, {"result": {"last_accuracy": 99.0}}:
        said = refusals(merged(here, {path: text(TEACHER, **values), weights: FILES[weights]}))
        assert said.pop(path) == "conflict: the record here has other content; it stays"
        assert "record" in said.pop(weights) and not said and snapshot(here) == before
    same = text(TEACHER, cost={"train_seconds": 9.0}, provenance={"torch": "9"})
    assert list(states(merged(here, {path: same, weights: FILES[weights]})).values()) == ["here", "added"]


def test_infinite_losses_equal_themselves_and_places_of_teachers_do_not_matter(store):
    def files(place):
        teacher = TeacherConfig(checkpoint=f"{place}/t.pth", sha256="0" * 64, network="resnet14")
        config = tiny_review(teacher=teacher)
        made = text(config, status="diverged", curves={"loss_ce": [float("nan")] * config.epochs})
        return {f"records/{config.id}.json": made}

    assert states(merged(put(store, files("a")), files("b"))) == dict.fromkeys(files("a"), "here")


STATE, MAPS = f"work/{BEGUN.id}/checkpoint.pt", f"work/{BEGUN.id}/maps.npz"
BEST = f"work/{TEACHER.id}/best.pt"


@pytest.mark.parametrize(
    ("path", "mine", "theirs", "state"),
    [
        (STATE, saved(BEGUN.id, epoch=1), saved(BEGUN.id, epoch=2), "added"),
        (STATE, saved(BEGUN.id, epoch=2), saved(BEGUN.id, epoch=1, position=90), "here"),
        (STATE, saved(BEGUN.id), saved(BEGUN.id, position=64), "added"),
        (STATE, saved(BEGUN.id), saved(BEGUN.id, position=64, config=None), "here"),  # nothing is proven
        (MAPS, maps(BEGUN.id, (1, 2)), maps(BEGUN.id, (1, 2, 3)), "added"),
        (BEST, saved(TEACHER.id), saved(TEACHER.id, note="other bytes"), "here"),
        (BEST, saved(TEACHER.id), saved(TEACHER.id, 3.0), "refused"),
        (BEST, saved(TEACHER.id, float("nan")), saved(TEACHER.id, float("nan"), note=""), "here"),
    ],
)
def test_state_further_on_stays_and_other_tensors_are_a_conflict(path, mine, theirs, state, store):
    outcomes = merged(put(store, {path: mine}), {path: theirs})
    assert states(outcomes) == {path: state}
    assert all("conflict" in why for why in refusals(outcomes).values())
    assert local_path(store, path).read_bytes() == (theirs if state == "added" else mine)
    kept = [file.read_bytes() for file in local_path(store, path).parent.glob("*.before")]
    assert kept == ([mine] if state == "added" else [])


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
    assert path.with_name("checkpoint.pt.before").read_bytes() == files[f"work/{STUDENT.id}/checkpoint.pt"]


def test_run_in_training_is_refused_by_name(parts, store):
    with store.lock(BEGUN.id) as ours:
        assert ours
        outcomes = transfer.merge(store, parts)
    path = f"work/{BEGUN.id}/checkpoint.pt"
    said = f"run {BEGUN.id} is in training here; import again when it has ended"
    assert refusals(outcomes) == {path: said}
    assert not local_path(store, path).exists() and len(store.ids()) == 2
    assert [path for path, s in states(transfer.merge(store, parts)).items() if s == "added"] == [path]


def test_run_that_ends_during_the_export_comes_with_its_record(here, tmp_path, monkeypatch):
    def ending(store, path):
        if path == f"work/{STUDENT.id}/checkpoint.pt":
            put(here, {f"records/{STUDENT.id}.json": FILES[f"records/{STUDENT.id}.json"]})
        return local_path(store, path)

    here.path(STUDENT.id).unlink()
    monkeypatch.setattr(exporting.archive, "local_path", ending)
    done = transfer.export(here, tmp_path / "out", runs={STUDENT.id})
    assert [entry.kind for entry in done.files] == ["record", "maps"]


def test_export_that_fails_leaves_the_one_before(here, tmp_path, store, monkeypatch):
    out = tmp_path / "out"
    transfer.export(here, out, max_part=PART)

    def full_disk(path, data):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_atomic", full_disk)
        with pytest.raises(RecordError, match=r"failed: .*No space left"):
            transfer.export(here, out, max_part=2 * PART)
    assert len([*out.glob("*.bin")]) > 3
    assert set(states(transfer.merge(store, out)).values()) == {"added"}
    done = transfer.export(here, out, max_part=2 * PART)
    names = {path.name for path in out.iterdir()}
    assert names == {"manifest.json", *done.parts}, "what the failed one left is gone, and surplus parts"


def test_folder_with_anything_else_is_refused_by_name(here, store, tmp_path):
    (own := tmp_path / "own").mkdir()
    (own / "thesis.tex").write_text("x")
    with pytest.raises(RecordError, match=r"no part of an export \(thesis.tex\)"):
        transfer.KeptExport(here, own, PLANNED, PART, None)
    assert [path.name for path in own.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecordError, match="is not a folder"):
        transfer.export(here, own / "thesis.tex")
    (own / "thesis.tex").rename(own / "manifest.json")
    with pytest.raises(RecordError, match="no manifest of an export"):
        transfer.export(here, own)
    with pytest.raises(RecordError, match="nothing to export"):
        transfer.export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_of_files_takes_records_first_then_weights_then_checkpoints(here, tmp_path):
    order = [p for kind in ("records/", "/last", "/best", "/checkpoint", "maps/") for p in FILES if kind in p]
    room = set()
    for count in (2, 3, 5, 9):
        out = tmp_path / str(count)
        done = transfer.export(here, out, planned=PLANNED, max_part=PART, max_files=count)
        kept = [entry.path for entry in done.files]
        assert len(list(out.iterdir())) <= count and max(p.stat().st_size for p in out.glob("*.bin")) <= PART
        assert sorted(kept + done.no_room) == sorted(FILES)
        assert kept == [path for path in order if path in kept] and kept[:2] == order[:2]
        assert {o.state for o in transfer.merge(store_in(out / "store"), out)} == {"added"}
        assert len(kept) >= len(room), "more files, more room"
        room = {*kept}
    assert room == {*FILES}
    for limits, message in (
        ({"max_files": 1}, "has at least 2"),
        ({"max_part": 0}, "max_part is 0; it must be a whole number >= 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            transfer.export(here, tmp_path / "none", **limits)


def test_an_export_is_kept_up_to_date_while_runs_are_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(exporting, "LEAST_SECONDS", 0.02)
    store, folder, planned = store_in(tmp_path), tmp_path / "carry", [TEACHER, STUDENT, BEGUN]

    def arrives(path):
        local_path(store, path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy").write_bytes(FILES[path])
        os.replace(tmp_path / "copy", local_path(store, path))
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


def test_commands(here, tmp_path, rkd):
    there, out = tmp_path / "there", tmp_path / "out"
    shutil.copytree(here.records, there)
    shutil.copytree(here.work, there / "work")
    status, said, _ = rkd(f"export --out {out} --results {there} --max-part 0.03MB")
    rows = {row[0]: row[1] for line in said.splitlines() if len(row := line.split()) == 3}
    assert status == 0 and rows == {"records": "2", "checkpoints": "1", "weights": "2", "maps": "1"}
    assert max(path.stat().st_size for path in out.glob("*.bin")) <= 30_000

    status, said, _ = rkd(f"import {out} --results {tmp_path / 'target'}")
    assert status == 0 and "nothing was changed" not in said
    status, said, _ = rkd(f"import {out} --results {tmp_path / 'target'}")
    assert status == 0 and "nothing was changed: all of it is here already" in said
    next(out.glob("part-0001*")).unlink()
    status, said, _ = rkd(f"import {out} --results {tmp_path / 'second'}")
    lines = [line for line in said.splitlines() if line.startswith("refused records/")]
    assert status == 1 and lines and all("part-0001" in line and "is missing" in line for line in lines)

    (there / "notes.json").write_text("{}")
    status, said, _ = rkd(f"export --out {out} --results {there} --all-weights")
    assert status == 1 and "left out records/notes.json" in said and "weights           4" in said
    for line, message in (
        ("export", "either --out DIR, for the parts, or --teachers"),
        ("export --teachers --max-part 1MB", "--max-part goes with --out"),
        ("export --out x --max-part 15XB", "'15XB' is not a size"),
        ("import nowhere", "nowhere holds no export"),
    ):
        status, _, err = rkd(line)
        assert status == 2 and message in err and err.count("\n") == 1


def test_sizes():
    expected = {"15MB": 15e6, "900kB": 9e5, "1GiB": 2**30, "1.5 MiB": 1.5 * 2**20, "2000000": 2e6}
    assert {text: size(text) for text in expected} == expected
    for wrong in ("", "MB", "15 parts", "-1MB", "1e6", "999B", "1,5MB"):
        with pytest.raises(ConfigError, match="is not a size of at least 1kB"):
            size(wrong)
