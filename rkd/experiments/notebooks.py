"""What the book's own files tell: their order, titles, parameters and place in the queue."""

import ast
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rkd.errors import ConfigError
from rkd.experiments.settings import GENERAL, MORE, cell_assignments
from rkd.plain_yaml import read_yaml


def read_toc(book_dir: Path) -> dict:
    """Return a fresh copy of the content of `_toc.yml`; ConfigError if there is none."""
    toc = book_dir / "_toc.yml"
    if not toc.is_file():
        raise ConfigError(f"{book_dir} has no _toc.yml; it is not the folder of a book")
    return read_yaml(toc)


def toc_files(book_dir: Path) -> list[Path]:
    """Return the source files of all pages, in reading order.

    Raises:
        ConfigError: no `_toc.yml`, or an entry that is neither a notebook nor a Markdown page.
    """
    files = []
    for entry in _entries(read_toc(book_dir)):
        found = [book_dir / f"{entry}{suffix}" for suffix in (".ipynb", ".md")]
        files += [path for path in found if path.is_file()][:1]
        if not files or files[-1] not in found:
            raise ConfigError(f"_toc.yml names {entry!r}, but {found[0]} and {found[1].name} do not exist")
    return files


def _entries(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _entries(item)
        return
    yield from (node[key] for key in ("root", "file") if key in node)
    for key in ("parts", "chapters", "sections"):
        yield from _entries(node.get(key, []))


def notebook_names(book_dir: Path) -> list[str]:
    """Return the names of the notebooks in `_toc.yml`, in reading order; raise the errors of `toc_files`."""
    return [path.stem for path in toc_files(book_dir) if path.suffix == ".ipynb"]


def read_notebook(path: Path) -> dict:
    """Return a notebook of format 4 as a dict, with each cell's source joined into one string.

    Raises:
        ConfigError: the file cannot be read, or is not a notebook of that format.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf8"))
        form = notebook["nbformat"]
        cells = [c | {"source": "".join(c["source"])} for c in notebook["cells"]] if form == 4 else []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a Jupyter notebook") from error
    if form != 4:
        raise ConfigError(f"{path} has notebook format {form}; format 4 is read")
    return {**notebook, "cells": cells}


def title_of(notebook: Mapping, default: str = "") -> str:
    """Return the first heading of a notebook, or `default`."""
    texts = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+)$", "\n".join(texts), re.MULTILINE)
    return heading[1].strip() if heading else default


def is_last(notebook: Mapping) -> bool:
    """Whether a chapter is to be executed after all others: metadata {"rkd": {"last": true}}."""
    return bool(notebook["metadata"].get("rkd", {}).get("last", False))


def tagged_cells(notebook: Mapping, tag: str) -> list[dict]:
    """Return the code cells with a tag."""
    code = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return [cell for cell in code if tag in cell["metadata"].get("tags", [])]


def declared_parameters(notebook: Mapping) -> list[str]:
    """Return the names assigned in the cell tagged "parameters", in order; none without such a cell. If `parameters` is
    one of them, those that every table takes follow."""
    declared = [
        name for cell in tagged_cells(notebook, "parameters") for name, _ in cell_assignments(cell["source"])
    ]
    return [*declared, *(name for name in GENERAL if name not in declared)] if MORE in declared else declared


def shared_imports(notebooks: Iterable[Mapping]) -> list[str]:
    """Return the import statements, at the top level of cells, that more than one notebook has."""
    found = Counter[str]()
    for notebook in notebooks:
        statements = set()
        for cell in notebook["cells"]:
            with contextlib.suppress(SyntaxError):  # cells with IPython's own commands
                body = ast.parse(cell["source"]).body if cell["cell_type"] == "code" else []
                statements |= {ast.unparse(s) for s in body if isinstance(s, ast.Import | ast.ImportFrom)}
        found.update(statements)
    return sorted(statement for statement, count in found.items() if count > 1)


def assigned_values(source: str) -> dict[str, object]:
    """Return names and values of a cell that only assigns literals, such as the one papermill injects.

    Raises:
        ValueError: a value is not a literal.
    """
    return {name: ast.literal_eval(value) for name, value in cell_assignments(source) if value is not None}
