"""A Ray cluster that this process joins or starts on this machine, and the resources one run group takes from it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from rkd.config import Bytes, Positive, Weight, from_values, frozen
from rkd.devices import has_device
from rkd.errors import ConfigError, one_line
from rkd.experiments.settings import parse_value

OBJECT_STORE = 2**30  # bytes, for a cluster started on this machine; the data sets are kept there
RETRIES = 5  # for a group whose node or process was lost


def ray_module() -> ModuleType:
    """Import Ray and return the module; raise ConfigError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine the start takes long
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("Ray is not installed: pip install 'rkd[cluster]'") from error
    return ray


@frozen
class Resources:
    """What one run group takes from a node; raises ConfigError for a value that is not allowed."""

    # A share of one, or whole ones; two groups with 0.5 share one. None: 1 if the cluster has GPUs, 0 on device "cpu".
    gpu: Weight | None = None
    cpu: Positive = 1.0  # cores
    memory: Bytes = 2 * 10**9  # bytes of main memory; Ray starts no group where less is free by its own count

    def __post_init__(self) -> None:
        if (gpu := self.gpu or 0.0) > 1 and gpu % 1:
            raise ConfigError(f"gpu is {gpu:g}; a share of a GPU is below 1, more are whole ones")

    @classmethod
    def read(cls, text: str) -> "Resources":
        """Read text such as "gpu=0.5,cpu=2,memory=4GB", each part optional; raise ConfigError for any other form."""
        parts = [part.partition("=") for part in text.split(",") if part]
        return from_values(cls, {name: parse_value(found, f"--each {text}") for name, _, found in parts})


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined."""

    ray: ModuleType
    each: Resources  # for one run group
    dashboard: str = ""

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node that is alive, by Ray's names."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def task(self, function: Callable[..., Any]) -> Any:
        """Return a function as a Ray task that takes one run group's resources and is restarted when it is lost."""
        each = {"num_cpus": self.each.cpu, "num_gpus": self.each.gpu or 0, "memory": self.each.memory}
        return self.ray.remote(function).options(max_retries=RETRIES, **each)

    def describe(self) -> str:
        """Return the size in words, "3 nodes, 6 cores, 2 GPUs", followed by the dashboard's address if it has one."""
        nodes = self.nodes()
        cores, gpus = (round(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU"))
        parts = {"node": len(nodes), "core": cores, "GPU": gpus}
        said = ", ".join(f"{number} {word}{'s' * (number != 1)}" for word, number in parts.items() if number)
        return f"{said}; dashboard: http://{self.dashboard}" if self.dashboard else said


@contextmanager
def join_cluster(address: str | None, each: Resources, device: str) -> Iterator[Cluster]:
    """Join the cluster at an address (host:port, or auto for the one on this machine), or start one here (None); leave
    or end it with the block. On the device "cpu", groups take no GPU unless told to.

    Raises:
        ConfigError: Ray is not installed, or no node has what one group takes.
        ConnectionError: there is no cluster at the address.
    """
    ray = ray_module()
    if address and "://" in address:
        raise ConfigError(
            f"--address {address}: give auto, or host:port of a node, and start this on a node of the cluster"
        )
    own = {"num_cpus": None, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        where = {"address": address} if address else {"address": "local", **own}
        context = ray.init(log_to_driver=False, logging_level="ERROR", **where)
    except Exception as error:  # Ray raises anything
        what = f"there is no Ray cluster at {address}" if address else "Ray does not start here"
        raise ConnectionError(f"{what}: {one_line(error, 200)}") from error
    try:
        cluster = Cluster(ray, each, context.dashboard_url or "")
        gpus = any(node.get("GPU") for node in cluster.nodes())
        share = each.gpu if each.gpu is not None else float(gpus and device != "cpu")
        if share and device == "auto" and not has_device("cuda"):
            raise ConfigError(
                "the cluster has GPUs and this machine has none: say --device cuda, or cpu, so that all agree"
            )
        need = {"CPU": each.cpu, "GPU": share, "memory": each.memory}
        if not any(
            all(node.get(name, 0) >= least for name, least in need.items()) for node in cluster.nodes()
        ):
            told = ", ".join(f"{least:g} {name}" for name, least in need.items())
            raise ConfigError(
                f"no node of the cluster ({cluster.describe()}) has what one run group takes ({told}); see --each"
            )
        yield replace(cluster, each=replace(each, gpu=share))
    finally:
        ray.shutdown()
