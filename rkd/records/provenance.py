"""The machine, code and versions that a number comes from. No host names, no user names, no paths."""

import functools
import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy
import torch

import rkd
from rkd.errors import ConfigError

COMMIT_FILE = ".commit"  # which `rkd cluster pack` puts beside the package in place of .git
COMMIT_VARIABLE = "RKD_COMMIT"


@functools.cache
def code_state() -> dict[str, str | None]:
    """Return rkd's version, the commit of the checkout it runs from, and a hash of local changes to rkd/, if any.

    Without a checkout, commit and hash come from $RKD_COMMIT or else from the file .commit beside the package, which
    `rkd cluster pack` writes: "COMMIT" or "COMMIT+CHANGED". Without either of these, the commit is None.

    Raises:
        ConfigError: the variable or the file is malformed.
    """
    root = Path(rkd.__file__).parent.parent
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is not None:
        difference = _git(root, "diff", "HEAD", "--", "rkd") or ""
        changed = hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None
        return {"rkd": rkd.__version__, "commit": commit.strip(), "changed": changed}
    told, where = os.environ.get(COMMIT_VARIABLE), f"${COMMIT_VARIABLE}"
    if not told and (root / COMMIT_FILE).exists():
        told, where = (root / COMMIT_FILE).read_text(encoding="utf-8").strip(), str(root / COMMIT_FILE)
    if not told:
        return {"rkd": rkd.__version__, "commit": None, "changed": None}
    match = re.fullmatch(r"([0-9a-f]{40})(?:\+([0-9a-f]{12}))?", told)
    if match is None:
        raise ConfigError(
            f"{where} is {told!r}; it must be a commit of 40 hexadecimal digits, "
            "with + and the 12 of its local changes where there are some"
        )
    return {"rkd": rkd.__version__, "commit": match[1], "changed": match[2]}


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails or is not installed."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf8", errors="replace", check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def machine_state(device: torch.device) -> dict[str, object]:
    """Return device name, number of threads, versions and the like."""
    import torchvision  # takes a second, which merely reading records should not cost

    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "system": platform.system(),
    }


@functools.cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    said = info.read_text(errors="replace") if info.exists() else ""
    named = re.search(r"^model name\s*:\s*(.*)$", said, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak memory use of this process so far, in MB: GPU memory on a CUDA device, else resident memory; None
    where the system does not report it (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if platform.system() == "Darwin" else 1e3)


def joules(device: torch.device) -> float:
    """Return the energy in joules that the whole card has used since its driver was loaded; only differences of two
    readings are meaningful. Always 0 without CUDA, without the package nvidia-ml-py, or if the card does not count."""
    if device.type != "cuda":
        return 0.0
    try:
        import pynvml
    except ModuleNotFoundError:
        return 0.0
    try:
        pynvml.nvmlInit()
        # By UUID: CUDA and the driver number the cards differently where CUDA_VISIBLE_DEVICES is set.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name)) / 1000
    except pynvml.NVMLError:
        return 0.0
