"""What the performance chapter calls: its parameters, a measurement made as the page runs, tables as HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython.display import HTML, display

from rkd import paths
from rkd.bench import Request, Result, load, measure
from rkd.bench.gate import Gate, table
from rkd.bench.gate import note as gate_note
from rkd.bench.tables import header_lines, note, times
from rkd.devices import pick_device
from rkd.experiments import settings as parameters
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.tables import frame, scrolling

CHAPTER = "performance"
OWN = (
    "seconds",
    "group",
    "gang",
    "recorded",
)  # parameters beside those of the other chapters; `group` was `gang`
SHORT, LONG = 8.0, 100.0  # seconds of a measurement: of a demonstration, and with the paper profile


class PerformancePage:
    """The executed chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Attributes:
        request: what is measured.
        file: of a measurement to show in place of a new one, if there is one.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
        RecordError: the file named is no measurement.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        given = parameters.given_in(namespace, OWN)
        own = {name: given.pop(name) for name in OWN if name in given}
        s = parameters.resolve(CHAPTER, given)
        precision = given.get("precision") or "auto"
        if precision == parameters.load_profile(s.profile).get("precision"):
            precision = "auto"  # it is that of the profile's runs, not of this page
        asked = {
            "teacher": s.teacher, "student": s.student, "batch_size": s.batch_size, "device": s.device,
            "threads": s.threads, "precision": tuple(dict.fromkeys(("fp32", precision))),
            "teacher_batch_norm": s.teacher_batch_norm and (s.teacher_batch_norm,),
            "group": own.get("group", own.get("gang")), "compile": "engine" if s.compile else "no",
            "seconds": own.get("seconds", LONG if Path(s.profile).stem == "paper" else SHORT),
        }  # fmt: skip
        self.request = Request(**{name: value for name, value in asked.items() if value is not None})
        pick_device(self.request.device)
        self.file = paths.home() / str(own["recorded"]) if "recorded" in own else None
        self._recorded = load(self.file, Result) if self.file else None
        said = (
            f", in about {self.request.seconds:g} s, on whatever machine that was and beside whatever else it was "
            "doing: the load average tells. Ratios are taken step by step in one process and bear this better than "
            "times do."
        )
        kind, *words = "smoke", tag("strong", "Timed while this page was executed"), said
        if self.file:
            name = tag("code", self.file.name)
            kind, *words = "mini", "The measurement is read from ", name, "; nothing is timed now."
        display(tag("div", tag("p", *words), class_=f"rkd-callout {kind}"))

    def measure(self) -> Result:
        """Measure now, saying what happens, or take the file that was named."""
        if self._recorded:
            return self._recorded
        handle = display({"text/plain": "preparing"}, raw=True, display_id=True)
        result = measure(self.request, lambda text: handle.update({"text/plain": text}, raw=True))
        handle.update({"text/html": ""}, raw=True)
        return result


open_performance = PerformancePage


def shown(result: Result) -> HTML:
    """A measurement: where, when and how; times and work of each variant; what has to be known."""
    lines = (tag("tr", tag("th", k, scope="row"), tag("td", v)) for k, v in header_lines(result).items())
    parts = [scrolling(tag("table", tag("tbody", *lines), class_="rkd-table rkd-parameters"))]
    for mode, rows in times(result).items():
        parts.append(tag("p", tag("strong", mode.capitalize()), ", step of one student"))
        parts.append(frame(rows, index=True).data)
    return HTML(join(*parts, tag("p", note(result), class_="rkd-note")))


def shown_gate(gate: Gate) -> Html:
    """Paired accuracies and what they show."""
    return join(frame(table(gate)).data, tag("p", gate_note(gate), class_="rkd-note"))
