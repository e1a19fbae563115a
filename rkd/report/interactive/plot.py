"""One interactive picture: a plotly figure with real HTML controls, a static fallback and words for both."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure
from PIL import Image

from rkd.errors import ConfigError
from rkd.report.interactive.assets import attached


@dataclass(frozen=True)
class Entry:
    """One thing to choose.

    Attributes:
        value: what traces carry in their `meta` under the control's facet.
        label: for readers, plain text.
        layout: changes to the figure's layout while it is chosen, by dotted name ("yaxis.title.text").
        only: facet -> values: offered only while one of these is chosen there.
        colour, dash: of its sample line beside a checkbox; empty: no sample.
    """

    value: str
    label: str
    layout: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    colour: str = ""
    dash: str = "solid"


@dataclass(frozen=True)
class Choice:
    """One of several: a <select>, or a slider where the entries are ordered (epochs).

    Attributes:
        facet: key in the traces' `meta`; a trace without it is always shown. Several controls of one facet add up.
        label: of the control.
        entries: in order.
        start: value chosen at first; None: the first entry's.
        slider: an <input type=range> in place of the <select>.
    """

    facet: str
    label: str
    entries: tuple[Entry, ...]
    start: str | None = None
    slider: bool = False
    kind: str = field(default="choice", init=False)


@dataclass(frozen=True)
class Toggles:
    """Any of several: a checkbox each. With sample lines it is the figure's legend.

    Attributes:
        facet, label, entries: as of Choice.
        off: values not ticked at first.
    """

    facet: str
    label: str
    entries: tuple[Entry, ...]
    off: tuple[str, ...] = ()
    kind: str = field(default="toggles", init=False)


@dataclass(frozen=True)
class Cursor:
    """A slider that moves an upright line along the x axis; traces with `meta` "readout" say their value there,
    beside their entry in the toggles that have sample lines.

    Attributes:
        label: of the slider, what x counts ("epoch").
        low, high: first and last whole number on the x axis.
        start: where it stands at first; None: at the end.
    """

    label: str
    low: int
    high: int
    start: int | None = None
    kind: str = field(default="cursor", init=False)


Control = Choice | Toggles | Cursor


@dataclass(frozen=True, repr=False)
class Plot:
    """A plotly figure as a reader of the book meets it.

    In the static book it works from a file, without kernel and network; elsewhere the output brings its scripts along.
    Without scripts, in print and while it loads, the fallback stands in its place. Colours of text, axes and grid are
    the page's own, light or dark; of traces, those in the script's table have a brighter twin for dark pages.

    Attributes:
        figure: traces whose `meta` names, per facet of the controls, the value they belong to; no plotly template is
            used, and no plotly legend where the controls are one.
        fallback: the same in matplotlib, on a light card.
        alt: the picture in words.
        height: of the drawing area, in CSS pixels.
        controls: for mouse and keyboard alike.
        title: above the picture; also names its group of controls.
        note: below it, plain text: what is missing, what the signs mean.

    Raises:
        ConfigError: a trace or a control names a facet or value that the others do not know.
    """

    figure: go.Figure
    fallback: Figure
    alt: str
    height: int = 420
    controls: tuple[Control, ...] = ()
    title: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        known: dict[str, set[str]] = {}
        for control in self.controls:
            if not isinstance(control, Cursor):
                known.setdefault(control.facet, set()).update(entry.value for entry in control.entries)
        for trace in self.figure.data:
            for facet, value in (trace.meta or {}).items():
                if facet in known and value not in known[facet]:
                    raise ConfigError(f"trace {trace.name!r} has {facet} {value!r}, which no control offers")

    def spec(self) -> dict[str, Any]:
        """What the script draws, ready for JSON: data, layout, controls, height, alt, title."""
        drawn = json.loads(self.figure.to_json())
        drawn["layout"].pop("template", None)
        return {
            "data": drawn["data"],
            "layout": drawn["layout"],
            "controls": [_lean(asdict(control)) for control in self.controls],
            "height": self.height,
            "alt": self.alt,
            "title": self.title,
        }

    def _repr_html_(self) -> str:
        # "<" never appears in the JSON, so no label can end the script element
        spec = json.dumps(self.spec(), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        title = f'<figcaption class="rkd-plot-title">{html.escape(self.title)}</figcaption>'
        note = f'<p class="rkd-note">{html.escape(self.note)}</p>'
        return (
            f'<figure class="rkd-plot">{title * bool(self.title)}'
            '<div class="rkd-plot-controls"></div><div class="rkd-plot-area"></div>'
            f"{fallback_image(self.fallback, self.alt)}{note * bool(self.note)}"
            f'<script type="application/json">{spec}</script></figure>{attached(plotly=True)}'
        )

    def __repr__(self) -> str:
        return f"<Plot: {self.alt}>"


def fallback_image(figure: Figure, alt: str, width: int = 760) -> str:
    """An <img> that gives way to the interactive picture: PNG with a palette, a third as large."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, facecolor=figure.get_facecolor())
    small = io.BytesIO()
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        small, "png", optimize=True
    )
    data = base64.b64encode(small.getvalue()).decode()
    return (
        f'<img class="rkd-plot-fallback" width="{width}" alt="{html.escape(alt, quote=True)}" '
        f'src="data:image/png;base64,{data}">'
    )


def _lean(value: Any) -> Any:
    """Without what is empty or left at its default: the script reads the same from less."""
    if isinstance(value, dict):
        return {k: _lean(v) for k, v in value.items() if not (v is False or v in ("", None, {}, (), "solid"))}
    return [_lean(v) for v in value] if isinstance(value, list | tuple) else value
