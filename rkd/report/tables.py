"""Tables of the book: in a box that scrolls where the page is too narrow."""

import html
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML


def frame(table: pd.DataFrame, *, html: bool = False, index: bool = False) -> HTML:
    """A DataFrame in such a box, numbers with two decimals.

    Args:
        table: shown without its index, unless `index`.
        html: its cells hold HTML and stay as they are; else everything is escaped.
    """
    made = table.to_html(border=0, index=index, escape=not html, na_rep="", float_format="{:,.2f}".format)
    return HTML(scrolling(made))


def table_of(heads: Sequence[str], rows: Sequence[str], kind: str) -> str:
    """A table in such a box; `rows` are finished <tr> elements."""
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in heads)
    body = "\n".join(rows)
    table = f'<table class="rkd-table {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolling(table)


def scrolling(table: str) -> str:
    """A table in a box that scrolls by keyboard too."""
    return f'<div class="rkd-scroll" role="region" aria-label="table" tabindex="0">{table}</div>'


def folded(heading: str, content: str) -> str:
    """Content that opens by a click on its heading."""
    return f"<details><summary>{html.escape(heading)}</summary>{content}</details>"
