"""Builds of the book from start to finish."""

import contextlib
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from rkd.errors import ConfigError, unknown
from rkd.plain_yaml import read_yaml
from rkd.report.book.execution import execute
from rkd.report.book.pages import Book, BookResult, Page
from rkd.report.book.site import build_html, stage
from rkd.report.book.variations import adopt, check_variation_name, varied_chapters

if TYPE_CHECKING:
    from rkd.cluster.session import Cluster


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
