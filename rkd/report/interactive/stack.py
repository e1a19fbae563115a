"""Pictures that a slider steps through, in a static page as well as in a live notebook.

Slider and pictures are linked in the browser, so nothing needs a kernel; their state is part of the executed notebook.
Where no script runs, and on paper, one static figure stands in their place.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import ipywidgets as widgets
from IPython.display import HTML, display

from rkd.errors import ConfigError
from rkd.report.diagrams import Drawing
from rkd.report.interactive.strips import img

Picture = bytes | str  # a PNG, or HTML that carries its own alternative texts


@dataclass(frozen=True)
class SliderStack:
    """What `slider_stack` made; a notebook shows it as a cell's last value.

    Attributes:
        widget: slider, pictures and all around them.
        fallback: HTML for where no script runs.
        token: part of the CSS classes that make one hide the other.
    """

    widget: widgets.Widget
    fallback: str
    token: str = field(repr=False)

    def _ipython_display_(self) -> None:
        style = _STYLE + _HIDING.replace("TOKEN", self.token)
        display(
            HTML(f'<style>{style}</style><div class="rkd-fallback-{self.token}">{self.fallback}</div>'),
            self.widget,
        )


def slider_stack(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    description: str,
    alt: str,
    *,
    above: str = "",
    below: str = "",
    start: int = 0,
    fallback: Drawing | None = None,
) -> SliderStack:
    """Pictures, one at a time, and a slider that picks it; arrow keys move it. A lone picture gets no slider.

    Args:
        pictures: PNG files, or pieces of HTML.
        labels: what each shows; stands over the picture.
        description: what the slider goes through, for example "epoch".
        alt: what a PNG shows; its label is added.
        above, below: HTML that stays, whatever the slider does.
        start: place of the picture that is shown first.
        fallback: static figure for where no script runs; None: the first picture shown.

    Raises:
        ConfigError: no pictures, not one label per picture, or no picture at `start`.
    """
    if not pictures or len(pictures) != len(labels):
        raise ConfigError(
            f"{len(pictures)} pictures have {len(labels)} labels; give one each, and at least one"
        )
    if not 0 <= start < len(pictures):
        raise ConfigError(f"start is {start}; there are pictures 0 to {len(pictures) - 1}")
    shown = [_figure(picture, label, alt) for picture, label in zip(pictures, labels, strict=True)]
    parts: list[widgets.Widget] = []
    pages = [_html(page) for page in shown]
    if len(pages) == 1:
        parts += pages
    else:
        slider = widgets.SelectionSlider(
            options=[(label, i) for i, label in enumerate(labels)],
            index=start,
            description=description,
            readout=False,  # the label stands over the picture
            layout=widgets.Layout(width="100%", max_width="520px"),
            style={"description_width": "initial"},
        )
        parts += [slider, _linked(slider, pages, labels, start)]
    if above:
        parts.insert(0, _html(above))
    if below:
        parts.append(_html(below))
    token = hashlib.sha256("".join([description, *shown]).encode()).hexdigest()[:10]
    box = widgets.VBox(parts, layout=widgets.Layout(width="100%"))
    box.add_class("rkd-stack")
    box.add_class(f"rkd-stack-{token}")
    return SliderStack(box, shown[start] if fallback is None else fallback._repr_html_(), token)


def _linked(
    slider: widgets.SelectionSlider, pages: Sequence[widgets.Widget], labels: Sequence[str], start: int
) -> widgets.Widget:
    """A container that shows the page the slider stands at: a Stack, linked in the browser; before ipywidgets 8, Tab,
    linked by the kernel."""
    if hasattr(widgets, "Stack"):
        stack = widgets.Stack(pages, selected_index=start, layout=widgets.Layout(width="100%"))
        widgets.jslink((slider, "index"), (stack, "selected_index"))
        return stack
    tab = widgets.Tab(list(pages), selected_index=start)
    for i, label in enumerate(labels):
        tab.set_title(i, label)
    widgets.link((slider, "index"), (tab, "selected_index"))
    return tab


def _figure(picture: Picture, label: str, alt: str) -> str:
    inner = picture if isinstance(picture, str) else img(picture, f"{alt}, {label}")
    return f'<figure class="rkd-step"><figcaption>{escape(label)}</figcaption>{inner}</figure>'


def _html(text: str) -> widgets.HTML:
    return widgets.HTML(text, layout=widgets.Layout(width="100%", margin="0"))


_HIDING = """
@media screen { html:has(.rkd-stack-TOKEN) .rkd-fallback-TOKEN { display: none; } }
@media print { .rkd-stack-TOKEN { display: none !important; } }
"""

# Widgets bring a light theme of their own, and the book puts a light card behind them in its dark one; here they take
# the page's colours, whichever it has.
_STYLE = """
.bd-article .cell_output .widget-subarea:has(.rkd-stack) {
  background: transparent !important; color: inherit !important; padding: 0 !important;
}
.rkd-stack {
  --rkd-ink: var(--pst-color-text-base, var(--jp-ui-font-color1, #222));
  --jp-widgets-label-color: var(--rkd-ink);
  max-width: 760px; margin: 0 0 1.4rem !important; padding: 0 !important; overflow: hidden; color: var(--rkd-ink);
}
.rkd-stack .widget-box, .rkd-stack .jupyter-widgets { margin-left: 0 !important; padding-left: 0 !important; }
.rkd-stack .widget-html-content { line-height: 1.4; font-size: 0.9rem; color: var(--rkd-ink); }
.rkd-stack .widget-label { font-size: 0.95rem; }
.rkd-stack .noUi-handle { background: #1976d2; border-color: #1976d2; }
.rkd-stack .noUi-target { background: #8b97a3; }
.rkd-stack .slider-container { margin-right: 0.7rem; }
.rkd-stack p, .rkd-step p { margin: 0; }
.rkd-step { margin: 0 !important; padding: 0 !important; }
.rkd-step figcaption {
  margin: 0 0 0.4rem !important; padding: 0 !important; font-weight: 600; font-size: 1rem; text-align: left;
  color: inherit !important;
}
.rkd-step img, .rkd-scale img, .rkd-photo img {
  display: block; width: 100%; height: auto; margin: 0; padding: 0 !important; border-radius: 0 !important;
  background: none !important;
}
.rkd-grid { display: grid; gap: 0.3rem 0.5rem; align-items: end; font-variant-numeric: tabular-nums; }
.rkd-grid > * { min-width: 0; text-align: center; font-size: clamp(0.66rem, 2vw, 0.82rem); line-height: 1.25; }
.rkd-grid b { display: block; }
.rkd-grid .rkd-foot { align-self: start; }
.rkd-grid .rkd-side { display: grid; align-self: stretch; align-items: center; text-align: left; }
.rkd-grid img.rkd-framed { outline: 1px solid #8b97a388; outline-offset: -1px; }
.rkd-scale { max-width: 420px; margin: 0.9rem 0 0.4rem; font-size: 0.85rem; }
.rkd-scale img { height: 12px !important; image-rendering: pixelated; }
.rkd-scale > div { display: flex; justify-content: space-between; }
.rkd-photo { display: flex; align-items: center; gap: 0.7rem; margin-bottom: 0.4rem; }
.rkd-photo img { width: 64px; }
"""
