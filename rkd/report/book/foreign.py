"""Notebooks that were executed elsewhere, and what a page shows of them.

Nothing in them is acted upon. Markdown that is not the chapter's own is read as plain Markdown, without directives,
roles and HTML; of outputs, only text, tables and pictures remain. Metadata is dropped: it may ask for an execution.
"""

import ast
import base64
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rkd.colab import first_cell
from rkd.report.interactive.markup import Html, tag

OF_BUILDS = {"provenance", "variations"}  # cells that a build appends, by id
_DROPPED = {  # with their content
    "script", "style", "template", "title", "noscript", "svg", "math", "iframe", "object", "embed", "form", "button",
    "select", "textarea", "audio", "video", "canvas",
}  # fmt: skip
_TAGS = (nh3.ALLOWED_TAGS | {"section", "figure", "figcaption"}) - {"map", "area"} - _DROPPED
_ATTRIBUTES = {
    "*": {"class", "style", "hidden", "scope", "colspan", "rowspan", "title"},
    "a": {"href"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
}
_NO_PYTHON = SyntaxError, ValueError, RecursionError, MemoryError
_STYLES = {"text-align", "width", "max-width", "grid-template-columns"}
_VALUES = {  # what a value may be; an attribute with another value is dropped
    "class": re.compile(r"rkd-[\w-]+|dataframe|num|text|smoke|mini|paper|good|fair|bad|info|none"),
    "href": re.compile(r"(?i:https?://|mailto:).*|[\w.-]+\.html(?:#.*)?", re.DOTALL),
    "src": re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*"),
}


def sanitise(html: str) -> Html:
    """Return the HTML reduced to text, tables, links and embedded pictures; nothing in it runs or is fetched."""
    kept = {
        "tags": _TAGS,
        "clean_content_tags": _DROPPED,
        "attributes": _ATTRIBUTES,
        "attribute_filter": _allowed,
    }
    kept |= {"filter_style_properties": _STYLES, "url_schemes": {"http", "https", "mailto", "data"}}
    return Html(nh3.clean(_characters(html), **kept))


def _allowed(element: str, name: str, value: str) -> str | None:
    if name not in _VALUES:
        return value
    parts = value.split() if name == "class" else [value]
    return " ".join(filter(_VALUES[name].fullmatch, parts)) or None


def render_plain(markdown: str) -> Html:
    """Return plain Markdown, with tables, as HTML; directives, roles, formulas and HTML in it are shown as text."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    reader.add_render_rule("fence", _fence)
    made = reader.render(_characters(markdown))
    return sanitise(re.sub(r'(<a href="[\w.-]+)\.ipynb(?=[#"])', r"\1.html", made))


def static_cells(notebook: Mapping, source: Mapping, repository: str) -> tuple[list[dict], str]:
    """Return a notebook's cells as the page shows them, and a sentence on cells that are not those of the chapter whose
    `source` is given, or that are missing; empty if there are none."""
    own = source["cells"]
    cells = [cell for cell in notebook["cells"] if not _of_build(cell, repository)]
    matched = SequenceMatcher(None, [*map(_compared, own)], [*map(_compared, cells)], autojunk=False)
    blocks = matched.get_matching_blocks()
    same = {b + i: own[a + i] for a, b, size in blocks for i in range(size)}
    made, other = [], []
    for i, cell in enumerate(cells):
        chapters, tags = same.get(i), []
        if chapters is not None:
            tags = chapters["metadata"].get("tags", [])
        elif _is_injected(cell, notebook):
            tags = ["injected-parameters"]
        else:
            other.append(str(i + 1))
            made.append(_cell(f"other-{i}", "markdown", f"*Cell {i + 1} is not the chapter's.*"))
        if cell["cell_type"] == "code":
            outputs = [_output(output) for output in cell["outputs"]]
            made.append(_cell(f"cell-{i}", "code", _characters(cell["source"]), tags, outputs))
        elif chapters is not None:
            made.append(_cell(f"cell-{i}", "markdown", chapters["source"]))
        else:
            words = [_shown(render_plain(cell["source"]))]
            unseen = "# Markdown, read plainly"  # a cell without code is left out
            made.append(_cell(f"cell-{i}", "code", unseen, ["remove-input"], words))
    said = [f"not the chapter's: {'cell' if len(other) == 1 else 'cells'} {', '.join(other)}"] * bool(other)
    if lacking := len(own) - len(same):
        said.append(f"not here: {lacking} of the chapter's")
    return made, "; ".join(said)


def _compared(cell: Mapping) -> tuple[str, str]:
    """Return a cell's type and content without layout and comments, which do not count."""
    kind, source = cell["cell_type"], cell["source"]
    try:
        return kind, ast.dump(ast.parse(source)) if kind == "code" else " ".join(source.split())
    except _NO_PYTHON:  # or it holds IPython's own commands
        return kind, source


def _of_build(cell: Mapping, repository: str) -> bool:
    """Whether a build of a book put the cell there."""
    if cell["cell_type"] == "code":
        return cell["source"] == first_cell(repository)["source"]
    return cell.get("id") in OF_BUILDS


def _is_injected(cell: Mapping, notebook: Mapping) -> bool:
    """Whether a cell assigns the parameters that papermill was given, and does nothing else."""
    if "injected-parameters" not in cell["metadata"].get("tags", []):
        return False
    try:
        body = ast.parse(cell["source"]).body
        given = {target.id: ast.literal_eval(one.value) for one in body for (target,) in [one.targets]}
    except (*_NO_PYTHON, AttributeError):
        return False
    return given == notebook["metadata"]["papermill"]["parameters"]


def _cell(id: str, kind: str, source: str, tags: Sequence[str] = (), outputs: Sequence[dict] = ()) -> dict:
    cell = {"cell_type": kind, "id": id, "metadata": {"tags": [*tags]}, "source": source}
    return cell | ({"execution_count": None, "outputs": [*outputs]} if kind == "code" else {})


def _output(output: Mapping) -> dict:
    """Return an output in a form that can be shown: of its several forms, the first that is known."""
    if output["output_type"] == "stream":
        name = "stderr" if output["name"] == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": _characters(_joined(output["text"]))}
    data = {kind: _joined(value) for kind, value in output["data"].items() if isinstance(value, str | list)}
    alt = data.get("text/plain", "")
    if "text/html" in data:
        return _shown(sanitise(data["text/html"]))
    if svg := data.get("image/svg+xml"):
        data["image/svg+xml"] = base64.b64encode(_characters(svg).encode()).decode()
    for kind in ("image/svg+xml", "image/png", "image/jpeg"):
        if kind in data:
            return _shown(sanitise(tag("img", src=f"data:{kind};base64,{data[kind]}", alt=_characters(alt))))
    return _shown(render_plain(data["text/markdown"]) if "text/markdown" in data else tag("pre", alt))


def _shown(html: Html) -> dict:
    return {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}


def _joined(said: str | Sequence[str]) -> str:
    return said if isinstance(said, str) else "".join(map(str, said))


def _characters(said: str) -> str:
    """Return the text with a replacement mark for each invalid character."""
    return said.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _fence(renderer: object, tokens: Sequence[Token], i: int, *options: object) -> str:
    """Render a block of code; that of a directive with its name."""
    name = f"{tokens[i].info.strip()}\n" * tokens[i].info.startswith("{")
    return tag("pre", tag("code", name + tokens[i].content))
