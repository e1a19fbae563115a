"""Chapters executed with papermill, a few at once, each in a kernel of its own that leaves nothing running."""

import contextlib
import logging
import math
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from datetime import UTC, datetime

from rkd.experiments.notebooks import is_last
from rkd.report.book.pages import TOKEN, VARIATION, Book, Page


def execute(
    book: Book,
    pages: Sequence[Page],
    values: Mapping[str, object],
    environment: Mapping[str, str],
    timeout_s: float,
    jobs: int,
) -> list[Page]:
    """Pages as their execution left them.

    Args:
        book: theirs.
        pages: executed `jobs` at once; those that ask for it when all others have ended.
        values: the parameters they are given.
        environment: overrides theirs.
        timeout_s: wall-clock limit of one page, in seconds.
        jobs: share the CPU cores evenly.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)  # what it says of a failure stands on the page
    build, done = uuid.uuid4().hex, []
    width = max((len(page.name) for page in pages), default=0)
    last = [page for page in pages if is_last(book.notebook(page.name))]
    for group in ([page for page in pages if page not in last], last):
        threads = threads_each(len(group), jobs)
        shared = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        with ThreadPoolExecutor(jobs) as pool, _sigterm_exits():
            futures = [
                pool.submit(_execute, book, page, values, {**shared, **environment}, timeout_s, build)
                for page in group
            ]
            try:
                for future in as_completed(futures):
                    done.append(page := future.result())
                    place = f"[{len(done)}/{len(pages)}]"
                    book.echo(f"{place} {page.name:<{width}}  {page.status:<6}  {page.seconds:.0f} s")
            except BaseException:  # Ctrl-C and SIGTERM too
                pool.shutdown(wait=False, cancel_futures=True)
                while wait(futures, timeout=0.3).not_done:
                    _end(build)
                raise
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
def _sigterm_exits() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that clean-up runs."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _execute(
    book: Book,
    page: Page,
    values: Mapping[str, object],
    environment: Mapping[str, str],
    timeout_s: float,
    build: str,
) -> Page:
    """One page, and what became of it. Its notebook counts as failed until it has ended well."""
    import papermill
    from jupyter_client import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbclient.util import run_sync

    good, unfinished = book.path(page, ".ipynb"), book.path(page, ".failed.ipynb")
    good.parent.mkdir(parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    token = f"{build} {page.file}."
    environment = {
        **{name: value for name, value in os.environ.items() if name != VARIATION},
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # spares every log the debugger's warning
        **environment,
        TOKEN: token,
        **({VARIATION: page.variation} if page.variation else {}),
    }
    kernel = AsyncKernelManager(kernel_name="python3")  # one of ours: papermill's takes no environment
    started, reason = time.monotonic(), ""
    with book.path(page, ".log").open("w", encoding="utf8") as log:
        try:
            run_sync(kernel.start_kernel)(cwd=str(book.source), env=environment, stdout=log, stderr=log)
            papermill.execute_notebook(
                book.source / f"{page.name}.ipynb",
                unfinished,
                values,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                start_timeout=120,
                stdout_file=log,
                stderr_file=log,
                km=kernel,
                timeout_func=lambda cell: max(1, math.ceil(started + timeout_s - time.monotonic())),
                coalesce_streams=True,
            )
        except papermill.PapermillExecutionError as error:
            log.write(str(error))
            reason = f"{error.ename}: {error.evalue}"
        except CellTimeoutError:
            reason = f"it took longer than its limit of {timeout_s:g} s and was stopped"
        except DeadKernelError:
            reason = "its kernel died without a word, killed from outside or out of memory"
        except Exception as error:  # of papermill itself: the other chapters go on
            log.write(str(error))
            reason = f"papermill ended with {type(error).__name__}: {error}"
        finally:
            run_sync(kernel.shutdown_kernel)(now=True)
            _end(token)
    if reason:
        good.unlink(missing_ok=True)  # an older copy must not pass for this one
    else:
        os.replace(unfinished, good)
    page = replace(
        page,
        status="failed" if reason else "ok",
        seconds=round(time.monotonic() - started, 1),
        reason=reason,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        machine="" if reason else _machine(),
    )
    book.save(page)
    return page


def _end(token: str) -> None:
    """Kills every process whose token begins so: kernels, and what they started, in sessions of their own too."""
    import psutil

    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN, "").startswith(token):
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=5)  # a killed process lives on for a moment on a busy machine


def _machine() -> str:
    import torch

    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.cuda.is_available():
        return f"{software}, {torch.cuda.get_device_name()}"
    return f"{software}, {cpus()} CPU core{'s' * (cpus() > 1)}"
