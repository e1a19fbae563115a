"""Kernels of chapters, forked from one process that has imported what they import: importing torch, pandas and the
plotting libraries occupies a core for longer than most chapters do. Nothing that a kernel started outlives it, and no
kernel outlives the build: a token in the environment marks what belongs to it."""

import contextlib
import ctypes
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError

from rkd.report.book.pages import TOKEN

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Nursery:
    """A process that forks kernels in a folder, each with `imports` already made: statements, executed once, for which
    the first kernel waits; none except on Linux, as elsewhere a process full of libraries does not survive a fork."""

    def __init__(self, imports: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._build, self._one_at_a_time = uuid.uuid4().hex, threading.Lock()
        call = [sys.executable, "-m", __name__, *(imports if sys.platform == "linux" else ())]
        talk = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        own = {**environment, TOKEN: self._build}
        self._process = subprocess.Popen(call, cwd=folder, env=own, start_new_session=True, **talk)

    @contextlib.contextmanager
    def kernel(self, name: str, environment: Mapping[str, str], log: Path) -> Iterator[AsyncKernelManager]:
        """Yield a running kernel with a name of its own, and end it with all that it started. `environment` is added to
        that of all kernels; what the kernel's process prints is appended to the log."""
        token = f"{self._build} {name}."
        kernel = AsyncKernelManager(kernel_name="python3")
        kernel.provisioner = _Forked(kernel_id=name, kernel_spec=kernel.kernel_spec, parent=kernel)
        kernel.provisioner.fork = lambda words: self._fork(words, {**environment, TOKEN: token}, str(log))
        try:
            run_sync(kernel.start_kernel)()
            yield kernel
        finally:
            session = kernel.provisioner.pid
            run_sync(kernel.shutdown_kernel)(now=True)
            _end(token, session)

    def close(self) -> None:
        """End all kernels and the process they are forked from."""
        _end(self._build)
        self._process.wait()

    def _fork(self, *request: object) -> int:
        assert self._process.stdin and self._process.stdout
        with self._one_at_a_time:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            if not (answer := self._process.stdout.readline()):
                raise RuntimeError("the process that kernels are forked from has ended")
            return int(answer)


class _Forked(LocalProvisioner):
    """A kernel that is no child of this process: `fork` starts it from its command's words and returns its id."""

    fork: Any = None

    async def launch_kernel(self, cmd: list[str], **of_a_child: Any) -> KernelConnectionInfo:
        try:
            self.process = _Process(self.fork(cmd[cmd.index("-m") + 1 :]))
        except psutil.NoSuchProcess as error:  # it died before it could be inspected
            raise DeadKernelError(str(error)) from None
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class _Process(psutil.Process):
    """A process with the further attributes and methods that LocalProvisioner expects of a child."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return None if self.is_running() else 0

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # a Popen that has ended ignores it too
            os.kill(self.pid, number)


def _end(token: str, session: int | None = None) -> None:
    """Kill every process whose token begins with `token`, whatever its session, and every process in `session`."""
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.pid == os.getpid():
                continue
            if os.getsid(process.pid) == session or process.environ().get(TOKEN, "").startswith(token):
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=5)  # a killed process lives on for a moment on a busy machine


def end_with_parent(so: bool = True) -> None:
    """Ask Linux to kill this process when its parent ends, even if that is killed and cannot clean up (or, if `so` is
    False, not to); a no-op on other systems."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if so else 0)


# --- in the process that forks -------------------------------------------------------------------------------------


def _serve(imports: Sequence[str]) -> None:
    """Import, then fork a kernel for each line that comes in and answer with its process id."""
    end_with_parent()  # as long as there is no kernel to be ended first
    here = os.getpid()
    os.environ["JPY_PARENT_PID"] = str(here)  # kernels end with this process
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as kernels have it
    for statement in ("import ipykernel.kernelapp", *imports):
        with contextlib.suppress(Exception):  # chapters fail on it themselves, and say so on their pages
            exec(statement, {})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    end_with_parent(False)
    try:
        for line in sys.stdin:
            if pid := os.fork():
                print(pid, file=answers, flush=True)
            else:
                _become(*json.loads(line))
    finally:  # the build has ended, perhaps killed
        if os.getpid() == here:
            _end(os.environ[TOKEN])


def _become(command: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """Turn this process into a kernel."""
    end_with_parent()
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [*command]
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1:])
