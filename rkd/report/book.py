"""The book: chapters executed in processes of their own, judged, staged and built into one offline site."""

import contextlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from rkd.errors import ConfigError, unknown

TOKEN, MARKS = "RKD_BOOK_TOKEN", "RKD_BOOK_MARKS"  # environment of an executing chapter
START_APART_S = 1.5  # kernels that start in the same instant can pick the same ports
LOG_TAIL = 40  # lines

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SPHINX_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE): ")


@dataclass(frozen=True)
class Page:
    """One chapter of a build.

    Attributes:
        name: of the notebook, without its ending.
        status: "ok" (executed now), "failed" (now, or earlier and not mended since), "kept" (executed in an
            earlier build) or "not executed".
        seconds: wall-clock time of its execution.
        reason: why it failed, in a few lines.
        finished: end of its execution, UTC, ISO 8601.
        machine: what the chapter said of the machine it ran on.
    """

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    finished: str = ""
    machine: str = ""


@dataclass(frozen=True)
class BookResult:
    """What a build made: `pages` in the order of the book, the index page, complaints of the HTML build."""

    profile: str
    pages: tuple[Page, ...]
    html: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(page.name for page in self.pages if page.status == "failed")

    @property
    def ok(self) -> bool:
        """No failed chapter in the book and no complaint of the HTML build."""
        return not self.failed and not self.warnings


def write_mark(chapter: str, record_ids: Iterable[str], results_dir: str | Path) -> None:
    """The last act of a chapter: says that it came to its end, and which records its numbers stand on.

    Does nothing outside a build of the book, so the same notebook runs unchanged in Jupyter and on Colab.
    """
    token, marks = os.environ.get(TOKEN), os.environ.get(MARKS)
    if not token or not marks:
        return
    mark = {
        "chapter": chapter,
        "token": token,
        "records": list(record_ids),
        "results": str(Path(results_dir).resolve()),
        "machine": _machine(),
    }
    _write_if_changed(Path(marks) / f"{chapter}.json", json.dumps(mark, indent=1, sort_keys=True))


def _machine() -> str:
    parts = [f"Python {'.'.join(map(str, sys.version_info[:3]))}"]
    torch = sys.modules.get("torch")  # a chapter that never needed torch should not load it for this line
    if torch is not None:
        parts.append(f"torch {torch.__version__}")
        if torch.cuda.is_available():
            return ", ".join([*parts, torch.cuda.get_device_name()])
    cpus = _cpus()
    return ", ".join([*parts, f"{cpus} CPU core{'s' if cpus > 1 else ''}"])


def chapter_names(book_dir: Path) -> list[str]:
    """Names of the notebooks in `_toc.yml`, in reading order.

    Raises:
        ConfigError: no `_toc.yml`, or an entry that is neither a notebook nor a Markdown page.
    """
    return [path.stem for path in _toc_files(book_dir) if path.suffix == ".ipynb"]


def _toc_files(book_dir: Path) -> list[Path]:
    toc = book_dir / "_toc.yml"
    if not toc.is_file():
        raise ConfigError(f"{book_dir} has no _toc.yml; it is not the folder of a book")

    def entries(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            for key in ("parts", "chapters", "sections"):
                yield from entries(node.get(key, []))
        elif isinstance(node, list):
            for item in node:
                yield from entries(item)

    files = []
    for entry in entries(yaml.safe_load(toc.read_text(encoding="utf8"))):
        found = [book_dir / f"{entry}{suffix}" for suffix in (".ipynb", ".md")]
        existing = [path for path in found if path.is_file()]
        if not existing:
            raise ConfigError(f"_toc.yml names {entry!r}, but {found[0]} and {found[1].name} do not exist")
        files.append(existing[0])
    return files


def build_book(
    profile: str,
    *,
    book_dir: Path,
    config: Path,
    build_dir: Path,
    params_file: Path | None = None,
    only: Sequence[str] = (),
    jobs: int = 2,
    timeout_s: float = 3600,
    parameters: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    html: bool = True,
    echo: Callable[[str], object] = print,
) -> BookResult:
    """Executes the chapters, stages what came out, and builds the site.

    A chapter counts as executed when its process ends with status 0, its finish mark (`write_mark`) carries
    this build's token, and every record the mark names is there and parses. What papermill writes about a
    run is not consulted: after the death of a kernel it lists every cell as completed.

    Args:
        profile: name of the profile or path of its file; its work lies in `build_dir/NAME`.
        book_dir: notebooks, prose, `_toc.yml` and `_assets`.
        config: the jupyter-book configuration.
        build_dir: the site goes to `build_dir/_build/html`, or `build_dir/html` if it is named _build.
        params_file: YAML of parameters for every chapter.
        only: chapters to execute, all if empty; the others keep the copy an earlier build made.
        jobs: chapters executed at once, sharing the CPU cores evenly.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of `params_file`.
        environment: override the environment of the chapters.
        html: False stops after staging.
        echo: receives one line of progress at a time.

    Raises:
        ConfigError: an unknown chapter, a missing file, a limit that is not positive, or another build at
            work in `build_dir`.
    """
    book_dir, config, build_dir = (Path(path).resolve() for path in (book_dir, config, build_dir))
    names = chapter_names(book_dir)
    for name in only:
        if name not in names:
            raise unknown("chapter", name, names)
    if jobs < 1 or not 0 < timeout_s < math.inf:
        raise ConfigError(f"jobs is {jobs} and timeout_s is {timeout_s}; both must be positive")
    for path in (config, params_file):
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"{path} does not exist")

    work = build_dir / Path(profile).stem
    (work / "chapters").mkdir(parents=True, exist_ok=True)
    lock = FileLock(build_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another build is at work in {build_dir}; wait for it or give another folder"
        ) from None
    try:
        run = _Run(
            book_dir, work / "chapters", profile, params_file, timeout_s, parameters or {}, environment or {}
        )
        executed = _execute([n for n in names if not only or n in only], run, jobs, echo)
        pages = tuple(executed.get(name) or _kept(name, work / "chapters") for name in names)
        stage(pages, profile, book_dir=book_dir, chapters=work / "chapters", target=work / "stage")
        index, warnings = _build_html(work, config, build_dir, echo) if html else (None, ())
    finally:
        lock.release()
    result = BookResult(profile, pages, index, warnings)
    _summarise(result, echo)
    return result


def _summarise(result: BookResult, echo: Callable[[str], object]) -> None:
    counts = {status: [p.name for p in result.pages if p.status == status] for status in _STATUSES}
    echo(", ".join(f"{len(names)} {status}" for status, names in counts.items() if names))
    for page in result.pages:
        if page.status == "failed":
            echo(f"failed: {page.name}: {page.reason.splitlines()[-1] if page.reason else ''}")
    for warning in result.warnings:
        echo(f"the HTML build complains: {warning}")
    if result.html:
        echo(f"{result.html}")


_STATUSES = ("ok", "kept", "not executed", "failed")


# --- execution ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What all chapters of one build have in common."""

    book_dir: Path
    chapters: Path
    profile: str
    params_file: Path | None
    timeout_s: float
    parameters: Mapping[str, object]
    environment: Mapping[str, str]
    token: str = field(default_factory=lambda: secrets.token_hex(8))


class _Chapter:
    """One chapter at work: a papermill process, its log, and everything it started."""

    def __init__(self, name: str, run: _Run, threads: int) -> None:
        self.name, self.run = name, run
        self.output = run.chapters / f"{name}.tmp.ipynb"
        self.log = run.chapters / f"{name}.log"
        self.mark = run.chapters / f"{name}.json"
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
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # spares every log the debugger's warning
                    **run.environment,
                    TOKEN: run.token,
                    MARKS: str(run.chapters),
                },
            )

    def _command(self) -> list[str]:
        run = self.run
        command = [
            sys.executable,
            "-m",
            "papermill",
            str(run.book_dir / f"{self.name}.ipynb"),
            str(self.output),
        ]
        if run.params_file is not None:
            command += ["-f", str(Path(run.params_file).resolve())]
        if run.parameters:  # JSON is YAML: every type arrives as it is, lists too
            command += ["-y", json.dumps(dict(run.parameters))]
        command += [
            "-k",
            "python3",
            "-l",
            "python",
            "--cwd",
            str(run.book_dir),
            "--no-progress-bar",
            "--log-output",
        ]
        return [*command, "--start-timeout", "120", "--execution-timeout", str(math.ceil(run.timeout_s))]

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
            reason = _fault_of_mark(self.mark, self.name, self.run.token)
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
        log = _plain(self.log.read_text(encoding="utf8", errors="replace"))
        if "DeadKernelError" in log:
            return "its kernel died without a word, killed from outside or out of memory"
        if self.output.is_file():
            with contextlib.suppress(json.JSONDecodeError):
                for cell in json.loads(self.output.read_text(encoding="utf8"))["cells"]:
                    for output in cell.get("outputs", []):
                        if output["output_type"] == "error":
                            trace = [
                                _plain(line) for part in output["traceback"] for line in part.splitlines()
                            ]
                            words = f"{output['ename']}: {output['evalue']}".splitlines()
                            return "\n".join(words if words[0] in trace[-len(words) :] else trace[-3:])
        lines = [line for line in log.splitlines() if line.strip()]
        return "\n".join([f"papermill ended with status {status}", *lines[-3:]])

    def _file(self, seconds: float, reason: str) -> Page:
        chapters = self.run.chapters
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        if reason:
            (chapters / f"{self.name}.ipynb").unlink(
                missing_ok=True
            )  # an older copy must not pass for this one
            if self.output.is_file():
                os.replace(self.output, chapters / f"{self.name}.failed.ipynb")
            page = Page(self.name, "failed", seconds, reason, finished)
        else:
            os.replace(self.output, chapters / f"{self.name}.ipynb")
            (chapters / f"{self.name}.failed.ipynb").unlink(missing_ok=True)
            machine = json.loads(self.mark.read_text(encoding="utf8")).get("machine", "")
            page = Page(self.name, "ok", seconds, "", finished, machine)
        _write_if_changed(chapters / f"{self.name}.page.json", json.dumps(asdict(page), indent=1))
        return page


def _execute(names: Sequence[str], run: _Run, jobs: int, echo: Callable[[str], object]) -> dict[str, Page]:
    threads = max(1, _cpus() // min(jobs, len(names)))
    waiting, working, done = list(names), [], {}
    width = max(map(len, names), default=0)
    last_start = -math.inf
    stop = _stop_on_sigterm()
    try:
        while waiting or working:
            if waiting and len(working) < jobs and time.monotonic() - last_start >= START_APART_S:
                working.append(_Chapter(waiting.pop(0), run, threads))
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


def _fault_of_mark(path: Path, chapter: str, token: str) -> str:
    """Why the finish mark does not vouch for the chapter; empty when it does."""
    try:
        mark = json.loads(path.read_text(encoding="utf8"))
        results, records = Path(mark["results"]), list(mark["records"])
        signed = mark["token"] == token and mark["chapter"] == chapter
    except FileNotFoundError:
        return "it ended without its finish mark, so it did not reach its last cell"
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"its finish mark {path.name} is not readable"
    if not signed:
        return "its finish mark belongs to another build"
    for record in records:
        source = results / f"{record}.json"
        try:
            json.loads(source.read_text(encoding="utf8"))
        except FileNotFoundError:
            return f"it stands on record {record}, but {source} does not exist"
        except ValueError:
            return f"it stands on record {record}, but {source} is not JSON"
    return ""


def _kept(name: str, chapters: Path) -> Page:
    """The page an earlier build of the same profile left behind."""
    state = chapters / f"{name}.page.json"
    if not state.is_file():
        return Page(name, "not executed")
    page = Page(**json.loads(state.read_text(encoding="utf8")))
    if page.status == "failed":
        return page
    return Page(name, "kept", page.seconds, "", page.finished, page.machine)


# --- staging --------------------------------------------------------------------------------------


def stage(pages: Sequence[Page], profile: str, *, book_dir: Path, chapters: Path, target: Path) -> None:
    """Assembles the source of the site in `target`.

    A file whose content is unchanged is not written again, so the HTML build renders anew only what differs.
    """
    files: dict[str, bytes] = {"_toc.yml": (book_dir / "_toc.yml").read_bytes()}
    for path in _toc_files(book_dir):
        if path.suffix == ".md":
            files[path.name] = path.read_bytes()
    for page in pages:
        title = _title(book_dir / f"{page.name}.ipynb")
        if page.status == "failed":
            content = _prose(failed_page(page, title, profile, chapters / f"{page.name}.log"))
        elif page.status == "not executed":
            content = _prose(not_executed_page(page, title, profile))
        else:
            executed = json.loads((chapters / f"{page.name}.ipynb").read_text(encoding="utf8"))
            content = clean(executed, provenance(page, profile))
        files[f"{page.name}.ipynb"] = json.dumps(content, indent=1, ensure_ascii=False).encode()
    assets = book_dir / "_assets"
    for path in sorted(assets.rglob("*")) if assets.is_dir() else ():
        if path.is_file():
            files[path.relative_to(book_dir).as_posix()] = path.read_bytes()

    for name, content in files.items():
        _write_if_changed(target / name, content)
    for path in sorted(target.rglob("*")):
        if path.is_file() and path.relative_to(target).as_posix() not in files:
            path.unlink()


def _prose(markdown: str) -> dict:
    """A notebook of one Markdown cell: in a chapter's place, it keeps all links to the chapter alive."""
    cell = {"cell_type": "markdown", "id": "page", "metadata": {}, "source": markdown}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def clean(notebook: dict, footer: str) -> dict:
    """An executed notebook as the book shows it: parameters folded, set-up hidden, streams merged.

    Args:
        notebook: nbformat 4 as a dict; not changed.
        footer: Markdown of a last cell; none if empty.
    """
    cells = []
    for cell in notebook["cells"]:
        metadata = {
            key: value for key, value in cell["metadata"].items() if key not in ("papermill", "execution")
        }
        tags = list(metadata.get("tags", []))
        if {"parameters", "injected-parameters"} & set(tags):
            tags.append("hide-input")
        if "colab" in tags:
            tags.append("remove-cell")
        if tags:
            metadata["tags"] = list(dict.fromkeys(tags))
        cell = {**cell, "metadata": metadata}
        if cell["cell_type"] == "code":
            cell["outputs"] = merge_streams(cell["outputs"])
        cells.append(cell)
    if footer:
        cells.append({"cell_type": "markdown", "id": "provenance", "metadata": {}, "source": footer})
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "papermill"}
    return {**notebook, "metadata": metadata, "cells": cells}


def merge_streams(outputs: Sequence[dict]) -> list[dict]:
    """Joins neighbouring outputs of one stream, and of an overwritten line keeps what stood last.

    >>> parts = ("1%", "\\r2%\\n", "done")
    >>> merge_streams([{"output_type": "stream", "name": "stdout", "text": part} for part in parts])
    [{'output_type': 'stream', 'name': 'stdout', 'text': '2%\\ndone'}]
    """
    merged: list[dict] = []
    for output in outputs:
        if output["output_type"] == "stream":
            output = {**output, "text": "".join(output["text"])}
            if merged and merged[-1]["output_type"] == "stream" and merged[-1]["name"] == output["name"]:
                output["text"] = merged.pop()["text"] + output["text"]
        merged.append(output)
    for output in merged:
        if output["output_type"] == "stream":
            lines = output["text"].split("\n")
            output["text"] = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return merged


def provenance(page: Page, profile: str) -> str:
    """One line on when, where and with which profile a chapter ran."""
    finished = datetime.fromisoformat(page.finished).strftime("%-d %B %Y, %H:%M UTC")
    machine = f" on {page.machine}" if page.machine else ""
    text = f"Executed {finished}, profile {profile}, in {page.seconds:.0f} s{machine}."
    return f'<p class="rkd-executed">{text}</p>'


def failed_page(page: Page, title: str, profile: str, log: Path) -> str:
    """Markdown in a failed chapter's place: what it said last, the end of its log, how to run it again."""
    text = _plain(log.read_text(encoding="utf8", errors="replace")) if log.is_file() else ""
    tail = "\n".join(text.splitlines()[-LOG_TAIL:])
    return f"""# {title}

::::{{admonition}} This chapter failed
:class: danger

It stopped after {page.seconds:.0f} s with profile `{profile}`, and shows no numbers for that reason.

{_fenced(page.reason)}
::::

Run it again on its own:

{_fenced(shlex.join(["rkd", "book", "--profile", profile, "--only", page.name]), "shell")}

::::{{dropdown}} The last {LOG_TAIL} lines of its log
{_fenced(tail or "(the log is empty)")}
::::
"""


def not_executed_page(page: Page, title: str, profile: str) -> str:
    """Markdown in the place of a chapter that no build of this profile has executed."""
    return f"""# {title}

::::{{admonition}} Not executed in this build
:class: note

This copy of the book was built with profile `{profile}` and without this chapter. To add it:

{_fenced(shlex.join(["rkd", "book", "--profile", profile, "--only", page.name]), "shell")}
::::
"""


def _fenced(text: str, language: str = "text") -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _title(notebook: Path) -> str:
    """First heading of a notebook; its file name where it has none."""
    for cell in json.loads(notebook.read_text(encoding="utf8"))["cells"]:
        if cell["cell_type"] == "markdown":
            heading = re.search(r"^# +(.+)$", "".join(cell["source"]), re.MULTILINE)
            if heading:
                return heading[1].strip()
    return notebook.stem


# --- HTML -----------------------------------------------------------------------------------------


def _build_html(
    work: Path, config: Path, build_dir: Path, echo: Callable[[str], object]
) -> tuple[Path | None, tuple[str, ...]]:
    """Path of the index page and the complaints of Sphinx, if any."""
    echo("building the site ...")
    output = build_dir / "_build"  # the name is jupyter-book's; a folder of that name is not nested once more
    if build_dir.name == "_build":
        output = build_dir
    build = subprocess.run(
        [
            *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()"),
            *("build", str(work / "stage"), "--config", str(config), "--path-output", str(output.parent)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    log = _plain(build.stdout + build.stderr)
    (work / "html.log").write_text(log, encoding="utf8")
    complaints = [line.strip() for line in log.splitlines() if _SPHINX_COMPLAINT.search(line)]
    if build.returncode and not complaints:
        complaints = [line for line in log.splitlines() if line.strip()][-3:]
    if complaints:  # Sphinx complains only of pages it reads: let the next build read them all again
        shutil.rmtree(output / ".doctrees", ignore_errors=True)
    index = output / "html" / "index.html"
    return (index if build.returncode == 0 and index.is_file() else None), tuple(dict.fromkeys(complaints))


# --- small things ---------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return _ANSI.sub("", text)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_if_changed(path: Path, content: str | bytes) -> None:
    content = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
