"""The source of the site, assembled from executed chapters, prose and assets."""

import json
from collections.abc import Sequence

import yaml

from rkd.colab import first_cell
from rkd.experiments.notebooks import read_notebook, read_toc, title_of, toc_files
from rkd.report.book.pages import Book, Page, write_if_changed
from rkd.report.book.prose import (
    failed_page,
    not_executed_page,
    provenance,
    variation_list,
    variation_note,
)

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def stage(pages: Sequence[Page], book: Book) -> None:
    """Assembles the source of the site in `book.stage`, of chapters in the order of the book, and their variations.

    A file whose content is unchanged is not written again, so the HTML build renders anew only what differs.
    """
    variations = [page for page in pages if page.variation]
    copied = [path for path in toc_files(book.source) if path.suffix == ".md"]
    copied += [path for path in (book.source / "_assets").rglob("*") if path.is_file()]
    files = {path.relative_to(book.source).as_posix(): path.read_bytes() for path in copied}
    files["_toc.yml"] = _toc(variations, book)
    config = yaml.safe_load(book.config.read_text(encoding="utf8"))
    repository = config.get("repository", {}).get("url", "")
    for page in pages:
        of_it = [other for other in variations if other.name == page.name and not page.variation]
        content = _notebook(page, of_it, book, repository)
        files[f"{page.file}.ipynb"] = json.dumps(content, indent=1, ensure_ascii=False).encode()

    for name, content in files.items():
        write_if_changed(book.stage / name, content)
    for path in book.stage.rglob("*"):
        if path.is_file() and path.relative_to(book.stage).as_posix() not in files:
            path.unlink()


def _toc(variations: Sequence[Page], book: Book) -> bytes:
    """The book's `_toc.yml`, with a part for the variations where there are some."""
    if not variations:
        return (book.source / "_toc.yml").read_bytes()
    toc = read_toc(book.source)
    if "chapters" in toc:  # parts and chapters do not go together
        toc["parts"] = [{"chapters": toc.pop("chapters")}]
    entries = [{"file": f"{page.file}.ipynb"} for page in variations]
    toc["parts"] = [*toc.get("parts", []), {"caption": "Variations", "chapters": entries}]
    return yaml.safe_dump(toc, sort_keys=False, allow_unicode=True).encode()


def _notebook(page: Page, variations: Sequence[Page], book: Book, repository: str) -> dict:
    """A chapter's page, or a variation's: always a notebook, so that all links to it hold."""
    source = read_notebook(book.source / f"{page.name}.ipynb")
    base_title = title_of(source, page.name)
    title = f"{base_title} ({page.variation})" if page.variation else base_title
    if page.status == "failed":
        cells, metadata = [_words("page", failed_page(page, title, book))], KERNEL
    elif page.status == "not executed":
        cells, metadata = [_words("page", not_executed_page(page, title, book, _opening(source)))], KERNEL
    else:
        executed = read_notebook(book.folder(page.variation) / f"{page.name}.ipynb")
        cells, metadata = shown(executed["cells"], repository), executed["metadata"]
        cells.append(_words("provenance", provenance(page, book)))
    if page.variation:
        cells = _as_variation(cells, page, base_title, title)
    if variations:
        cells.append(_words("variations", variation_list(variations)))
    metadata = {k: v for k, v in metadata.items() if k != "papermill"} | {"rkd": {"chapter": page.name}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def shown(cells: Sequence[dict], repository: str) -> list[dict]:
    """Cells of an executed notebook as the book shows them: parameters folded, and a first one for Colab.

    Args:
        cells: of nbformat 4; not changed.
        repository: address of the project; without it, there is no cell for Colab.
    """
    found = []
    for cell in cells:
        metadata = {k: v for k, v in cell["metadata"].items() if k not in ("papermill", "execution")}
        tags = metadata.get("tags", [])
        if "colab" in tags:  # of a notebook downloaded from a built book
            continue
        if {"parameters", "injected-parameters"} & set(tags):
            metadata["tags"] = [*tags, "hide-input"]
        if "injected-parameters" in tags:  # the notebook's own cell stands above
            prompts = {
                f"code_prompt_{verb}": f"{verb.capitalize()} what was given here" for verb in ("show", "hide")
            }
            metadata["mystnb"] = prompts
        found.append({**cell, "metadata": metadata})
    if repository:
        place = next((i for i, cell in enumerate(found) if cell["cell_type"] == "code"), 0)
        found.insert(place, first_cell(repository))
    return found


def _as_variation(cells: Sequence[dict], page: Page, base_title: str, title: str) -> list[dict]:
    """With the variation's title, and a note below it."""
    head = [_words("title", f"# {title}"), _words("variation", variation_note(page, base_title))]
    for i, cell in enumerate(cells):
        heading, _, rest = cell["source"].partition("\n")
        if cell["cell_type"] == "markdown" and heading.strip() in (f"# {base_title}", f"# {title}"):
            opening = [_words("opening", rest.strip())] if rest.strip() else []
            return [*cells[:i], *head, *opening, *cells[i + 1 :]]
    return [*head, *cells]  # a notebook without a heading


def _opening(source: dict) -> str:
    """What a chapter's first Markdown cell says below its title."""
    first = next((cell["source"] for cell in source["cells"] if cell["cell_type"] == "markdown"), "")
    heading, _, rest = first.partition("\n")
    return rest.strip() if heading.startswith("# ") else ""


def _words(identity: str, markdown: str) -> dict:
    return {"cell_type": "markdown", "id": identity, "metadata": {}, "source": markdown}
