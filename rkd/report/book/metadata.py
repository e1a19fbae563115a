"""What a page says of itself to search engines and to those who share a link: HTML meta elements."""

import re
from collections.abc import Iterator, Mapping

import yaml

LONGEST = 200  # characters of a description
CARD = "card.png"  # of book/_assets, made by rkd.report.book.card


def page_metadata(
    title: str, description: str, *, file: str, root: bool, card: bool, base: str = ""
) -> dict[str, str]:
    """Meta elements in the spelling of MyST's html_meta.

    Args:
        title: of the page.
        description: plain text.
        file: name of the page without ending.
        root: whether it is the front page.
        card: whether the book has a picture for shared links.
        base: address the site is published at (html.baseurl of the configuration). Where it is empty the picture
            is named relative to the page: readers of meta elements who insist on whole addresses show none.
    """
    base = f"{base.rstrip('/')}/" if base else ""
    meta = {
        "description": description,
        "property=og:title": title,
        "property=og:description": description,
        "property=og:type": "website" if root else "article",
    }
    if base:
        meta["property=og:url"] = f"{base}{file}.html"
    if card:
        meta["property=og:image"] = f"{base}_static/{CARD}"
    return {**meta, "twitter:card": "summary_large_image" if card else "summary"}


def with_metadata(notebook: Mapping, meta: Mapping[str, str]) -> dict:
    """The notebook with meta elements; those it has of its own stay."""
    metadata = notebook["metadata"]
    own = metadata.get("myst", {})
    myst = {**own, "html_meta": {**meta, **own.get("html_meta", {})}}
    return {**notebook, "metadata": {**metadata, "myst": myst}}


def markdown_with_metadata(text: str, meta: Mapping[str, str]) -> str:
    """A Markdown page with meta elements in its front matter; those it has of its own stay."""
    front, body = split_front_matter(text)
    own = front.get("myst", {})
    front = {**front, "myst": {**own, "html_meta": {**meta, **own.get("html_meta", {})}}}
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{body.lstrip()}"


def split_front_matter(text: str) -> tuple[dict, str]:
    """Front matter and the rest of a Markdown page."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return (yaml.safe_load(found[1]) or {}, text[found.end() :]) if found else ({}, text)


def describe(texts: Iterator[str], default: str) -> str:
    """The first sentences of the first paragraph of prose, without Markdown, at most 200 characters.

    >>> describe(iter(["# Title\\n\\n**Claim.** *Maps* of [equal](a.md) depth meet. More."]), "")
    'Maps of equal depth meet. More.'
    """
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", _without_blocks(text)):
            words = _plain_words(paragraph)
            if words:
                return _shortened(words)
    return _shortened(default)


def prose_of(notebook: Mapping) -> Iterator[str]:
    """Markdown of a notebook in reading order, cells and outputs."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                yield "".join(output["data"]["text/markdown"])


def _without_blocks(text: str) -> str:
    """Markdown without fenced blocks and displayed formulas."""
    text = re.sub(r"^(`{3,}|:{3,}|~{3,}).*?^\1[`:~]*\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)


def _plain_words(paragraph: str) -> str:
    """A paragraph's text; empty for headings, tables, lists, HTML and pictures."""
    lines = [line for line in paragraph.strip().splitlines() if not line.startswith("#")]
    text = " ".join(lines).strip()
    if re.match(r"[|<>!+-]|\d+\. |\* |\(.*\)=$|---", text):
        return ""
    text = re.sub(r"^\*\*[^*]+[.:]\*\* *", "", text)  # a bold run-in heading
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\{[a-z:-]+\}`([^`<]*)[^`]*`", r"\1", text)
    text = re.sub(r"<[^>]+>|[`$]|\*\*?(?=\S)|(?<=\S)\*\*?|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)", "", text)
    return re.sub(r"\s+", " ", text).strip()


def _shortened(text: str) -> str:
    """Whole sentences up to the limit; the first one cut between words if it alone is longer."""
    kept = ""
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z(])", text):
        if len(kept) + 1 + len(sentence) > LONGEST:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or text[: LONGEST - 1].rpartition(" ")[0].rstrip(",;:") + "…"
