"""Variations: chapters executed with other parameters, here or elsewhere, kept beside the book's own pages."""

import json
import math
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from rkd.errors import ConfigError, one_line, unknown
from rkd.experiments.notebooks import (
    assigned_values,
    declared_parameters,
    read_notebook,
    tagged_cells,
    title_of,
)
from rkd.experiments.settings import WHERE
from rkd.plain_yaml import read_yaml
from rkd.report.book.pages import Book, Page

INCIDENTAL = {*WHERE}  # where and how a chapter runs, not what it computes
_NAME = re.compile(r"(?!.*\.(ipynb|md|html|rst|txt)?$)[a-z0-9][a-z0-9.-]{0,39}")


def check_variation_name(book: Book, name: str) -> None:
    """Raise ConfigError for a name that cannot be part of a page's address, or would hide a page of the book."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"variation name {name!r}: allowed are up to 40 of a-z, 0-9, '.' and '-', a letter or digit first, no "
            "file ending last, for example lambda-0.9"
        )
    for page in {f"{chapter}--{name}" for chapter in book.names} & {*book.names}:
        raise ConfigError(f"variation name {name!r} is taken: {page} is a chapter of the book")


def format_values(parameters: Mapping[str, object]) -> list[str]:
    """Return parameters and values as text, without those that change no number."""
    told = {name: value for name, value in parameters.items() if name not in INCIDENTAL}
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in told.items()]


def varied_chapters(book: Book, parameters: Mapping[str, object], only: Sequence[str]) -> list[str]:
    """Return the chapters a variation executes: those of `only`, or all that declare every parameter.

    Raises:
        ConfigError: no parameter changes a number, the profile is among them, or chapters do not declare one of them.
    """
    wanted = {*parameters} - INCIDENTAL
    if "profile" in wanted:
        raise ConfigError("a variation belongs to one profile; name it with --profile, not as a parameter")
    if not wanted:
        raise ConfigError("a variation needs a parameter that differs, for example -p loss_weight 0.9")
    declared = {name: declared_parameters(book.notebook(name)) for name in book.names}
    for parameter in sorted(wanted.difference(*declared.values())):
        raise unknown("parameter", parameter, {p for names in declared.values() for p in names})
    for name in only:
        for parameter in sorted(wanted.difference(declared[name])):
            known = ", ".join(sorted(declared[name])) or "no parameters"
            raise ConfigError(f"chapter {name} does not declare {parameter}; it declares {known}")
    if not (fitting := [name for name in only or book.names if wanted.issubset(declared[name])]):
        raise ConfigError(
            f"no chapter declares all of {', '.join(sorted(wanted))}; give them in two variations"
        )
    return fitting


def adopt(book: Book, path: Path, variation: str) -> Page:
    """Return a notebook that papermill executed elsewhere as a variation; values equal to those of the book's profile
    make no difference.

    Raises:
        ConfigError: it is no notebook, is no chapter of this book, was not executed to its last cell without an error,
            or was executed with another profile or with no parameter that differs.
    """
    notebook = read_notebook(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # cells without ids are no concern of ours
            nbformat.validate(notebook)
    except Exception as error:  # for what is no notebook it raises errors of many kinds
        said = one_line(ValueError(getattr(error, "message", error)), 200)
        raise ConfigError(f"{path} is not a sound Jupyter notebook: {said}") from error
    about = _mapping(notebook["metadata"].get("papermill"))
    chapter = chapter_of(notebook, path, book)
    source = book.notebook(chapter)
    replied = _finished(notebook, path)
    try:
        ended = datetime.fromisoformat(about.get("end_time") or replied).astimezone(UTC)
        if not 0 <= (seconds := round(float(about.get("duration") or 0), 1)) < math.inf:
            raise ValueError(seconds)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path.name} does not say when it ended; execute it with papermill") from error
    differing = _differing(_mapping(about.get("parameters")), source, path, book)
    page = Page(chapter, "ok", seconds, finished=ended.isoformat(timespec="seconds"))
    return replace(page, variation=variation, parameters=differing, adopted=path.name)


def chapter_of(notebook: dict, path: Path, book: Book) -> str:
    """Return the chapter a notebook was made from: the one that a build noted, else the one with its title.

    Raises:
        ConfigError: it is no chapter of this book.
    """
    noted, title = _mapping(notebook["metadata"].get("rkd")).get("chapter"), title_of(notebook)
    for name in book.names:
        if noted == name or (not noted and title == title_of(book.notebook(name))):
            return name
    raise ConfigError(f"{path.name} is no chapter of this book: no chapter has its title {title!r}")


def _finished(notebook: dict, path: Path) -> str:
    """Return when the last cell ended. Every cell must have run without an error, and the kernel must have answered for
    the last one: papermill lists the cells after a kernel's death as completed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]
    for output in (output for cell in cells for output in cell["outputs"]):
        if output["output_type"] == "error":
            raise ConfigError(f"{path.name} failed: {output['ename']}: {output['evalue']}")
    if not cells or any(cell["execution_count"] is None for cell in cells):
        raise ConfigError(f"{path.name} was not executed to its last cell; execute it with papermill")
    if not (reply := _mapping(cells[-1]["metadata"].get("execution")).get("shell.execute_reply")):
        raise ConfigError(f"{path.name} does not say that its last cell ended; execute it with papermill")
    return reply


def _differing(given: dict, source: dict, path: Path, book: Book) -> dict[str, object]:
    """Return those of the parameters given to papermill that make the notebook a variation of the chapter."""
    if not given:
        raise ConfigError(f"{path.name} has no injected parameters; execute it with papermill -p NAME VALUE")
    defaults = [assigned_values(cell["source"]) for cell in tagged_cells(source, "parameters")]
    used = given.get("profile", defaults[0].get("profile") if defaults else None)
    if used is not None and Path(str(used)).stem != Path(book.profile).stem:
        named = shlex.quote(str(used))
        raise ConfigError(f"{path.name} was executed with profile {named}; add it with --profile {named}")
    standing = (read_yaml(book.params_file) or {}) if book.params_file else {}
    declared = {*declared_parameters(source)} - {"profile"}
    differ = {k: v for k, v in given.items() if k in declared and v is not None and standing.get(k) != v}
    if not differ.keys() - INCIDENTAL:
        raise ConfigError(
            f"{path.name} was executed with no parameter that differs from profile {book.profile}; it is no variation"
        )
    return differ


def _mapping(said: object) -> dict:
    return said if isinstance(said, dict) else {}
