"""Pages of which one is seen at a time; a slider or a <select> picks it. Without scripts it is the one at the start."""

from collections.abc import Mapping
from dataclasses import dataclass

from rkd.report.interactive.assets import attached
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.interactive.plot import Choice, Slider, controls


@dataclass(frozen=True, repr=False)
class Stack:
    """Attributes:
    pages: what each is called -> the page.
    label: of the control, what it goes through ("epoch").
    slider: where the pages are ordered; else a <select>.
    start: place of the page that is seen first.
    above, below: what stays, whatever is chosen.
    """

    pages: Mapping[str, Html]
    label: str
    slider: bool = False
    start: int = 0
    above: str = ""
    below: str = ""

    def _repr_html_(self) -> str:
        names = tuple(self.pages)
        choice = Choice("page", self.label, {str(i): name for i, name in enumerate(names)})
        slider = Slider("page", self.label, 0, len(names) - 1, self.start, names)
        chosen = (slider if self.slider else choice,) if len(names) > 1 else ()
        drawn = tag(
            "figure",
            controls(*chosen, label=f"Choice of {self.label}"),
            self.above,
            *(
                tag("div", p, class_="rkd-page", hidden=i != self.start)
                for i, p in enumerate(self.pages.values())
            ),
            self.below,
            class_="rkd-figure",
            data_kind="stack",
        )
        return join(drawn, attached())
