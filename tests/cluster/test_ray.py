"""Sweeps on a cluster of three nodes on this machine: undisturbed, with a node or the driver killed, and two at once,
they leave the records of a local sweep."""

import contextlib
import os
import re
import secrets
import signal
import time
from types import SimpleNamespace

import pytest
from s3 import s3_server
from sweeps import EPOCHS, PROFILE, Sweep, arguments, left_behind, logged, outcomes

from rkd import paths
from rkd.cli import main
from rkd.cluster.session import ray_module
from rkd.cluster.storage import Storage
from rkd.records import Store

ray = pytest.importorskip("ray")

LONG = 20  # epochs of runs that something happens to
# Of runs that are met at work twice: a second passes until a worker hears of a signal to its driver.
LONGER = 30
SMALL = {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 80 * 2**20, "include_dashboard": False}
EACH = "cpu=1,memory=1GB"


@contextlib.contextmanager
def cluster():
    """Three nodes of this process, which does not join them."""
    from ray.cluster_utils import Cluster

    ray_module()
    # A killed node is told at once; a slow one is not dead.
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_health_check_timeout_ms": "120000"}
    with s3_server():  # its address is in the environment of the nodes
        made = Cluster(initialize_head=True, head_node_args=SMALL)
        for _ in range(2):
            made.add_node(**SMALL)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def nodes():
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The profile, and what a local sweep of it leaves, short and long."""
    folder = tmp_path_factory.mktemp("local")
    profile = folder / "own.yaml"
    profile.write_text(PROFILE, encoding="utf-8")
    found = {}
    for epochs in (EPOCHS, LONG, LONGER):
        results = folder / str(epochs)
        assert main(arguments(profile, results, "-s", f"epochs={epochs}")) == 0
        found[epochs] = outcomes(results)
    return SimpleNamespace(profile=profile, local=found)


class Driver(Sweep):
    def __init__(self, given, nodes, results, epochs=LONG, *extra):
        more = (*extra, "--engine", "ray", "--address", nodes.address, "--each", EACH)
        super().__init__(given.profile, results, "--group", "1", "-s", f"epochs={epochs}", *more)

    @property
    def epochs(self):
        """(run, epoch, first letters of the node's id) of each epoch that this driver was told of."""
        found = re.findall(r"/(\w{4})  (\w{12}) epoch (\d+)/", self._err.read_text())
        return [(run, int(epoch), node) for node, run, epoch in found]

    @property
    def err(self):
        return self._err.read_text()


def test_three_nodes_leave_the_records_of_a_local_sweep(given, nodes, tmp_path):
    driver = Driver(given, nodes, tmp_path, EPOCHS).ended(0)
    assert outcomes(tmp_path) == given.local[EPOCHS] and not left_behind(tmp_path)
    assert "cluster: 3 nodes, 3 cores" in driver.out and "4 runs are recorded" in driver.out
    assert {(run, epoch) for run, epoch, _ in driver.epochs} == {
        (run, epoch) for run, epochs in logged(tmp_path).items() for epoch in epochs
    }, "one display, of all nodes"
    order = [run for run, _, _ in driver.epochs]
    assert order[0] in logged(tmp_path) and order[:EPOCHS] == [order[0]] * EPOCHS, (
        "the teacher before its students"
    )
    log = (tmp_path / "work" / "cluster.log").read_text()
    assert all(f"{run} epoch {epoch}/{EPOCHS}" in log for run, epoch, _ in driver.epochs)


def test_a_group_whose_node_was_killed_goes_on_from_its_checkpoint_elsewhere(given, nodes, tmp_path):
    ids = {node.node_id[:4]: node for node in nodes.worker_nodes}
    driver = Driver(given, nodes, tmp_path)
    hit = None
    while hit is None and driver.process.is_alive():
        hit = next((at for at in driver.epochs if at[2] in ids and at[1] < LONG - 2), None)
        time.sleep(0.02)
    run, _, node = hit
    nodes.remove_node(ids[node], allow_graceful=False)
    driver.ended(0)
    nodes.add_node(**SMALL)
    assert outcomes(tmp_path) == given.local[LONG] and not left_behind(tmp_path)
    assert re.search(rf"/(?!{node})\w{{4}}  {run}: resuming after epoch [1-9]", driver.err), driver.err


def test_a_driver_that_was_killed_or_stopped_is_started_again(given, nodes, tmp_path):
    first = Driver(given, nodes, tmp_path, LONGER)
    assert first.until_an_epoch()
    first.kill(signal.SIGKILL)
    first.ended(-signal.SIGKILL)
    second = Driver(given, nodes, tmp_path, LONGER)
    assert second.until_an_epoch()
    second.kill(signal.SIGTERM)
    assert "stopped: SIGTERM arrived" in second.ended(1).out and "continue with: rkd sweep" in second.out
    third = Driver(given, nodes, tmp_path, LONGER).ended(0)
    for driver in (second, third):
        assert "resuming after epoch" in driver.err, driver.err
    assert outcomes(tmp_path) == given.local[LONGER] and not left_behind(tmp_path)


def test_of_two_drivers_each_run_is_trained_by_one(given, nodes, tmp_path):
    both = [Driver(given, nodes, tmp_path) for _ in range(2)]
    for driver in both:
        driver.ended(0)
    assert outcomes(tmp_path) == given.local[LONG] and not left_behind(tmp_path)
    whole = [*range(1, LONG + 1)]
    assert all(epochs == whole for epochs in logged(tmp_path).values()), "no epoch was done twice"


def test_nodes_that_share_no_folder_share_a_storage(given, nodes, tmp_path):
    driver = Driver(given, nodes, tmp_path, EPOCHS, "--storage", "s3://bucket/sweep").ended(0)
    assert "4 runs are recorded" in driver.out and outcomes(tmp_path) == given.local[EPOCHS]
    assert not list(tmp_path.rglob("*.pt")), "checkpoints and weights are there, not here"
    home = Store(tmp_path / "elsewhere", tmp_path / "elsewhere" / "work")
    Storage("s3://bucket/sweep").match(home, [name[:-5] for name in given.local[EPOCHS]], [])
    assert outcomes(home.records) == given.local[EPOCHS]


def test_the_book_is_executed_on_the_cluster_and_kept_here(nodes, tmp_path, done, monkeypatch):
    for name in ("book", "params", "results", "_config.yml"):
        (tmp_path / name).symlink_to(paths.home() / name)
    monkeypatch.setenv("RKD_HOME", str(tmp_path))
    said = done(f"book --only cluster --no-html --engine ray --address {nodes.address} --each {EACH}")
    assert "[1/1] cluster  ok" in said
    pages = [path.read_text() for path in (tmp_path / "_build").rglob("cluster.ipynb")]
    assert pages and all("empty tasks took" in page for page in pages), "executed, with its outputs"
