"""Tables of the book: in a box that scrolls where the page is too narrow."""

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML

from rkd.report.interactive.markup import Html, tag, text


def frame(table: pd.DataFrame, *, index: bool = False, links: Mapping[str, str] | None = None) -> HTML:
    """A DataFrame in such a box, numbers with two decimals; all text in it is escaped.

    Args:
        table: shown without its index, unless `index`.
        links: text of a cell -> address that it leads to.
    """
    linked = {str(text(word)): tag("a", word, href=to) for word, to in (links or {}).items()}

    def name(value: object) -> object:
        return text(value) if isinstance(value, str) else value

    def cell(value: object) -> object:
        if value is None or value is pd.NA:  # which pandas writes as an element
            return ""
        return linked.get(safe := name(value), safe) if isinstance(value, str) else value

    made = table.map(cell).rename(index=name, columns=name).rename_axis(index=name, columns=name)
    form = "{:,.2f}".format
    return HTML(
        scrolling(Html(made.to_html(border=0, index=index, escape=False, na_rep="", float_format=form)))
    )


def scrolling(table: Html) -> Html:
    """A table in a box that scrolls by keyboard too."""
    return tag("div", table, class_="rkd-scroll", role="region", aria_label="table", tabindex="0")


def folded(heading: str, content: Html) -> Html:
    """Content that opens by a click on its heading."""
    return tag("details", tag("summary", heading), content)
