"""Export and import: round trips, damage, conflicts, checkpoints, runs in use, folders in use."""

import contextlib
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import Silent, tiny_plain, tiny_review

from rkd.cli import main
from rkd.cli.export import size
from rkd.errors import ConfigError, RecordError
from rkd.experiments.execute import Executor
from rkd.records import Record, Store, transfer
from rkd.records.transfer import collecting, exporting, keeping, rules
from rkd.training import checkpoint

STUDENT = tiny_review(teacher_weights="best", epochs=1)
TEACHER = STUDENT.teacher.run
BEGUN = tiny_review(teacher_weights="best", seed=1)  # of two epochs; one is done
PART = 60_000  # the files are between 2 kB and 1 MB


class Interrupting(Silent):
    """Keeps the state of the first epoch's end and stops there, whatever the executor's own rhythm of saving is."""

    def __init__(self, store):
        super().__init__()
        self.store = store

    def epoch(self, learner):
        checkpoint.save(learner.state(), self.store.folder(learner.config.id) / "checkpoint.pt")
        raise KeyboardInterrupt


def train(store, folder, *configs, progress=None):
    return Executor(store, folder, "cpu", progress=progress or Silent()).run(configs)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store with a teacher, its student, and another student after one of its two epochs."""
    folder = tmp_path_factory.mktemp("full")
    store = Store(folder / "records", folder / "work")
    train(store, folder, STUDENT)
    with contextlib.suppress(KeyboardInterrupt):
        train(store, folder, BEGUN, progress=Interrupting(store))
    return store


@pytest.fixture(scope="module")
def sent(full, tmp_path_factory):
    """An export of it."""
    folder = tmp_path_factory.mktemp("sent") / "parts"
    transfer.export(full, folder, planned=[STUDENT, BEGUN], max_part=PART)
    return folder


@pytest.fixture
def parts(sent, tmp_path):
    """A copy of the export, to be spoilt."""
    return shutil.copytree(sent, tmp_path / "parts")


@pytest.fixture
def here(full, tmp_path):
    """A copy of the full store."""
    shutil.copytree(full.records, tmp_path / "here" / "records")
    shutil.copytree(full.work, tmp_path / "here" / "work")
    return Store(tmp_path / "here" / "records", tmp_path / "here" / "work")


def local(store, path):
    folder, _, rest = path.partition("/")
    return {"records": store.records, "work": store.work}[folder] / rest


def craft(folder, files):
    """An export of given contents by path, written without the package."""
    folder.mkdir()
    blob = b"".join(files.values())
    digest = hashlib.sha256(blob).hexdigest()
    name = f"part-0001-{digest[:12]}.bin"
    (folder / name).write_bytes(blob)
    kinds = {"checkpoint.pt": "checkpoint", "last.pt": "weights", "best.pt": "weights"}
    entries, offset = [], 0
    for path, data in files.items():
        entries.append(
            {
                "path": path,
                "kind": kinds.get(path.rpartition("/")[2], "record"),
                "run": path.split("/")[1].removesuffix(".json"),
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "offset": offset,
            }
        )
        offset += len(data)
    body = {"kind": "rkd export", "format": 1, "rkd": "0", "files": entries}
    body["parts"] = [{"name": name, "size": len(blob), "sha256": digest}]
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


def edited(parts, edit):
    path = parts / "manifest.json"
    body = json.loads(path.read_text())
    edit(body)
    path.write_text(json.dumps(body))


def states(outcomes):
    return {outcome.path: outcome.state for outcome in outcomes}


def refusals(outcomes):
    return {outcome.path: outcome.why for outcome in outcomes if outcome.state == "refused"}


def snapshot(store):
    """Content and time of every file of a store but the locks."""
    found = [p for top in (store.records, store.work) if top.exists() for p in top.rglob("*") if p.is_file()]
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in found if not p.name.endswith("lock")}


def saved(state, folder):
    """The bytes of a checkpoint file."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(state, folder / "any.pt")
    return (folder / "any.pt").read_bytes()


# Round trips


def test_parts_laid_end_to_end_are_the_files(full, sent):
    body = json.loads((sent / "manifest.json").read_text())
    blob = b""
    for part in body["parts"]:
        data = (sent / part["name"]).read_bytes()
        assert len(data) == part["size"] <= PART and hashlib.sha256(data).hexdigest() == part["sha256"]
        blob += data
    assert [part["size"] for part in body["parts"][:-1]] == [PART] * (len(body["parts"]) - 1)
    for entry in body["files"]:
        data = blob[entry["offset"] : entry["offset"] + entry["size"]]
        assert data == local(full, entry["path"]).read_bytes(), entry["path"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(blob) == sum(entry["size"] for entry in body["files"])
    assert {entry["path"]: entry["kind"] for entry in body["files"]} == {
        f"records/{TEACHER.id}.json": "record",
        f"records/{STUDENT.id}.json": "record",
        f"work/{BEGUN.id}/checkpoint.pt": "checkpoint",
        f"work/{TEACHER.id}/last.pt": "weights",
        f"work/{TEACHER.id}/best.pt": "weights",
    }
    names = {path.name for path in sent.iterdir()} - {".lock"}
    assert names == {"manifest.json", *(part["name"] for part in body["parts"])}


def test_import_brings_the_same_bytes_and_twice_changes_nothing(full, sent, store):
    first = transfer.merge(store, sent)
    assert set(states(first).values()) == {"added"} and len(first) == 5
    for path in states(first):
        assert local(store, path).read_bytes() == local(full, path).read_bytes()
    before = snapshot(store)
    assert set(states(transfer.merge(store, sent)).values()) == {"here"} and snapshot(store) == before


def test_import_where_it_came_from_changes_nothing(here, sent):
    before = snapshot(here)
    assert set(states(transfer.merge(here, sent)).values()) == {"here"} and snapshot(here) == before


def test_a_run_goes_on_elsewhere_as_if_undisturbed(full, sent, store, silent, tmp_path):
    undisturbed = Store(tmp_path / "u" / "records", tmp_path / "u" / "work")
    shutil.copytree(full.records, undisturbed.records)
    shutil.copytree(full.work / TEACHER.id, undisturbed.work / TEACHER.id)
    whole = train(undisturbed, tmp_path, BEGUN)[BEGUN.id]

    transfer.merge(store, sent)
    record = train(store, tmp_path, BEGUN, progress=silent)[BEGUN.id]
    assert silent.epochs == [(BEGUN.id, 2)], "the second epoch alone, and not the teacher"
    assert outcome(record) == outcome(whole) and record.result["epochs"] == 2

    back = tmp_path / "back"
    transfer.export(store, back, planned=[STUDENT, BEGUN])
    brought = states(transfer.merge(undisturbed, back))
    assert brought[f"records/{BEGUN.id}.json"] == "here" and "refused" not in brought.values()


def outcome(record):
    """What must not depend on interruptions, as text."""
    body = json.loads(record.to_json())
    return json.dumps({name: body[name] for name in ("config", "status", "curves", "result")})


def test_unchanged_store_gives_the_same_bytes(full, sent, tmp_path):
    transfer.export(full, tmp_path / "again", planned=[STUDENT, BEGUN], max_part=PART)
    assert {p.name: p.read_bytes() for p in sent.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()
    }


def test_which_weights_go_along(full, tmp_path):
    def weights(name, **options):
        done = transfer.export(full, tmp_path / name, **options)
        assert not done.left_out and not done.without_weights
        return {entry.run for entry in done.files if entry.kind == "weights"}

    assert weights("a") == {TEACHER.id} and weights("b", all_weights=True) == {TEACHER.id, STUDENT.id}
    # No student of the teacher is recorded or planned.
    assert weights("c", runs={TEACHER.id}) == set()
    assert weights("d", runs={TEACHER.id}, planned=[STUDENT]) == {TEACHER.id}
    # A checkpoint does not say from which run it learns: the teacher may be any run without one.
    assert weights("e", runs={TEACHER.id, BEGUN.id}) == {TEACHER.id}
    other = tiny_review(teacher_weights="random", seed=1)
    assert weights("f", runs={TEACHER.id, BEGUN.id}, planned=[BEGUN, other]) == {TEACHER.id}


def test_teacher_without_weights_here_is_named(here, tmp_path):
    for which in ("last", "best"):
        (here.folder(TEACHER.id) / f"{which}.pt").unlink()
    assert transfer.export(here, tmp_path / "out").without_weights == (TEACHER.id,)


# Damage on the way


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", [0, 3, -1])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (flip, "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "instead of"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_files_of_a_spoilt_part_are_refused_and_all_others_merged(spoil, why, which, parts, sent, store):
    body = json.loads((parts / "manifest.json").read_text())
    index = which % len(body["parts"])
    part = body["parts"][index]["name"]
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
    assert set(states(outcomes).values()) == {"added", "refused"}
    shutil.copy(sent / part, parts / part)
    repaired = states(transfer.merge(store, parts))
    assert {path for path, state in repaired.items() if state == "added"} == lost


def outside(path):
    def edit(body):
        body["files"][0]["path"] = path

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside("../evil.json"), "'../evil.json' .* is no place in a store"),
        (outside("/tmp/evil.json"), "no place in a store"),
        (outside(f"records/../{TEACHER.id}.json"), "no place in a store"),
        (outside(f"records\\{TEACHER.id}.json"), "no place in a store"),
        (outside(f"work/{TEACHER.id}/log.txt"), "no place in a store"),
        (outside(7), "no place in a store"),
        (lambda b: b["files"][0].update(kind="weights"), "no place in a store"),
        (lambda b: b["files"][0].update(run="../evil"), "no place in a store"),
        (lambda b: b["files"][-1].update(size=10**9), "beyond the end"),
        (lambda b: b["files"][0].update(offset=-1), "no count of bytes"),
        (lambda b: b["files"][0].update(sha256="x"), "no SHA-256"),
        (lambda b: b["files"].append(b["files"][0]), "a file twice"),
        (lambda b: b["files"][0].pop("offset"), "damaged: .*offset"),
        (lambda b: b["parts"][0].update(name="../part"), "no name of a part"),
        (lambda b: b.pop("parts"), "damaged: 'parts'"),
        (lambda b: b.update(format=2), "format 2; this version .* reads 1"),
        (lambda b: b.update(kind="other"), "not the manifest of an export"),
    ],
)
def test_manifest_that_reaches_outside_or_contradicts_itself_is_refused(
    edit, message, parts, store, tmp_path
):
    edited(parts, edit)
    before = {path for path in tmp_path.rglob("*") if parts not in path.parents}
    with pytest.raises(RecordError, match=message):
        transfer.merge(store, parts)
    assert {path for path in tmp_path.rglob("*") if parts not in path.parents} == before


def test_damaged_or_absent_manifest_is_named(parts, store, tmp_path):
    (parts / "manifest.json").write_text((parts / "manifest.json").read_text()[:-30])
    with pytest.raises(RecordError, match=r"manifest\.json is damaged: not JSON"):
        transfer.merge(store, parts)
    with pytest.raises(RecordError, match="holds no export"):
        transfer.merge(store, tmp_path)


def test_content_that_is_not_what_the_manifest_says_is_refused(parts, store):
    def edit(body):
        first, second = body["files"][:2]  # the two records
        for name in ("offset", "size", "sha256"):
            first[name], second[name] = second[name], first[name]
        body["files"][2]["sha256"] = "0" * 64

    edited(parts, edit)
    outcomes = transfer.merge(store, parts)
    said = refusals(outcomes)
    for own, other in ((TEACHER, STUDENT), (STUDENT, TEACHER)):
        assert f"belongs to run {other.id}" in said.pop(f"records/{own.id}.json")
    assert "hold other content" in said.pop(f"work/{BEGUN.id}/checkpoint.pt")
    assert set(said) == {f"work/{TEACHER.id}/{which}.pt" for which in ("last", "best")}
    assert store.ids() == [] and not (store.folder(BEGUN.id) / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("name", "spoil", "why"),
    [
        ("checkpoint.pt", lambda s: {**s, "run": "0" * 12}, "belongs to run 000000000000"),
        ("checkpoint.pt", lambda s: {"student": {}}, "no file of a run"),
        ("checkpoint.pt", lambda s: {**s, "epoch": "one"}, "no counts"),
        ("checkpoint.pt", lambda s: [1], "no file of a run"),
        ("checkpoint.pt", lambda s: b"PK\x03\x04 not a checkpoint", "damaged"),
        ("last.pt", lambda s: {**s, "student": {"a": 1}}, "more than tensors"),
    ],
)
def test_checkpoints_are_read_before_they_are_put_in_place(name, spoil, why, full, store, tmp_path):
    content = spoil(checkpoint.load(full.folder(BEGUN.id) / "checkpoint.pt"))
    data = content if isinstance(content, bytes) else saved(content, tmp_path / "a")
    outcomes = transfer.merge(store, craft(tmp_path / "crafted", {f"work/{BEGUN.id}/{name}": data}))
    assert [why in text for text in refusals(outcomes).values()] == [True]
    assert not (store.folder(BEGUN.id) / name).exists()


def test_damaged_files_here_are_left_out_by_name(here, tmp_path):
    flip(here.path(STUDENT.id))
    here.path(STUDENT.id).write_text(here.path(STUDENT.id).read_text()[:-40])
    (here.folder(BEGUN.id) / "checkpoint.pt").write_bytes(b"half")
    (here.records / "notes.json").write_text("{}")
    done = transfer.export(here, tmp_path / "out")
    assert "damaged" in done.left_out[f"records/{STUDENT.id}.json"]
    assert "damaged" in done.left_out[f"work/{BEGUN.id}/checkpoint.pt"]
    assert "not a run's id" in done.left_out["records/notes.json"]
    assert len(done.left_out) == 3 and [entry.run for entry in done.files] == [TEACHER.id]


# What is here already


def respelt(text, **changes):
    body = json.loads(text)
    for name, change in changes.items():
        change(body[name])
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("curves", lambda curves: curves["loss_ce"].__setitem__(0, 4.0)),
        ("result", lambda result: result.update(last_accuracy=99.0)),
    ],
)
def test_record_with_another_outcome_is_a_conflict(name, change, full, here, tmp_path):
    path = f"records/{TEACHER.id}.json"
    (here.folder(TEACHER.id) / "last.pt").unlink()
    before = snapshot(here)
    files = {
        path: respelt(full.path(TEACHER.id).read_text(), **{name: change}),
        f"work/{TEACHER.id}/last.pt": (full.folder(TEACHER.id) / "last.pt").read_bytes(),
        f"records/{STUDENT.id}.json": full.path(STUDENT.id).read_bytes(),
    }
    outcomes = transfer.merge(here, craft(tmp_path / "crafted", files))
    said = refusals(outcomes)
    assert said.pop(path) == f"conflict: the record here has another {name}; it stays"
    assert "record" in said.pop(f"work/{TEACHER.id}/last.pt") and not said, "weights of another outcome"
    assert snapshot(here) == before


def test_record_that_differs_in_cost_and_place_alone_is_none(full, here, tmp_path):
    text = full.path(TEACHER.id).read_text()
    other = respelt(
        text, cost=lambda c: c.update(train_seconds=1.0), provenance=lambda p: p.update(torch="9")
    )
    before = snapshot(here)
    outcomes = transfer.merge(here, craft(tmp_path / "crafted", {f"records/{TEACHER.id}.json": other}))
    assert set(states(outcomes).values()) == {"here"} and snapshot(here) == before


def test_infinite_losses_equal_themselves(full, store, tmp_path):
    record = full.load(STUDENT.id)
    curves = {**record.curves, "loss_ce": [float("nan")]}
    spoilt = Record(record.config, "diverged", curves, record.result, record.cost, record.provenance)
    store.save(spoilt)
    again = Record(record.config, "diverged", curves, record.result, {"train_seconds": 1.0}, {})
    files = {f"records/{STUDENT.id}.json": again.to_json().encode()}
    assert set(states(transfer.merge(store, craft(tmp_path / "crafted", files))).values()) == {"here"}


def test_where_a_teachers_file_lies_is_no_conflict(full, store, tmp_path):
    from rkd.training import TeacherConfig

    def record(folder):
        teacher = TeacherConfig(checkpoint=f"{folder}/t.pth", sha256="0" * 64, network="resnet14")
        made = full.load(STUDENT.id)
        config = tiny_review(teacher=teacher)
        return Record(config, made.status, made.curves, made.result, made.cost, made.provenance)

    store.save(record("a"))
    other = record("b")
    files = {f"records/{other.id}.json": other.to_json().encode()}
    assert set(states(transfer.merge(store, craft(tmp_path / "crafted", files))).values()) == {"here"}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda t: t.add_(1e-3), "refused"),
        (lambda t: None, "here"),
    ],
)
def test_weights_are_compared_as_tensors(change, state, full, here, tmp_path):
    path = full.folder(TEACHER.id) / "best.pt"
    content = copy.deepcopy(checkpoint.load(path))
    change(next(t for t in content["student"].values() if t.is_floating_point()))
    data = saved({**content, "note": "other bytes"}, tmp_path / "a")
    assert data != path.read_bytes()
    before = snapshot(here)
    outcomes = transfer.merge(here, craft(tmp_path / "crafted", {f"work/{TEACHER.id}/best.pt": data}))
    assert set(states(outcomes).values()) == {state} and snapshot(here) == before
    assert all("conflict" in why for why in refusals(outcomes).values())


def test_weights_with_nan_equal_themselves(store, tmp_path):
    state = {
        "run": TEACHER.id,
        "epoch": 1,
        "student": {"a": torch.tensor([float("nan"), 1.0]), "b": torch.tensor(3)},
    }
    checkpoint.save(state, store.folder(TEACHER.id) / "last.pt")
    data = saved({**state, "note": ""}, tmp_path / "a")
    outcomes = transfer.merge(store, craft(tmp_path / "crafted", {f"work/{TEACHER.id}/last.pt": data}))
    assert set(states(outcomes).values()) == {"here"}


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
def test_checkpoint_further_on_stays(mine, theirs, state, store, tmp_path):
    def made(progress):
        return {"run": BEGUN.id, "student": {"a": torch.zeros(2)}, **progress}

    path = store.folder(BEGUN.id) / "checkpoint.pt"
    checkpoint.save(made(mine), path)
    before = path.read_bytes()
    data = saved(made(theirs), tmp_path / "a")
    outcomes = transfer.merge(store, craft(tmp_path / "crafted", {f"work/{BEGUN.id}/checkpoint.pt": data}))
    assert set(states(outcomes).values()) == {state}
    assert path.read_bytes() == (data if state == "added" else before)


def test_record_and_checkpoint_of_one_run_do_not_stand_beside_each_other(full, here, store, tmp_path):
    """Where the run is recorded its checkpoint is ignored; a record that comes removes the checkpoint here."""
    data = (full.folder(BEGUN.id) / "checkpoint.pt").read_bytes()
    state = {**checkpoint.load(full.folder(BEGUN.id) / "checkpoint.pt"), "run": STUDENT.id}
    files = {f"work/{STUDENT.id}/checkpoint.pt": saved(state, tmp_path / "a")}
    before = snapshot(here)
    assert set(states(transfer.merge(here, craft(tmp_path / "b", files))).values()) == {"here"}
    assert snapshot(here) == before

    path = store.folder(STUDENT.id) / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    files |= {f"records/{STUDENT.id}.json": full.path(STUDENT.id).read_bytes()}
    assert list(states(transfer.merge(store, craft(tmp_path / "c", files))).values()) == ["here", "added"]
    assert store.ids() == [STUDENT.id] and not path.exists()


def test_damaged_file_here_is_named_and_stays(here, parts):
    spoilt = {
        here.path(TEACHER.id): b"half",
        here.folder(BEGUN.id) / "checkpoint.pt": b"half",
    }
    for path, data in spoilt.items():
        path.write_bytes(data)
    said = refusals(transfer.merge(here, parts))
    assert set(said) >= {f"records/{TEACHER.id}.json", f"work/{BEGUN.id}/checkpoint.pt"}
    for path, data in spoilt.items():
        assert path.read_bytes() == data and any(
            f"delete {path} and import again" in why for why in said.values()
        )
        path.unlink()
    assert refusals(transfer.merge(here, parts)) == {}


# Others at work


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_run_in_another_process_is_refused_by_name(sent, store):
    store.folder(BEGUN.id).mkdir(parents=True)
    call = [sys.executable, "-c", HOLD, str(store.folder(BEGUN.id) / "lock")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        outcomes = transfer.merge(store, sent)
        holder.communicate("")
    assert refusals(outcomes) == {
        f"work/{BEGUN.id}/checkpoint.pt": f"run {BEGUN.id} is being trained here now; import again when it has ended"
    }
    assert not (store.folder(BEGUN.id) / "checkpoint.pt").exists() and len(store.ids()) == 2
    again = states(transfer.merge(store, sent))
    assert [path for path, state in again.items() if state == "added"] == [f"work/{BEGUN.id}/checkpoint.pt"]


def test_a_look_at_a_run_is_not_taken_for_training(sent, store):
    """`rkd status` takes each lock for an instant."""
    seen = threading.Event()

    def look():
        with store.lock(BEGUN.id, wait=False):
            seen.set()
            threading.Event().wait(0.06)

    thread = threading.Thread(target=look)
    thread.start()
    seen.wait()
    outcomes = transfer.merge(store, sent)
    thread.join()
    assert refusals(outcomes) == {}


MERGE = """
import sys
from pathlib import Path
from rkd.records import Store, transfer
print("ready", flush=True)
sys.stdin.readline()
records, work, folder = map(Path, sys.argv[1:])
for outcome in transfer.merge(Store(records, work), folder):
    print(outcome.path, outcome.state, outcome.why)
"""


def test_two_imports_at_once(full, sent, store, monkeypatch):
    """The second one starts when the first is at its first file, and a slow disk keeps that one long at each."""
    call = [sys.executable, "-c", MERGE, str(store.records), str(store.work), str(sent)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        place, slow = rules.place, iter([True])

        def slowly(path, data):
            if next(slow, False):
                other.stdin.write("go\n")
                other.stdin.flush()
            time.sleep(0.3)
            place(path, data)

        monkeypatch.setattr(rules, "place", slowly)
        mine = states(transfer.merge(store, sent))
        theirs = dict(line.split()[:2] for line in other.communicate(timeout=60)[0].splitlines())
    assert set(mine.values()) == {"added"} and theirs == dict.fromkeys(mine, "here")
    assert all(local(store, path).read_bytes() == local(full, path).read_bytes() for path in mine)


def test_export_of_a_run_that_is_saved_all_the_time(here, store, tmp_path):
    """Each export holds one of the states whole."""
    path = here.folder(BEGUN.id) / "checkpoint.pt"
    state = checkpoint.load(path)
    stop, begun, count = threading.Event(), threading.Event(), 0

    def save():
        nonlocal count
        while not stop.is_set():
            count += 1
            if count == 2:
                begun.set()
            # The student's tensors and the count agree in every whole state.
            marked = {name: torch.full_like(tensor, count) for name, tensor in state["student"].items()}
            checkpoint.save({**state, "epoch": count, "student": marked}, path)

    thread = threading.Thread(target=save)
    thread.start()
    begun.wait()
    seen = set()
    try:
        for index in range(5):
            out = tmp_path / f"out{index % 2}"
            assert transfer.export(here, out).left_out == {}
            assert refusals(transfer.merge(store, out)) == {}
            got = checkpoint.load(store.folder(BEGUN.id) / "checkpoint.pt")
            assert all((tensor == got["epoch"]).all() for tensor in got["student"].values())
            seen.add(got["epoch"])
    finally:
        stop.set()
        thread.join()
    assert count > 4 and len(seen) > 1


def test_run_that_ends_during_the_export_comes_with_its_record(here, tmp_path, monkeypatch):
    record = here.path(STUDENT.id)
    text, read = record.read_text(), collecting.read_bytes
    record.unlink()

    def ending(path):
        if path == here.folder(STUDENT.id) / "checkpoint.pt":
            record.write_text(text)
        return read(path)

    monkeypatch.setattr(collecting, "read_bytes", ending)
    done = transfer.export(here, tmp_path / "out", runs={STUDENT.id})
    assert [entry.path for entry in done.files] == [f"records/{STUDENT.id}.json"]


def test_sweep_goes_on_while_its_state_is_exported_from_within(tmp_path):
    """After every batch of a real run; each export can be merged, and the result is undisturbed."""
    config = tiny_plain(seed=3)
    store, target = (Store(tmp_path / n / "records", tmp_path / n / "work") for n in "ab")
    found = []

    class Exporting(Silent):
        def batch(self, epoch, done, total):
            with contextlib.suppress(RecordError):  # there is nothing before the first checkpoint
                transfer.export(store, tmp_path / "out")
                found.append(states(transfer.merge(target, tmp_path / "out")))

        def epoch(self, learner):
            checkpoint.save(learner.state(), store.folder(config.id) / "checkpoint.pt")

    record = train(store, tmp_path, config, progress=Exporting())[config.id]
    assert found and all("refused" not in state.values() for state in found)
    assert outcome(train(target, tmp_path, config)[config.id]) == outcome(record)


# The folder


def test_export_replaces_an_export_and_removes_surplus_parts(here, tmp_path, store):
    out = tmp_path / "out"
    many = transfer.export(here, out, max_part=200_000)
    few = transfer.export(here, out, max_part=400_000)
    assert len(many.parts) > len(few.parts) and not {p.name for p in many.parts} & {p.name for p in few.parts}
    assert {p.name for p in out.glob("*.bin")} == {part.name for part in few.parts}
    assert set(states(transfer.merge(store, out)).values()) == {"added"}


@pytest.mark.parametrize("moment", ["parts", "manifest"])
def test_export_that_fails_leaves_the_one_before(moment, here, tmp_path, store, monkeypatch):
    out = tmp_path / "out"
    transfer.export(here, out, max_part=300_000)

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if moment == "parts" else (exporting, "place")), full_disk)
        with pytest.raises(RecordError, match=r"failed: .*No space left"):
            transfer.export(here, out, max_part=400_000)
    assert set(states(transfer.merge(store, out)).values()) == {"added"}
    done = transfer.export(here, out, max_part=400_000)
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {"manifest.json", *(part.name for part in done.parts)}, "what the failed one left is gone"


def test_folder_with_anything_else_is_refused_by_name(full, sent, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RecordError, match=r"no part of an export \(thesis.tex\)"):
        transfer.export(full, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecordError, match="is not a folder"):
        transfer.export(full, tmp_path / "thesis.tex")
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(RecordError, match="not the manifest of an export"):
        transfer.export(full, other)


def test_nothing_to_export(store, tmp_path):
    with pytest.raises(RecordError, match="nothing to export"):
        transfer.export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The command line


def call(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_commands(here, tmp_path, capsys, parts):
    there = tmp_path / "there"
    shutil.copytree(here.records, there)
    shutil.copytree(here.work, there / "work")
    out = tmp_path / "out"
    status, text, _ = call(capsys, "export", "--out", out, "--results", there, "--max-part", "0.3MB")
    rows = {
        line.split()[0]: line.split()[1]
        for line in text.splitlines()
        if line.startswith(("rec", "che", "wei"))
    }
    assert status == 0 and rows == {"records": "2", "checkpoints": "1", "weights": "2"}
    assert max(path.stat().st_size for path in out.glob("*.bin")) == 300_000

    target = tmp_path / "target"
    status, text, _ = call(capsys, "import", out, "--results", target)
    assert status == 0 and "nothing was changed" not in text
    status, text, _ = call(capsys, "import", out, "--results", target)
    assert status == 0 and "nothing was changed: all of it is here already" in text
    next(out.glob("part-0001*")).unlink()
    status, text, _ = call(capsys, "import", out, "--results", tmp_path / "second")
    lines = [line for line in text.splitlines() if line.startswith("refused records/")]
    assert (
        status == 1
        and len(lines) == 2
        and all("part-0001" in line and "is missing" in line for line in lines)
    )

    (there / "notes.json").write_text("{}")
    status, text, _ = call(capsys, "export", "--out", out, "--results", there, "--all-weights")
    assert status == 1 and "left out records/notes.json" in text and "weights           4" in text


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
    for text in ("", "MB", "15 parts", "-1MB", "1e6", "0MB", "999B", "nanMB", "1,5MB", "٣MB"):
        with pytest.raises(ConfigError, match="is not a size of at least 1kB"):
            size(text)


def test_maps_travel_with_their_run(tmp_path):
    """Of an ended run to its place beside the record; what is here stays; a damaged file is refused."""
    from rkd.experiments.snapshots import SnapshotTaker, load_snapshots

    run = tiny_review(epochs=1)
    there = Store(tmp_path / "there" / "records", tmp_path / "there" / "work")
    Executor(there, tmp_path, "cpu", progress=Silent()).run([run], snapshots=SnapshotTaker(images=2))
    done = transfer.export(there, tmp_path / "parts", planned=[run], max_part=PART)
    assert [entry.path for entry in done.files if entry.kind == "maps"] == [f"maps/{run.id}.npz"]

    here = Store(tmp_path / "here" / "records", tmp_path / "here" / "work")
    assert {o.state for o in transfer.merge(here, tmp_path / "parts")} == {"added"}
    assert here.maps(run.id).read_bytes() == there.maps(run.id).read_bytes()
    assert load_snapshots(here, run.id).epochs == (1,)
    here.maps(run.id).write_bytes(b"mine")
    assert {o.state for o in transfer.merge(here, tmp_path / "parts")} == {"here"}
    assert here.maps(run.id).read_bytes() == b"mine"

    there.maps(run.id).write_bytes(b"no maps")
    again = transfer.export(there, tmp_path / "again", planned=[run], max_part=PART)
    assert "damaged" in again.left_out[f"maps/{run.id}.npz"]


def test_maps_of_a_run_under_way_follow_its_checkpoint(tmp_path):
    from rkd.experiments.snapshots import SnapshotTaker

    run = tiny_review(epochs=3)
    there = Store(tmp_path / "there" / "records", tmp_path / "there" / "work")
    with contextlib.suppress(KeyboardInterrupt):
        Executor(there, tmp_path, "cpu", progress=Interrupting(there)).run(
            [run], snapshots=SnapshotTaker(images=1)
        )
    transfer.export(there, tmp_path / "parts", planned=[run], max_part=PART)
    here = Store(tmp_path / "here" / "records", tmp_path / "here" / "work")
    transfer.merge(here, tmp_path / "parts")
    assert (here.folder(run.id) / "maps.npz").exists() and not here.maps(run.id).exists()
    Executor(here, tmp_path, "cpu", progress=Silent()).run([run], snapshots=SnapshotTaker(images=1))
    from rkd.experiments.snapshots import load_snapshots

    assert load_snapshots(here, run.id).epochs == (1, 2, 3)


# --- where only so many files come back -------------------------------------------------------------------------------


def sizes_of(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name != ".lock"}


def test_a_limit_of_files_takes_records_first_then_weights_then_checkpoints(here, tmp_path):
    parts = tmp_path / "limited"
    whole = transfer.export(here, tmp_path / "whole", planned=[STUDENT, BEGUN])
    sizes = {kind: sum(e.size for e in whole.files if e.kind == kind) for kind in ("record", "weights")}
    begun = next(e for e in whole.files if e.kind == "checkpoint")
    for room, missing in (
        (sizes["record"], 3),
        (sum(sizes.values()), 1),
        (sum(sizes.values()) + begun.size, 0),
    ):
        done = transfer.export(here, parts, planned=[STUDENT, BEGUN], max_part=-(-room // 2), max_files=3)
        assert set(sizes_of(parts)) == {"manifest.json", *(part.name for part in done.parts)}
        assert len(sizes_of(parts)) <= 3 and max(p.size for p in done.parts) <= -(-room // 2)
        assert len(done.no_room) == missing and (not missing or begun.path in done.no_room)
        assert {e.path for e in whole.files} == {e.path for e in done.files} | set(done.no_room)
        empty = Store(tmp_path / str(missing) / "records", tmp_path / str(missing) / "work")
        assert {o.state for o in transfer.merge(empty, parts)} == {"added"}
    kinds = [e.kind for e in done.files]
    assert kinds == sorted(kinds, key=["record", "weights", "checkpoint"].index)
    assert not list(parts.glob(".*")), "no lock, no temporary file: they would count"


def test_a_limit_below_two_files_is_refused(here, tmp_path):
    with pytest.raises(ConfigError, match="max_files is 1; an export has at least 2"):
        transfer.export(here, tmp_path / "parts", max_files=1)


def test_an_export_is_kept_up_to_date_while_runs_are_trained(full, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(keeping, "LEAST_SECONDS", 0.02)
    store, folder = Store(tmp_path / "r", tmp_path / "w"), tmp_path / "carry"
    planned = [TEACHER, STUDENT, BEGUN]

    def put(path):
        (tmp_path / path.replace("records", "r").replace("work", "w")).parent.mkdir(
            parents=True, exist_ok=True
        )
        shutil.copy(local(full, path), tmp_path / "copy")
        os.replace(tmp_path / "copy", local(store, path))
        deadline = time.monotonic() + 60
        while path not in (found := [e.path for e in kept.last.files] if kept.last else []):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    with transfer.KeptExport(store, folder, planned, 10 * PART, 8) as kept:
        assert kept.last is None
        put(f"work/{BEGUN.id}/checkpoint.pt")
        put(f"records/{TEACHER.id}.json")
    assert transfer.merge(Store(tmp_path / "r2", tmp_path / "w2"), folder)
    # The next call carries on what is in the folder, and not what was here before either began.
    shutil.copy(full.path(STUDENT.id), store.records)
    with transfer.KeptExport(store, folder, planned, 10 * PART, 8) as kept:
        pass
    assert {e.run for e in kept.last.files} == {BEGUN.id, TEACHER.id}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").touch()
    with pytest.raises(RecordError, match="holds something that is no part of an export"):
        transfer.KeptExport(store, tmp_path / "own", planned, PART, None)
