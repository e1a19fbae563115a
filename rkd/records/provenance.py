"""What machine, code and versions a number comes from. No host names, no user names, no paths."""

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

COMMIT_FILE = ".commit"  # what `rkd pack` puts beside the package in place of .git
COMMIT_VARIABLE = "RKD_COMMIT"


@functools.cache
def code_state() -> dict[str, object]:
    """Commit of the checkout rkd runs from, and a hash of local changes to rkd/, if there are any.

    Where there is no checkout, what $RKD_COMMIT says, else the file .commit beside the package, which `rkd pack`
    writes: see `read_commit`. Without either the commit is None.

    Raises:
        ConfigError: the variable or the file is malformed.
    """
    root = Path(rkd.__file__).parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or not (root / ".git").exists():
        return {"rkd": rkd.__version__, **_told_commit(root)}
    difference = git("diff", "HEAD", "--", "rkd") or ""
    changed = hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None
    return {"rkd": rkd.__version__, "commit": commit.strip(), "changed": changed}


def _told_commit(root: Path) -> dict[str, str | None]:
    if told := os.environ.get(COMMIT_VARIABLE):
        return read_commit(told, f"${COMMIT_VARIABLE}")
    if (root / COMMIT_FILE).exists():
        return read_commit((root / COMMIT_FILE).read_text(encoding="utf-8").strip(), str(root / COMMIT_FILE))
    return {"commit": None, "changed": None}


def read_commit(text: str, where: str) -> dict[str, str | None]:
    """Commit and hash of local changes from "COMMIT" or "COMMIT+CHANGED".

    Raises:
        ConfigError: of another form; the sentence names `where` it stands.
    """
    match = re.fullmatch(r"([0-9a-f]{40})(?:\+([0-9a-f]{12}))?", text)
    if match is None:
        raise ConfigError(
            f"{where} is {text!r}; it must be a commit of 40 hexadecimal digits, "
            "with + and the 12 of its local changes where there are some"
        )
    return {"commit": match[1], "changed": match[2]}


def machine_state(device: torch.device) -> dict[str, object]:
    """Device name, threads and versions."""
    import torchvision  # takes a second: not where records are only read

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = _cpu_name()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "system": platform.system(),
    }


@functools.cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float | None:
    """Highest memory use of this process so far, in MB: on the GPU where there is one, else resident memory; None
    where the system does not tell (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if platform.system() == "Darwin" else 1e3)
