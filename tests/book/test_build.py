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


def notebook(
    path: Path,
    *sources: str,
    tags: dict[int, list[str]] | None = None,
    metadata: dict | None = None,
    opening: str = "",
) -> None:
    """A notebook of code cells below the heading "Chapter NAME"."""
    head = f"# Chapter {path.stem}\n{opening}"
    cells = [{"cell_type": "markdown", "id": "head", "metadata": {}, "source": head}]
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
    content = {"cells": cells, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))


def papermilled(source: Path, target: Path, values: dict[str, object], outputs: dict[int, str]) -> dict:
    """What papermill makes of a notebook, without executing it: injected parameters, counts, answers of the kernel.

    Args:
        source, target: notebooks.
        values: of the parameters.
        outputs: text by number of the code cell.
    """
    made = json.loads(source.read_text())
    lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in values.items())]
    tagged = [i for i, c in enumerate(made["cells"]) if "parameters" in c["metadata"].get("tags", [])]
    injected = {
        "cell_type": "code",
        "id": "injected",
        "metadata": {"tags": ["injected-parameters"]},
        "execution_count": None,
        "outputs": [],
        "source": "\n".join(lines),
    }
    made["cells"].insert(tagged[0] + 1, injected)
    for count, cell in enumerate([c for c in made["cells"] if c["cell_type"] == "code"], 1):
        cell["execution_count"] = count
        cell["metadata"]["execution"] = {"shell.execute_reply": "2026-11-21T12:00:00.5Z"}
        if count in outputs:
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": outputs[count]}]
    made["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "papermill": {"duration": 2.5, "end_time": "2026-11-21T13:00:01.7+01:00", "parameters": values},
    }
    target.write_text(json.dumps(made))
    return made


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

    def places(self) -> dict[str, object]:
        """What the functions beside build_book take."""
        return {
            "book_dir": self.book,
            "config": self.config,
            "build_dir": self.build_dir,
            "echo": self.lines.append,
        }

    def staged(self, name: str) -> dict:
        return json.loads((self.build_dir / "smoke" / "stage" / f"{name}.ipynb").read_text())

    def prose(self, name: str) -> str:
        (cell,) = self.staged(name)["cells"]
        return cell["source"]

    def text(self, name: str) -> str:
        """All Markdown and printed text of a staged page."""
        parts = []
        for cell in self.staged(name)["cells"]:
            parts += [cell["source"]] if cell["cell_type"] == "markdown" else []
            parts += [o["text"] for o in cell.get("outputs", []) if o["output_type"] == "stream"]
        return "\n\n".join(parts)

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
    result = bench.build(timeout_s=50, jobs=3, parameters=parameters)
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
        ("slow", "longer than its limit of 50 s"),
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


def test_cleaning_merges_streams_and_puts_colabs_cell_first():
    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    outputs = [
        stream("stdout", ["a\n"]),
        stream("stdout", "10%\r"),
        stream("stdout", "90%\n"),
        stream("stderr", "e"),
    ]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# T"},
        {"cell_type": "code", "metadata": {"tags": ["colab"]}, "source": "old", "outputs": []},
        {"cell_type": "code", "metadata": {"papermill": {}}, "source": "", "outputs": outputs},
    ]
    metadata = {"papermill": {}, "kernelspec": {}}
    cleaned = book.clean({"cells": cells, "metadata": metadata}, "foot", "https://host/a")
    head, colab, code, foot = cleaned["cells"]
    assert head["source"] == "# T" and foot["source"] == "foot" and cleaned["metadata"] == {"kernelspec": {}}
    assert "https://host/a /content/rkd" in colab["source"] and colab["metadata"]["tags"] == [
        "colab",
        "remove-cell",
    ]
    assert [o["text"] for o in code["outputs"]] == ["a\n90%\n", "e"] and code["metadata"] == {}


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
    for name in ("one", "two"):
        sources = [PARAMETERS, WORK, bench.finish(name)]
        notebook(bench.book / f"{name}.ipynb", *sources, tags={0: ["parameters"]})
    notebook(bench.book / "bare.ipynb", bench.finish("bare"))
    toc(bench.book, "one", "two", "bare")
    return bench


def adopt(bench: Bench, path: Path, name: str, **options: object) -> book.BookResult:
    bench.lines.clear()
    return book.adopt_notebook(path, name, "smoke", **{"html": False, **bench.places(), **options})


@pytest.fixture(scope="module")
def additions(tmp_path_factory):
    """A book with a variation of two chapters, one chapter of which fails."""
    bench = varied(tmp_path_factory.mktemp("variations"))
    base = bench.build(only=["one", "two"])
    sources = [PARAMETERS, WORK, bench.finish("two")]
    sources[1] += "\n    if x == 2:\n        raise ValueError('two minds two')\n"
    notebook(bench.book / "two.ipynb", *sources, tags={0: ["parameters"]})
    result = bench.build(variation="x-2.0", parameters={"x": 2, "device": "cpu"})
    return bench, base, result, list(bench.lines)


def test_variation_adds_pages_and_leaves_the_others(additions):
    bench, base, result, _ = additions
    assert [p.status for p in base.pages] == ["ok", "ok", "not executed"]
    assert [(p.file, p.status) for p in result.pages] == [
        ("one", "kept"),
        ("two", "kept"),
        ("bare", "not executed"),
        ("one--x-2.0", "ok"),
        ("two--x-2.0", "failed"),
    ]
    assert "x is 1 as None" in bench.text("one") and "x is 2 as x-2.0" in bench.text("one--x-2.0")


def test_variation_and_chapter_point_to_each_other(additions):
    bench, _, _, _ = additions
    varied = bench.staged("one--x-2.0")
    assert varied["cells"][0]["source"] == "# Chapter one (x-2.0)"
    assert "[Chapter one](one.ipynb) with `x = 2`; all else" in varied["cells"][1]["source"]  # not the device
    last = bench.staged("one")["cells"][-1]["source"]
    assert "Variations of this page" in last and "[x-2.0](one--x-2.0.ipynb): `x = 2`" in last
    assert "Variations" not in bench.text("bare")
    parts = yaml.safe_load((bench.build_dir / "smoke" / "stage" / "_toc.yml").read_text())["parts"]
    files = [entry["file"] for entry in parts[-1]["chapters"]]
    assert parts[-1]["caption"] == "Variations" and files == ["one--x-2.0.ipynb", "two--x-2.0.ipynb"]


def test_failed_variation_gets_a_page_and_a_command(additions):
    bench, _, result, lines = additions
    assert result.failed == ("two--x-2.0",) and not result.ok
    text = bench.text("two--x-2.0")
    assert text.startswith("# Chapter two (x-2.0)") and "ValueError: two minds two" in text
    assert "rkd book --profile smoke --only two --name x-2.0 -p x 2 -p device '\"cpu\"'" in text
    assert "x is 1 as None" in bench.text("two")  # the chapter itself is as it was
    assert any(line.startswith("failed: two--x-2.0: ") for line in lines)


def test_variation_stays_is_replaced_and_dropped(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / "out.ipynb"
    papermilled(bench.book / "two.ipynb", made, {"x": 5}, {3: "x is 5\n"})
    adopt(bench, made, "five")
    bench.build(only=["one"], variation="v", parameters={"x": 2})
    later = bench.build(only=["bare"])
    assert [(p.file, p.status) for p in later.pages] == [
        ("one", "not executed"),
        ("two", "not executed"),
        ("bare", "ok"),
        ("one--v", "kept"),
        ("two--five", "kept"),
    ]
    assert "[v](one--v.ipynb)" in bench.text("one")  # listed below what is not executed, too

    bench.build(only=["one"], variation="v", parameters={"words": ["a", "`b`"]})
    assert any("variation v exists; one of it will be replaced" in line for line in bench.lines)
    assert "x is 1 as v" in bench.text("one--v") and '`` words = ["a", "`b`"] ``' in bench.text("one--v")
    listed = book.list_variations("smoke", build_dir=bench.build_dir)
    assert [(p.variation, p.name, dict(p.parameters)) for p in listed] == [
        ("five", "two", {"x": 5}),
        ("v", "one", {"words": ["a", "`b`"]}),
    ]

    result = book.drop_variation("v", "smoke", html=False, **bench.places())
    assert [p.file for p in result.pages] == ["one", "two", "bare", "two--five"]
    assert not (bench.build_dir / "smoke" / "stage" / "one--v.ipynb").exists()
    assert "Variations" not in bench.text("one") and "(five)" in bench.text("two--five")
    with pytest.raises(ConfigError, match="unknown variation 'v'; allowed: five"):
        book.drop_variation("v", "smoke", html=False, **bench.places())

    toc(bench.book, "one", "bare")
    bench.build(only=["bare"])
    assert any("five of two is left out" in line for line in bench.lines)
    assert not (bench.build_dir / "smoke" / "stage" / "two--five.ipynb").exists()


@pytest.mark.parametrize("name", ["", "V", "a b", "-a", "a/b", "../a", "a.ipynb", "a.", "é", "a" * 41])
def test_bad_variation_names_are_refused(tmp_path, name):
    bench = varied(tmp_path)
    from rkd.report.book.variations import check_name

    with pytest.raises(ConfigError, match="variation name"):
        check_name(name, bench.book)


def test_variation_misuse_gets_one_sentence(tmp_path):
    bench = varied(tmp_path)
    for parameters, only, words in [
        ({}, (), "needs a parameter that differs"),
        ({"device": "cpu"}, (), "needs a parameter that differs"),
        ({"profile": "paper"}, (), "name it with --profile"),
        ({"y": 1}, (), r"unknown parameter 'y'"),
        ({"x": 2}, ("three",), "unknown chapter 'three'"),
        ({"x": 2}, ("bare",), "chapter bare does not declare x; it declares no parameters"),
    ]:
        with pytest.raises(ConfigError, match=words):
            bench.build(variation="v", parameters=parameters, only=only)
    sources = ["z: int = 1", bench.finish("three")]
    notebook(bench.book / "three.ipynb", *sources, tags={0: ["parameters"]})
    notebook(bench.book / "one--w.ipynb", bench.finish("one--w"))
    toc(bench.book, "one", "two", "three", "one--w")
    with pytest.raises(ConfigError, match="no chapter declares all of x, z"):
        bench.build(variation="v", parameters={"x": 2, "z": 2})
    with pytest.raises(ConfigError, match="'w' is taken: one--w is a chapter"):
        bench.build(variation="w", parameters={"x": 2})
    assert book.list_variations("smoke", build_dir=bench.build_dir) == ()


def test_papermills_own_output_is_adopted(tmp_path):
    bench = varied(tmp_path)
    profile = tmp_path / "smoke.yaml"
    profile.write_text("profile: smoke\nwords: [a]\n")
    made = tmp_path / "out.ipynb"
    command = ["papermill", str(bench.book / "one.ipynb"), str(made), "-f", str(profile), "-p", "x", "7"]
    subprocess.run(
        [sys.executable, "-m", *command, "-k", "python3", "-l", "python", "--no-progress-bar"],
        check=True,
        capture_output=True,
    )
    result = adopt(bench, made, "seven", params_file=profile)
    (page,) = [page for page in result.pages if page.variation]
    assert (page.file, page.status, page.parameters) == (
        "one--seven",
        "ok",
        {"x": 7},
    )  # words are the profile's
    assert page.seconds > 0 and page.finished.endswith("+00:00") and not page.edited
    text = bench.text("one--seven")
    assert "x is 7" in text and "taken from `out.ipynb`" in text and "differs" not in text


def test_adopted_notebook_with_other_code_says_so(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / "out.ipynb"
    content = papermilled(bench.book / "one.ipynb", made, {"x": 5}, {})
    content["cells"][3]["source"] += "\nprint('more')"
    made.write_text(json.dumps(content))
    adopt(bench, made, "five")
    assert "Its code differs from the chapter's" in bench.text("one--five")
    papermilled(bench.book / "one.ipynb", made, {"x": 5}, {})
    adopt(bench, made, "five")
    assert any("one of it will be replaced" in line for line in bench.lines)
    assert "differs" not in bench.text("one--five")


def test_notebooks_that_are_no_variation_are_refused(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / "out.ipynb"

    def refused(words: str, change=lambda content: None, values=None, **options) -> None:
        content = papermilled(bench.book / "one.ipynb", made, values or {"x": 5}, {})
        change(content)
        made.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=words):
            adopt(bench, made, "five", **options)
        assert book.list_variations("smoke", build_dir=bench.build_dir) == ()

    def error(content: dict) -> None:
        content["cells"][3]["outputs"] = [
            {"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}
        ]

    def unfinished(content: dict) -> None:
        content["cells"][-1]["execution_count"] = None

    def died_at_the_end(content: dict) -> None:  # as papermill leaves it when the kernel is killed
        content["cells"][-1]["metadata"] = {"papermill": {"status": "completed", "exception": False}}

    def not_injected(content: dict) -> None:
        del content["cells"][2]

    def computed(content: dict) -> None:
        content["cells"][2]["source"] = "x = 2 + len('a')"

    def foreign(content: dict) -> None:
        content["cells"][0]["source"] = "# Another book"

    refused("failed: E: no", error)
    refused("not executed to its last cell", unfinished)
    refused("does not say that its last cell ended", died_at_the_end)
    refused("no injected parameters", not_injected)
    refused("not plain values", computed)
    refused("no chapter of this book.*'Another book'", foreign)
    refused("executed with profile paper; add it with --profile paper", values={"x": 5, "profile": "paper"})
    refused("no parameter that differs", values={"device": "cpu"})
    (tmp_path / "smoke.yaml").write_text("x: 5\n")
    refused("no parameter that differs", params_file=tmp_path / "smoke.yaml")
    made.write_text("{}")
    with pytest.raises(ConfigError, match="not a Jupyter notebook"):
        adopt(bench, made, "five")
    with pytest.raises(ConfigError, match="does not exist"):
        adopt(bench, tmp_path / "absent.ipynb", "five")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--add", "out.ipynb"], "--add out.ipynb needs --name"),
        (["--add", "out.ipynb", "--name", "v", "-p", "x", "1"], "--add executes nothing"),
        (["--drop", "v", "--only", "table3"], "--drop executes nothing"),
        (["--drop", "v", "--name", "v"], "--drop does not go with --name"),
        (["--list-variations", "--set", "epochs=1"], "--list-variations executes nothing"),
        (["--name", ""], "--name is empty"),
        (["--name", "v"], "needs a parameter that differs"),
        (["--name", "v", "-p", "loss_weigth", "0.9"], "did you mean 'loss_weight'?"),
        (["--name", "v", "-p", "loss_weight", "[0.9"], "not valid YAML"),
        (["--name", "v", "--only", "method", "-p", "loss_weight", "0.9"], "it declares student, teacher"),
    ],
)
def test_command_line_refuses_in_one_sentence(arguments, words, capsys):
    from rkd.cli import main

    assert main(["book", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_command_line_values_are_yaml_and_scientific_numbers_are_numbers():
    from rkd.cli.book import _value

    texts = ["0.9", "1e-3", "[h, 2, 1]", "True", "null", "resnet20", "'1e-3'"]
    assert [_value("x", t) for t in texts] == [0.9, 0.001, ["h", 2, 1], True, None, "resnet20", "1e-3"]


def test_chapter_is_known_by_the_page_it_opens(tmp_path):
    from rkd.report.book.adoption import chapter_of

    bench = varied(tmp_path)
    content = {
        "cells": [
            {"cell_type": "markdown", "source": "# Chapter one"},
            {"cell_type": "code", "source": "page = open_page('two', globals())"},
        ]
    }
    assert chapter_of(content, tmp_path / "x", bench.book) == "two"


# --- the queue ----------------------------------------------------------------------------------------------------


def test_last_chapters_start_when_all_others_have_ended(tmp_path):
    bench = Bench(tmp_path)

    def stamp(name: str, wait: float) -> str:
        return f"""
            import pathlib, time
            start = time.time()
            time.sleep({wait})
            pathlib.Path({str(tmp_path)!r}, "{name}.time").write_text(f"{{start}} {{time.time()}}")
        """

    last = {"rkd": {"last": True}}
    notebook(bench.book / "summary.ipynb", stamp("summary", 0), bench.finish("summary"), metadata=last)
    for name, wait in (("quick", 0), ("slow", 6)):
        notebook(bench.book / f"{name}.ipynb", stamp(name, wait), bench.finish(name))
    toc(bench.book, "summary", "quick", "slow")
    result = bench.build(jobs=3)
    assert result.ok and [p.name for p in result.pages] == ["summary", "quick", "slow"]
    times = {n: [float(t) for t in (tmp_path / f"{n}.time").read_text().split()] for n in ("summary", "slow")}
    assert times["summary"][0] > times["slow"][1]
    assert "rkd" not in bench.staged("summary")["metadata"]


# --- what a page says of itself -----------------------------------------------------------------------------------


def test_description_is_the_opening_without_markdown():
    from rkd.report.book.metadata import LONGEST, describe, markdown_with_metadata, split_front_matter

    def first(*texts: str) -> str:
        return describe(iter(texts), "default")

    assert first("# Title\n\n| a |\n| - |\n\n- item\n\n<p>x</p>") == "default"
    assert (
        first("# T\nIt *is* a **claim** on `x_1` and [a link](b.md).") == "It is a claim on x_1 and a link."
    )
    assert first("# T", "**What is claimed.** Each part adds: $a < b$.") == "Each part adds: a < b."
    assert first(":::{note}\nhidden\n:::\n\n```python\nx\n```\n\nSeen.") == "Seen."
    long = "A first sentence. Then " + "word " * 60 + "end."
    assert first(long) == "A first sentence."
    cut = first("word " * 60)
    assert cut.endswith("word…") and LONGEST - 6 < len(cut) <= LONGEST
    text = markdown_with_metadata("---\na: 1\nmyst: {html_meta: {k: own}}\n---\n# T\n", {"k": "v", "d": "w"})
    front, body = split_front_matter(text)
    assert front == {"a": 1, "myst": {"html_meta": {"k": "own", "d": "w"}}} and body.strip() == "# T"


def test_titles_of_the_book_are_unique():
    from rkd.experiments.notebooks import read_notebook, title_of, toc_files

    files = toc_files(Path(__file__).resolve().parents[2] / "book")
    titles = []
    for path in files:
        markdown = {"cells": [{"cell_type": "markdown", "source": path.read_text()}]}
        titles.append(title_of(read_notebook(path) if path.suffix == ".ipynb" else markdown))
    assert all(titles) and len(set(titles)) == len(titles)


def test_citation_names_this_release_and_both_works():
    import rkd

    root = Path(__file__).resolve().parents[2]
    about = yaml.safe_load((root / "CITATION.cff").read_text())
    config = yaml.safe_load((root / "_config.yml").read_text())
    assert about["cff-version"] == "1.2.0" and about["version"] == rkd.__version__
    assert about["repository-code"] == config["repository"]["url"]
    title = "Distilling Knowledge via Knowledge Review"
    assert [work["title"] for work in about["references"]] == [title, f"[Re] {title}"]
    assert all(author["family-names"] for work in about["references"] for author in work["authors"])


def test_card_is_of_the_size_previews_show_and_is_drawn_by_its_script(tmp_path):
    from matplotlib.image import imread

    from rkd.report.book import card

    root = Path(__file__).resolve().parents[2]
    path = root / "book" / "_assets" / "card.png"
    assert path.stat().st_size < 100_000
    committed = imread(path)
    assert committed.shape[:2] == (card.HEIGHT, card.WIDTH) == (630, 1200)
    card.draw().savefig(tmp_path / "card.png", dpi=100, facecolor=card.INK)
    assert (
        abs(imread(tmp_path / "card.png")[..., :3] - committed[..., :3]).mean() < 0.02
    )  # letters may differ


@pytest.mark.slow
def test_site_shows_variations_and_meta_elements(tmp_path):
    pytest.importorskip("jupyter_book", reason="jupyter-book is not installed (pip install -e .[book])")
    bench = varied(tmp_path)
    opening = '\nWhat *one* shows. And "more".'
    sources = [PARAMETERS, WORK, bench.finish("one")]
    notebook(bench.book / "one.ipynb", *sources, tags={0: ["parameters"]}, opening=opening)
    (bench.book / "_assets").mkdir()
    (bench.book / "_assets" / "card.png").write_bytes(b"\x89PNG")
    bench.config.write_text(
        bench.config.read_text()
        + "launch_buttons: {colab_url: 'https://colab.research.google.com'}\n"
        + "repository: {url: 'https://github.com/a/b', path_to_book: _sources, branch: gh-pages}\n"
        + "sphinx: {config: {html_static_path: [_assets]}}\n"
    )
    bench.build(html=True, only=["one", "bare"])
    made = tmp_path / "out.ipynb"
    papermilled(bench.book / "one.ipynb", made, {"x": 5}, {3: "x is 5\n"})
    result = adopt(bench, made, "x-5.0", html=True)
    assert result.ok and result.html, bench.lines
    site = result.html.parent
    heads = {path.name: _head(path) for path in site.glob("*.html")}
    assert (
        heads["one.html"]["description"]
        == heads["one.html"]["og:description"]
        == 'What one shows. And "more".'
    )
    assert heads["one.html"]["og:title"] == "Chapter one" and heads["one.html"]["og:type"] == "article"
    assert heads["index.html"]["og:type"] == "website" and heads["index.html"]["description"] == "Words."
    assert heads["one.html"]["og:image"] == "_static/card.png"
    assert heads["one.html"]["twitter:card"] == "summary_large_image" and "og:url" not in heads["one.html"]
    assert (site / "_static" / "card.png").is_file()
    name = "one--x-5.0.html"
    assert (
        heads[name]["og:title"] == "Chapter one (x-5.0)" and "Variation x-5.0" in heads[name]["description"]
    )
    titles = [head["title"] for head in heads.values()]
    assert len(set(titles)) == len(titles)
    assert 'href="one.html"' in (site / name).read_text() and "x is 5" in (site / name).read_text()
    assert f'href="{name}"' in (site / "bare.html").read_text()  # the others' navigation is drawn anew
    launch = "https://colab.research.google.com/github/a/b/blob/gh-pages/"
    for page in ("one", "one--x-5.0"):  # Colab opens what the reader sees, with the cell it needs
        assert f"{launch}_sources/{page}.ipynb" in (site / f"{page}.html").read_text()
        assert (
            "git clone -q --depth 1 https://github.com/a/b"
            in (site / "_sources" / f"{page}.ipynb").read_text()
        )
        assert "google.colab" not in (site / f"{page}.html").read_text()

    bench.config.write_text(bench.config.read_text() + "html: {baseurl: 'https://a.org/b'}\n")
    book.drop_variation("x-5.0", "smoke", **bench.places())
    assert not (site / name).exists() and name not in (site / "bare.html").read_text()
    head = _head(site / "one.html")
    assert (
        head["og:image"] == "https://a.org/b/_static/card.png"
        and head["og:url"] == "https://a.org/b/one.html"
    )


def _head(path: Path) -> dict[str, str]:
    """Title and meta elements of a page."""
    from html.parser import HTMLParser

    found: dict[str, str] = {}

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list) -> None:
            about = dict(attrs)
            self.inside = tag == "title" and "title" not in found
            if tag == "meta" and "content" in about:
                found[about.get("name") or about.get("property") or ""] = about["content"]

        def handle_data(self, data: str) -> None:
            if self.inside:
                found["title"] = data.strip()
                self.inside = False

    Reader().feed(path.read_text())
    return found
