"""Chapters executed with papermill, a few at once, each in a kernel of its own that leaves nothing running."""

import contextlib
import logging
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import yaml

from rkd.report.book.pages import TOKEN, VARIATION, Book, Page


@dataclass(frozen=True)
class Run:
    """What all chapters of one build have in common.

    Attributes:
        book: theirs.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of the book's `params_file`.
        environment: overrides the chapters' environment.
        variation: name of the variation being executed; empty for the chapters themselves.
    """

    book: Book
    timeout_s: float
    parameters: Mapping[str, object]
    environment: Mapping[str, str]
    variation: str = ""

    def all_parameters(self) -> dict[str, object]:
        """Those of the file too."""
        file = self.book.params_file
        return {**(yaml.safe_load(file.read_text(encoding="utf8")) or {} if file else {}), **self.parameters}

    def kernel_environment(self, threads: int | None) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name != VARIATION},
            **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # spares every log the debugger's warning
            **self.environment,
            TOKEN: "1",
            **({VARIATION: self.variation} if self.variation else {}),
        }


def execute(names: Sequence[str], run: Run, jobs: int, last: Sequence[str] = ()) -> dict[str, Page]:
    """Executes chapters, `jobs` at once; those in `last` when all others have ended."""
    logging.getLogger("papermill").setLevel(logging.ERROR)  # what it says of a failure stands on the page
    done: dict[str, Page] = {}
    width = max(map(len, names), default=0)
    for group in ([n for n in names if n not in last], [n for n in names if n in last]):
        threads = threads_each(len(group), jobs)
        with _workers(jobs) as start:
            for future in as_completed([start(_execute, name, run, threads) for name in group]):
                page = done[future.result().name] = future.result()
                place = f"[{len(done)}/{len(names)}]"
                run.book.echo(f"{place} {page.name:<{width}}  {page.status:<6}  {page.seconds:.0f} s")
    return done


def threads_each(chapters: int, jobs: int) -> int | None:
    """Threads of chapters that are executed side by side: they share the cores evenly. None: there is one at a time,
    and its environment stays as it is."""
    company = min(jobs, chapters)
    return None if company <= 1 else max(1, cpus() // company)


def cpus() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[Callable[..., Future]]:
    """Starts calls, `jobs` at once. Left by an exception, SIGTERM's too, it ends every process they have started."""
    futures: list[Future] = []

    def start(*call: object) -> Future:
        futures.append(pool.submit(*call))
        return futures[-1]

    with ThreadPoolExecutor(jobs) as pool, _sigterm_exits():
        try:
            yield start
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while wait(futures, timeout=0.3).not_done:
                _kill(_descendants(os.getpid()))
            raise


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that clean-up runs."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _execute(name: str, run: Run, threads: int | None) -> Page:
    """One chapter, and what became of it. Its notebook counts as failed until it has ended well."""
    folder = run.book.folder(run.variation)
    folder.mkdir(parents=True, exist_ok=True)
    good, output = folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"
    output.unlink(missing_ok=True)
    started = time.monotonic()
    with (folder / f"{name}.log").open("w", encoding="utf8") as log, _kernel(run, threads, log) as kernel:
        reason = _run_cells(run.book.source / f"{name}.ipynb", output, run, kernel, log)
    page = Page(
        name,
        "failed" if reason else "ok",
        round(time.monotonic() - started, 1),
        reason,
        datetime.now(UTC).isoformat(timespec="seconds"),
        "" if reason else _machine(),
        run.variation,
        dict(run.parameters) if run.variation else {},
    )
    if reason:
        good.unlink(missing_ok=True)  # an older copy must not pass for this one
    else:
        os.replace(output, good)
    page.save(run.book)
    return page


def _run_cells(source: Path, output: Path, run: Run, kernel: object, log: TextIO) -> str:
    """Executes a notebook in a running kernel; why it failed, empty if it did not."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    deadline = time.monotonic() + run.timeout_s
    try:
        papermill.execute_notebook(
            source,
            output,
            run.all_parameters(),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=120,
            stdout_file=log,
            stderr_file=log,
            km=kernel,
            timeout_func=lambda cell: max(1, math.ceil(deadline - time.monotonic())),
            coalesce_streams=True,
        )
    except papermill.PapermillExecutionError as error:
        log.write(str(error))
        return f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"it took longer than its limit of {run.timeout_s:g} s and was stopped"
    except DeadKernelError:
        return "its kernel died without a word, killed from outside or out of memory"
    except Exception as error:  # of papermill itself: the other chapters go on
        log.write(str(error))
        return f"papermill ended with {type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def _kernel(run: Run, threads: int | None, log: TextIO) -> Iterator[object]:
    """A kernel in the book's folder; it ends with everything it started, in sessions of their own too."""
    from jupyter_client import AsyncKernelManager
    from nbclient.util import run_sync

    kernel = AsyncKernelManager(kernel_name="python3")
    start, stop = run_sync(kernel.start_kernel), run_sync(kernel.shutdown_kernel)
    start(cwd=str(run.book.source), env=run.kernel_environment(threads), stdout=log, stderr=log)
    try:
        yield kernel
    finally:
        family = _descendants(kernel.provisioner.pid)
        stop(now=True)
        _kill(family)


def _descendants(process: int) -> list:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process).children(recursive=True)
    return []


def _kill(processes: list) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)  # a killed process lives on for a moment on a busy machine


def _machine() -> str:
    import torch

    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.cuda.is_available():
        return f"{software}, {torch.cuda.get_device_name()}"
    return f"{software}, {cpus()} CPU core{'s' * (cpus() > 1)}"
