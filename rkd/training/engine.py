"""How steps are computed, as far as it changes nothing but the time they take."""

import os
import shutil
from dataclasses import dataclass

import torch

from rkd.errors import ConfigError


@dataclass(frozen=True)
class Engine:
    """No part of a run's identity: the mathematics stays the same.

    Attributes:
        compile: let torch.compile write kernels: for the teacher, and on CUDA for the students too (on a CPU compiled
            students are slower than eager ones, which oneDNN serves well). Needs a C++ compiler, and time for the first
            step: seconds on a CPU, half a minute to two minutes on CUDA.
        graph: capture a step as one CUDA graph; None: on CUDA.
    """

    compile: bool = False
    graph: bool | None = None

    def check(self, device: torch.device) -> None:
        """Raise ConfigError for what this machine cannot do."""
        if self.compile and not any(
            shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")
        ):
            raise ConfigError("compile was asked for, but this machine has no C++ compiler (g++ or clang++)")
        if self.compile:
            # One function serves every make of learner and every batch size of a sweep, each with a graph of its own.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 2**16
        if self.graph and device.type != "cuda":
            raise ConfigError(f"a CUDA graph was asked for, but the device is {str(device)!r}")

    def captures(self, device: torch.device) -> bool:
        """Whether steps are captured on `device`."""
        return device.type == "cuda" if self.graph is None else self.graph

    def cold_seconds(self, device: torch.device) -> float:
        """A generous guess of what the first step of a gang takes beyond a step, for those short of time."""
        return 90.0 if self.compile else 15.0 if self.captures(device) else 0.0

    def compiles_students(self, device: torch.device) -> bool:
        """Whether students are compiled on `device`, as well as the teacher."""
        return self.compile and device.type == "cuda"
