"""Records and checkpoints in a folder, in memory and on a server that speaks S3: whole, and leased to one."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from conftest import Silent, StopAfter, small
from s3 import s3_server

from rkd import data as datasets
from rkd.cluster import sweeping
from rkd.cluster.board import BoardReporter
from rkd.cluster.storage import Storage
from rkd.cluster.sweeping import Job, train_group
from rkd.errors import RkdError
from rkd.experiments.runner import Runner
from rkd.experiments.selectors import Selectors
from rkd.records import Store
from rkd.training import Engine

STUDENT = small(weights="best")
TEACHER = STUDENT.teacher.run
NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def server():
    with s3_server():
        yield


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("server")
    urls = {"memory": f"memory://{tmp_path.name}", "s3": f"s3://bucket/{tmp_path.name}"}
    return urls.get(request.param, str(tmp_path / "shared"))


def quick(url):
    return Storage(url, renew=0.05, stale=0.4)


def train(store, run, stop=lambda needed: False):
    runner = Runner(store, store.work, "cpu", progress=(said := Silent()), stop=stop)
    runner.run([run])
    return said


def sweep(url, runs, stop=lambda needed: False, teachers=(), stops=lambda needed: False):
    """As a worker does; returns what was said."""
    said = []
    for store, ours, lost in quick(url).shares([r.id for r in runs], teachers, stop, NOWHERE):
        for run in (run for run in runs if run.id in ours):
            said += train(store, run, lambda needed, lost=lost: lost() or stops(needed)).said
    return said


def test_a_stopped_run_goes_on_elsewhere_and_its_record_and_weights_arrive(url, tmp_path):
    there = quick(url)
    sweep(url, [TEACHER])
    assert there.ids() == {TEACHER.id} and there.has(TEACHER.id)
    sweep(url, [STUDENT], once := StopAfter(5), [TEACHER.id], once)
    assert not there.has(STUDENT.id)
    said = sweep(url, [STUDENT], teachers=[TEACHER.id])
    assert any("resuming after epoch" in text for text in said), said
    home, plain = Store(tmp_path / "r", tmp_path / "w"), Store(tmp_path / "pr", tmp_path / "pw")
    there.match(home, [TEACHER.id, STUDENT.id], [TEACHER.id])
    train(plain, STUDENT)
    for run in (TEACHER.id, STUDENT.id):
        found, expected = home.load(run), plain.load(run)
        assert (found.curves, found.result) == (expected.curves, expected.result)
    assert (home.folder(TEACHER.id) / "best.pt").exists() and not home.folder(STUDENT.id).exists()
    fs, root = fsspec.url_to_fs(url)
    left = [path for path in fs.find(root) if path.endswith(("checkpoint.pt", ".tmp"))]
    assert not left, "an ended run has no checkpoint"
    there.match(home, [TEACHER.id], [])
    other = Storage(url + "2")
    other.match(home, [TEACHER.id, STUDENT.id], [])
    assert other.ids() == {TEACHER.id, STUDENT.id}, "what is recorded here alone goes there"


def test_of_many_one_has_the_lease_and_it_is_taken_over_where_its_holder_is_silent(url):
    found, looked = [], threading.Barrier(8)

    def contend():
        storage = quick(url)
        names = storage._names
        storage._names = lambda *parts: (names(*parts), looked.wait())[0]  # all have seen that it is free
        found.append(storage.take("run"))
        storage._names = names

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lease,) = filter(None, found)
    other = quick(url)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # more than twice as long as a silent holder has
        assert lease.renewed() and other.take("run") is None
        time.sleep(0.02)
    silent = time.monotonic()
    while (second := other.take("run")) is None:
        time.sleep(0.02)
    assert time.monotonic() - silent >= 0.35 and not lease.renewed()
    second.free()
    assert quick(url).take("run").number == 3, "free at once, for one who never saw the holder"


def test_who_lost_a_lease_stops_and_pushes_nothing(url, tmp_path):
    storage, store = quick(url), Store(tmp_path / "r", tmp_path / "w")
    lease = storage.take(TEACHER.id)
    with storage.kept(store, [lease]) as lost:
        assert not lost()
        storage._put(b"", "leases", TEACHER.id, "2")
        deadline = time.monotonic() + 5
        while not lost() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lost()
        train(store, TEACHER)
    assert not storage.ids()


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_lease_stops_its_run_and_not_the_sweep(taken, tmp_path, monkeypatch):
    context = SimpleNamespace(get_node_id=lambda: "node")
    ray = SimpleNamespace(
        get=lambda found: found, get_runtime_context=lambda: context, exceptions=SimpleNamespace(RayError=OSError),
        util=SimpleNamespace(get_node_ip_address=lambda: "here"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)
    store = Store(tmp_path / "records", tmp_path / "work")

    def shares(self, runs, teachers, stop, committed):
        yield store, {*runs}, lambda: taken

    monkeypatch.setattr(Storage, "shares", shares)
    monkeypatch.setattr(
        BoardReporter, "stop", lambda self, needed: not taken and needed > 0
    )  # a budget used up
    told = SimpleNamespace(remote=lambda *said: False)
    board = SimpleNamespace(tell=told, left=SimpleNamespace(remote=lambda: None))
    job = Job(store, tmp_path, "cpu", 1, Engine(), {}, {}, frozenset(), str(tmp_path))
    images = {TEACHER.data: sweeping._packed(datasets.load(TEACHER.data, tmp_path))}
    failed, stopped = train_group(job, [TEACHER], 0, board, images)
    assert not failed and not store.has(TEACHER.id) and stopped is not taken


def test_a_dry_run_brings_nothing_and_leaves_nothing(done, tmp_path):
    given = {"results": str(tmp_path / "own"), "device": "cpu"}
    _, (mine, theirs, *_) = Selectors("smoke", given, settled=True).plan(["table5"])
    files = tmp_path / "own" / f"{mine.id}.json", tmp_path / "shared" / "records" / f"{theirs.id}.json"
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    out = done(
        f"sweep smoke --chapters table5 --results {tmp_path}/own --device cpu --engine ray "
        f"--storage {tmp_path}/shared --dry-run"
    )
    assert f"\n1 of these runs are recorded in {tmp_path}/shared alone, and would" in f"\n{out}"
    assert sorted(tmp_path.rglob("*.json")) == sorted(files)


def test_storage_that_cannot_be_read_is_told(monkeypatch):
    def refuse(*parts):
        raise LookupError("no credentials")  # libraries behind a URL have errors of their own

    storage = Storage("memory://closed")
    monkeypatch.setattr(storage, "_names", refuse)
    with pytest.raises(RkdError, match="--storage memory://closed cannot be read: no credentials"):
        storage.ids()
