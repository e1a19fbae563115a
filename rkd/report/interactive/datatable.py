"""Tables to search, sort, filter and export, using the DataTables bundled with itables, without a network."""

from collections.abc import Sequence
from pathlib import Path

import itables.options
from itables.javascript import generate_init_offline_itables_html
from itables.version import __version__

from rkd.report.interactive.assets import attached
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.interactive.plot import Choice, interactive_figure, spec

LIBRARY = f"_itables_{__version__.replace('.', '_')}"  # name under which the bundle stores its promise


def datatable(
    table: Html,
    filters: Sequence[Choice],
    *,
    label: str,
    buttons: tuple[str, ...] = ("csv",),
    page: int = 25,
    above: Html | None = None,
) -> Html:
    """Return an interactive table; without scripts it is the whole table, as given.

    Args:
        table: its rows carry, per filter, `data-NAME`: the values for which they are shown, separated by "|".
        filters: an empty value stands for all. In the book their values are read from the page's address and written to
            it; "#id" of a row opens its <details>.
        buttons: those of DataTables: "csv", "colvis", "searchBuilder".
        page: rows shown at a time.
        above: placed between filters and table; a plot whose points name rows shows what is listed.
    """
    language = {"search": "Words", "info": "_START_ to _END_ of _TOTAL_", "infoFiltered": "(of _MAX_ in all)"}
    options = {
        "pageLength": page,
        "order": [],
        "layout": {"topStart": {"buttons": buttons}, "topEnd": "search"},
        "language": {**language, "zeroRecords": "Nothing matches these filters."},
        "autoWidth": False,
    }
    framed = tag("div", table, class_="rkd-datatable", role="region", aria_label=label, tabindex="0")
    inside = above or "", framed, spec(options)
    drawn = interactive_figure("table", filters, f"Filters of {label}", *inside, library=LIBRARY)
    bundle = generate_init_offline_itables_html(Path(itables.options.dt_bundle)).partition("<div")[0]
    return join(Html(bundle), drawn, attached(plotly=bool(above)))
