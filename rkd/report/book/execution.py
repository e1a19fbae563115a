"""Chapters executed with papermill, a few at once, each in a kernel of its own; unchanged ones are left as they are."""

import contextlib
import functools
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rkd import paths
from rkd.devices import cores
from rkd.experiments.notebooks import is_last, shared_imports, tagged_cells, title_of
from rkd.experiments.settings import PATHS
from rkd.files import digest
from rkd.report.book.pages import VARIATION, Book, Page

if TYPE_CHECKING:
    from rkd.cluster.session import Cluster
    from rkd.report.book.kernels import Nursery


def execute(
    book: Book,
    pages: Sequence[Page],
    values: Mapping[str, object],
    environment: Mapping[str, str],
    timeout_s: float,
    jobs: int | None,
    fresh: bool,
    cluster: "Cluster | None" = None,
) -> list[Page]:
    """Return the pages as their execution left them; arguments are those of `rkd.report.book.building.build_book`.

    Pages that took longest start first; those that ask for it start when all others have ended. Without `fresh`, a page
    executed from exactly what is there now is left as it is. A cluster's nodes share the project's folders.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)  # what it says of a failure is shown on the page
    done: list[Page] = []
    width = max((len(page.name) for page in pages), default=0)

    def ended(page: Page) -> None:
        done.append(page)
        took = "" if page.status == "unchanged" else f"  {page.seconds:.0f} s"
        book.echo(f"[{len(done)}/{len(pages)}] {page.name:<{width}}  {page.status:<6}{took}")

    def run(group: Sequence[Page]) -> None:
        with ThreadPoolExecutor(jobs if cluster is None else len(group)) as pool:
            futures = [pool.submit(begin, book, page, values, timeout_s) for page in group]
            try:
                for future in as_completed(futures):
                    ended(future.result())
            except BaseException:  # Ctrl-C and SIGTERM too
                pool.shutdown(wait=False, cancel_futures=True)
                while wait(futures, timeout=0.3).not_done:
                    there.close()
                raise

    there: Nursery | _Elsewhere | None = None  # where pages are executed
    last = [page for page in pages if is_last(book.notebook(page.name))]
    with contextlib.ExitStack() as finally_:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            former = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            finally_.callback(signal.signal, signal.SIGTERM, former)
        for group in ([page for page in pages if page not in last], last):
            made_from, changed = _made_from(book, values, group is last), []
            for page in group:
                before = book.page(page.name, page.variation)
                key = digest(made_from, book.source / f"{page.name}.ipynb")
                if fresh or (before.status, before.key) != ("kept", key):
                    changed.append(replace(page, key=key, seconds=before.seconds))
                else:
                    ended(replace(before, status="unchanged"))
            if changed and there is None:
                if cluster is not None:
                    there = _Elsewhere(cluster, environment)
                    begin = there.execute
                else:
                    jobs = jobs or _default_jobs(values.get("device"))
                    left = [page.name for page in pages if page.file not in {page.file for page in done}]
                    there = _nursery(book, left, threads_each(len(left), jobs), environment)
                    begin = functools.partial(_execute, there)
                finally_.callback(there.close)
            if changed:
                run(sorted(changed, key=lambda page: -page.seconds))
    return done


class _Elsewhere:
    """An executor of pages in kernels on a cluster's nodes."""

    def __init__(self, cluster: "Cluster", environment: Mapping[str, str]) -> None:
        self._cluster, self._environment, self._tasks = cluster, dict(environment), list[Any]()

    def execute(self, book: Book, page: Page, values: Mapping[str, object], timeout_s: float) -> Page:
        ray = self._cluster.ray
        book = replace(book, echo=print)
        task = self._cluster.task(_on_a_node)
        self._tasks.append(task.remote(book, page, dict(values), timeout_s, self._environment))
        try:
            return ray.get(self._tasks[-1])
        except ray.exceptions.RayError as error:  # its node was lost, on every retry
            page = replace(page, status="failed", reason=f"its node was lost: {type(error).__name__}")
            book.save(page)
            return page

    def close(self) -> None:
        """Cancel the tasks under way."""
        for task in self._tasks:
            self._cluster.ray.cancel(task, force=True)


def _on_a_node(
    book: Book, page: Page, values: Mapping[str, object], timeout_s: float, environment: Mapping[str, str]
) -> Page:
    nursery = _nursery(book, [page.name], None, environment)
    try:
        return _execute(nursery, book, page, values, timeout_s)
    finally:
        nursery.close()


def _nursery(
    book: Book, chapters: Sequence[str], threads: int | None, environment: Mapping[str, str]
) -> "Nursery":
    from rkd.report.book.kernels import Nursery  # not needed by a build that executes nothing

    own = {name: value for name, value in os.environ.items() if name != VARIATION}
    own["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # spares every log the debugger's warning
    if threads is not None:
        own["OMP_NUM_THREADS"] = str(threads)
    return Nursery(shared_imports(map(book.notebook, chapters)), book.source, {**own, **environment})


def _made_from(book: Book, values: Mapping[str, object], last: bool) -> str:
    """Return a hash of what all chapters are executed from besides their own notebooks: what the book reads, all
    notebooks' titles and rows, parameters, Python and torch; for the last ones, also when the others were executed."""
    notebooks = {name: book.notebook(name) for name in book.names}
    rows = {
        n: (title_of(it), [cell["source"] for cell in tagged_cells(it, "rows")])
        for n, it in notebooks.items()
    }
    others = [book.page(name).finished for name, it in notebooks.items() if last and not is_last(it)]
    stands = str(paths.user_folder()) if {*PATHS, "dataset", "datasets"} & values.keys() else ""
    said = [book.profile, dict(values), stands, rows, others, sys.version, metadata.version("torch")]
    return digest(*book.reads, json.dumps(said, default=str))


def threads_each(chapters: int, jobs: int) -> int | None:
    """Return the threads of each of several chapters that share the cores evenly; None if one runs at a time."""
    company = min(jobs, chapters)
    return None if company <= 1 else max(1, cores() // company)


def _execute(
    nursery: "Nursery", book: Book, page: Page, values: Mapping[str, object], timeout_s: float
) -> Page:
    """Execute one page and return it with the outcome. Its notebook counts as failed until it has ended well."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    good, unfinished = book.path(page, ".ipynb"), book.path(page, ".failed.ipynb")
    good.parent.mkdir(parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    started, reason, log_file = time.monotonic(), "", book.path(page, ".log")
    log_file.unlink(missing_ok=True)
    environment = {VARIATION: page.variation} if page.variation else {}
    with log_file.open("a", encoding="utf8") as log:
        try:
            with nursery.kernel(page.file, environment, log_file) as kernel:
                papermill.execute_notebook(
                    book.source / f"{page.name}.ipynb", unfinished, values, km=kernel, kernel_name="python3",
                    language="python", progress_bar=False, start_timeout=120, stdout_file=log, stderr_file=log,
                    timeout_func=lambda cell: max(1, math.ceil(started + timeout_s - time.monotonic())),
                    coalesce_streams=True,
                )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            log.write(str(error))
            reason = f"{error.ename}: {error.evalue}"
        except CellTimeoutError:
            reason = f"it took longer than its limit of {timeout_s:g} s and was stopped"
        except Exception as error:  # of papermill itself: the other chapters go on
            log.write(str(error))
            reason = f"papermill ended with {type(error).__name__}: {error}"
            if isinstance(error, DeadKernelError) or "Kernel died" in str(error):  # the latter as it starts
                reason = "its kernel died without a word, killed from outside or out of memory"
    if reason:
        good.unlink(missing_ok=True)  # an older copy must not pass for this one
    else:
        os.replace(unfinished, good)
    finished, took = datetime.now(UTC).isoformat(timespec="seconds"), round(time.monotonic() - started, 1)
    page = replace(page, status="failed" if reason else "ok", seconds=took, reason=reason, finished=finished)
    page = replace(page, machine="" if reason else _machine())
    book.save(page)
    return page


def _default_jobs(device: object) -> int:
    import torch

    return 1 if torch.cuda.is_available() and device != "cpu" else 2


def _machine() -> str:
    import torch

    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.cuda.is_available():
        return f"{software}, {torch.cuda.get_device_name()}"
    return f"{software}, {cores()} CPU core{'s' * (cores() > 1)}"
