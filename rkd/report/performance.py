"""What the performance chapter calls: its parameters, a measurement made as the page runs, tables as HTML."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython.display import HTML, display

from rkd import paths
from rkd.bench import Request, Result, measure
from rkd.bench.gate import Gate, table
from rkd.bench.gate import note as gate_note
from rkd.bench.measurement import BATCH_NORMS
from rkd.bench.tables import header_lines, note, times
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.runner import pick_device
from rkd.report.tables import frame, table_of

CHAPTER = "performance"
# Parameters beside those of the other chapters, their types, and what they must be.
OWN = {
    "seconds": (int | float, "a number"),
    "group": (int, "a whole number"),
    "gang": (int, "a whole number"),  # as `group` was called
    "recorded": (str, "the path of a file"),
}
SHORT, LONG = 20.0, 100.0  # seconds of a measurement: of a demonstration, and with the paper profile


class PerformancePage:
    """The executed chapter.

    Attributes:
        request: what is measured.
        file: of a measurement to show in place of a new one, if there is one.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        own = {name: given[name] for name in OWN if name in given}
        for name, value in own.items():
            kind, words = OWN[name]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; it must be {words}")
        shared = {name: value for name, value in given.items() if name not in OWN}
        s = parameters.resolve(CHAPTER, shared)
        precision = given.get("precision", "auto")
        if precision == parameters.load_profile(s.profile).get("precision"):
            precision = "auto"  # it is that of the profile's runs, not of this page
        self.request = Request(
            teacher=s.teacher,
            student=s.student,
            batch_size=s.batch_size or 128,
            device=s.device,
            threads=s.threads,
            precisions=tuple(dict.fromkeys(("fp32", precision))),
            batch_norms=BATCH_NORMS if s.teacher_batch_norm is None else (s.teacher_batch_norm,),
            group=own.get("group", own.get("gang", 1)),
            compile="engine" if s.compile else "no",
            seconds=own.get("seconds", LONG if Path(s.profile).stem == "paper" else SHORT),
        )
        pick_device(self.request.device)
        self.file = paths.home() / own["recorded"] if "recorded" in own else None
        self._recorded = Result.load(self.file) if self.file else None
        kind, text = "smoke", (
            f"<strong>Timed while this page was executed</strong>, in about {self.request.seconds:g} s, on whatever "
            "machine that was and beside whatever else it was doing: the load average tells. Ratios are taken step by "
            "step in one process and bear this better than times do."
        )  # fmt: skip
        if self.file:
            name = f"<code>{html.escape(self.file.name)}</code>"
            kind, text = "mini", f"The measurement is read from {name}; nothing is timed now."
        display(HTML(f'<div class="rkd-callout {kind}"><p>{text}</p></div>'))

    def measure(self) -> Result:
        """Measure now, saying what happens, or take the file that was named."""
        if self._recorded:
            return self._recorded
        handle = display({"text/plain": "preparing"}, raw=True, display_id=True)
        result = measure(self.request, lambda text: handle.update({"text/plain": text}, raw=True))
        handle.update({"text/html": ""}, raw=True)
        return result


def open_performance(namespace: Mapping[str, Any]) -> PerformancePage:
    """Open the chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return PerformancePage(parameters.given_in(namespace, OWN))


def shown(result: Result) -> HTML:
    """A measurement: where, when and how; times and work of each variant; what has to be known."""
    lines = (
        f'<tr><th scope="row">{k}</th><td>{html.escape(v)}</td></tr>' for k, v in header_lines(result).items()
    )
    parts = [table_of([], list(lines), "rkd-parameters")]
    for mode, rows in times(result).groupby(level=0, sort=False):
        parts.append(f"<p><strong>{mode.capitalize()}</strong>, step of one student</p>")
        parts.append(frame(rows.droplevel(0).rename_axis(None), index=True).data)
    return HTML("".join([*parts, small(note(result))]))


def shown_gate(gate: Gate) -> str:
    """Paired accuracies and what they show, in HTML."""
    return f"{frame(table(gate)).data}{small(gate_note(gate))}"


def small(text: str) -> str:
    """A note under a table."""
    return f'<p class="rkd-note">{html.escape(text)}</p>'
