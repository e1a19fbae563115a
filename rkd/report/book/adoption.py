"""Notebooks executed elsewhere with papermill, taken into the book as variations."""

import ast
import shutil
from datetime import UTC, datetime
from pathlib import Path

import yaml

from rkd.errors import ConfigError
from rkd.experiments.notebooks import (
    assigned_values,
    declared_parameters,
    read_notebook,
    tagged,
    title_of,
)
from rkd.report.book.pages import Book, Page
from rkd.report.book.variations import INCIDENTAL

FREE = {"parameters", "injected-parameters", "colab"}  # tags of cells that may differ


def adopt(book: Book, path: Path, name: str) -> Page:
    """Checks an executed notebook and files it as a variation of its chapter.

    Args:
        book: whose profile's values are no difference.
        path: what papermill wrote.
        name: of the variation.

    Raises:
        ConfigError: no notebook, no chapter of this book, not executed to its last cell without an error, executed
            with another profile, or with no parameter that differs.
    """
    notebook = read_notebook(path)
    chapter = chapter_of(notebook, path, book)
    finished = _finished(notebook, path)
    source = read_notebook(book.source / f"{chapter}.ipynb")
    about = notebook["metadata"].get("papermill", {})
    page = Page(
        chapter,
        "ok",
        round(float(about.get("duration") or 0), 1),
        finished=_in_seconds(about.get("end_time") or finished),
        variation=name,
        parameters=_differing(about.get("parameters", {}), source, path, book),
        adopted=path.name,
        edited=_code(notebook) != _code(source),
    )
    folder = book.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (f"{chapter}.log", f"{chapter}.failed.ipynb"):
        (folder / left).unlink(missing_ok=True)
    shutil.copyfile(path, folder / f"{chapter}.ipynb")
    page.save(book)
    return page


def chapter_of(notebook: dict, path: Path, book: Book) -> str:
    """The chapter a notebook was made from: a build notes it; else by its title.

    Raises:
        ConfigError: none of this book's.
    """
    noted, title = notebook["metadata"].get("rkd", {}).get("chapter"), title_of(notebook)
    for name in book.names:
        if noted == name or (not noted and title == title_of(read_notebook(book.source / f"{name}.ipynb"))):
            return name
    raise ConfigError(f"{path.name} is no chapter of this book: no chapter has its title {title!r}")


def _finished(notebook: dict, path: Path) -> str:
    """When the last cell ended. Every cell must have run without an error, and the kernel must have answered for the
    last one: papermill lists the cells after a kernel's death as completed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]
    for output in (output for cell in cells for output in cell["outputs"]):
        if output["output_type"] == "error":
            raise ConfigError(f"{path.name} failed: {output['ename']}: {output['evalue']}")
    if not cells or any(cell["execution_count"] is None for cell in cells):
        raise ConfigError(f"{path.name} was not executed to its last cell; execute it with papermill")
    if not (reply := cells[-1]["metadata"].get("execution", {}).get("shell.execute_reply")):
        raise ConfigError(f"{path.name} does not say that its last cell ended; execute it with papermill")
    return reply


def _differing(given: dict, source: dict, path: Path, book: Book) -> dict[str, object]:
    """Parameters, of those papermill was given, that make a variation of the chapter."""
    if not given:
        raise ConfigError(f"{path.name} has no injected parameters; execute it with papermill -p NAME VALUE")
    defaults = [assigned_values(cell["source"]) for cell in tagged(source, "parameters")]
    used = given.get("profile", defaults[0].get("profile") if defaults else None)
    if used is not None and Path(str(used)).stem != Path(book.profile).stem:
        raise ConfigError(f"{path.name} was executed with profile {used}; add it with --profile {used}")
    standing = yaml.safe_load(book.params_file.read_text(encoding="utf8")) or {} if book.params_file else {}
    declared = {*declared_parameters(source)} - {"profile"}
    differ = {k: v for k, v in given.items() if k in declared and v is not None and standing.get(k) != v}
    if not set(differ) - set(INCIDENTAL):
        raise ConfigError(
            f"{path.name} was executed with no parameter that differs from profile {book.profile}; it is no variation"
        )
    return differ


def _in_seconds(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="seconds")


def _code(notebook: dict) -> list[str]:
    """Code cells but those that may differ. Layout and comments do not count."""
    return [
        _tree(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and cell["source"].strip()
        and not FREE & set(cell["metadata"].get("tags", []))
    ]


def _tree(source: str) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # IPython's own commands
        return source
