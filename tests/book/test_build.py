"""Builds of tiny books: what counts as executed, what a failure looks like, what stands beside a chapter."""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import psutil
import pytest
import yaml
from filelock import FileLock

import rkd
from rkd.cli import main
from rkd.errors import ConfigError
from rkd.experiments.notebooks import read_notebook, title_of, toc_files
from rkd.report import book
from rkd.report.book import Book, Page, execution
from rkd.report.book.building import chapter_of, check_variation_name
from rkd.report.book.site import displayed_cells

ROOT = Path(__file__).resolve().parents[2]


def notebook(path: Path, *sources: str, parameters: str = "", opening: str = "", **metadata: object) -> None:
    """A notebook of code cells below the heading "Chapter NAME", a cell of parameters first where there are some."""
    new = nbformat.v4
    cells = [new.new_markdown_cell(f"# Chapter {path.stem}\n{opening}")]
    cells += [new.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    cells += [new.new_code_cell(textwrap.dedent(source)) for source in sources]
    nbformat.write(new.new_notebook(cells=cells, metadata=metadata), path)


def papermilled(source: Path, target: Path, values: dict[str, object], said: str = "") -> dict:
    """What papermill makes of a notebook, without executing it: injected parameters, counts, answers of the kernel, and
    what the first cell after the parameters said."""
    made = json.loads(source.read_text())
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    injected = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
    made["cells"].insert(2, json.loads(json.dumps(injected)))
    code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        cell["metadata"]["execution"] = {"shell.execute_reply": "2026-11-21T12:00:00.5Z"}
    code[2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": said}]
    made["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "papermill": {"duration": 2.5, "end_time": "2026-11-21T13:00:01.7+01:00", "parameters": values},
    }
    target.write_text(json.dumps(made))
    return made


def running(pid: str) -> bool:
    """Whether a process is alive; one that ended and awaits its parent is not."""
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


CHILD = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
begun = f"{os.getpid()} {child.pid} "
"""


def until(seconds: float, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not (ended := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ended


class Bench:
    """A tiny book on disk and one way to build it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.config = folder / "book", folder / "_config.yml"
        self.source.mkdir()
        execute = {"execute_notebooks": "off"}
        config = {"title": "tiny", "execute": execute, "only_build_toc_files": True}
        self.config.write_text(yaml.safe_dump(config))
        self.lines: list[str] = []
        place = self.source, self.config, folder / "_build"
        self.book = Book("smoke", *place, html=False, echo=self.lines.append)

    def toc(self, *names: str) -> None:
        parts = [{"chapters": [{"file": name} for name in names]}]
        content = {"format": "jb-book", "root": "index", "parts": parts}
        (self.source / "_toc.yml").write_text(yaml.safe_dump(content))
        (self.source / "index.md").write_text("# A tiny book\n\nWords.\n")

    def chapters(self, **sources: str) -> None:
        """A book of chapters of one cell."""
        for name, source in sources.items():
            notebook(self.source / f"{name}.ipynb", source)
        self.toc(*sources)

    def build(self, html: bool = False, **options: object) -> book.BookResult:
        self.lines.clear()
        return book.build_book(replace(self.book, html=html), **{"jobs": 2, "timeout_s": 60, **options})

    def adopt(self, path: Path, name: str, **changes: object) -> book.BookResult:
        self.lines.clear()
        return book.adopt_notebook(replace(self.book, **changes), path, name)

    def staged(self, name: str) -> dict:
        return nbformat.read(self.book.stage / f"{name}.ipynb", as_version=4)

    def text(self, name: str) -> str:
        """All Markdown and printed text of a staged page."""
        parts = []
        for cell in self.staged(name)["cells"]:
            parts += [cell["source"]] if cell["cell_type"] == "markdown" else []
            parts += [o["text"] for o in cell.get("outputs", []) if o["output_type"] == "stream"]
        return "\n\n".join(parts)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_failed_chapters_are_named_and_readable_whatever_their_log(bench):
    """Beside a good one, which has folded parameters, and typed values in them."""
    said = r"\x1b[31mred\x1b[0m\n```\n````\n::::\n"
    bench.chapters(
        good="",
        raising=f"import os; os.write(2, b'{said}'); raise ValueError('the teacher ``` is missing')",
        killed="import os; os.kill(os.getpid(), 9)",
    )
    shown = "print(10, end='\\r'); print(greeting, sizes)"
    notebook(bench.source / "good.ipynb", shown, parameters="greeting: str = 'default'")
    result = bench.build(jobs=3, parameters={"greeting": "0.70", "sizes": ["h", 2]})
    assert [page.status for page in result.pages] == ["ok", "failed", "failed"]
    counted = [line.split("]")[0] for line in bench.lines if line.startswith("[")]
    assert counted == [f"[{i}/3" for i in range(1, 4)]
    staged = bench.staged("good")
    assert '"papermill"' not in json.dumps(staged)
    folded = [c for c in staged["cells"] if "hide-input" in c["metadata"].get("tags", [])]
    prompts = [c["metadata"]["mystnb"]["code_prompt_show"] for c in folded]
    assert prompts == ["Show the parameters", "Show what was given here"]  # other folded cells: Show the code
    # a string that looks like a number stays a string, and of an overwritten line the last state
    assert "\n\n0.70 ['h', 2]\n\n" in bench.text("good")
    assert "profile smoke" in staged["cells"][-1]["source"]

    assert result.failed == ("raising", "killed") and not result.ok
    for name, reason in (("raising", "ValueError: the teacher ``` is missing"), ("killed", "kernel died")):
        text = bench.text(name)
        assert text.startswith(f"# Chapter {name}\n")
        assert "This chapter failed" in text and reason in text
        assert f"rkd book --profile smoke --only {name}" in text
        assert any(line.startswith(f"failed: {name}: ") and reason in line for line in bench.lines)
    page = bench.text("raising")
    assert "\x1b" not in page and "\n`````text\n" in page and "````text\nValueError" in page


@pytest.mark.parametrize("known_after_s", [0, 0.3])  # the latter is the id of a process that is gone
def test_kernel_that_dies_while_it_starts_is_told_as_one_that_died(bench, known_after_s):
    dies = f"""
        import os, time
        os.register_at_fork(after_in_child=lambda: os._exit(1), after_in_parent=lambda: time.sleep({known_after_s}))
    """
    (bench.source / "stillborn.py").write_text(textwrap.dedent(dies))
    # What two chapters share is imported before the fork.
    bench.chapters(one="import stillborn", other="import stillborn")
    for page in bench.build().pages:
        assert page.reason == "its kernel died without a word, killed from outside or out of memory"


def test_chapter_over_its_time_is_stopped_with_all_it_started(bench, tmp_path):
    pids = tmp_path / "pids"
    bench.chapters(slow=f"{CHILD}pathlib.Path({str(pids)!r}).write_text(begun)\ntime.sleep(600)")
    (page,) = bench.build(timeout_s=4).pages
    assert page.status == "failed" and "longer than its limit of 4 s" in page.reason
    assert not any(map(running, pids.read_text().split()))


def test_only_keeps_earlier_copies_until_they_fail(bench):
    bench.chapters(one="print(1)", two="print(2)", three="print(3)")
    first = bench.build(only=["one"])
    assert [p.status for p in first.pages] == ["ok", "not executed", "not executed"] and first.ok
    assert bench.text("two").startswith("# Chapter two\n") and "Not executed" in bench.text("two")
    before = bench.text("one")
    second = bench.build(only=["two"])
    assert [p.status for p in second.pages] == ["kept", "ok", "not executed"]
    assert bench.text("one") == before

    notebook(bench.source / "one.ipynb", "raise RuntimeError('no')")
    assert bench.build(only=["one"]).failed == ("one",)
    bench.toc("one", "two")
    assert bench.build(only=["two"]).failed == ("one",)  # the book still holds a failed chapter


# --- what is not executed again -----------------------------------------------------------------------------------

ALL = ["one", "summary", "two"]


def written(source: str = "", rows: str = "ROWS = {}", last: bool = False) -> str:
    """A notebook that declares rows."""
    new = nbformat.v4
    cells = [new.new_code_cell(rows, metadata={"tags": ["rows"]}), new.new_code_cell(source)]
    return nbformat.writes(new.new_notebook(cells=cells, metadata={"rkd": {"last": last}}))


@pytest.fixture
def again(bench, monkeypatch):
    """Builds a book whose chapters are not executed but noted down; tells which. "summary" comes last."""
    folder, executed, clock = bench.source.parent, [], itertools.count()
    bench.toc("summary", "one", "two")
    files = {f"book/{name}.ipynb": written(last=name == "summary") for name in ALL}
    files |= dict.fromkeys(("package/a.py", "package/__pycache__/a.pyc", "results/paper/run.json"), "")
    for name, text in {**files, "smoke.yaml": "seeds: [0]"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    reads = (folder / "package", folder / "results")
    bench.book = replace(bench.book, reads=reads, params_file=folder / "smoke.yaml")

    def note(nursery: object, book: Book, page: book.Page, *_: object) -> book.Page:
        executed.append(page.name)
        finished = f"2026-01-01T00:00:00.{next(clock):06}+00:00"
        failed = "raise" in (book.source / f"{page.name}.ipynb").read_text()
        page = replace(page, status="failed" if failed else "ok", reason="x", finished=finished)
        book.path(page, "").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(book.source / f"{page.name}.ipynb", book.path(page, ".ipynb"))
        book.save(page)
        return page

    def build(**options: object) -> list[str]:
        executed.clear()
        bench.build(**options)
        return sorted(executed)

    monkeypatch.setattr(execution, "_execute", note)
    monkeypatch.setattr(execution, "_nursery", lambda *_: SimpleNamespace(close=lambda: None))
    assert build() == ALL and build() == []
    return build


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("package/a.py", "1", ALL),
        ("package/new.csv", "", ALL),
        ("results/paper/run.json", "{}", ALL),
        ("smoke.yaml", "seeds: [1]", ALL),
        ("book/one.ipynb", written("2"), ["one", "summary"]),  # the last chapters tell of the others
        ("book/one.ipynb", written("", "ROWS = {'a': {}}"), ALL),  # so do boxes of verdicts
        ("book/summary.ipynb", written("2", last=True), ["summary"]),
        ("package/__pycache__/a.pyc", "1", []),
        ("results/paper/work/weights", "1", []),
        ("book/index.md", "# Other words", []),
        ("_config.yml", "title: another", []),
    ],
)
def test_a_chapter_is_executed_again_when_what_it_is_made_of_changes(again, bench, file, text, names):
    path = bench.source.parent / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert again() == names and again() == []


def test_what_is_asked_for_or_failed_is_executed_unchanged(again, bench):
    assert again(parameters={"x": 2}) == ALL and again(parameters={"x": 2}) == [] and again() == ALL
    assert again(only=["two"]) == ["two"] and again(fresh=True) == ALL
    (bench.source / "one.ipynb").write_text(written("raise"))
    assert again() == ["one", "summary"] and again() == ["one", "summary"]
    assert "[1/3] two      unchanged" in bench.lines
    assert bench.lines[-2] == "1 ok, 1 unchanged, 1 failed"


def test_last_chapters_start_when_all_others_have_ended(bench, tmp_path):
    done = str(tmp_path / "done")
    bench.chapters(summary="", slow=f"import pathlib, time; time.sleep(1); pathlib.Path({done!r}).touch()")
    asks = f"import os; print(os.path.exists({done!r}))"
    notebook(bench.source / "summary.ipynb", asks, rkd={"last": True})
    result = bench.build()
    assert result.ok and [p.name for p in result.pages] == ["summary", "slow"]
    assert "True" in bench.text("summary")


def test_chapters_side_by_side_share_the_cores(monkeypatch):
    monkeypatch.setattr(execution, "cores", lambda: 4)
    assert [execution.threads_each(*case) for case in ((3, 2), (1, 2), (4, 1), (4, 9))] == [2, None, None, 1]


def test_misuse_gets_one_sentence(bench, tmp_path):
    bench.chapters(table3="1")
    for options, words in (({"only": ["table33"]}, "did you mean 'table3'"), ({"jobs": 0}, "jobs is 0")):
        with pytest.raises(ConfigError, match=words):
            bench.build(**options)
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist"):
        book.build_book(replace(bench.book, params_file=tmp_path / "params.yaml"))
    bench.book.build.mkdir(exist_ok=True)
    with FileLock(bench.book.build / ".lock"), pytest.raises(ConfigError, match="another build is at work"):
        bench.build()
    bench.toc("table3", "table4")
    with pytest.raises(ConfigError, match="names 'table4'"):
        bench.build()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", -2), ("SIGKILL", -9)])
def test_ended_build_leaves_no_process_and_the_next_takes_over(bench, tmp_path, name, status):
    pids = tmp_path / "pids"
    never = "sum(iter(int, 1))"  # lets no other thread of the kernel look after its parent
    first = f"said = pathlib.Path({str(pids)!r})\nif not said.exists() and said.write_text(begun): {never}"
    bench.chapters(one=f"{CHILD}{first}")
    call = f"""
        from pathlib import Path
        from rkd.report.book import Book, build_book
        folder = Path({str(tmp_path)!r})
        build_book(Book("smoke", folder / "book", folder / "_config.yml", folder / "_build", html=False), jobs=1)
    """
    kept = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # ignored in the background
    build = subprocess.Popen([sys.executable, "-c", textwrap.dedent(call)], stderr=subprocess.DEVNULL, **kept)
    until(60, lambda: pids.is_file() and pids.read_text().endswith(" "))
    build.send_signal(getattr(signal, name))
    assert build.wait(120) == status
    until(10 * (name == "SIGKILL"), lambda: not any(map(running, pids.read_text().split())))
    assert bench.build().ok


def test_what_kernels_are_forked_with_leaves_the_gpu_alone():
    """CUDA cannot be used in a process forked after its driver was asked for anything."""
    call = f"""
        from pathlib import Path
        import torch
        from rkd.experiments.notebooks import shared_imports
        from rkd.report.book import Book
        book = Book("smoke", Path({str(ROOT)!r}) / "book", Path({str(ROOT)!r}) / "_config.yml", Path("nowhere"))
        statements = shared_imports(map(book.notebook, book.names))
        for name in ("is_available", "device_count", "_lazy_init"):
            setattr(torch.cuda, name, lambda *_, name=name: exit(f"{{name}} is called"))
        assert statements
        for statement in ("import ipykernel.kernelapp", *statements):
            exec(statement, {{}})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(call)], check=True)


def test_colabs_cell_comes_first_in_place_of_an_older_one():
    code = nbformat.v4.new_code_cell
    cells = [code("old", metadata={"tags": ["colab"]}), code(metadata={"papermill": {}})]
    cells.insert(0, nbformat.v4.new_markdown_cell("# T"))
    head, colab, rest = displayed_cells(cells, "https://host/a")
    assert head["source"] == "# T" and rest["metadata"] == {}
    assert "https://host/a /content/rkd" in colab["source"]
    assert colab["metadata"]["tags"] == ["colab", "remove-cell"]
    assert displayed_cells(cells, "") == [head, rest]


# --- variations ---------------------------------------------------------------------------------------------------


PARAMETERS = 'profile: str = "smoke"\nx: int = 1  # a number\nwords: list = None\ndevice: str = None'
WORK = """
    import os
    if x == 0:
        raise ValueError("x is zero")
    print("x is", x, "as", os.environ.get("RKD_VARIATION"))
"""


def varied(folder: Path) -> Bench:
    """A book of two chapters with parameters and one without."""
    bench = Bench(folder)
    bench.chapters(one="", two="", bare="1")
    for name in ("one", "two"):
        notebook(bench.source / f"{name}.ipynb", WORK, "1", parameters=PARAMETERS)
    return bench


def test_variation_adds_pages_that_point_to_their_chapters_and_back(tmp_path):
    """One of its two chapters fails."""
    bench = varied(tmp_path)
    bench.build(only=["one"])
    notebook(bench.source / "two.ipynb", "raise ValueError('two minds two')", parameters=PARAMETERS)
    result = bench.build(variation="x-2.0", parameters={"x": 2, "device": "cpu"})
    assert [(p.file, p.status) for p in result.pages] == [
        ("one", "kept"), ("two", "not executed"), ("bare", "not executed"),
        ("one--x-2.0", "ok"), ("two--x-2.0", "failed"),
    ]  # fmt: skip
    assert "x is 1 as None" in bench.text("one") and "x is 2 as x-2.0" in bench.text("one--x-2.0")

    head = bench.staged("one--x-2.0")["cells"][0]["source"]
    assert head.startswith("# Chapter one (x-2.0)\n")
    assert "[Chapter one](one.ipynb) with `x = 2`; all else" in head  # not the device
    last = bench.staged("one")["cells"][-1]["source"]
    assert "Variations of this page" in last and "[x-2.0](one--x-2.0.ipynb): `x = 2`" in last
    assert "Variations" not in bench.text("bare")
    part = yaml.safe_load((bench.book.stage / "_toc.yml").read_text())["parts"][-1]
    files = [entry["file"] for entry in part["chapters"]]
    assert part["caption"] == "Variations" and files == ["one--x-2.0.ipynb", "two--x-2.0.ipynb"]

    assert result.failed == ("two--x-2.0",) and not result.ok
    text = bench.text("two--x-2.0")
    assert text.startswith("# Chapter two (x-2.0)") and "ValueError: two minds two" in text
    assert "rkd book --profile smoke --only two --name x-2.0 -p x 2 -p device '\"cpu\"'" in text


def test_variation_stays_is_replaced_and_dropped(tmp_path):
    bench, made = varied(tmp_path), tmp_path / "out.ipynb"
    papermilled(bench.source / "two.ipynb", made, {"x": 5})
    bench.adopt(made, "five")
    papermilled(bench.source / "one.ipynb", made, {"x": 2})
    files = ["one", "two", "bare", "one--v", "two--five"]
    assert [p.file for p in bench.adopt(made, "v").pages] == files
    assert "[v](one--v.ipynb)" in bench.text("one")  # listed below what is not executed, too

    bench.build(only=["one"], variation="v", parameters={"words": ["a", "`b`"]})
    assert any("variation v exists; one of it will be replaced" in line for line in bench.lines)
    assert "x is 1 as v" in bench.text("one--v") and '`` words = ["a", "`b`"] ``' in bench.text("one--v")
    listed = [(p.variation, p.name, dict(p.parameters)) for p in bench.book.variations()]
    assert listed == [("five", "two", {"x": 5}), ("v", "one", {"words": ["a", "`b`"]})]

    result = book.drop_variation(bench.book, "v")
    assert [p.file for p in result.pages] == [name for name in files if name != "one--v"]
    assert not (bench.book.stage / "one--v.ipynb").exists()
    assert "Variations" not in bench.text("one") and "(five)" in bench.text("two--five")
    with pytest.raises(ConfigError, match="unknown variation 'v'; allowed: five"):
        book.drop_variation(bench.book, "v")

    bench.build(only=["one"], variation="bad", parameters={"x": 0})
    state = bench.book.path(Page("two", variation="five"), ".page.json")
    state.write_text("{")
    result = bench.build(only=["bare"])
    assert result.ok and not [p for p in result.pages if p.variation], "they stop no later build"
    for name in ("bad", "five"):
        drop = f"failed in an earlier build; `rkd book --profile smoke --drop {name}`"
        assert any(drop in line for line in bench.lines)
    book.drop_variation(bench.book, "bad")
    bench.adopt(made, "five")

    bench.toc("one", "bare")
    bench.adopt(made, "v")
    assert any("five of two is left out" in line for line in bench.lines)
    assert not (bench.book.stage / "two--five.ipynb").exists()


@pytest.mark.parametrize("name", ["", "V", "a b", "-a", "a/b", "../a", "a.ipynb", "a.", "é", "a" * 41])
def test_bad_variation_names_are_refused(bench, name):
    with pytest.raises(ConfigError, match="variation name"):
        check_variation_name(bench.book, name)


def test_variation_misuse_gets_one_sentence(tmp_path):
    bench = varied(tmp_path)
    notebook(bench.source / "three.ipynb", parameters="z: int = 1")
    notebook(bench.source / "one--w.ipynb", "1")
    bench.toc("one", "two", "bare", "three", "one--w")
    for name, parameters, only, words in [
        ("v", {}, (), "needs a parameter that differs"),
        ("v", {"device": "cpu"}, (), "needs a parameter that differs"),
        ("v", {"profile": "paper"}, (), "name it with --profile"),
        ("v", {"word": 1}, (), r"unknown parameter 'word' \(did you mean 'words'"),
        ("v", {"x": 2}, ("bare",), "chapter bare does not declare x; it declares no parameters"),
        ("v", {"x": 2, "z": 2}, (), "no chapter declares all of x, z"),
        ("w", {"x": 2}, (), "'w' is taken: one--w is a chapter"),
    ]:
        with pytest.raises(ConfigError, match=words):
            bench.build(variation=name, parameters=parameters, only=only)
    assert bench.book.variations() == []


def test_papermills_own_output_is_adopted(tmp_path):
    bench, profile, made = varied(tmp_path), tmp_path / "smoke.yaml", tmp_path / "out.ipynb"
    profile.write_text("profile: smoke\nwords: [a]\n")
    values = {**yaml.safe_load(profile.read_text()), "x": 7}
    more = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    papermill.execute_notebook(bench.source / "one.ipynb", made, values, **more)
    (page,) = [page for page in bench.adopt(made, "seven", params_file=profile).pages if page.variation]
    assert (page.file, page.status) == ("one--seven", "ok")
    assert page.parameters == {"x": 7}, "not the profile's words"
    assert page.seconds > 0 and page.finished.endswith("+00:00")
    text = bench.text("one--seven")
    assert "x is 7" in text and "taken from `out.ipynb`" in text and "its cells are the chapter's" in text
    profile.write_text(f"{profile.read_text()}x: 7\n")
    with pytest.raises(ConfigError, match="no parameter that differs"):
        bench.adopt(made, "eight", params_file=profile)


def test_chapter_is_known_by_what_a_build_noted(tmp_path):
    bench = varied(tmp_path)
    cells = [{"cell_type": "markdown", "source": "# Chapter one"}]
    for metadata, name in (({}, "one"), ({"rkd": {"chapter": "two"}}, "two")):
        assert chapter_of({"cells": cells, "metadata": metadata}, tmp_path / "x", bench.book) == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--add", "out.ipynb"], "--add out.ipynb needs --name"),
        (["--add", "out.ipynb", "--name", "v", "-p", "x", "1"], "--add executes nothing"),
        (["--drop", "v", "--only", "table3"], "--drop executes nothing"),
        (["--drop", "v", "--name", "v"], "--drop does not go with --name"),
        (["--name", "v", "--only", "table3", "-p", "hcl_levels", "[4,2,1]"], "3 sizes"),
        (["--name", "v", "--only", "table3", "-p", "epochs", "0"], "epochs is 0; it must be"),
        (["--name", "v", "--only", "table3", "-p", "lr", "2020-01-01"], "parameters are numbers, text"),
        (["--only", "table3", "-p", "zzz", "1"], "unknown parameter 'zzz'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--name", ""], "--name is empty"),
        (["--name", "v", "-p", "loss_weight", "[0.9"], "not valid YAML"),
        (["--name", "v", "--only", "method", "-p", "loss_weight", "0.9"], "it declares student, teacher"),
    ],
)
def test_command_line_refuses_in_one_sentence(arguments, words, capsys):
    assert main(["book", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


# --- what a page says of itself -----------------------------------------------------------------------------------


def test_titles_of_the_book_are_unique():
    titles = []
    for path in toc_files(ROOT / "book"):
        markdown = {"cells": [{"cell_type": "markdown", "source": path.read_text()}]}
        titles.append(title_of(read_notebook(path) if path.suffix == ".ipynb" else markdown))
    assert all(titles) and len(set(titles)) == len(titles)


def test_citation_names_this_release_and_both_works():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert about["version"] == rkd.__version__
    assert about["repository-code"] == config["repository"]["url"]
    title = "Distilling Knowledge via Knowledge Review"
    assert [work["title"] for work in about["references"]] == [title, f"[Re] {title}"]


@pytest.mark.slow
def test_site_shows_failures_variations_complaints_and_meta_elements(tmp_path):
    bench, made = varied(tmp_path), tmp_path / "out.ipynb"
    opening = '\nWhat *one* shows. And "more".'
    notebook(bench.source / "one.ipynb", WORK, parameters=PARAMETERS, opening=opening)
    notebook(bench.source / "two.ipynb", "raise RuntimeError('no')", parameters=PARAMETERS)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    of_meta = {name: value for name, value in config["sphinx"]["config"].items() if name.startswith("ogp_")}
    (bench.source / "_assets").mkdir()
    shutil.copy(ROOT / "book" / "_assets" / "logo.png", bench.source / "_assets")
    meta = {**of_meta, "ogp_site_url": "https://a.org/b/", "html_static_path": ["_assets"]}
    repository = {**config["repository"], "url": "https://github.com/a/b"}
    more = {"launch_buttons": config["launch_buttons"], "repository": repository}
    more["sphinx"] = {"extra_extensions": ["sphinxext.opengraph"], "config": meta}
    bench.config.write_text(bench.config.read_text() + yaml.safe_dump(more))
    (bench.source / "index.md").write_text("# A tiny book\n\n[nowhere](absent.md)\n")
    result = bench.build(html=True, only=["one", "two"])
    site, name = bench.book.build / "html", "one--x-5.0.html"
    assert result.html == site / "index.html" and result.html.is_file() and result.failed == ("two",)
    assert len(result.warnings) == 1 and "absent.md" in result.warnings[0]
    assert "This chapter failed" in (site / "two.html").read_text()

    bench.toc("one", "two", "bare")  # the index without its dead link
    papermilled(bench.source / "one.ipynb", made, {"x": 5}, "x is 5\n")
    result = bench.adopt(made, "x-5.0", html=True)
    assert result.html and not result.warnings, bench.lines
    pages = {path.name: path.read_text() for path in site.glob("*.html")}
    titles = [re.search(r"<title>(.*?)</title>", text, re.DOTALL)[1] for text in pages.values()]
    assert len(set(titles)) == len(titles)
    head = dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="(.*?)"', pages["one.html"]))
    assert head["description"] == head["og:description"] and head["description"].startswith("What one shows.")
    assert head["og:title"] == "Chapter one" and head["og:url"] == "https://a.org/b/one.html"
    assert head["og:image"].startswith("https://a.org/b/_images/")
    assert 'href="one.html"' in pages[name] and "x is 5" in pages[name]
    assert f'href="{name}"' in pages["bare.html"]
    launch = "https://colab.research.google.com/github/a/b/blob/gh-pages/"
    for page in ("one", "one--x-5.0"):  # Colab opens what the reader sees, with the cell it needs
        assert f"{launch}_sources/{page}.ipynb" in pages[f"{page}.html"]
        assert "google.colab" not in pages[f"{page}.html"]
        source = (site / "_sources" / f"{page}.ipynb").read_text()
        assert "git clone -q --depth 1 https://github.com/a/b" in source
