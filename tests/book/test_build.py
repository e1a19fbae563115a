"""Builds of tiny books: what counts as executed, what a failure looks like, what a second build touches."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import yaml
from filelock import FileLock

pytest.importorskip("papermill", reason="papermill is not installed (pip install -e .[book])")

from rkd.errors import ConfigError
from rkd.report import book
from rkd.report.book import Book

psutil = pytest.importorskip("psutil", reason="psutil is not installed (it comes with ipykernel)")
ROOT = Path(__file__).resolve().parents[2]


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
        self.folder, self.source = folder, folder / "book"
        self.source.mkdir()
        self.config = folder / "_config.yml"
        self.config.write_text(
            "title: tiny\nexecute:\n  execute_notebooks: 'off'\nonly_build_toc_files: true\n"
        )
        self.lines: list[str] = []
        self.book = Book(
            "smoke", self.source, self.config, folder / "_build", html=False, echo=self.lines.append
        )

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


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """One build of a book in which every chapter but the first goes wrong in its own way."""
    bench = Bench(tmp_path_factory.mktemp("failures"))
    shown = "print(10, end='\\r'); print(greeting, sizes)"
    notebook(bench.source / "good.ipynb", "greeting: str = 'default'", shown, tags={0: ["parameters"]})
    notebook(bench.source / "raising.ipynb", "raise ValueError('the teacher is missing')")
    notebook(bench.source / "killed.ipynb", "import os; os.kill(os.getpid(), 9)")
    toc(bench.source, "good", "raising", "killed")
    return bench, bench.build(jobs=3, parameters={"greeting": "0.70", "sizes": ["h", 2]})


def test_good_chapter_is_staged_with_folded_parameters_and_typed_values(failures):
    bench, result = failures
    assert [page.status for page in result.pages] == ["ok", "failed", "failed"]
    staged = bench.staged("good")
    assert '"papermill"' not in json.dumps(staged)
    folded = [c for c in staged["cells"] if "hide-input" in c["metadata"].get("tags", [])]
    assert len(folded) == 2  # defaults and injected values
    # a string that looks like a number stays a string, and of an overwritten line the last state
    assert "\n\n0.70 ['h', 2]\n\n" in bench.text("good")
    assert "profile smoke" in staged["cells"][-1]["source"]


@pytest.mark.parametrize(
    ("name", "reason"), [("raising", "ValueError: the teacher is missing"), ("killed", "kernel died")]
)
def test_failed_chapter_is_named_and_readable(failures, name, reason):
    bench, result = failures
    assert name in result.failed and not result.ok
    text = bench.text(name)
    assert text.startswith(f"# Chapter {name}\n")
    assert "This chapter failed" in text and reason in text
    assert f"rkd book --profile smoke --only {name}" in text
    assert any(line.startswith(f"failed: {name}: ") and reason in line for line in bench.lines)


def test_progress_counts_every_chapter_once(failures):
    bench, _ = failures
    counted = [line.split("]")[0] for line in bench.lines if line.startswith("[")]
    assert counted == [f"[{i}/3" for i in range(1, 4)]


def test_chapter_over_its_time_is_stopped_with_all_it_started(tmp_path):
    bench = Bench(tmp_path)
    pids = tmp_path / "pids"
    slow = f"""
        import os, pathlib, subprocess, sys, time
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, start_new_session=True)
        pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(600)
    """
    notebook(bench.source / "slow.ipynb", slow)
    toc(bench.source, "slow")
    (page,) = bench.build(timeout_s=4).pages
    assert page.status == "failed" and "longer than its limit of 4 s" in page.reason
    assert not any(running(int(pid)) for pid in pids.read_text().split())


def test_only_keeps_earlier_copies_until_they_fail(tmp_path):
    bench = Bench(tmp_path)
    for name in ("one", "two", "three"):
        notebook(bench.source / f"{name}.ipynb", "import time; print(time.time_ns())")
    toc(bench.source, "one", "two", "three")
    first = bench.build(only=["one"])
    assert [p.status for p in first.pages] == ["ok", "not executed", "not executed"] and first.ok
    assert bench.text("two").startswith("# Chapter two\n") and "Not executed" in bench.text("two")

    for path in bench.book.stage.iterdir():
        os.utime(path, (1000, 1000))
    second = bench.build(only=["two"])
    assert [p.status for p in second.pages] == ["kept", "ok", "not executed"]
    untouched = {p.name for p in bench.book.stage.iterdir() if p.stat().st_mtime == 1000}
    assert untouched == {"_toc.yml", "index.md", "one.ipynb", "three.ipynb"}

    notebook(bench.source / "one.ipynb", "raise RuntimeError('no')")
    assert bench.build(only=["one"]).failed == ("one",)
    toc(bench.source, "one", "two")
    assert bench.build(only=["two"]).failed == ("one",)  # the book still holds a failed chapter


def test_misuse_gets_one_sentence(tmp_path):
    bench = Bench(tmp_path)
    notebook(bench.source / "table3.ipynb", "1")
    toc(bench.source, "table3")
    with pytest.raises(ConfigError, match=r"unknown chapter 'table33' \(did you mean 'table3'\?\)"):
        bench.build(only=["table33"])
    with pytest.raises(ConfigError, match="jobs is 0"):
        bench.build(jobs=0)
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist"):
        book.build_book(replace(bench.book, params_file=tmp_path / "params.yaml"))
    toc(bench.source, "table3", "table4")
    with pytest.raises(ConfigError, match="names 'table4'"):
        bench.build()


def test_terminated_build_leaves_no_process(tmp_path):
    bench = Bench(tmp_path)
    pid = tmp_path / "pid"
    source = (
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    notebook(bench.source / "one.ipynb", source)
    toc(bench.source, "one")
    call = f"""
        from pathlib import Path
        from rkd.report.book import Book, build_book
        folder = Path({str(tmp_path)!r})
        build_book(Book("smoke", folder / "book", folder / "_config.yml", folder / "_build", html=False))
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
    toc(bench.source)
    bench.book.build.mkdir()
    with (
        FileLock(bench.book.build / ".lock"),
        pytest.raises(ConfigError, match="another build is at work"),
    ):
        bench.build()


def test_colabs_cell_comes_first_in_place_of_an_older_one():
    from rkd.report.book.staging import shown

    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# T"},
        {"cell_type": "code", "metadata": {"tags": ["colab"]}, "source": "old", "outputs": []},
        {"cell_type": "code", "metadata": {"papermill": {}}, "source": "", "outputs": []},
    ]
    head, colab, code = shown(cells, "https://host/a")
    assert head["source"] == "# T" and code["metadata"] == {}
    assert "https://host/a /content/rkd" in colab["source"] and colab["metadata"]["tags"] == [
        "colab",
        "remove-cell",
    ]
    assert shown(cells, "") == [head, code]


def test_failed_page_survives_any_log(tmp_path):
    bench = Bench(tmp_path)
    log = bench.book.folder("") / "x.log"
    log.parent.mkdir(parents=True)
    log.write_text("\x1b[31mred\x1b[0m\n```\n````\n::::\n")
    page = book.failed_page(book.Page("x", "failed", 3.2, "it said ``` and stopped"), "Title", bench.book)
    assert "\x1b" not in page and "`````text" in page and "````text\nit said ```" in page


@pytest.mark.slow
def test_site_is_built_and_its_complaints_are_told(tmp_path):
    pytest.importorskip("jupyter_book", reason="jupyter-book is not installed (pip install -e .[book])")
    bench = Bench(tmp_path)
    notebook(bench.source / "one.ipynb", "1")
    notebook(bench.source / "two.ipynb", "raise RuntimeError('no')")
    toc(bench.source, "one", "two")
    result = bench.build(html=True)
    assert result.html == bench.book.build / "html" / "index.html" and result.html.is_file()
    assert not result.warnings and result.failed == ("two",)
    assert "This chapter failed" in (result.html.parent / "two.html").read_text()

    (bench.source / "index.md").write_text("# A tiny book\n\n[nowhere](absent.md)\n")
    for _ in range(2):  # the second build reads the page again and complains again
        result = bench.build(html=True, only=["one"])
        assert any("absent.md" in warning for warning in result.warnings) and not result.ok

    (bench.source / "index.md").write_text("# A tiny book\n\nWords.\n")
    bench.build(html=True, only=["one"])
    untouched = (result.html.parent / "two.html").stat().st_mtime_ns
    bench.build(html=True, only=["one"])
    assert (result.html.parent / "two.html").stat().st_mtime_ns == untouched


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
        notebook(bench.source / f"{name}.ipynb", PARAMETERS, WORK, "1", tags={0: ["parameters"]})
    notebook(bench.source / "bare.ipynb", "1")
    toc(bench.source, "one", "two", "bare")
    return bench


@pytest.fixture(scope="module")
def additions(tmp_path_factory):
    """A book with a variation of two chapters, one chapter of which fails."""
    bench = varied(tmp_path_factory.mktemp("variations"))
    base = bench.build(only=["one"])
    fails = WORK + "\n    raise ValueError('two minds two')\n"
    notebook(bench.source / "two.ipynb", PARAMETERS, fails, tags={0: ["parameters"]})
    result = bench.build(variation="x-2.0", parameters={"x": 2, "device": "cpu"})
    return bench, base, result, list(bench.lines)


def test_variation_adds_pages_and_leaves_the_others(additions):
    bench, base, result, _ = additions
    assert [p.status for p in base.pages] == ["ok", "not executed", "not executed"]
    assert [(p.file, p.status) for p in result.pages] == [
        ("one", "kept"),
        ("two", "not executed"),
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
    parts = yaml.safe_load((bench.book.stage / "_toc.yml").read_text())["parts"]
    files = [entry["file"] for entry in parts[-1]["chapters"]]
    assert parts[-1]["caption"] == "Variations" and files == ["one--x-2.0.ipynb", "two--x-2.0.ipynb"]


def test_failed_variation_gets_a_page_and_a_command(additions):
    bench, _, result, lines = additions
    assert result.failed == ("two--x-2.0",) and not result.ok
    text = bench.text("two--x-2.0")
    assert text.startswith("# Chapter two (x-2.0)") and "ValueError: two minds two" in text
    assert "rkd book --profile smoke --only two --name x-2.0 -p x 2 -p device '\"cpu\"'" in text
    assert any(line.startswith("failed: two--x-2.0: ") for line in lines)


def test_variation_stays_is_replaced_and_dropped(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / "out.ipynb"
    papermilled(bench.source / "two.ipynb", made, {"x": 5}, {3: "x is 5\n"})
    bench.adopt(made, "five")
    papermilled(bench.source / "one.ipynb", made, {"x": 2}, {})
    result = bench.adopt(made, "v")
    files = ["one", "two", "bare", "one--v", "two--five"]
    assert [p.file for p in result.pages] == files
    assert "[v](one--v.ipynb)" in bench.text("one")  # listed below what is not executed, too

    bench.build(only=["one"], variation="v", parameters={"words": ["a", "`b`"]})
    assert any("variation v exists; one of it will be replaced" in line for line in bench.lines)
    assert "x is 1 as v" in bench.text("one--v") and '`` words = ["a", "`b`"] ``' in bench.text("one--v")
    listed = book.list_variations(bench.book)
    assert [(p.variation, p.name, dict(p.parameters)) for p in listed] == [
        ("five", "two", {"x": 5}),
        ("v", "one", {"words": ["a", "`b`"]}),
    ]

    result = book.drop_variation(bench.book, "v")
    assert [p.file for p in result.pages] == [name for name in files if name != "one--v"]
    assert not (bench.book.stage / "one--v.ipynb").exists()
    assert "Variations" not in bench.text("one") and "(five)" in bench.text("two--five")
    with pytest.raises(ConfigError, match="unknown variation 'v'; allowed: five"):
        book.drop_variation(bench.book, "v")

    toc(bench.source, "one", "bare")
    papermilled(bench.source / "one.ipynb", made, {"x": 2}, {})
    bench.adopt(made, "v")
    assert any("five of two is left out" in line for line in bench.lines)
    assert not (bench.book.stage / "two--five.ipynb").exists()


@pytest.mark.parametrize("name", ["", "V", "a b", "-a", "a/b", "../a", "a.ipynb", "a.", "é", "a" * 41])
def test_bad_variation_names_are_refused(tmp_path, name):
    bench = varied(tmp_path)
    from rkd.report.book.variations import check_name

    with pytest.raises(ConfigError, match="variation name"):
        check_name(bench.book, name)


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
    notebook(bench.source / "three.ipynb", "z: int = 1", tags={0: ["parameters"]})
    notebook(bench.source / "one--w.ipynb", "1")
    toc(bench.source, "one", "two", "three", "one--w")
    with pytest.raises(ConfigError, match="no chapter declares all of x, z"):
        bench.build(variation="v", parameters={"x": 2, "z": 2})
    with pytest.raises(ConfigError, match="'w' is taken: one--w is a chapter"):
        bench.build(variation="w", parameters={"x": 2})
    assert book.list_variations(bench.book) == []


def test_papermills_own_output_is_adopted(tmp_path):
    import papermill

    bench = varied(tmp_path)
    profile, made = tmp_path / "smoke.yaml", tmp_path / "out.ipynb"
    profile.write_text("profile: smoke\nwords: [a]\n")
    values = {**yaml.safe_load(profile.read_text()), "x": 7}
    papermill.execute_notebook(
        bench.source / "one.ipynb", made, values, kernel_name="python3", language="python", progress_bar=False
    )
    result = bench.adopt(made, "seven", params_file=profile)
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
    content = papermilled(bench.source / "one.ipynb", made, {"x": 5}, {})
    content["cells"][3]["source"] += "\nprint('more')"
    made.write_text(json.dumps(content))
    bench.adopt(made, "five")
    assert "Its code differs from the chapter's" in bench.text("one--five")
    papermilled(bench.source / "one.ipynb", made, {"x": 5}, {})
    bench.adopt(made, "five")
    assert any("one of it will be replaced" in line for line in bench.lines)
    assert "differs" not in bench.text("one--five")


def test_notebooks_that_are_no_variation_are_refused(tmp_path):
    bench = varied(tmp_path)
    made = tmp_path / "out.ipynb"

    def refused(words: str, change=lambda content: None, values=None, **options) -> None:
        content = papermilled(bench.source / "one.ipynb", made, values or {"x": 5}, {})
        change(content)
        made.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=words):
            bench.adopt(made, "five", **options)
        assert book.list_variations(bench.book) == []

    def error(content: dict) -> None:
        content["cells"][3]["outputs"] = [
            {"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}
        ]

    def unfinished(content: dict) -> None:
        content["cells"][-1]["execution_count"] = None

    def died_at_the_end(content: dict) -> None:  # as papermill leaves it when the kernel is killed
        content["cells"][-1]["metadata"] = {"papermill": {"status": "completed", "exception": False}}

    def not_injected(content: dict) -> None:
        content["metadata"]["papermill"]["parameters"] = {}

    def foreign(content: dict) -> None:
        content["cells"][0]["source"] = "# Another book"

    refused("failed: E: no", error)
    refused("not executed to its last cell", unfinished)
    refused("does not say that its last cell ended", died_at_the_end)
    refused("no injected parameters", not_injected)
    refused("no chapter of this book.*'Another book'", foreign)
    refused("executed with profile paper; add it with --profile paper", values={"x": 5, "profile": "paper"})
    refused("no parameter that differs", values={"device": "cpu"})
    (tmp_path / "smoke.yaml").write_text("x: 5\n")
    refused("no parameter that differs", params_file=tmp_path / "smoke.yaml")
    made.write_text("{}")
    with pytest.raises(ConfigError, match="not a Jupyter notebook"):
        bench.adopt(made, "five")
    with pytest.raises(ConfigError, match="does not exist"):
        bench.adopt(tmp_path / "absent.ipynb", "five")


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
    from rkd.cli.declare import value

    texts = ["0.9", "1e-3", "[h, 2, 1]", "True", "null", "resnet20", "'1e-3'"]
    assert [value(t) for t in texts] == [0.9, 0.001, ["h", 2, 1], True, None, "resnet20", "1e-3"]


def test_chapter_is_known_by_what_a_build_noted(tmp_path):
    from rkd.report.book.adoption import chapter_of

    bench = varied(tmp_path)
    cells = [{"cell_type": "markdown", "source": "# Chapter one"}]
    assert chapter_of({"cells": cells, "metadata": {}}, tmp_path / "x", bench.book) == "one"
    noted = {"cells": cells, "metadata": {"rkd": {"chapter": "two"}}}
    assert chapter_of(noted, tmp_path / "x", bench.book) == "two"


# --- the queue ----------------------------------------------------------------------------------------------------


def test_last_chapters_start_when_all_others_have_ended(tmp_path):
    bench = Bench(tmp_path)
    done = tmp_path / "done"
    slow = f"import pathlib, time; time.sleep(2); pathlib.Path({str(done)!r}).touch()"
    last = {"rkd": {"last": True}}
    notebook(
        bench.source / "summary.ipynb", f"import os; print(os.path.exists({str(done)!r}))", metadata=last
    )
    notebook(bench.source / "slow.ipynb", slow)
    toc(bench.source, "summary", "slow")
    result = bench.build()
    assert result.ok and [p.name for p in result.pages] == ["summary", "slow"]
    assert "True" in bench.text("summary")


# --- what a page says of itself -----------------------------------------------------------------------------------


def test_titles_of_the_book_are_unique():
    from rkd.experiments.notebooks import read_notebook, title_of, toc_files

    files = toc_files(ROOT / "book")
    titles = []
    for path in files:
        markdown = {"cells": [{"cell_type": "markdown", "source": path.read_text()}]}
        titles.append(title_of(read_notebook(path) if path.suffix == ".ipynb" else markdown))
    assert all(titles) and len(set(titles)) == len(titles)


def test_citation_names_this_release_and_both_works():
    import rkd

    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert about["cff-version"] == "1.2.0" and about["version"] == rkd.__version__
    assert about["repository-code"] == config["repository"]["url"]
    title = "Distilling Knowledge via Knowledge Review"
    assert [work["title"] for work in about["references"]] == [title, f"[Re] {title}"]
    assert all(author["family-names"] for work in about["references"] for author in work["authors"])


@pytest.mark.slow
def test_site_shows_variations_and_meta_elements(tmp_path):
    pytest.importorskip("jupyter_book", reason="jupyter-book is not installed (pip install -e .[book])")
    bench = varied(tmp_path)
    opening = '\nWhat *one* shows. And "more".'
    notebook(bench.source / "one.ipynb", PARAMETERS, WORK, tags={0: ["parameters"]}, opening=opening)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    of_meta = {name: value for name, value in config["sphinx"]["config"].items() if name.startswith("ogp_")}
    (bench.source / "_assets").mkdir()
    shutil.copy(ROOT / "book" / "_assets" / "logo.png", bench.source / "_assets")

    def configure(site: str) -> None:
        sphinx = {
            "extra_extensions": ["sphinxext.opengraph"],
            "config": {**of_meta, "ogp_site_url": site, "html_static_path": ["_assets"]},
        }
        repository = {**config["repository"], "url": "https://github.com/a/b"}
        more = {"launch_buttons": config["launch_buttons"], "repository": repository, "sphinx": sphinx}
        bench.config.write_text(tiny + yaml.safe_dump(more))

    tiny = bench.config.read_text()
    configure("")
    bench.build(html=True, only=["one"])
    made = tmp_path / "out.ipynb"
    papermilled(bench.source / "one.ipynb", made, {"x": 5}, {3: "x is 5\n"})
    result = bench.adopt(made, "x-5.0", html=True)
    assert result.ok and result.html, bench.lines
    site, name = result.html.parent, "one--x-5.0.html"
    heads = {path.name: _head(path) for path in site.glob("*.html")}
    head = heads["one.html"]
    assert head["description"] == head["og:description"] and head["description"].startswith("What one shows.")
    assert head["og:title"] == "Chapter one" and heads[name]["og:title"] == "Chapter one (x-5.0)"
    assert head["twitter:card"] == "summary_large_image" and (site / head["og:image"]).is_file()
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

    configure("https://a.org/b/")
    book.drop_variation(replace(bench.book, html=True), "x-5.0")
    assert not (site / name).exists() and name not in (site / "bare.html").read_text()
    head = _head(site / "one.html")
    assert (
        head["og:image"].startswith("https://a.org/b/_images/")
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
