"""Pictures that respond to mouse and keyboard: plotly figures, each with a static picture of the same data and an
alternative text, and pages to go through."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.report.interactive.assets import attached
from rkd.report.interactive.markup import Html, join, picture, tag, text

GREY = "#7f8790"  # reads on light and dark pages
PANELS = 6  # of the static picture, at most
_AXIS = {"gridcolor": "rgba(127,135,144,.25)", "linecolor": GREY, "zeroline": False, "automargin": True}
_LAYOUT = {
    "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "margin": dict.fromkeys("lrtb", 10),
    "font": {"size": 13}, "hoverlabel": {"namelength": -1, "font": {"size": 12}}, "xaxis": _AXIS, "yaxis": _AXIS,
}  # fmt: skip
_DASHES = {"dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_MARKERS = {"circle": "o", "diamond": "D", "x": "X", "square": "s"}


@dataclass(frozen=True)
class Choice:
    """A choice of one of several values, in a <select>.

    Attributes:
        name: traces whose `meta["facets"]` name it are shown while their value is chosen; if two choices share a name,
            in either. "from" is the share of the x axis that is left out at its start.
        options: value -> what it is called; the first is chosen initially.
    """

    name: str
    label: str
    options: Mapping[str, str]

    def html(self) -> Html:
        options = (tag("option", said, value=value) for value, said in self.options.items())
        return tag("label", tag("span", self.label), tag("select", *options, name=self.name))


def checkbox(name: str, label: str, value: str) -> Html:
    """Return a checkbox, ticked initially, that shows the traces with this value of the facet `name`."""
    return tag("label", tag("input", type="checkbox", name=name, value=value, checked=True), label)


def slider(name: str, label: str, low: int, high: int, start: int, said: Sequence[str] = ()) -> Html:
    """Return a slider for a whole number, also by the arrow keys. Named "at", it reads out a plot at that place of its
    x axis; named "page", it goes through the pages of a pager, whose names are `said`."""
    shown = said[start] if said else start
    words = {"data_said": json.dumps(said) if said else None, "aria_valuetext": shown}
    bar = tag("input", type="range", min=low, max=high, value=start, name=name, **words)
    return tag("label", tag("span", label), bar, tag("output", shown), class_="rkd-slider")


def interactive_figure(
    kind: str,
    controls: Sequence[Choice | Html],
    label: str,
    *inside: object,
    title: str = "",
    library: str | None = None,
) -> Html:
    """Return a figure for `interactive.js`: a form with this label, shown only once the script runs, and what it acts
    on."""
    made = (c.html() if isinstance(c, Choice) else c for c in controls)
    form = tag("form", *made, class_="rkd-controls", aria_label=label) if controls else ""
    caption = tag("figcaption", title) if title else ""
    return tag("figure", caption, form, *inside, class_="rkd-figure", data_kind=kind, data_library=library)


def spec(values: Mapping[str, object]) -> Html:
    """Return the data that the script reads. "<" never appears in it, so no label can end the element."""
    made = json.dumps(values, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return tag("script", Html(made), type="application/json")


def pager(
    pages: Mapping[str, Html],
    label: str,
    *,
    slides: bool = False,
    start: int = 0,
    above: object = "",
    below: object = "",
) -> Html:
    """Return pages that are shown one at a time; without scripts, only the page at index `start`.

    The choice is a slider if `slides`, for ordered pages, else a <select>; what is `above` and `below` stays.
    """
    names = tuple(pages)
    choice = Choice("page", label, {str(i): name for i, name in enumerate(names)})
    chosen = slider("page", label, 0, len(names) - 1, start, names) if slides else choice
    shown = (tag("div", p, class_="rkd-page", hidden=i != start) for i, p in enumerate(pages.values()))
    controls = [chosen] if len(names) > 1 else []
    return join(interactive_figure("pager", controls, f"Choice of {label}", above, *shown, below), attached())


@dataclass(frozen=True, repr=False)
class Plot:
    """A plotly figure that works for a reader of the book from a file, without kernel and network.

    Without scripts, in print and while it loads, a static picture takes its place. Its legend is plotly's: a click,
    or Enter, shows or hides an entry, a double click all others.

    Attributes:
        figure: its traces' `meta["facets"]` names, per control, the value they belong to, `meta["yaxis"]` what they
            change in the y axis, and `meta["rows"]`, per point, the row of the table around the plot.
        height: of the drawing, in CSS pixels, without the legend.
        panels: facet by whose values the static picture is divided into panels.
    """

    figure: go.Figure
    alt: str
    controls: tuple[Choice | Html, ...] = ()
    title: str = ""
    note: str = ""
    height: int = 430
    panels: str = ""

    def __repr__(self) -> str:
        return f"<Plot: {self.alt}>"

    def _repr_html_(self) -> str:
        return join(self.html(), attached(plotly=True))

    def html(self) -> Html:
        """Return the plot without the scripts it needs outside the book."""
        drawn = json.loads(self.figure.to_json(), object_hook=_plain)
        drawn["layout"]["template"] = {"layout": _LAYOUT}
        area = tag("div", class_="rkd-area", role="group", aria_label=self.alt)
        note = tag("p", self.note, class_="rkd-note") if self.note else ""
        inside = area, self.still(), note, spec({**drawn, "height": self.height})
        return interactive_figure(
            "plot", self.controls, f"Controls of: {self.title}", *inside, title=self.title
        )

    def still(self) -> Html:
        """Return an <img> of what is shown initially, with the first few values of the facet `panels` side by side."""
        choices = {c.name: list(c.options) for c in self.controls[::-1] if isinstance(c, Choice)}
        choices.pop(self.panels, None)
        panels: dict[str, list[go.Scatter]] = {}
        for trace in self.figure.data:
            facets = (trace.meta or {}).get("facets", {})
            at_first = all(facets.get(name, values[0]) == values[0] for name, values in choices.items())
            if at_first and trace.visible is not False:
                panels.setdefault(facets.get(self.panels, ""), []).append(trace)
        shown = list(panels.items())[:PANELS] or [("", [])]
        columns = min(2, len(shown))
        rows = -(-len(shown) // columns)
        drawn = Figure((9.2, 0.6 + rows * self.height / 135), facecolor="white", layout="constrained")
        entries, png = {}, io.BytesIO()
        with rc_context({"text.parse_math": False}):  # names are not formulas
            for i, (name, traces) in enumerate(shown, 1):
                ax = drawn.add_subplot(rows, columns, i)
                self._draw(ax, name, traces)
                handles, names = ax.get_legend_handles_labels()
                entries |= dict(zip(names, handles, strict=True))
            if entries:
                at = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 8}
                drawn.legend(entries.values(), entries, **at)
            drawn.savefig(png, format="png", dpi=110)
        return picture(png.getvalue(), self.alt, class_="rkd-still", width=760)

    def _draw(self, ax: Axes, name: str, traces: Sequence[go.Scatter]) -> None:
        layout = self.figure.layout
        for trace in traces:
            counted = ((trace.x0 or 0) + i * (trace.dx or 1) for i in range(len(trace.y)))
            x = list(counted) if trace.x is None else trace.x
            marked = "markers" in (trace.mode or "")
            style = {
                "color": trace.line.color or trace.marker.color,
                "alpha": trace.opacity,
                "linestyle": _DASHES.get(trace.line.dash, "-") if "lines" in (trace.mode or "lines") else "",
                "linewidth": trace.line.width,
                "marker": _MARKERS[trace.marker.symbol or "circle"] if marked else "",
                "markersize": 5,
                "label": None if trace.showlegend is False else trace.name,
            }
            if trace.error_x.array is None:
                ax.plot(x, trace.y, **style)
            else:
                ax.errorbar(x, trace.y, xerr=trace.error_x.array, capsize=3, **style)
        axis = (traces[0].meta or {}).get("yaxis") if traces else None
        ax.set_title(name, fontsize=10)
        ax.set_xlabel(layout.xaxis.title.text)
        label = axis["title"]["text"] if axis else layout.yaxis.title.text
        ax.set_ylabel("" if label == name else label)
        if layout.yaxis.ticktext:
            ax.set_yticks(layout.yaxis.tickvals, layout.yaxis.ticktext, fontsize=8)
            ax.set_ylim(*layout.yaxis.range)
        ax.grid(color="#dddddd")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)


def _plain(part: dict[str, object]) -> dict[str, object]:
    """Return a part of a figure with its texts escaped: plotly interprets tags in them."""
    return {k: _escaped(v) if k in ("name", "text", "ticktext") else v for k, v in part.items()}


def _escaped(said: object) -> object:
    if isinstance(said, str):
        return text(said).replace("\n", "<br>")
    return [_escaped(each) for each in said] if isinstance(said, list) else said
