"""The site: its source, assembled from executed chapters, prose and assets, and its build by jupyter-book."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from rkd.colab import first_cell
from rkd.experiments.notebooks import read_notebook, read_toc, title_of, toc_files
from rkd.files import digest
from rkd.report.book.pages import Book, Page
from rkd.report.interactive.markup import code, directive, tag

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
FOLDED = {  # tag of a cell -> what a click on it shows
    "parameters": "the parameters", "injected-parameters": "what was given here", "rows": "the rows",
    "hide-output": "what it says",
}  # fmt: skip
LOG_TAIL = 40  # lines
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # terminal colours
_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE): ")


def stage(pages: Sequence[Page], book: Book) -> None:
    """Assemble the site's source in `book.stage` from the chapters, in the book's order, and their variations."""
    copied = [path for path in toc_files(book.source) if path.suffix == ".md"]
    copied += [path for path in (book.source / "_assets").rglob("*") if path.is_file()]
    files = {path.relative_to(book.source).as_posix(): path.read_bytes() for path in copied}
    files["_toc.yml"] = (book.source / "_toc.yml").read_bytes()
    if varied := [page for page in pages if page.variation]:
        toc = read_toc(book.source)
        if "chapters" in toc:  # parts and chapters do not go together
            toc["parts"] = [{"chapters": toc.pop("chapters")}]
        entries = [{"file": f"{page.file}.ipynb"} for page in varied]
        toc["parts"] = [*toc.get("parts", []), {"caption": "Variations", "chapters": entries}]
        files["_toc.yml"] = yaml.safe_dump(toc, sort_keys=False, allow_unicode=True).encode()
    repository = yaml.safe_load(book.config.read_text(encoding="utf8")).get("repository", {}).get("url", "")
    for page in pages:
        of_it = [other for other in varied if other.name == page.name and not page.variation]
        content = _notebook(page, of_it, book, repository)
        files[f"{page.file}.ipynb"] = json.dumps(content, indent=1, ensure_ascii=False).encode()
    shutil.rmtree(book.stage, ignore_errors=True)
    for name, content in files.items():
        path = book.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _notebook(page: Page, variations: Sequence[Page], book: Book, repository: str) -> dict:
    """Return the page of a chapter or a variation: always a notebook, so that all links to it stay valid."""
    source, metadata, other = book.notebook(page.name), KERNEL, ""
    if page.status in ("failed", "not executed"):
        said = (_failed if page.status == "failed" else _not_executed)(page, book)
        cells = [cell for cell in source["cells"][:1] if cell["cell_type"] == "markdown"]
        cells.append(_words("page", said))
    else:
        executed = read_notebook(book.path(page, ".ipynb"))
        cells = executed["cells"]
        if page.adopted:
            from rkd.report.book.foreign import static_cells  # needed by such pages alone

            cells, other = static_cells(executed, source, repository)
        else:
            metadata = executed["metadata"]
        cells = displayed_cells(cells, repository)
        cells.append(_words("provenance", _provenance(page, book)))
    if variations:
        items = [f"- [{one.variation}]({one.file}.ipynb): {_given(one)}" for one in variations]
        cells.append(_words("variations", "\n".join(["**Variations of this page**", "", *items])))
    cells = _headed(cells, page, title_of(source, page.name), other)
    metadata = {k: v for k, v in metadata.items() if k != "papermill"} | {"rkd": {"chapter": page.name}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def displayed_cells(cells: Sequence[dict], repository: str) -> list[dict]:
    """Return an executed notebook's cells as the book shows them: parameters and rows folded and, if the project has a
    `repository` address, a first code cell for Colab."""
    found = []
    for cell in cells:
        metadata = {k: v for k, v in cell["metadata"].items() if k not in ("papermill", "execution")}
        tags = metadata.get("tags", [])
        if {"parameters", "injected-parameters", "rows"} & {*tags}:
            metadata["tags"] = [*tags, "hide-input"]
        for words in [FOLDED[name] for name in FOLDED if name in tags]:
            metadata["mystnb"] = {f"code_prompt_{v}": f"{v.capitalize()} {words}" for v in ("show", "hide")}
        if "colab" not in tags:  # left in a notebook downloaded from a built book
            found.append({**cell, "metadata": metadata})
    if repository:
        place = next((i for i, cell in enumerate(found) if cell["cell_type"] == "code"), 0)
        found.insert(place, first_cell(repository))
    return found


def _headed(cells: Sequence[dict], page: Page, title: str, other: str) -> list[dict]:
    """Return cells with the heading first, in a variation followed by a note, which says which are `other` ones."""
    words = (cell for cell in cells if cell["cell_type"] == "markdown")
    heading = next((cell for cell in words if cell["source"].startswith("# ")), None)
    opening = heading["source"].partition("\n")[2].strip() if heading else ""
    head = [f"# {title}", opening]
    if page.variation:
        head[:1] = f"# {title} ({page.variation})", _note(page, title, other)
    return [_words("head", "\n\n".join(filter(None, head))), *(cell for cell in cells if cell is not heading)]


def _words(identity: str, markdown: str) -> dict:
    return {"cell_type": "markdown", "id": identity, "metadata": {}, "source": markdown}


# --- what a build says on its pages --------------------------------------------------------------------------------


def _provenance(page: Page, book: Book) -> str:
    finished = datetime.fromisoformat(page.finished).strftime("%-d %B %Y, %H:%M UTC")
    machine = f" on {page.machine}" if page.machine else ""
    said = f"Executed {finished}, profile {book.profile}, in {page.seconds:.0f} s{machine}."
    return tag("p", " ".join(said.split()), class_="rkd-executed")  # an empty line would end the element


def _failed(page: Page, book: Book) -> str:
    log = book.path(page, ".log")
    text = _ANSI.sub("", log.read_text(encoding="utf8", errors="replace")) if log.is_file() else ""
    said = f"It stopped after {page.seconds:.0f} s with profile {code(book.profile)}"
    said += ", and shows no numbers for that reason."
    why = directive("admonition", "This chapter failed", said, code(page.reason, "text"), class_="danger")
    tail = code("\n".join(text.splitlines()[-LOG_TAIL:]) or "(the log is empty)", "text")
    tail = directive("dropdown", f"The last {LOG_TAIL} lines of its log", tail)
    return "\n\n".join([why, "Run it again on its own:", code(_command(page, book), "shell"), tail])


def _not_executed(page: Page, book: Book) -> str:
    said = f"This copy of the book was built with profile {code(book.profile)} and without this chapter. To add it:"
    command = code(_command(page, book), "shell")
    return directive("admonition", "Not executed in this build", said, command, class_="note")


def _note(page: Page, title: str, other: str) -> str:
    rest, origin = "all else is as there", ""
    if page.adopted:
        rest = f"**{other}**" if other else "its cells are the chapter's"
        origin = (
            f" It was executed elsewhere with papermill, and taken from {code(page.adopted)}. Its pictures and tables "
            "are as they came; what would be interactive is shown still."
        )
    said = f"This page is [{title}]({page.name}.ipynb) with {_given(page)}; {rest}.{origin}"
    return directive("admonition", f"Variation {page.variation}", said, class_="note")


def _command(page: Page, book: Book) -> str:
    """Return the command that executes a page again."""
    words = ["rkd", "book", "--profile", book.profile, "--only", page.name]
    words += ["--name", page.variation] if page.variation else []
    for name, value in page.parameters.items():
        words += ["-p", name, json.dumps(value)]
    return shlex.join(words)


def _given(page: Page) -> str:
    return ", ".join(map(code, page.given()))


# --- HTML ----------------------------------------------------------------------------------------------------------


def build_html(book: Book) -> tuple[Path | None, tuple[str, ...]]:
    """Build the whole site from what is staged, as every page shows the titles of the others; do nothing if it was
    already built from what is there now without a warning or error.

    Returns:
        Path of the index page, None if there is none, and the warnings and errors of Sphinx.
    """
    from rkd.report.book.kernels import end_with_parent  # not needed to stage the site

    # jupyter-book calls its output folder _build; a build folder of that name serves as it, with none nested in it.
    output = book.build if book.build.name == "_build" else book.build / "_build"
    index, built_from = output / "html" / "index.html", output / "site.key"
    key = digest(book.stage, book.config, *book.reads, *map(version, ("jupyter-book", "sphinx", "myst-nb")))
    if index.is_file() and built_from.is_file() and built_from.read_text() == key:
        return index, ()
    book.echo("building the site ...")
    built_from.unlink(missing_ok=True)
    for folder in ("html", "jupyter_execute", ".doctrees"):
        shutil.rmtree(output / folder, ignore_errors=True)
    call = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(book.stage)]
    call += ["--config", str(book.config), "--path-output", str(output.parent)]
    env = {**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1"}  # whatever the terminal
    said = {"capture_output": True, "encoding": "utf8", "errors": "replace"}
    build = subprocess.run(call, env=env, preexec_fn=end_with_parent, check=False, **said)
    log = _ANSI.sub("", build.stdout + build.stderr)
    (book.work / "html.log").write_text(log, encoding="utf8")
    complaints = [line.strip() for line in log.splitlines() if _COMPLAINT.search(line)]
    if build.returncode and not complaints:
        complaints = [line for line in log.splitlines() if line.strip()][-3:]
    made = index if build.returncode == 0 and index.is_file() else None
    if made and not complaints:
        built_from.write_text(key)
    return made, tuple(dict.fromkeys(complaints))
