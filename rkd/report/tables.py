"""Tables of the book, in a box that scrolls where the page is too narrow; and the colours of its figures."""

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML

from rkd.report.interactive.markup import Html, tag, text

COLOURS = {  # of grades of evidence and of sources, the same on every page
    "A": "#009E73", "B": "#222222", "C": "#D55E00", "here": "#CC79A7", "published": "#0072B2",
    "ReviewKD paper": "#0072B2", "[Re] paper": "#56B4E9", "[Re] README": "#332288", "ModReduce README": "#E69F00",
    "KnowledgeDistillation README": "#882255", "KDrefine README": "#999933",
}  # fmt: skip


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
