"""The site: jupyter-book over the staged source."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rkd.experiments.notebooks import read_notebook, title_of
from rkd.report.book.files import Folders, plain, write_if_changed

_COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE): ")
OF_SPHINX = {"genindex", "search", "py-modindex"}


def build_html(folders: Folders, echo: Callable[[str], object]) -> tuple[Path | None, tuple[str, ...]]:
    """Builds the site from `folders.stage`.

    Returns:
        Path of the index page, None where none came out, and the complaints of Sphinx.
    """
    echo("building the site ...")
    # The folder's name is jupyter-book's; a folder of that name is not nested once more.
    output = folders.build if folders.build.name == "_build" else folders.build / "_build"
    navigation = json.dumps(_navigation(folders), indent=1)
    as_before = output / ".navigation.json"
    whole = not as_before.is_file() or as_before.read_text(encoding="utf8") != navigation
    build = subprocess.run(
        [
            *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()"),
            *("build", str(folders.stage), "--config", str(folders.config)),
            *("--path-output", str(output.parent), *(["--all"] if whole else [])),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    log = plain(build.stdout + build.stderr)
    (folders.work / "html.log").write_text(log, encoding="utf8")
    complaints = [line.strip() for line in log.splitlines() if _COMPLAINT.search(line)]
    if build.returncode and not complaints:
        complaints = [line for line in log.splitlines() if line.strip()][-3:]
    if complaints:  # Sphinx complains only of pages it reads: let the next build read them all again
        shutil.rmtree(output / ".doctrees", ignore_errors=True)
    if build.returncode == 0:
        write_if_changed(as_before, navigation)
        _sweep(output, folders.stage)
    index = output / "html" / "index.html"
    return (index if build.returncode == 0 and index.is_file() else None), tuple(dict.fromkeys(complaints))


def _navigation(folders: Folders) -> list[object]:
    """What every page shows of the others. Sphinx renders a page anew only when its own source changed; when this
    changes, all of them are due."""
    titles = []
    for path in sorted(folders.stage.iterdir()):
        if path.suffix == ".ipynb":
            titles.append([path.name, title_of(read_notebook(path))])
        elif path.suffix == ".md":
            heading = re.search(r"^# +(.+)$", path.read_text(encoding="utf8"), re.MULTILINE)
            titles.append([path.name, heading[1] if heading else ""])
    toc, config = ((folders.stage / "_toc.yml"), folders.config)
    return [str(folders.stage), toc.read_text(encoding="utf8"), config.read_text(encoding="utf8"), titles]


def _sweep(output: Path, stage: Path) -> None:
    """Removes pages the book no longer has: an earlier build's, or another profile's."""
    present = {path.stem for path in stage.iterdir() if path.suffix in (".ipynb", ".md")} | OF_SPHINX
    made = [
        ("html", ".html"),
        ("html/_sources", ".ipynb"),
        ("html/_sources", ".md"),
        ("jupyter_execute", ".ipynb"),
    ]
    for folder, suffix in made:
        for path in (output / folder).glob(f"*{suffix}"):
            if path.name.removesuffix(suffix) not in present:
                path.unlink()
