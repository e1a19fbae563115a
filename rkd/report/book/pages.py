"""A book on disk, its pages, and the result of a build."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rkd.config import from_values
from rkd.experiments.notebooks import notebook_names, read_notebook
from rkd.experiments.settings import WHERE
from rkd.files import write_atomic

TOKEN = "RKD_BOOK"  # environment variable of chapters that a build executes: which build, which page
VARIATION = "RKD_VARIATION"  # another one if they are executed as a variation: its name
STATUSES = ("ok", "unchanged", "kept", "not executed", "failed")


@dataclass(frozen=True)
class Page:
    """One chapter of a build, or a variation of one.

    Attributes:
        name: that of the chapter's notebook, without suffix.
        status: "ok" (executed now), "failed" (now, or earlier and not fixed since), "unchanged" (an earlier build
            executed it, from what is there now), "kept" (an earlier build executed it) or "not executed".
        seconds: wall-clock time of its execution.
        reason: why it failed, in a few lines.
        finished: end of its execution, UTC, ISO 8601.
        machine: what it ran on.
        variation: name of the variation; empty for the chapter itself.
        parameters: those given to the variation, by name.
        adopted: file name of the notebook it was taken from, if no build executed it.
        key: hash of everything it was executed from.
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
        """Name of the page in the book, without suffix."""
        return f"{self.name}--{self.variation}" if self.variation else self.name

    def given(self) -> list[str]:
        """Return its parameters and their values as text, without those that change no number."""
        told = {name: value for name, value in self.parameters.items() if name not in WHERE}
        return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in told.items()]


@dataclass(frozen=True)
class Book:
    """Sources of a book, and where it is built under one profile.

    Attributes:
        profile: its name, or the path of its file.
        source: folder of notebooks, prose, `_toc.yml` and `_assets`.
        config: the jupyter-book configuration.
        build: folder for all output; the site goes to `_build/html` in it, or `html` if it is named _build.
        params_file: YAML of parameters for every chapter; None: none.
        html: whether to build the site; False: builds stop before it.
        echo: receives one line of progress at a time.
        reads: files and folders that chapters read besides notebooks; if one changes, they are executed again.
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
        """Folder of the site's source."""
        return self.work / "stage"

    @property
    def names(self) -> list[str]:
        """Names of its chapters, in order."""
        return notebook_names(self.source)

    def notebook(self, chapter: str) -> dict:
        """Return a chapter's source."""
        return read_notebook(self.source / f"{chapter}.ipynb")

    def path(self, page: Page, ending: str) -> Path:
        """Return the file with this ending that belongs to a page's execution: the notebook, its log, its state."""
        folder = f"variations/{page.variation}" if page.variation else "chapters"
        return self.work / folder / f"{page.name}{ending}"

    def save(self, page: Page) -> None:
        """Write a page's state beside its executed notebook."""
        write_atomic(self.path(page, ".page.json"), json.dumps(asdict(page), indent=1).encode())

    def page(self, chapter: str, variation: str = "") -> Page:
        """Return the page that an earlier build of the same profile left behind."""
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
        """Return the variations of its profile, sorted by name and chapter."""
        states = sorted(self.work.glob("variations/*/*.page.json"))
        return [self.page(state.name.removesuffix(".page.json"), state.parent.name) for state in states]


@dataclass(frozen=True)
class BookResult:
    """The result of a build: `pages` in the order of the book, the index page, warnings of the HTML build."""

    pages: tuple[Page, ...]
    html: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """File names of the pages that show a failure."""
        return tuple(page.file for page in self.pages if page.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no chapter of the book failed and the HTML build gave no warning."""
        return not self.failed and not self.warnings

    def summary(self) -> list[str]:
        """Return the last lines of a build: counts, failures, warnings, the index page."""
        counts = {status: sum(page.status == status for page in self.pages) for status in STATUSES}
        return [
            ", ".join(f"{count} {status}" for status, count in counts.items() if count),
            *(f"failed: {p.file}: {p.reason.splitlines()[-1]}" for p in self.pages if p.status == "failed"),
            *(f"the HTML build complains: {warning}" for warning in self.warnings),
            *([str(self.html)] if self.html else []),
        ]
