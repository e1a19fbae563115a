"""Devices by name, and whether this machine has them."""

import os
import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from rkd.errors import ConfigError

if TYPE_CHECKING:
    import torch

ALLOWED = "auto, cpu, cuda, cuda:N"  # N from 0
_NAME = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?", re.ASCII)


def cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device_name(name: str) -> str:
    """Return a device's name, whether or not this machine has it; raise ConfigError for any other text."""
    if name == "mps":
        raise ConfigError(
            "device 'mps' has no float64, in which losses and accuracies are summed; allowed: " + ALLOWED
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"unknown device {name!r}; allowed: {ALLOWED}")
    return name


Device = Annotated[str, AfterValidator(check_device_name)]


def pick_device(name: str = "auto") -> "torch.device":
    """Return the torch device of a name; "auto" is CUDA where available, else the CPU.

    Raises:
        ConfigError: the name is not a device's, or this machine lacks the device.
    """
    import torch  # not needed just to check a name

    kind, _, index = check_device_name(str(name)).partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    lacks = f"device {str(name)!r} was asked for, but this machine has no"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{lacks} CUDA device; use cpu or auto")
    if index and int(index) >= (there := torch.cuda.device_count()):
        raise ConfigError(f"{lacks} such device; it has {', '.join(f'cuda:{n}' for n in range(there))}")
    return torch.device(f"{kind}:{index}" if index else kind)


def has_device(name: str) -> bool:
    """Whether this machine has a device; ConfigError if the name is not a device's."""
    check_device_name(name)
    try:
        pick_device(name)
    except ConfigError:
        return False
    return True
