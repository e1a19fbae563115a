"""Tables of the book, in a box that scrolls if the page is too narrow, and the colours of its figures."""

import re
from collections.abc import Iterable, Mapping
from numbers import Integral

import numpy as np
import pandas as pd
from IPython.display import HTML

from rkd.report.interactive.markup import Html, tag

COLOURS = {  # of grades of evidence and of sources, the same on every page
    "A": "#009E73", "B": "#222222", "C": "#D55E00", "here": "#CC79A7", "published": "#0072B2",
    "ReviewKD paper": "#0072B2", "[Re] paper": "#56B4E9", "[Re] README": "#332288", "ModReduce README": "#E69F00",
    "KnowledgeDistillation README": "#882255", "KDrefine README": "#999933",
}  # fmt: skip
# A number as text, with at most a short remark after it (longer texts are sentences), or the sign for a missing one.
NUMBER = re.compile(r"[-+−±]?\d.{0,30}|–")


def frame(
    table: pd.DataFrame, caption: str = "", *, index: bool = False, digits: int | None = 2,
    links: Mapping[str, str] | None = None,
) -> HTML:  # fmt: skip
    """Return a DataFrame in such a box. Text is escaped unless it is markup already; columns of words are left-aligned.

    Args:
        table: shown without its index, unless `index`.
        digits: decimals of numbers that are not integers; None: four significant digits.
        links: text of a cell -> address that it links to.
    """
    linked = {word: tag("a", word, href=to) for word, to in (links or {}).items()}
    lead = table.index.names if index else []
    labels = ((label if isinstance(label, tuple) else (label,)) if index else () for label in table.index)
    rows = [(*label, *of) for label, of in zip(labels, table.itertuples(index=False, name=None), strict=True)]
    names = ["" if name is None else name for name in (*lead, *table.columns)]
    kinds = ["text" if _are_words([row[i] for row in rows]) else None for i in range(len(names))]
    heads = (tag("th", n, scope="col", class_=kind) for n, kind in zip(names, kinds, strict=True))
    body = []
    for row in rows:
        said = [linked.get(value, value) if isinstance(value, str) else _said(value, digits) for value in row]
        cells = [
            tag("th", cell, scope="row", class_=kind) if i < len(lead) else tag("td", cell, class_=kind)
            for i, (cell, kind) in enumerate(zip(said, kinds, strict=True))
        ]
        body.append(tag("tr", *cells))
    return HTML(scroll_box(header_table(heads, body, "dataframe", caption)))


def header_table(heads: Iterable[str], rows: Iterable[Html], kind: str, caption: str = "") -> Html:
    """Return a table of rows; `heads` are names of columns or finished cells, `kind` is a CSS class."""
    cells = (head if isinstance(head, Html) else tag("th", head, scope="col") for head in heads)
    above = tag("caption", caption) if caption else ""
    return tag("table", above, tag("thead", tag("tr", *cells)), tag("tbody", *rows), class_=kind)


def _are_words(values: list[object]) -> bool:
    """Whether most values of a column are words."""
    there = [value for value in values if _said(value, 0)]
    words = [value for value in there if isinstance(value, str) and not NUMBER.fullmatch(value)]
    return 2 * len(words) > len(there)


def _said(value: object, digits: int | None) -> str:
    """Return a value as text; empty for a missing one."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float | np.floating):
        short = np.format_float_positional(value, 4, fractional=False, trim="-")
        return (short if digits is None else f"{value:,.{digits}f}").replace("-", "−")
    return str(value)


def scroll_box(table: Html) -> Html:
    """Return a table in a box that scrolls by keyboard too."""
    return tag("div", table, class_="rkd-scroll", role="region", aria_label="table", tabindex="0")


def foldout(heading: str, content: Html) -> Html:
    """Return content that unfolds at a click on its heading."""
    return tag("details", tag("summary", heading), content)
