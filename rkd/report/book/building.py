"""Builds of the book from start to end."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import is_last, notebook_names, read_notebook
from rkd.report.book.adoption import adopt
from rkd.report.book.execution import Run, execute
from rkd.report.book.files import Folders
from rkd.report.book.html import build_html
from rkd.report.book.result import BookResult, Page, kept, summarise
from rkd.report.book.staging import stage
from rkd.report.book.variations import (
    check_name,
    in_book_order,
    list_variations,
    remove,
    replaced,
    varied_chapters,
)

Echo = Callable[[str], object]


def build_book(
    profile: str,
    *,
    book_dir: Path,
    config: Path,
    build_dir: Path,
    params_file: Path | None = None,
    only: Sequence[str] = (),
    jobs: int = 2,
    timeout_s: float = 3600,
    parameters: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    variation: str = "",
    html: bool = True,
    echo: Echo = print,
) -> BookResult:
    """Executes the chapters, stages what came out, and builds the site.

    A chapter counts as executed when its process ends with status 0, its finish mark (`write_mark`) carries
    this build's token, and every record the mark names is there and parses. What papermill writes about a
    run is not consulted: after the death of a kernel it lists every cell as completed.

    Args:
        profile: name of the profile or path of its file; its work lies in `build_dir/NAME`.
        book_dir: notebooks, prose, `_toc.yml` and `_assets`.
        config: the jupyter-book configuration.
        build_dir: the site goes to `build_dir/_build/html`, or `build_dir/html` if it is named _build.
        params_file: YAML of parameters for every chapter.
        only: chapters to execute, all if empty; the others keep the copy an earlier build made.
        jobs: chapters executed at once, sharing the CPU cores evenly.
        timeout_s: wall-clock limit of one chapter, in seconds.
        parameters: override those of `params_file`.
        environment: override the environment of the chapters.
        variation: name of a variation. The chapters of `only`, by default all that declare every one of the
            parameters, are executed as extra pages; the book's own pages keep the copy they have.
        html: False stops after staging.
        echo: receives one line of progress at a time.

    Raises:
        ConfigError: an unknown chapter, a missing file, a limit that is not positive, a variation with a bad name
            or without a parameter its chapters declare, or another build at work in `build_dir`.
    """
    folders = _folders(profile, book_dir, config, build_dir)
    names = notebook_names(folders.book)
    for name in only:
        if name not in names:
            raise unknown("chapter", name, names)
    if jobs < 1 or not 0 < timeout_s < math.inf:
        raise ConfigError(f"jobs is {jobs} and timeout_s is {timeout_s}; both must be positive")
    if params_file is not None and not Path(params_file).is_file():
        raise ConfigError(f"{params_file} does not exist")
    selected = [name for name in names if not only or name in only]
    if variation:
        check_name(variation, folders.book)
        selected = varied_chapters(parameters or {}, only, folders.book)

    run = Run(folders, params_file, timeout_s, parameters or {}, environment or {}, variation)
    last = [name for name in names if is_last(read_notebook(folders.book / f"{name}.ipynb"))]
    with _alone(folders):
        if variation:
            _announce(variation, replaced(variation, selected, folders), echo)
        return _finish(folders, execute(selected, run, jobs, echo, last), variation, html, echo)


def adopt_notebook(
    notebook: Path,
    variation: str,
    profile: str,
    *,
    book_dir: Path,
    config: Path,
    build_dir: Path,
    params_file: Path | None = None,
    html: bool = True,
    echo: Echo = print,
) -> BookResult:
    """Takes a chapter that papermill executed elsewhere into the book as a variation, and builds the site.

    Args:
        notebook: papermill's output.
        variation: its name.
        profile, book_dir, config, build_dir, params_file, html, echo: see `build_book`.

    Raises:
        ConfigError: no chapter of this book, not executed to its end, or no parameter that differs; see
            `rkd.report.book.adoption`.
    """
    import yaml

    folders = _folders(profile, book_dir, config, build_dir)
    check_name(variation, folders.book)
    standing = {}
    if params_file is not None:
        standing = yaml.safe_load(Path(params_file).read_text(encoding="utf8")) or {}
    with _alone(folders):
        there = {
            page.name
            for page in list_variations(profile, build_dir=folders.build)
            if page.variation == variation
        }
        page = adopt(Path(notebook), variation, folders, standing)
        _announce(variation, [page.name] if page.name in there else [], echo)
        return _finish(folders, {page.name: page}, variation, html, echo)


def drop_variation(
    variation: str,
    profile: str,
    *,
    book_dir: Path,
    config: Path,
    build_dir: Path,
    html: bool = True,
    echo: Echo = print,
) -> BookResult:
    """Removes a variation and builds the site without it.

    Raises:
        ConfigError: the profile has no variation of that name.
    """
    folders = _folders(profile, book_dir, config, build_dir)
    with _alone(folders):
        held = remove(variation, folders)
        echo(f"variation {variation} is dropped: {', '.join(held)}")
        return _finish(folders, {}, "", html, echo)


def _folders(profile: str, book_dir: Path, config: Path, build_dir: Path) -> Folders:
    folders = Folders(profile, *(Path(path).resolve() for path in (book_dir, config, build_dir)))
    if not folders.config.is_file():
        raise ConfigError(f"{folders.config} does not exist")
    return folders


@contextlib.contextmanager
def _alone(folders: Folders) -> Iterator[None]:
    """Keeps other builds out of the folder."""
    folders.chapters.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folders.build / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another build is at work in {folders.build}; wait for it or give another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _announce(variation: str, chapters: Sequence[str], echo: Echo) -> None:
    if chapters:
        echo(f"variation {variation} exists; {', '.join(chapters)} of it will be replaced")


def _finish(
    folders: Folders, executed: Mapping[str, Page], variation: str, html: bool, echo: Echo
) -> BookResult:
    """Pages of the whole book, staged and built; `executed` by chapter, all of one variation or of none."""
    names = notebook_names(folders.book)
    of_base = {} if variation else executed
    base = [of_base.get(name) or kept(name, folders) for name in names]
    extra = [
        executed.get(page.name, page) if page.variation == variation else page
        for page in list_variations(folders.profile, build_dir=folders.build)
    ]
    for page in extra:
        if page.name not in names:
            echo(
                f"variation {page.variation} of {page.name} is left out: the book has no such chapter any more"
            )
    pages = (*base, *in_book_order(extra, names))
    stage(pages, folders)
    index, warnings = build_html(folders, echo) if html else (None, ())
    result = BookResult(folders.profile, pages, index, warnings)
    summarise(result, echo)
    return result
