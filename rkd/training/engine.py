"""How steps are computed, as far as it changes nothing but the time they take."""

import os
import shutil
from collections.abc import Callable, Iterable

import torch

from rkd.config import CountOrAuto, Flag, frozen
from rkd.errors import ConfigError, unknown
from rkd.training import capture
from rkd.training.threads import Threads, numbers

ENGINES = {"auto": None, "eager": False, "graph": True}


@frozen
class Engine:
    """No part of a run's identity: the mathematics stays the same (sums are rounded in another order).

    Attributes:
        compile: let torch.compile write kernels: for the teacher, and on CUDA for the students too (on a CPU compiled
            students are slower than eager ones, which oneDNN serves well). Needs a C++ compiler, and time for the first
            step: seconds on a CPU, half a minute to two minutes on CUDA.
        graph: capture a step as one CUDA graph; None: on CUDA, and where that fails go on without.
        eager: methods whose steps are not captured all the same (see `experiments.check`).
        threads: that compute on a CPU; "auto" measures how many help, see `training.threads`.
    """

    compile: Flag = False
    graph: Flag | None = None
    eager: frozenset[str] = frozenset()
    threads: CountOrAuto = "auto"

    @classmethod
    def named(cls, engine: str | None, compile: bool = False, threads: int | str = "auto") -> "Engine":
        """By the name of a way to launch steps.

        Args:
            engine: "auto" (a CUDA graph on CUDA, kernel by kernel where that fails or on a CPU), "eager" (kernel by
                kernel), "graph" (a CUDA graph or nothing). None: $RKD_ENGINE, else "auto".
            compile, threads: see there.

        Raises:
            ConfigError: another name.
        """
        name = os.environ.get("RKD_ENGINE", "auto") if engine is None else engine
        if name not in ENGINES:
            raise unknown("engine", name, ENGINES)
        return cls(compile, ENGINES[name], threads=threads)

    def check(self, device: torch.device) -> None:
        """Raise ConfigError for what this machine cannot do."""
        numbers(self.threads, device)
        if self.compile and not any(
            shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")
        ):
            raise ConfigError("compile was asked for, but this machine has no C++ compiler (g++ or clang++)")
        if self.compile:
            # One function serves every make of state and every batch size of a sweep, each with a graph of its own.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 2**16
        if self.graph and device.type != "cuda":
            raise ConfigError(f"a CUDA graph was asked for, but the device is {str(device)!r}")

    def captures(self, device: torch.device, methods: Iterable[str | None] = ()) -> bool:
        """Whether steps, of runs by these methods, are captured on `device`; never again in a process in which that has
        failed."""
        held_back = self.eager & {part for method in methods for part in (method or "").split("+")}
        return (
            device.type == "cuda" and self.graph is not False and not held_back and capture.failure() is None
        )

    def cold_seconds(self, device: torch.device) -> float:
        """A generous guess of what the first step of a group takes beyond a step, for those short of time."""
        return 90.0 if self.compile else 15.0 if self.captures(device) else 0.0

    def thread_choice(self, device: torch.device, say: Callable[[str], None] = lambda text: None) -> Threads:
        """What chooses the number of threads on `device`; `say` as of `Threads`."""
        return Threads(numbers(self.threads, device), say)

    def compiles_students(self, device: torch.device) -> bool:
        """Whether students are compiled on `device`, as well as the teacher."""
        return self.compile and device.type == "cuda"
