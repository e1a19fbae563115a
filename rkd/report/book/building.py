"""Builds of the book from start to end."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import is_last, read_notebook
from rkd.report.book.adoption import adopt
from rkd.report.book.execution import Run, execute
from rkd.report.book.html import build_html
from rkd.report.book.pages import Book, BookResult, Page, kept
from rkd.report.book.staging import stage
from rkd.report.book.variations import check_name, list_variations, remove, varied_chapters


def build_book(
    book: Book,
    *,
    only: Sequence[str] = (),
    jobs: int = 2,
    timeout_s: float = 3600,
    parameters: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    variation: str = "",
) -> BookResult:
    """Executes the chapters, stages what came out, and builds the site.

    Args:
        book: what is built.
        only: chapters to execute, all if empty; the others keep the copy an earlier build made.
        jobs: chapters executed at once, sharing the CPU cores evenly.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of the profile.
        environment: override the environment of the chapters.
        variation: name of a variation. The chapters of `only`, by default all that declare every one of the
            parameters, are executed as extra pages; the book's own pages keep the copy they have.

    Raises:
        ConfigError: an unknown chapter, a missing file, a limit that is not positive, a variation with a bad name
            or without a parameter its chapters declare, or another build at work in the folder.
    """
    names = book.names
    for name in only:
        if name not in names:
            raise unknown("chapter", name, names)
    if jobs < 1 or not 0 < timeout_s < math.inf:
        raise ConfigError(f"jobs is {jobs} and timeout_s is {timeout_s}; both must be positive")
    selected = [name for name in names if not only or name in only]
    if variation:
        check_name(book, variation)
        selected = varied_chapters(book, parameters or {}, only and selected)
    run = Run(book, timeout_s, parameters or {}, environment or {}, variation)
    last = [name for name in names if is_last(read_notebook(book.source / f"{name}.ipynb"))]
    with _alone(book):
        _announce(book, variation, selected)
        return _finish(book, execute(selected, run, jobs, last), variation)


def adopt_notebook(book: Book, notebook: Path, variation: str) -> BookResult:
    """Takes a chapter that papermill executed elsewhere into the book as a variation, and builds the site.

    Raises:
        ConfigError: a bad name, no chapter of this book, not executed to its end, or no parameter that differs.
    """
    check_name(book, variation)
    with _alone(book):
        before = list_variations(book)
        page = adopt(book, Path(notebook), variation)
        _announce(book, variation, [page.name], before)
        return _finish(book, {page.name: page}, variation)


def drop_variation(book: Book, variation: str) -> BookResult:
    """Removes a variation and builds the site without it.

    Raises:
        ConfigError: the profile has no variation of that name.
    """
    with _alone(book):
        book.echo(f"variation {variation} is dropped: {', '.join(remove(book, variation))}")
        return _finish(book, {}, "")


@contextlib.contextmanager
def _alone(book: Book) -> Iterator[None]:
    """Keeps other builds out of the folder."""
    for path in (book.config, *([book.params_file] if book.params_file else [])):
        if not path.is_file():
            raise ConfigError(f"{path} does not exist")
    book.folder("").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(book.build / ".lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"another build is at work in {book.build}; wait for it or give another folder"
        ) from None


def _announce(
    book: Book, variation: str, chapters: Sequence[str], before: Sequence[Page] | None = None
) -> None:
    """Says which pages of a variation will be replaced."""
    there = {
        p.name for p in (list_variations(book) if before is None else before) if p.variation == variation
    }
    if replaced := [name for name in chapters if name in there]:
        book.echo(f"variation {variation} exists; {', '.join(replaced)} of it will be replaced")


def _finish(book: Book, executed: Mapping[str, Page], variation: str) -> BookResult:
    """Pages of the whole book, staged and built; `executed` by chapter, all of one variation or of none."""
    names = book.names
    pages = [({} if variation else executed).get(name) or kept(book, name) for name in names]
    extra = [
        executed.get(page.name, page) if page.variation == variation else page
        for page in list_variations(book)
    ]
    for page in extra:
        if page.name not in names:
            book.echo(
                f"variation {page.variation} of {page.name} is left out: the book has no such chapter any more"
            )
    present = (page for page in extra if page.name in names)
    pages += sorted(present, key=lambda page: (names.index(page.name), page.variation))
    stage(pages, book)
    result = BookResult(tuple(pages), *(build_html(book) if book.html else ()))
    for line in result.summary():
        book.echo(line)
    return result
