"""What a notebook's own cells need to show a DataFrame and a mean as the rest of the book does."""

import pandas as pd
from IPython.display import HTML

from rkd.report.tables import scrolling


def frame(table: pd.DataFrame, *, html: bool = False) -> HTML:
    """A DataFrame without its index in a box that scrolls where the page is too narrow, numbers with two decimals;
    `html`: its cells hold HTML and stay as they are."""
    made = table.to_html(border=0, index=False, escape=not html, na_rep="", float_format="{:,.2f}".format)
    return HTML(scrolling(made))


def mean_sd(values: pd.Series) -> str:
    """Mean and sample standard deviation, "71.20 ± 0.30"; one value stands alone, and none is "missing"."""
    values = values.dropna()
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}" if len(values) else "missing"
