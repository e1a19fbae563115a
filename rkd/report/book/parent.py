"""Processes that end with their parent, even if that is killed and cannot clean up."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def end_with_parent(so: bool = True) -> None:
    """Ask the kernel to kill this process when its parent ends, or not to if `so` is False; a no-op except on Linux."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if so else 0)
