"""A trial of methods that are being written: trained beside the student alone, kept apart from all records."""

import html
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from IPython.display import HTML

from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Line
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settle import settle_lines
from rkd.experiments.workspace import data_root
from rkd.methods import get_method
from rkd.models import display_name
from rkd.records import Record, Store
from rkd.report import tables
from rkd.report.interactive.curves import curves
from rkd.report.page import DATA_SETS
from rkd.report.summary import Measured, measure
from rkd.training import Engine

RECIPE = "crd"


class Trial:
    """Lines of a trial with their records, which live in memory alone.

    Attributes:
        lines: teacher, student alone, and one line per method.
        measured: by line key.
        length: what was trained, in words.
    """

    def __init__(self, lines: Sequence[Line], records: Mapping[str, Record]) -> None:
        self.lines = list(lines)
        self.measured: dict[str, Measured] = {line.key: measure(line, records) for line in lines}
        self._records = records
        run = self.lines[-1].runs[0]
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        data = DATA_SETS.get(run.data.name, run.data.name)
        self.length = f"{run.epochs} epoch{'s' if run.epochs != 1 else ''} on {images} of {data}"

    def table(self) -> HTML:
        """Accuracies, and each method's own loss in its first and last epoch."""
        rows = []
        for line in self.lines:
            m = self.measured[line.key]
            cells = [tables.numbers(m, "last"), tables.numbers(m, "best"), _losses(m.records)]
            row = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><th scope="row">{html.escape(line.label)}</th>{row}</tr>')
        heads = ["", "last epoch, %", "best epoch, %", "own loss, first → last epoch"]
        note = f'<p class="rkd-note">{html.escape(self.length)}. Nothing of this is recorded.</p>'
        return HTML(tables.table_of(heads, rows, "rkd-results") + note)

    def curves(self) -> object:
        """Accuracies and losses of every epoch, to be explored."""
        return curves(self.lines, self._records, "Training curves of the trial")


def trial(namespace: Mapping[str, Any], methods: Sequence[str]) -> Trial:
    """Train the teacher, the student alone and with each method, in a folder that is deleted in the end.

    Args:
        namespace: `globals()` of a notebook, for its parameters.
        methods: names of registered methods, or sums.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter, or an unknown method.
    """
    settings = parameters.resolve("own_method", parameters.given_in(namespace))
    builder = Builder(settings, RECIPE)
    teacher, student, seeds = settings.teacher, settings.student, settings.seeds
    lines = [
        Line("teacher", f"teacher {display_name(teacher)}", (builder.teacher(teacher),), role="teacher"),
        Line(
            "student",
            f"{display_name(student)} alone",
            tuple(builder.plain(student, seed) for seed in seeds),
            role="student",
        ),
        *(
            Line(
                method,
                get_method(method).display,
                tuple(builder.distilled(teacher, student, seed, method) for seed in seeds),
            )
            for method in methods
        ),
    ]
    with tempfile.TemporaryDirectory(prefix="rkd-trial-") as folder:
        runner = Runner(
            Store(Path(folder) / "records", Path(folder) / "work"),
            data_root(settings),
            settings.device,
            engine=Engine.named(settings.engine, settings.compile, settings.threads),
        )
        lines = settle_lines(lines, runner.store, runner.device)
        records = runner.run([run for line in lines for run in line.runs])
    return Trial(lines, records)


def _losses(records: Sequence[Record]) -> str:
    """Mean over runs of each loss besides cross-entropy, at both ends."""
    if not records:
        return ""
    names = [n for n in records[0].curves if n.startswith("loss_") and n != "loss_ce"]
    parts = []
    for name in names:
        first, last = (sum(r.curves[name][i] for r in records) / len(records) for i in (0, -1))
        parts.append(f"{html.escape(name[5:])} {first:.3g} → {last:.3g}")
    return "<br>".join(parts)
