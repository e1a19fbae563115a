"""Processes that end with the one that started them, even where that is killed and can clean nothing up."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def end_with_parent(so: bool = True) -> None:
    """Asks the kernel to kill this process when its parent ends, or no longer; elsewhere than on Linux a no-op."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if so else 0)
