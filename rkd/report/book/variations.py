"""Variations: chapters executed with other parameters, kept beside the book's own pages."""

import re
import shutil
from collections.abc import Mapping, Sequence

from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import declared_parameters, read_notebook
from rkd.report.book.pages import Book, Page, kept

# Parameters that say where and how a chapter runs, not what it computes.
INCIDENTAL = ("data_root", "results", "device", "threads", "compile", "engine", "on_missing")
LONGEST_NAME = 40
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_ENDINGS = (
    ".ipynb",
    ".md",
    ".html",
    ".rst",
    ".txt",
    ".",
)  # the page's file would pass for one of another kind


def list_variations(book: Book) -> list[Page]:
    """The variations of a profile, by name and chapter."""
    states = sorted(book.folder("*").parent.glob("*/*.page.json"))
    return [kept(book, state.name.removesuffix(".page.json"), state.parent.name) for state in states]


def check_name(book: Book, name: str) -> None:
    """Raises ConfigError for a name that cannot be part of a page's address, or would hide a page of the book."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or name.endswith(_ENDINGS):
        raise ConfigError(
            f"variation name {name!r}: allowed are up to {LONGEST_NAME} of a-z, 0-9, '.' and '-', a letter or digit "
            "first, no file ending last, for example lambda-0.9"
        )
    for page in {f"{chapter}--{name}" for chapter in book.names} & {*book.names}:
        raise ConfigError(f"variation name {name!r} is taken: {page} is a chapter of the book")


def varied_chapters(book: Book, parameters: Mapping[str, object], only: Sequence[str]) -> list[str]:
    """The chapters a variation executes: those of `only`, or all that declare every parameter.

    Raises:
        ConfigError: no parameter that changes a number, the profile among them, or one that chapters do not declare.
    """
    wanted = {name for name in parameters if name not in INCIDENTAL}
    if "profile" in wanted:
        raise ConfigError("a variation belongs to one profile; name it with --profile, not as a parameter")
    if not wanted:
        raise ConfigError("a variation needs a parameter that differs, for example -p loss_weight 0.9")
    declared = {n: declared_parameters(read_notebook(book.source / f"{n}.ipynb")) for n in book.names}
    for parameter in sorted(wanted):
        if not any(parameter in names for names in declared.values()):
            raise unknown("parameter", parameter, {p for names in declared.values() for p in names})
    for name in only:
        for parameter in sorted(wanted - {*declared[name]}):
            known = ", ".join(sorted(declared[name])) or "no parameters"
            raise ConfigError(f"chapter {name} does not declare {parameter}; it declares {known}")
    fitting = [name for name in only or book.names if wanted <= {*declared[name]}]
    if not fitting:
        raise ConfigError(
            f"no chapter declares all of {', '.join(sorted(wanted))}; give them in two variations"
        )
    return fitting


def remove(book: Book, name: str) -> list[str]:
    """Deletes a variation; names of the chapters it held. ConfigError if there is none of that name."""
    pages = list_variations(book)
    held = [page.name for page in pages if page.variation == name]
    if not pages:
        raise ConfigError(f"profile {book.profile} has no variations, so none named {name!r} to drop")
    if not held:
        raise unknown("variation", name, {page.variation for page in pages})
    shutil.rmtree(book.folder(name))
    return held
