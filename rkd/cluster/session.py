"""A Ray cluster that this process joins, or starts on this machine, and what one run group takes of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

from rkd.config import Bytes, Positive, Weight, build, frozen
from rkd.devices import here
from rkd.errors import ConfigError, in_a_line
from rkd.experiments.settings import value

OBJECT_STORE = 2**30  # bytes, of a cluster on this machine: it holds the data sets
EXTRA = "pip install 'rkd[cluster]'"


def ray_module() -> ModuleType:
    """Ray, imported now; ConfigError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of what runs here
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # machines are busy
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(f"Ray is not installed: {EXTRA}") from error
    return ray


@frozen
class Resources:
    """What one run group takes of a node.

    Attributes:
        gpu: share of a GPU, or whole ones; several groups with 0.5 share one. None: 1 where the cluster has GPUs.
        cpu: cores.
        memory: bytes of main memory; Ray starts no group where less is free by its own count.

    Raises:
        ConfigError: more than one GPU, and not whole ones, or a value that is not allowed.
    """

    gpu: Weight | None = None
    cpu: Positive = 1.0
    memory: Bytes = 2 * 10**9

    def __post_init__(self) -> None:
        if (gpu := self.gpu or 0.0) > 1 and gpu % 1:
            raise ConfigError(f"gpu is {gpu:g}; a share of a GPU is below 1, more are whole ones")

    @classmethod
    def read(cls, text: str) -> "Resources":
        """Of "gpu=0.5,cpu=2,memory=4GB", any of these; ConfigError for another form."""
        parts = [part.partition("=") for part in text.split(",") if part]
        return build(cls, {name: value(found, f"--each {text}") for name, _, found in parts})

    def asked(self) -> dict[str, float]:
        """As Ray spells them."""
        return {"num_cpus": self.cpu, "num_gpus": self.gpu or 0, "memory": self.memory}


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        each: of one run group.
        retries: of a group whose node or process was lost.
    """

    ray: ModuleType
    each: Resources
    dashboard: str = ""
    retries: int = 5

    def nodes(self) -> list[dict[str, float]]:
        """Of each node that is alive, its resources by Ray's names."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def words(self) -> str:
        """ "3 nodes, 6 cores, 2 GPUs"."""
        nodes = self.nodes()
        parts = [(len(nodes), "node")]
        parts += [
            (round(sum(n.get(name, 0) for n in nodes)), word)
            for name, word in (("CPU", "core"), ("GPU", "GPU"))
        ]
        said = ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in parts if number)
        return f"{said}; dashboard: http://{self.dashboard}" if self.dashboard else said


@contextmanager
def joined(address: str | None, each: Resources, device: str) -> Iterator[Cluster]:
    """Join the cluster at an address (host:port, or auto: the one of this machine), or start one here (None), and leave
    or end it with the block.

    Args:
        device: of the runs; "cpu": groups take no GPU unless told to.

    Raises:
        ConfigError: Ray is not installed; no node has what one group takes.
        ConnectionError: there is no cluster at the address.
    """
    ray = ray_module()
    if address and "://" in address:
        raise ConfigError(
            f"--address {address}: give auto, or host:port of a node, and start this on a node of the cluster"
        )
    own = (
        {"num_cpus": None, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        if address is None
        else {}
    )
    try:
        context = ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # Ray raises anything
        what = f"there is no Ray cluster at {address}" if address else "Ray does not start here"
        raise ConnectionError(f"{what}: {in_a_line(error, 200)}") from error
    try:
        gpus = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
        share = each.gpu if each.gpu is not None else float(gpus and device != "cpu")
        if share and device == "auto" and not here("cuda"):
            raise ConfigError(
                "the cluster has GPUs and this machine has none: say --device cuda, or cpu, so that all agree"
            )
        cluster = Cluster(ray, replace(each, gpu=share), context.dashboard_url or "")
        need = {"CPU": each.cpu, "GPU": share, "memory": each.memory}
        if not any(
            all(node.get(name, 0) >= value for name, value in need.items()) for node in cluster.nodes()
        ):
            told = ", ".join(f"{value:g} {name}" for name, value in need.items())
            raise ConfigError(
                f"no node of the cluster ({cluster.words()}) has what one run group takes ({told}); see --each"
            )
        yield cluster
    finally:
        ray.shutdown()
