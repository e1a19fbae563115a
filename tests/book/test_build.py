"""Builds of tiny books: what counts as executed, what a failure looks like, what a second build touches."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

pytest.importorskip("papermill", reason="papermill is not installed (pip install -e .[book])")

from rkd.errors import ConfigError
from rkd.report import book

psutil = pytest.importorskip("psutil", reason="psutil is not installed (it comes with ipykernel)")

FINISH = "from rkd.report.book import write_mark\nwrite_mark({name!r}, {records!r}, {results!r})"


def notebook(path: Path, *sources: str, tags: dict[int, list[str]] | None = None) -> None:
    """A notebook of code cells below the heading "Chapter NAME"."""
    cells = [{"cell_type": "markdown", "id": "head", "metadata": {}, "source": f"# Chapter {path.stem}\n"}]
    for i, source in enumerate(sources):
        cells.append(
            {
                "cell_type": "code",
                "id": f"c{i}",
                "metadata": {"tags": (tags or {}).get(i, [])},
                "execution_count": None,
                "outputs": [],
                "source": textwrap.dedent(source),
            }
        )
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def toc(folder: Path, *names: str) -> None:
    content = {"format": "jb-book", "root": "index", "parts": [{"chapters": [{"file": n} for n in names]}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(content))
    (folder / "index.md").write_text("# A tiny book\n\nWords.\n")


def running(pid: int) -> bool:
    """Whether a process is alive; one that ended and awaits its parent is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Bench:
    """A tiny book on disk and one way to build it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.book, self.build_dir = folder, folder / "book", folder / "_build"
        self.results = folder / "results"
        self.book.mkdir()
        self.results.mkdir()
        self.config = folder / "_config.yml"
        self.config.write_text(
            "title: tiny\nexecute:\n  execute_notebooks: 'off'\nonly_build_toc_files: true\n"
        )
        self.lines: list[str] = []

    def finish(self, name: str, *records: str) -> str:
        return FINISH.format(name=name, records=list(records), results=str(self.results))

    def build(self, **options: object) -> book.BookResult:
        options = {"html": False, "jobs": 2, "timeout_s": 60, **options}
        self.lines.clear()
        return book.build_book(
            "smoke",
            book_dir=self.book,
            config=self.config,
            build_dir=self.build_dir,
            echo=self.lines.append,
            **options,
        )

    def staged(self, name: str) -> dict:
        return json.loads((self.build_dir / "smoke" / "stage" / f"{name}.ipynb").read_text())

    def prose(self, name: str) -> str:
        (cell,) = self.staged(name)["cells"]
        return cell["source"]

    def page(self, result: book.BookResult, name: str) -> book.Page:
        return next(page for page in result.pages if page.name == name)


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """One build of a book in which every chapter but the first goes wrong in its own way."""
    bench = Bench(tmp_path_factory.mktemp("failures"))
    (bench.results / "r1.json").write_text("{}")
    (bench.results / "broken.json").write_text("{")
    good = ["greeting: str = 'default'", "print(greeting, sizes)", bench.finish("good", "r1")]
    notebook(bench.book / "good.ipynb", *good, tags={0: ["parameters"]})
    notebook(
        bench.book / "raising.ipynb", "raise ValueError('the teacher is missing')", bench.finish("raising")
    )
    notebook(bench.book / "killed.ipynb", "import os; os.kill(os.getpid(), 9)", bench.finish("killed"))
    slow = f"""
        import os, pathlib, subprocess, sys, time
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, start_new_session=True)
        pathlib.Path({str(bench.folder / "pids")!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(600)
    """
    notebook(bench.book / "slow.ipynb", slow, bench.finish("slow"))
    notebook(bench.book / "unmarked.ipynb", "print('no last act')")
    notebook(bench.book / "recordless.ipynb", bench.finish("recordless", "r1", "r2"))
    notebook(bench.book / "damaged.ipynb", bench.finish("damaged", "broken"))
    toc(bench.book, "slow", "good", "raising", "killed", "unmarked", "recordless", "damaged")
    parameters = {"greeting": "0.70", "sizes": ["h", 2]}
    result = bench.build(timeout_s=12, jobs=3, parameters=parameters)
    return bench, result


def test_good_chapter_is_staged_with_folded_parameters_and_typed_values(failures):
    bench, result = failures
    assert bench.page(result, "good").status == "ok"
    staged = bench.staged("good")
    assert '"papermill"' not in json.dumps(staged)
    folded = [c for c in staged["cells"] if "hide-input" in c["metadata"].get("tags", [])]
    assert len(folded) == 2  # defaults and injected values
    outputs = [
        o["text"] for c in staged["cells"] for o in c.get("outputs", []) if o["output_type"] == "stream"
    ]
    assert outputs == ["0.70 ['h', 2]\n"]  # a string that looks like a number stays a string
    assert "profile smoke" in staged["cells"][-1]["source"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raising", "ValueError: the teacher is missing"),
        ("killed", "kernel died"),
        ("slow", "longer than its limit of 12 s"),
        ("unmarked", "without its finish mark"),
        ("recordless", "record r2"),
        ("damaged", "not JSON"),
    ],
)
def test_failed_chapter_is_named_and_readable(failures, name, reason):
    bench, result = failures
    assert name in result.failed and not result.ok
    assert reason in bench.page(result, name).reason
    text = bench.prose(name)
    assert text.startswith(f"# Chapter {name}\n")
    assert "This chapter failed" in text and reason in text
    assert f"rkd book --profile smoke --only {name}" in text
    assert any(line.startswith(f"failed: {name}: ") and reason in line for line in bench.lines)


def test_killed_kernel_is_a_failure_although_papermill_says_otherwise(failures):
    bench, _ = failures
    left = json.loads((bench.build_dir / "smoke" / "chapters" / "killed.failed.ipynb").read_text())
    assert (
        left["metadata"]["papermill"]["exception"] is None
    )  # the reason for judging by mark and exit status


def test_stopped_chapter_leaves_no_process(failures):
    bench, _ = failures
    assert not any(running(int(pid)) for pid in (bench.folder / "pids").read_text().split())


def test_progress_counts_every_chapter_once(failures):
    bench, _ = failures
    counted = [line.split("]")[0] for line in bench.lines if line.startswith("[")]
    assert counted == [f"[{i}/7" for i in range(1, 8)]


def test_only_keeps_earlier_copies_and_unchanged_files_keep_their_time(tmp_path):
    bench = Bench(tmp_path)
    for name in ("one", "two", "three"):
        notebook(bench.book / f"{name}.ipynb", "import time; print(time.time_ns())", bench.finish(name))
    toc(bench.book, "one", "two", "three")
    first = bench.build(only=["one"])
    assert [p.status for p in first.pages] == ["ok", "not executed", "not executed"] and first.ok
    assert bench.prose("two").startswith("# Chapter two\n") and "Not executed" in bench.prose("two")

    stage = bench.build_dir / "smoke" / "stage"
    for path in stage.iterdir():
        os.utime(path, (1000, 1000))
    second = bench.build(only=["two"])
    assert [p.status for p in second.pages] == ["kept", "ok", "not executed"]
    untouched = {p.name for p in stage.iterdir() if p.stat().st_mtime == 1000}
    assert untouched == {"_toc.yml", "index.md", "one.ipynb", "three.ipynb"}


def test_failure_replaces_the_earlier_copy_and_stays_until_mended(tmp_path):
    bench = Bench(tmp_path)
    notebook(bench.book / "one.ipynb", bench.finish("one"))
    notebook(bench.book / "two.ipynb", bench.finish("two"))
    toc(bench.book, "one", "two")
    assert bench.build().ok
    notebook(bench.book / "one.ipynb", "raise RuntimeError('no')", bench.finish("one"))
    assert bench.build(only=["one"]).failed == ("one",)
    assert bench.build(only=["two"]).failed == ("one",)  # the book still holds a failed chapter


def test_misuse_gets_one_sentence(tmp_path):
    bench = Bench(tmp_path)
    notebook(bench.book / "table3.ipynb", "1")
    toc(bench.book, "table3")
    with pytest.raises(ConfigError, match=r"unknown chapter 'table33' \(did you mean 'table3'\?\)"):
        bench.build(only=["table33"])
    with pytest.raises(ConfigError, match="jobs is 0"):
        bench.build(jobs=0)
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist"):
        bench.build(params_file=tmp_path / "params.yaml")
    toc(bench.book, "table3", "table4")
    with pytest.raises(ConfigError, match="names 'table4'"):
        bench.build()


def test_terminated_build_leaves_no_process(tmp_path):
    bench = Bench(tmp_path)
    pid = tmp_path / "pid"
    source = (
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    notebook(bench.book / "one.ipynb", source)
    toc(bench.book, "one")
    call = f"""
        from pathlib import Path
        from rkd.report.book import build_book
        build_book("smoke", book_dir=Path({str(bench.book)!r}), config=Path({str(bench.config)!r}),
                   build_dir=Path({str(bench.build_dir)!r}), html=False)
    """
    build = subprocess.Popen([sys.executable, "-c", textwrap.dedent(call)])
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    build.terminate()
    assert build.wait(20) == 143
    assert not running(int(pid.read_text()))


def test_two_builds_at_once_are_refused(tmp_path):
    bench = Bench(tmp_path)
    toc(bench.book)
    bench.build_dir.mkdir()
    with (
        FileLock(bench.build_dir / ".lock"),
        pytest.raises(ConfigError, match="another build is at work"),
    ):
        bench.build()


def test_mark_is_a_no_op_outside_a_build(tmp_path, monkeypatch):
    monkeypatch.delenv(book.TOKEN, raising=False)
    monkeypatch.setenv(book.MARKS, str(tmp_path))
    book.write_mark("one", [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mark_of_another_build_does_not_vouch(tmp_path, monkeypatch):
    monkeypatch.setenv(book.TOKEN, "old")
    monkeypatch.setenv(book.MARKS, str(tmp_path))
    book.write_mark("one", [], tmp_path)
    assert book.fault_of_mark(tmp_path / "one.json", "one", "old") == ""
    assert "another build" in book.fault_of_mark(tmp_path / "one.json", "one", "new")
    assert "another build" in book.fault_of_mark(tmp_path / "one.json", "two", "old")


def test_cleaning_merges_streams_and_hides_the_colab_cell():
    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    outputs = [
        stream("stdout", ["a\n"]),
        stream("stdout", "10%\r"),
        stream("stdout", "90%\n"),
        stream("stderr", "e"),
    ]
    cells = [
        {
            "cell_type": "code",
            "metadata": {"tags": ["colab"], "papermill": {}},
            "source": "",
            "outputs": outputs,
        },
        {"cell_type": "markdown", "metadata": {}, "source": "# T"},
    ]
    cleaned = book.clean({"cells": cells, "metadata": {"papermill": {}, "kernelspec": {}}}, "foot")
    assert [o["text"] for o in cleaned["cells"][0]["outputs"]] == ["a\n90%\n", "e"]
    assert cleaned["cells"][0]["metadata"] == {"tags": ["colab", "remove-cell"]}
    assert cleaned["cells"][-1]["source"] == "foot" and cleaned["metadata"] == {"kernelspec": {}}
    assert cells[0]["metadata"]["tags"] == ["colab"]  # the notebook given is left as it was


def test_failed_page_survives_any_log(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("\x1b[31mred\x1b[0m\n```\n````\n::::\n")
    page = book.failed_page(book.Page("x", "failed", 3.2, "it said ``` and stopped"), "Title", "smoke", log)
    assert "\x1b" not in page and "`````text" in page and "````text\nit said ```" in page


@pytest.mark.slow
def test_site_is_built_and_its_complaints_are_told(tmp_path):
    pytest.importorskip("jupyter_book", reason="jupyter-book is not installed (pip install -e .[book])")
    bench = Bench(tmp_path)
    notebook(bench.book / "one.ipynb", bench.finish("one"))
    notebook(bench.book / "two.ipynb", "raise RuntimeError('no')")
    toc(bench.book, "one", "two")
    result = bench.build(html=True)
    assert result.html == bench.build_dir / "html" / "index.html" and result.html.is_file()
    assert not result.warnings and result.failed == ("two",)
    assert "This chapter failed" in (result.html.parent / "two.html").read_text()

    (bench.book / "index.md").write_text("# A tiny book\n\n[nowhere](absent.md)\n")
    for _ in range(2):  # the second build reads the page again and complains again
        result = bench.build(html=True, only=["one"])
        assert any("absent.md" in warning for warning in result.warnings) and not result.ok

    (bench.book / "index.md").write_text("# A tiny book\n\nWords.\n")
    bench.build(html=True, only=["one"])
    untouched = (result.html.parent / "two.html").stat().st_mtime_ns
    start = time.monotonic()
    bench.build(html=True, only=["one"])
    assert (result.html.parent / "two.html").stat().st_mtime_ns == untouched
    assert time.monotonic() - start < 60
