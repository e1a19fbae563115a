"""Tables to search, sort, filter and export, by the DataTables that the itables package carries, without a network."""

from collections.abc import Sequence
from pathlib import Path

import itables.options
from itables.javascript import generate_init_offline_itables_html
from itables.version import __version__

from rkd.report.interactive.assets import attached
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.interactive.plot import Choice, interactive_figure, spec

LIBRARY = f"_itables_{__version__.replace('.', '_')}"  # where the bundle puts its promise


def datatable(
    table: Html,
    filters: Sequence[Choice],
    *,
    label: str,
    buttons: tuple[str, ...] = ("csv",),
    page: int = 25,
    above: Html | None = None,
) -> Html:
    """A table that answers; without scripts it is the whole table, as given.

    Args:
        table: whose rows carry, per filter, `data-NAME`: the values under which they are shown, parted by "|".
        filters: an empty value stands for all. In the book the address takes and gives their values; "#id" of a row
            opens its <details>.
        buttons: of DataTables: "csv", "colvis", "searchBuilder".
        page: rows seen at a time.
        above: between filters and table; a plot whose points name rows follows what is listed.
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
