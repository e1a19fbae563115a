"""Notebooks executed elsewhere with papermill, taken into the book as variations."""

import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from rkd.errors import ConfigError
from rkd.experiments.notebooks import (
    assigned_values,
    declared_parameters,
    notebook_names,
    read_notebook,
    tagged,
    title_of,
)
from rkd.report.book.files import Folders, write_if_changed
from rkd.report.book.prose import INCIDENTAL
from rkd.report.book.result import Page, file_state

_OPENED = re.compile(r"""\bopen_[a-z_]+\(\s*["']([\w.-]+)["']""")


def adopt(path: Path, name: str, folders: Folders, standing: dict[str, object]) -> Page:
    """Checks an executed notebook and files it as a variation of its chapter.

    Args:
        path: what papermill wrote.
        name: of the variation.
        folders: of the build.
        standing: values of the profile's file; they are no difference.

    Raises:
        ConfigError: no notebook, no chapter of this book, not executed to its last cell without an error, executed
            with another profile, or with no parameter that differs.
    """
    notebook = read_notebook(path)
    chapter = chapter_of(notebook, path, folders.book)
    _check_executed(notebook, path)
    source = read_notebook(folders.book / f"{chapter}.ipynb")
    values = _injected(notebook, path)
    _check_profile(values, source, path, folders.profile)
    declared = declared_parameters(source)
    parameters = {
        key: value
        for key, value in values.items()
        if key in declared and key != "profile" and value is not None and standing.get(key) != value
    }
    if not set(parameters) - set(INCIDENTAL):
        raise ConfigError(
            f"{path.name} was executed with no parameter that differs from profile {folders.profile}; "
            "it is no variation"
        )
    about = notebook["metadata"].get("papermill", {})
    finished = about.get("end_time") or _reply_of(_last_code(notebook)) or ""
    page = Page(
        chapter,
        "ok",
        round(float(about.get("duration") or 0), 1),
        finished=_in_seconds(finished),
        variation=name,
        parameters=parameters,
        adopted=path.name,
        edited=_code(notebook) != _code(source),
    )
    folder = folders.of(name)
    write_if_changed(folder / f"{chapter}.ipynb", json.dumps(notebook, indent=1, ensure_ascii=False))
    for left in (f"{chapter}.log", f"{chapter}.json", f"{chapter}.failed.ipynb"):
        (folder / left).unlink(missing_ok=True)
    file_state(page, folder)
    return page


def chapter_of(notebook: dict, path: Path, book_dir: Path) -> str:
    """The chapter a notebook was made from: by the page it opens, else by its title.

    Raises:
        ConfigError: none of this book's.
    """
    chapters = notebook_names(book_dir)
    for cell in notebook["cells"]:
        opened = _OPENED.search(cell["source"]) if cell["cell_type"] == "code" else None
        if opened and opened[1] in chapters:
            return opened[1]
    title = title_of(notebook)
    for name in chapters:
        if title and title == title_of(read_notebook(book_dir / f"{name}.ipynb")):
            return name
    raise ConfigError(
        f"{path.name} is no chapter of this book: it opens no page of it, and no chapter has its title {title!r}"
    )


def _check_executed(notebook: dict, path: Path) -> None:
    """Every cell must have run without an error, and the kernel must have answered for the last one: papermill lists
    the cells after a kernel's death as completed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]
    for cell in cells:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                raise ConfigError(f"{path.name} failed: {output['ename']}: {output['evalue']}")
    if not cells or any(cell["execution_count"] is None for cell in cells):
        raise ConfigError(f"{path.name} was not executed to its last cell; execute it with papermill")
    if not _reply_of(cells[-1]):
        raise ConfigError(f"{path.name} does not say that its last cell ended; execute it with papermill")


def _injected(notebook: dict, path: Path) -> dict[str, object]:
    """Values papermill set."""
    cells = tagged(notebook, "injected-parameters")
    if not cells:
        raise ConfigError(f"{path.name} has no injected parameters; execute it with papermill -p NAME VALUE")
    try:
        return {name: value for cell in cells for name, value in assigned_values(cell["source"]).items()}
    except (ValueError, SyntaxError) as error:
        raise ConfigError(f"{path.name}: its injected parameters are not plain values") from error


def _check_profile(values: dict[str, object], source: dict, path: Path, profile: str) -> None:
    defaults = {}
    for cell in tagged(source, "parameters"):
        defaults |= assigned_values(cell["source"])
    used = values.get("profile", defaults.get("profile"))
    if used is not None and Path(str(used)).stem != Path(profile).stem:
        raise ConfigError(f"{path.name} was executed with profile {used}; add it with --profile {used}")


def _last_code(notebook: dict) -> dict:
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and c["source"].strip()][-1]


def _reply_of(cell: dict) -> str:
    """When the kernel answered that it had executed the cell."""
    return cell["metadata"].get("execution", {}).get("shell.execute_reply", "")


def _in_seconds(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="seconds")


def _code(notebook: dict) -> list[str]:
    """Code cells but those that may differ: parameters and set-up. Layout and comments do not count."""
    free = {"parameters", "injected-parameters", "colab"}
    sources = [
        cell["source"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and not free & set(cell["metadata"].get("tags", []))
    ]
    return [_tree(source) for source in sources if source.strip()]


def _tree(source: str) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # IPython's own commands
        return source
