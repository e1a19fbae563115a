"""The source of the site, assembled from executed chapters, prose and assets."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from rkd.experiments.notebooks import read_notebook, read_toc, title_of, toc_files
from rkd.report.book import metadata
from rkd.report.book.cleaning import clean
from rkd.report.book.files import Folders, write_if_changed
from rkd.report.book.prose import (
    failed_page,
    not_executed_page,
    prose_notebook,
    provenance,
    variation_list,
    variation_note,
    variation_title,
)
from rkd.report.book.result import Page

PART = "Variations"  # caption of the part the variations stand in


def stage(pages: Sequence[Page], folders: Folders) -> None:
    """Assembles the source of the site in `folders.stage`.

    A file whose content is unchanged is not written again, so the HTML build renders anew only what differs.

    Args:
        pages: chapters in the order of the book, and their variations.
        folders: of the build.
    """
    variations = [page for page in pages if page.variation]
    files = {"_toc.yml": _toc(variations, folders.book)}
    assets = folders.book / "_assets"
    for path in sorted(assets.rglob("*")) if assets.is_dir() else ():
        if path.is_file():
            files[path.relative_to(folders.book).as_posix()] = path.read_bytes()
    sources = toc_files(folders.book)
    about = _About(folders, sources[0].stem, card=f"_assets/{metadata.CARD}" in files)
    for path in sources:
        if path.suffix == ".md":
            files[path.name] = about.markdown(path).encode()
    for page in pages:
        of_it = [other for other in variations if other.name == page.name and not page.variation]
        content = about.notebook(page, of_it)
        files[f"{page.file}.ipynb"] = json.dumps(content, indent=1, ensure_ascii=False).encode()

    for name, content in files.items():
        write_if_changed(folders.stage / name, content)
    for path in sorted(folders.stage.rglob("*")):
        if path.is_file() and path.relative_to(folders.stage).as_posix() not in files:
            path.unlink()


def _toc(variations: Sequence[Page], book_dir: Path) -> bytes:
    """The book's `_toc.yml`, with a part for the variations where there are some."""
    if not variations:
        return (book_dir / "_toc.yml").read_bytes()
    toc = read_toc(book_dir)
    if "chapters" in toc:  # parts and chapters do not go together
        toc["parts"] = [{"chapters": toc.pop("chapters")}]
    entries = [{"file": f"{page.file}.ipynb"} for page in variations]
    toc["parts"] = [*toc.get("parts", []), {"caption": PART, "chapters": entries}]
    return yaml.safe_dump(toc, sort_keys=False, allow_unicode=True).encode()


class _About:
    """Pages with their titles, footers and meta elements."""

    def __init__(self, folders: Folders, root: str, *, card: bool) -> None:
        self.folders, self.root, self.card = folders, root, card
        config = yaml.safe_load(folders.config.read_text(encoding="utf8"))
        self.base = str(config.get("html", {}).get("baseurl") or "")
        self.repository = str(config.get("repository", {}).get("url") or "")

    def markdown(self, path: Path) -> str:
        """A page of prose."""
        text = path.read_text(encoding="utf8")
        _, body = metadata.split_front_matter(text)
        heading = {"cells": [{"cell_type": "markdown", "source": body}]}
        title = title_of(heading, path.stem)
        meta = self._meta(title, metadata.describe(iter([body]), title), path.stem)
        return metadata.markdown_with_metadata(text, meta)

    def notebook(self, page: Page, variations: Sequence[Page]) -> dict:
        """A chapter's page, or a variation's."""
        profile, folder = self.folders.profile, self.folders.of(page.variation)
        source = read_notebook(self.folders.book / f"{page.name}.ipynb")
        base_title = title_of(source, page.name)
        title = variation_title(base_title, page) if page.variation else base_title
        prose = source
        if page.status == "failed":
            content = prose_notebook(failed_page(page, title, profile, folder / f"{page.name}.log"))
        elif page.status == "not executed":
            opening = _opening(source)
            content = prose_notebook(not_executed_page(page, title, profile, opening))
        else:
            prose = read_notebook(folder / f"{page.name}.ipynb")
            content = clean(prose, provenance(page, profile), self.repository)
        if page.variation:
            content = _as_variation(content, page, base_title, title)
        if variations:
            content = {
                **content,
                "cells": [*content["cells"], _words("variations", variation_list(variations))],
            }
        description = metadata.describe(metadata.prose_of(prose), title)
        if page.variation:
            description = metadata.describe(iter([f"Variation {page.variation}: {description}"]), title)
        return metadata.with_metadata(content, self._meta(title, description, page.file))

    def _meta(self, title: str, description: str, file: str) -> dict[str, str]:
        root = file == self.root
        return metadata.page_metadata(
            title, description, file=file, root=root, card=self.card, base=self.base
        )


def _as_variation(content: dict, page: Page, base_title: str, title: str) -> dict:
    """With the variation's title, and a note below it."""
    cells, note = [], _words("variation", variation_note(page, base_title))
    for cell in content["cells"]:
        if note and cell["cell_type"] == "markdown":
            heading, _, rest = cell["source"].partition("\n")
            if heading.strip() in (f"# {base_title}", f"# {title}"):
                cells += [{**cell, "source": f"# {title}"}, note]
                note, cell = None, _words("opening", rest.strip())
                if not rest.strip():
                    continue
        cells.append(cell)
    if note:  # a notebook without a heading
        cells = [_words("title", f"# {title}"), note, *cells]
    return {**content, "cells": cells}


def _opening(source: dict) -> str:
    """What a chapter's first Markdown cell says below its title."""
    for cell in source["cells"]:
        if cell["cell_type"] == "markdown":
            heading, _, rest = cell["source"].partition("\n")
            return rest.strip() if heading.startswith("# ") else ""
    return ""


def _words(identity: str, markdown: str) -> dict:
    return {"cell_type": "markdown", "id": identity, "metadata": {}, "source": markdown}
