"""The site: jupyter-book over the staged source."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rkd.experiments.notebooks import read_notebook, title_of
from rkd.report.book.pages import Book, plain, write_if_changed

_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE): ")
OF_SPHINX = {"genindex", "search", "py-modindex"}


def build_html(book: Book) -> tuple[Path | None, tuple[str, ...]]:
    """Builds the site from what is staged.

    Returns:
        Path of the index page, None where none came out, and the complaints of Sphinx.
    """
    book.echo("building the site ...")
    # The folder's name is jupyter-book's; a folder of that name is not nested once more.
    output = book.build if book.build.name == "_build" else book.build / "_build"
    navigation, as_before = _navigation(book), output / ".navigation.json"
    if not as_before.is_file() or as_before.read_text(encoding="utf8") != navigation:
        for folder in ("html", "jupyter_execute", ".doctrees"):  # pages of before, other profiles' too
            shutil.rmtree(output / folder, ignore_errors=True)
    build = subprocess.run(
        [
            *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()"),
            *("build", str(book.stage), "--config", str(book.config), "--path-output", str(output.parent)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    log = plain(build.stdout + build.stderr)
    (book.work / "html.log").write_text(log, encoding="utf8")
    complaints = [line.strip() for line in log.splitlines() if _COMPLAINT.search(line)]
    if build.returncode and not complaints:
        complaints = [line for line in log.splitlines() if line.strip()][-3:]
    if complaints:  # Sphinx complains only of pages it reads: let the next build read them all again
        shutil.rmtree(output / ".doctrees", ignore_errors=True)
    if build.returncode == 0:
        write_if_changed(as_before, navigation)
    index = output / "html" / "index.html"
    return (index if build.returncode == 0 and index.is_file() else None), tuple(dict.fromkeys(complaints))


def _navigation(book: Book) -> str:
    """What every page shows of the others. Sphinx renders a page anew only when its own source changed; when this
    changes, all of them are due."""
    titles = []
    for path in sorted(book.stage.iterdir()):
        if path.suffix == ".ipynb":
            titles.append([path.name, title_of(read_notebook(path))])
        elif path.suffix == ".md":
            markdown = {"cell_type": "markdown", "source": path.read_text(encoding="utf8")}
            titles.append([path.name, title_of({"cells": [markdown]})])
    toc, config = (path.read_text(encoding="utf8") for path in (book.stage / "_toc.yml", book.config))
    return json.dumps([str(book.stage), toc, config, titles], indent=1)
