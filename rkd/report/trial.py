"""A trial of methods that are being written: trained beside the student alone, kept apart from all records."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Line
from rkd.experiments.recipes import Builder
from rkd.experiments.workspace import runner_of
from rkd.methods import get_method
from rkd.models import display_name
from rkd.records import Record, Store
from rkd.report.experiment import DATA_SETS
from rkd.report.interactive.curves import curves

RECIPE = "crd"


@dataclass(frozen=True)
class Trial:
    """Lines of a trial with their records, which live in memory alone.

    Attributes:
        lines: teacher, student alone, and one line per method.
        records: by run.
    """

    lines: Sequence[Line]
    records: Mapping[str, Record]

    @property
    def length(self) -> str:
        """What was trained, in words."""
        run = self.lines[-1].runs[0]
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        data = DATA_SETS.get(run.data.name, run.data.name)
        return f"{run.epochs} epoch{'s' * (run.epochs != 1)} on {images} of {data}"

    def of(self, line: Line) -> list[Record]:
        """The records of a line, one per seed."""
        return [self.records[run.id] for run in line.runs]

    def curves(self) -> object:
        """Accuracies and losses of every epoch, to be explored."""
        return curves(self.lines, self.records, "Training curves of the trial")


def trial(namespace: Mapping[str, Any], methods: Sequence[str]) -> Trial:
    """Train the teacher, the student alone and with each method, in a folder that is deleted in the end.

    Args:
        namespace: `globals()` of a notebook, for its parameters.
        methods: names of registered methods, or sums.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter, or an unknown method.
    """
    s = parameters.resolve("own_method", parameters.given_in(namespace))
    builder = Builder(s, RECIPE)
    alone = tuple(builder.plain(s.student, seed) for seed in s.seeds)
    lines = [
        Line("teacher", f"teacher {display_name(s.teacher)}", (builder.teacher(s.teacher),), role="teacher"),
        Line("student", f"{display_name(s.student)} alone", alone, role="student"),
    ]
    for method in methods:
        runs = tuple(builder.distilled(s.teacher, s.student, seed, method) for seed in s.seeds)
        lines.append(Line(method, get_method(method).display, runs))
    with tempfile.TemporaryDirectory(prefix="rkd-trial-") as folder:
        executor = runner_of(s, Store(Path(folder) / "records", Path(folder) / "work"))
        lines = [line.settled(executor.store, executor.device) for line in lines]
        return Trial(lines, executor.run([run for line in lines for run in line.runs]))
