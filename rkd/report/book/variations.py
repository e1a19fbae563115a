"""Variations: chapters executed with other parameters, kept beside the book's own pages."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import declared_parameters, notebook_names, read_notebook
from rkd.report.book.files import Folders
from rkd.report.book.prose import INCIDENTAL
from rkd.report.book.result import Page, kept

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_ENDINGS = (
    ".ipynb",
    ".md",
    ".html",
    ".rst",
    ".txt",
    ".",
)  # such a page's file would pass for one of another kind
LONGEST_NAME = 40


def list_variations(profile: str, *, build_dir: Path) -> tuple[Page, ...]:
    """The variations of a profile, by name and chapter."""
    build_dir = Path(build_dir).resolve()
    folders = Folders(profile, build_dir, build_dir, build_dir)
    states = sorted(folders.variations.glob("*/*.page.json"))
    return tuple(
        kept(state.name.removesuffix(".page.json"), folders, variation=state.parent.name) for state in states
    )


def in_book_order(pages: Sequence[Page], chapters: Sequence[str]) -> list[Page]:
    """Variations of chapters the book has, in its order."""
    present = [page for page in pages if page.name in chapters]
    return sorted(present, key=lambda page: (chapters.index(page.name), page.variation))


def check_name(name: str, book_dir: Path) -> None:
    """Raises ConfigError for a name that cannot be part of a page's address, or would hide a page of the book."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or name.endswith(_ENDINGS):
        raise ConfigError(
            f"variation name {name!r}: allowed are up to {LONGEST_NAME} of a-z, 0-9, '.' and '-', a letter or digit "
            "first, no file ending last, for example lambda-0.9"
        )
    chapters = notebook_names(book_dir)
    for chapter in chapters:
        if f"{chapter}--{name}" in chapters:
            raise ConfigError(f"variation name {name!r} is taken: {chapter}--{name} is a chapter of the book")


def varied_chapters(parameters: Mapping[str, object], only: Sequence[str], book_dir: Path) -> list[str]:
    """The chapters a variation executes: those of `only`, or all that declare every parameter.

    Raises:
        ConfigError: no parameter that changes a number, the profile among them, an unknown chapter, or one that
            does not declare them all.
    """
    wanted = [name for name in parameters if name not in INCIDENTAL]
    if "profile" in wanted:
        raise ConfigError("a variation belongs to one profile; name it with --profile, not as a parameter")
    if not wanted:
        raise ConfigError("a variation needs a parameter that differs, for example -p loss_weight 0.9")
    chapters = notebook_names(book_dir)
    declared = {name: declared_parameters(read_notebook(book_dir / f"{name}.ipynb")) for name in chapters}
    for name in only:
        if name not in chapters:
            raise unknown("chapter", name, chapters)
    for parameter in wanted:
        if not any(parameter in names for names in declared.values()):
            raise unknown("parameter", parameter, {p for names in declared.values() for p in names})
    for name in only:
        for parameter in wanted:
            if parameter not in declared[name]:
                known = ", ".join(sorted(declared[name])) or "no parameters"
                raise ConfigError(f"chapter {name} does not declare {parameter}; it declares {known}")
    if only:
        return [name for name in chapters if name in only]
    fitting = [name for name in chapters if set(wanted) <= set(declared[name])]
    if not fitting:
        raise ConfigError(f"no chapter declares all of {', '.join(wanted)}; give them in two variations")
    return fitting


def replaced(name: str, chapters: Sequence[str], folders: Folders) -> list[str]:
    """Those of the chapters that the variation holds already."""
    return [chapter for chapter in chapters if (folders.of(name) / f"{chapter}.page.json").is_file()]


def remove(name: str, folders: Folders) -> list[str]:
    """Deletes a variation; names of the chapters it held. ConfigError if there is none of that name."""
    pages = list_variations(folders.profile, build_dir=folders.build)
    held = [page.name for page in pages if page.variation == name]
    if not held:
        names = {page.variation for page in pages}
        if not names:
            raise ConfigError(f"profile {folders.profile} has no variations, so none named {name!r} to drop")
        raise unknown("variation", name, names)
    shutil.rmtree(folders.of(name))
    return held
