"""What a build made: pages and their states."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rkd.report.book.files import Folders, write_if_changed

STATUSES = ("ok", "kept", "not executed", "failed")


@dataclass(frozen=True)
class Page:
    """One chapter of a build, or a variation of one.

    Attributes:
        name: of the chapter's notebook, without its ending.
        status: "ok" (executed now), "failed" (now, or earlier and not mended since), "kept" (executed in an
            earlier build) or "not executed".
        seconds: wall-clock time of its execution.
        reason: why it failed, in a few lines.
        finished: end of its execution, UTC, ISO 8601.
        machine: what the chapter said of the machine it ran on.
        variation: name of the variation; empty for the chapter itself.
        parameters: what the variation was given, by name.
        adopted: file name of the notebook it was taken from, where no build executed it.
        edited: whether an adopted notebook's cells differ from the chapter's.
    """

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    finished: str = ""
    machine: str = ""
    variation: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    adopted: str = ""
    edited: bool = False

    @property
    def file(self) -> str:
        """Name of the page in the book, without ending."""
        return f"{self.name}--{self.variation}" if self.variation else self.name


@dataclass(frozen=True)
class BookResult:
    """What a build made: `pages` in the order of the book, the index page, complaints of the HTML build."""

    profile: str
    pages: tuple[Page, ...]
    html: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """File names of the pages that show a failure."""
        return tuple(page.file for page in self.pages if page.status == "failed")

    @property
    def ok(self) -> bool:
        """No failed chapter in the book and no complaint of the HTML build."""
        return not self.failed and not self.warnings


def file_state(page: Page, folder: Path) -> None:
    """Keeps a page's state beside its notebook."""
    write_if_changed(folder / f"{page.name}.page.json", json.dumps(asdict(page), indent=1))


def kept(chapter: str, folders: Folders, variation: str = "") -> Page:
    """The page an earlier build of the same profile left behind."""
    state = folders.of(variation) / f"{chapter}.page.json"
    if not state.is_file():
        return Page(chapter, "not executed", variation=variation)
    page = Page(**json.loads(state.read_text(encoding="utf8")))
    if page.status == "failed":
        return page
    return Page(**{**asdict(page), "status": "kept"})


def summarise(result: BookResult, echo: Callable[[str], object]) -> None:
    """The last lines of a build: counts, failures, complaints, the index page."""
    counts = {status: sum(page.status == status for page in result.pages) for status in STATUSES}
    echo(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    for page in result.pages:
        if page.status == "failed":
            echo(f"failed: {page.file}: {page.reason.splitlines()[-1] if page.reason else ''}")
    for warning in result.warnings:
        echo(f"the HTML build complains: {warning}")
    if result.html:
        echo(f"{result.html}")
