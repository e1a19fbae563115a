"""A plotly figure with controls that keys reach, a static picture of the same data, and words for both."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.errors import ConfigError
from rkd.report.interactive.assets import attached
from rkd.report.interactive.markup import Html, join, tag, text

CARD, GRID = "#ffffff", "#dddddd"
GREY = "#7f8790"  # reads on light and dark pages
PANELS = 6  # of the static picture, at most
_AXIS = {"gridcolor": "rgba(127,135,144,.25)", "linecolor": GREY, "zeroline": False, "automargin": True}
TEMPLATE = {
    "layout": {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "font": {"size": 13},
        "hoverlabel": {"namelength": -1, "font": {"size": 12}},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}
_DASHES = {"dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_MARKERS = {"circle": "o", "diamond": "D", "x": "X", "square": "s"}


@dataclass(frozen=True)
class Choice:
    """One of several, in a <select>.

    Attributes:
        name: traces whose `meta["facets"]` name it are shown while their value is chosen. Of two of one name, either's.
            Two names act on the drawing itself: "from" is the share of the x axis that is left out at its start.
        label: for readers.
        options: value -> what it is called; the first is chosen at first.
    """

    name: str
    label: str
    options: Mapping[str, str]

    def html(self) -> Html:
        options = (tag("option", said, value=value) for value, said in self.options.items())
        return tag("label", tag("span", self.label), tag("select", *options, name=self.name))


@dataclass(frozen=True)
class Tick:
    """A value of a facet that can be left out: a checkbox, ticked at first."""

    name: str
    label: str
    value: str

    def html(self) -> Html:
        return tag(
            "label", tag("input", type="checkbox", name=self.name, value=self.value, checked=True), self.label
        )


@dataclass(frozen=True)
class Slider:
    """A whole number, by the arrow keys. Named "at", it reads a plot out at that place of its x axis; named "page", it
    goes through the pages of a stack, and each place has a `said`."""

    name: str
    label: str
    low: int
    high: int
    start: int
    said: tuple[str, ...] = ()

    def html(self) -> Html:
        bounds = {"min": self.low, "max": self.high, "value": self.start, "name": self.name}
        said = json.dumps(self.said) if self.said else None
        shown = self.said[self.start] if self.said else self.start
        slider = tag("input", type="range", data_said=said, aria_valuetext=shown, **bounds)
        return tag("label", tag("span", self.label), slider, tag("output", shown), class_="rkd-slider")


Control = Choice | Tick | Slider


def controls(*given: Control, label: str) -> Html:
    """A form that its picture listens to; seen only once the script is there."""
    return (
        tag("form", *(c.html() for c in given), class_="rkd-controls", aria_label=label)
        if given
        else Html("")
    )


@dataclass(frozen=True, repr=False)
class Plot:
    """A plotly figure as a reader of the book meets it, from a file, without kernel and network.

    Without scripts, in print and while it loads, a static picture stands in its place. Its legend is plotly's: a click,
    or Enter, shows or hides an entry, a double click all others.

    Attributes:
        figure: traces whose `meta["facets"]` names, per control, the value they belong to, `meta["yaxis"]` what it
            changes of the y axis, and `meta["rows"]`, per point, the row of the table around the plot.
        alt: the picture in words.
        controls: for mouse and keyboard alike.
        title: above the picture; also names its controls.
        note: below it.
        height: of the drawing, in CSS pixels, without the legend.
        panels: facet by whose values the static picture is divided.

    Raises:
        ConfigError: a trace has a value of a facet that its control does not offer.
    """

    figure: go.Figure
    alt: str
    controls: tuple[Control, ...] = ()
    title: str = ""
    note: str = ""
    height: int = 430
    panels: str = ""

    def __post_init__(self) -> None:
        offered = {c.name: set(c.options) for c in self.controls if isinstance(c, Choice)}
        for trace in self.figure.data:
            for facet, value in _facets(trace).items():
                if value not in offered.get(facet, {value}):
                    raise ConfigError(f"trace {trace.name!r} has {facet} {value!r}, which no control offers")

    def _repr_html_(self) -> str:
        return join(self.html(), attached(plotly=True))

    def html(self) -> Html:
        """The picture without the scripts it needs outside the book."""
        drawn = json.loads(self.figure.to_json())
        for part, key in [
            *((t, k) for t in drawn["data"] for k in ("name", "text")),
            (drawn["layout"]["yaxis"], "ticktext"),
        ]:
            if key in part:  # plotly reads tags in these
                part[key] = _escaped(part[key])
        spec = {**drawn, "height": self.height}
        spec["layout"]["template"] = TEMPLATE
        # "<" never appears in the JSON, so no label can end the script element
        spec = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        return tag(
            "figure",
            tag("figcaption", self.title) if self.title else "",
            controls(*self.controls, label=f"Controls of: {self.title}"),
            tag("div", class_="rkd-area", role="group", aria_label=self.alt),
            self.still(),
            tag("p", self.note, class_="rkd-note") if self.note else "",
            tag("script", Html(spec), type="application/json"),
            class_="rkd-figure",
            data_kind="plot",
        )

    def __repr__(self) -> str:
        return f"<Plot: {self.alt}>"

    def still(self) -> Html:
        """An <img> of what is shown at first, by matplotlib; of all values of the facet `panels`, the first few."""
        start = {c.name: next(iter(c.options)) for c in self.controls if isinstance(c, Choice)}
        start.pop(self.panels, None)
        shown = [
            t for t in self.figure.data
            if t.visible is not False and all(start.get(k, v) == v for k, v in _facets(t).items())
        ]  # fmt: skip
        names = list(dict.fromkeys(_facets(t).get(self.panels, "") for t in shown))[:PANELS] or [""]
        columns = min(2, len(names))
        rows = -(-len(names) // columns)
        size = (9.2, 0.6 + rows * (self.height / 135))
        drawn = Figure(figsize=size, facecolor=CARD, layout="constrained")
        axes = drawn.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(names) :]:
            ax.set_axis_off()
        for ax, name in zip(axes, names, strict=False):
            ax.set_title(name, fontsize=10)
            for trace in shown:
                if _facets(trace).get(self.panels, "") == name:
                    _draw(ax, trace)
            self._dress(ax)
        found = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if found:
            drawn.legend(
                found.values(), found, loc="outside lower center", ncols=3, frameon=False, fontsize=8
            )
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=110)
        data = base64.b64encode(buffer.getvalue()).decode()
        return tag("img", class_="rkd-still", width=760, alt=self.alt, src=f"data:image/png;base64,{data}")

    def _dress(self, ax: Axes) -> None:
        layout = self.figure.layout
        ax.set_xlabel(layout.xaxis.title.text)
        ax.set_ylabel(layout.yaxis.title.text)
        if layout.yaxis.ticktext:
            ax.set_yticks(layout.yaxis.tickvals, layout.yaxis.ticktext, fontsize=8)
            ax.set_ylim(*layout.yaxis.range)
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)


def _facets(trace: go.Scatter) -> Mapping[str, str]:
    return (trace.meta or {}).get("facets", {})


def _escaped(said: str | list[str]) -> str | list[str]:
    return text(said).replace("\n", "<br>") if isinstance(said, str) else [_escaped(s) for s in said]


def _draw(ax: Axes, trace: go.Scatter) -> None:
    x = range(1, len(trace.y) + 1) if trace.x is None else trace.x
    lines = "lines" in (trace.mode or "lines")
    marked = "markers" in (trace.mode or "")
    style = {
        "color": trace.line.color or trace.marker.color,
        "alpha": trace.opacity,
        "linestyle": _DASHES.get(trace.line.dash, "-") if lines else "",
        "linewidth": trace.line.width,
        "marker": _MARKERS[trace.marker.symbol or "circle"] if marked else "",
        "markersize": 5,
        "label": None if trace.showlegend is False else trace.name,
    }
    if trace.error_x.array is not None:
        style |= {"xerr": trace.error_x.array, "capsize": 3}
    (ax.errorbar if trace.error_x.array is not None else ax.plot)(x, trace.y, **style)
