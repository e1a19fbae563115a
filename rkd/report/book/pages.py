"""A book on disk, its pages, and how they fared."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rkd.config import from_values
from rkd.experiments.notebooks import notebook_names, read_notebook
from rkd.files import write_atomic

TOKEN = "RKD_BOOK"  # in the environment of chapters that a build executes: which build, which page
VARIATION = "RKD_VARIATION"  # there too where they are executed as a variation: its name
STATUSES = ("ok", "unchanged", "kept", "not executed", "failed")


@dataclass(frozen=True)
class Page:
    """One chapter of a build, or a variation of one.

    Attributes:
        name: of the chapter's notebook, without its ending.
        status: "ok" (executed now), "failed" (now, or earlier and not mended since), "unchanged" (an earlier build
            executed it, of what is there now), "kept" (an earlier build executed it) or "not executed".
        seconds: wall-clock time of its execution.
        reason: why it failed, in a few lines.
        finished: end of its execution, UTC, ISO 8601.
        machine: what it ran on.
        variation: name of the variation; empty for the chapter itself.
        parameters: what the variation was given, by name.
        adopted: file name of the notebook it was taken from, where no build executed it.
        key: hash of all it was executed from.
    """

    name: str
    status: str = "not executed"
    seconds: float = 0.0
    reason: str = ""
    finished: str = ""
    machine: str = ""
    variation: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    adopted: str = ""
    key: str = ""

    @property
    def file(self) -> str:
        """Name of the page in the book, without ending."""
        return f"{self.name}--{self.variation}" if self.variation else self.name


@dataclass(frozen=True)
class Book:
    """Sources of a book, and where it is built under one profile.

    Attributes:
        profile: its name, or the path of its file.
        source: folder of notebooks, prose, `_toc.yml` and `_assets`.
        config: the jupyter-book configuration.
        build: folder of everything that is made; the site goes to `_build/html` in it, or `html` if it is named _build.
        params_file: YAML of parameters for every chapter; None: none.
        html: False: builds stop before the site.
        echo: receives one line of progress at a time.
        reads: files and folders that chapters read besides notebooks; where one changes, they are executed again.
    """

    profile: str
    source: Path
    config: Path
    build: Path
    params_file: Path | None = None
    html: bool = True
    echo: Callable[[str], object] = print
    reads: tuple[Path, ...] = ()

    @property
    def work(self) -> Path:
        return self.build / Path(self.profile).stem

    @property
    def stage(self) -> Path:
        """Source of the site."""
        return self.work / "stage"

    @property
    def names(self) -> list[str]:
        """Its chapters, in their order."""
        return notebook_names(self.source)

    def notebook(self, chapter: str) -> dict:
        """A chapter's source."""
        return read_notebook(self.source / f"{chapter}.ipynb")

    def path(self, page: Page, ending: str) -> Path:
        """The file of a page's execution with this ending: the notebook, its log, its state."""
        folder = f"variations/{page.variation}" if page.variation else "chapters"
        return self.work / folder / f"{page.name}{ending}"

    def save(self, page: Page) -> None:
        """Keeps a page's state beside its executed notebook."""
        write_atomic(self.path(page, ".page.json"), json.dumps(asdict(page), indent=1).encode())

    def page(self, chapter: str, variation: str = "") -> Page:
        """The page an earlier build of the same profile left behind."""
        none = Page(chapter, variation=variation)
        state = self.path(none, ".page.json")
        if not state.is_file():
            return none
        try:
            kept = json.loads(state.read_text(encoding="utf8"))
            known = {name: value for name, value in kept.items() if name in none.__dict__}
            page = from_values(Page, {**known, "name": chapter, "variation": variation})
        except (ValueError, TypeError, AttributeError):
            return replace(none, status="failed", reason="what an earlier build kept of it cannot be read")
        return page if page.status == "failed" else replace(page, status="kept")

    def variations(self) -> list[Page]:
        """The variations of its profile, by name and chapter."""
        states = sorted(self.work.glob("variations/*/*.page.json"))
        return [self.page(state.name.removesuffix(".page.json"), state.parent.name) for state in states]


@dataclass(frozen=True)
class BookResult:
    """What a build made: `pages` in the order of the book, the index page, complaints of the HTML build."""

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

    def summary(self) -> list[str]:
        """The last lines of a build: counts, failures, complaints, the index page."""
        counts = {status: sum(page.status == status for page in self.pages) for status in STATUSES}
        return [
            ", ".join(f"{count} {status}" for status, count in counts.items() if count),
            *(f"failed: {p.file}: {p.reason.splitlines()[-1]}" for p in self.pages if p.status == "failed"),
            *(f"the HTML build complains: {warning}" for warning in self.warnings),
            *([str(self.html)] if self.html else []),
        ]
