"""Builds of the book from start to finish, and variations: chapters executed with other parameters, here or elsewhere,
kept beside the book's own pages."""

import contextlib
import math
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from filelock import FileLock, Timeout

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
from rkd.report.book.execution import execute
from rkd.report.book.pages import Book, BookResult, Page
from rkd.report.book.site import build_html, stage

if TYPE_CHECKING:
    from rkd.cluster.session import Cluster

_NAME = re.compile(r"(?!.*\.(ipynb|md|html|rst|txt)?$)[a-z0-9][a-z0-9.-]{0,39}")


def build_book(
    book: Book,
    *,
    only: Sequence[str] = (),
    jobs: int | None = None,
    timeout_s: float = 3600,
    parameters: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    variation: str = "",
    fresh: bool = False,
    cluster: "Cluster | None" = None,
) -> BookResult:
    """Execute the chapters that changed, stage the results, and build the site.

    Args:
        only: chapters to execute, changed or not; the others keep the copy an earlier build made.
        jobs: chapters executed at once, sharing the CPU cores evenly; None: 2, or 1 on a GPU.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of the profile.
        environment: override the environment of the chapters.
        variation: name of a variation. The chapters of `only`, by default all that declare every one of the
            parameters, are executed as extra pages; the book's own pages keep the copy they have.
        fresh: execute what has not changed too.
        cluster: executes the chapters instead of this machine.

    Raises:
        ConfigError: an unknown chapter, a missing file, a limit that is not positive, a variation with a bad name
            or without a parameter its chapters declare, or another build at work in the folder.
    """
    names, given = book.names, dict(parameters or {})
    for name in only:
        if name not in names:
            raise unknown("chapter", name, names)
    if (jobs is not None and jobs < 1) or not 0 < timeout_s < math.inf:
        raise ConfigError(f"jobs is {jobs} and timeout_s is {timeout_s}; both must be positive")
    selected = [name for name in names if not only or name in only]
    if variation:
        check_variation_name(book, variation)
        selected = varied_chapters(book, given, only and selected)
    pages = [Page(name, variation=variation, parameters=given if variation else {}) for name in selected]
    with _alone(book):
        _announce(book, pages)
        file = book.params_file
        values = {**((read_yaml(file) or {}) if file else {}), **given}
        fresh = fresh or bool(only or variation)
        return _finish(book, execute(book, pages, values, environment or {}, timeout_s, jobs, fresh, cluster))


def adopt_notebook(book: Book, notebook: Path, variation: str) -> BookResult:
    """Take a chapter that papermill executed elsewhere into the book as a variation, and build the site.

    Raises:
        ConfigError: a bad name, or a notebook that is no chapter of the book, is unfinished or differs in no parameter.
    """
    check_variation_name(book, variation)
    with _alone(book):
        page = adopt(book, notebook, variation)
        _announce(book, [page])
        target = book.path(page, ".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        for ending in (".log", ".failed.ipynb"):  # left by an execution here
            book.path(page, ending).unlink(missing_ok=True)
        shutil.copyfile(notebook, target)
        book.save(page)
        return _finish(book, [page])


def drop_variation(book: Book, variation: str) -> BookResult:
    """Remove a variation and build the site without it.

    Raises:
        ConfigError: the profile has no variation of that name.
    """
    with _alone(book):
        pages = book.variations()
        held = [page for page in pages if page.variation == variation]
        if not pages:
            raise ConfigError(
                f"profile {book.profile} has no variations, so none named {variation!r} to drop"
            )
        if not held:
            raise unknown("variation", variation, {page.variation for page in pages})
        book.echo(f"variation {variation} is dropped: {', '.join(page.name for page in held)}")
        shutil.rmtree(book.path(held[0], "").parent)
        return _finish(book)


@contextlib.contextmanager
def _alone(book: Book) -> Iterator[None]:
    """Keep other builds out of the folder."""
    for path in (book.config, *([book.params_file] if book.params_file else [])):
        if not path.is_file():
            raise ConfigError(f"{path} does not exist")
    book.build.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(book.build / ".lock", timeout=0):
            yield
    except Timeout:
        said = f"another build is at work in {book.build}; wait for it or give another folder"
        raise ConfigError(said) from None


def _announce(book: Book, pages: Sequence[Page]) -> None:
    """Say which pages of a variation will be replaced."""
    there = {page.file for page in book.variations()}
    if replaced := [page.name for page in pages if page.file in there]:
        book.echo(f"variation {pages[0].variation} exists; {', '.join(replaced)} of it will be replaced")


def _finish(book: Book, executed: Sequence[Page] = ()) -> BookResult:
    """Stage and build the pages of the whole book, those of earlier builds included; return the result."""
    names, now, varied = book.names, {page.file: page for page in executed}, []
    for page in book.variations():
        told = f"variation {page.variation} of {page.name} is left out"
        if page.name not in names:
            book.echo(f"{told}: the book has no such chapter any more")
        elif page.status == "failed" and page.file not in now:
            drop = f"rkd book --profile {shlex.quote(book.profile)} --drop {shlex.quote(page.variation)}"
            book.echo(f"{told}: it failed in an earlier build; `{drop}` removes it")
        else:
            varied.append(page)
    varied.sort(key=lambda page: (names.index(page.name), page.variation))
    pages = [now.get(page.file, page) for page in [*map(book.page, names), *varied]]
    stage(pages, book)
    result = BookResult(tuple(pages), *(build_html(book) if book.html else ()))
    for line in result.summary():
        book.echo(line)
    return result


# --- variations ---------------------------------------------------------------------------------------------------


def check_variation_name(book: Book, name: str) -> None:
    """Raise ConfigError for a name that cannot be part of a page's address, or would hide a page of the book."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"variation name {name!r}: allowed are up to 40 of a-z, 0-9, '.' and '-', a letter or digit first, no "
            "file ending last, for example lambda-0.9"
        )
    for page in {f"{chapter}--{name}" for chapter in book.names} & {*book.names}:
        raise ConfigError(f"variation name {name!r} is taken: {page} is a chapter of the book")


def varied_chapters(book: Book, parameters: Mapping[str, object], only: Sequence[str]) -> list[str]:
    """Return the chapters a variation executes: those of `only`, or all that declare every parameter.

    Raises:
        ConfigError: no parameter changes a number, the profile is among them, or chapters do not declare one of them.
    """
    wanted = {*parameters} - {*WHERE}
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
    if not differ.keys() - {*WHERE}:
        raise ConfigError(
            f"{path.name} was executed with no parameter that differs from profile {book.profile}; it is no variation"
        )
    return differ


def _mapping(said: object) -> dict:
    return said if isinstance(said, dict) else {}
