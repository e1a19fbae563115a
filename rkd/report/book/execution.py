"""Chapters at work: papermill processes, what they start, and how it ended."""

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rkd.report.book.files import Folders, plain
from rkd.report.book.marks import MARKS, TOKEN, cpus, fault_of_mark
from rkd.report.book.result import Page, file_state

START_APART_S = 1.5  # kernels that start in the same instant can pick the same ports
VARIATION = "RKD_VARIATION"  # tells a chapter that it is executed as a variation, and of which name


@dataclass(frozen=True)
class Run:
    """What all chapters of one build have in common.

    Attributes:
        folders: of the build.
        params_file: YAML of parameters for every chapter; None: none.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of `params_file`.
        environment: overrides the chapters' environment.
        variation: name of the variation being executed; empty for the chapters themselves.
        token: sign of this build, to be found in the finish marks.
    """

    folders: Folders
    params_file: Path | None
    timeout_s: float
    parameters: Mapping[str, object]
    environment: Mapping[str, str]
    variation: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def folder(self) -> Path:
        return self.folders.of(self.variation)


class Chapter:
    """One chapter at work: a papermill process, its log, and everything it started."""

    def __init__(self, name: str, run: Run, threads: int | None) -> None:
        self.name, self.run = name, run
        run.folder.mkdir(parents=True, exist_ok=True)
        self.output = run.folder / f"{name}.tmp.ipynb"
        self.log = run.folder / f"{name}.log"
        self.mark = run.folder / f"{name}.json"
        for path in (self.output, self.mark):
            path.unlink(missing_ok=True)
        self.started = time.monotonic()
        self.family: set = set()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment(threads),
            )

    def _environment(self, threads: int | None) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != VARIATION}
        return {
            **inherited,
            **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # spares every log the debugger's warning
            **self.run.environment,
            TOKEN: self.run.token,
            MARKS: str(self.run.folder),
            **({VARIATION: self.run.variation} if self.run.variation else {}),
        }

    def _command(self) -> list[str]:
        run = self.run
        source = run.folders.book / f"{self.name}.ipynb"
        command = [sys.executable, "-m", "papermill", str(source), str(self.output)]
        if run.params_file is not None:
            command += ["-f", str(Path(run.params_file).resolve())]
        if run.parameters:  # JSON is YAML: every type arrives as it is, lists too
            command += ["-y", json.dumps(dict(run.parameters))]
        command += ["-k", "python3", "-l", "python", "--cwd", str(run.folders.book)]
        command += ["--no-progress-bar", "--log-output", "--start-timeout", "120"]
        return [*command, "--execution-timeout", str(math.ceil(run.timeout_s))]

    def poll(self) -> Page | None:
        """The page once the chapter has ended or its time is up."""
        seconds = time.monotonic() - self.started
        status = self.process.poll()
        self._meet_family()
        if status is None and seconds < self.run.timeout_s:
            return None
        self.kill()
        if status is None:
            reason = f"it took longer than its limit of {self.run.timeout_s:g} s and was stopped"
        elif status != 0:
            reason = self._last_words(status)
        else:
            reason = fault_of_mark(self.mark, self.name, self.run.token)
        return self._file(round(seconds, 1), reason)

    def _meet_family(self) -> None:
        """Notes the kernel and its workers: in sessions of their own, they outlive a killed papermill."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))

    def kill(self) -> None:
        """Ends the process and everything it started."""
        import psutil

        self._meet_family()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _last_words(self, status: int) -> str:
        log = plain(self.log.read_text(encoding="utf8", errors="replace"))
        if "DeadKernelError" in log:
            return "its kernel died without a word, killed from outside or out of memory"
        if self.output.is_file():
            with contextlib.suppress(json.JSONDecodeError):
                for cell in json.loads(self.output.read_text(encoding="utf8"))["cells"]:
                    for output in cell.get("outputs", []):
                        if output["output_type"] == "error":
                            trace = [
                                plain(line) for part in output["traceback"] for line in part.splitlines()
                            ]
                            words = f"{output['ename']}: {output['evalue']}".splitlines()
                            return "\n".join(words if words[0] in trace[-len(words) :] else trace[-3:])
        lines = [line for line in log.splitlines() if line.strip()]
        return "\n".join([f"papermill ended with status {status}", *lines[-3:]])

    def _file(self, seconds: float, reason: str) -> Page:
        run, folder = self.run, self.run.folder
        page = Page(
            self.name,
            "failed" if reason else "ok",
            seconds,
            reason,
            datetime.now(UTC).isoformat(timespec="seconds"),
            "" if reason else json.loads(self.mark.read_text(encoding="utf8")).get("machine", ""),
            run.variation,
            dict(run.parameters) if run.variation else {},
        )
        good, bad = folder / f"{self.name}.ipynb", folder / f"{self.name}.failed.ipynb"
        if reason:
            good.unlink(missing_ok=True)  # an older copy must not pass for this one
            if self.output.is_file():
                os.replace(self.output, bad)
        else:
            os.replace(self.output, good)
            bad.unlink(missing_ok=True)
        file_state(page, folder)
        return page


def threads_of(name: str, names: Sequence[str], jobs: int, last: Sequence[str]) -> int | None:
    """Threads of a chapter: chapters that are executed side by side share the cores evenly. None: it has no company,
    and its environment stays as it is."""
    company = min(jobs, sum((other in last) == (name in last) for other in names))
    return None if company == 1 else max(1, cpus() // company)


def execute(
    names: Sequence[str], run: Run, jobs: int, echo: Callable[[str], object], last: Sequence[str] = ()
) -> dict[str, Page]:
    """Executes chapters, `jobs` at once; those in `last` start when all others have ended."""
    waiting = sorted(names, key=lambda name: name in last)  # stable: the order of the book otherwise
    working, done = [], {}
    width = max(map(len, names), default=0)
    last_start = -math.inf
    stop = _stop_on_sigterm()

    def may_start() -> bool:
        if not waiting or len(working) >= jobs or time.monotonic() - last_start < START_APART_S:
            return False
        return waiting[0] not in last or all(chapter.name in last for chapter in working)

    try:
        while waiting or working:
            if may_start():
                name = waiting.pop(0)
                working.append(Chapter(name, run, threads_of(name, names, jobs, last)))
                last_start = time.monotonic()
            for chapter in list(working):
                page = chapter.poll()
                if page is not None:
                    working.remove(chapter)
                    done[page.name] = page
                    place = f"[{len(done)}/{len(names)}]"
                    echo(f"{place} {page.name:<{width}}  {page.status:<6}  {page.seconds:.0f} s")
            time.sleep(0.2)
    finally:
        for chapter in working:  # an interrupted build leaves nothing running
            chapter.kill()
        stop()
    return done


def _stop_on_sigterm() -> Callable[[], object]:
    """Makes SIGTERM raise SystemExit, so that clean-up runs; returns what restores the former handler."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        return lambda: None

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    return lambda: signal.signal(signal.SIGTERM, former)
