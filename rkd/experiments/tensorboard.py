"""TensorBoard event files of runs while they train: DIR/<run id>/events.out.tfevents.*, one per run."""

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from rkd.errors import ConfigError
from rkd.experiments.progress import Progress, default_progress
from rkd.training.step import TrainState

EVENTS = "events.out.tfevents.*"


class TensorBoard:
    """A progress that writes every epoch's curves, under their names in records, and passes everything on to `inner`.

    The step is the number of finished epochs (of the stage, for a stage's losses). A run's file starts anew whenever
    its training starts or resumes, with all epochs of its checkpoint: each step occurs once even after a resume, and
    epochs that were written but lost with a killed process are gone.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, inner: Progress | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard is not installed; --tensorboard needs it: pip install tensorboard"
            ) from error
        self.folder, self.inner, self._writer = folder, inner or default_progress(), SummaryWriter
        self.begin, self.batch, self.say = self.inner.begin, self.inner.batch, self.inner.say
        self._open: dict[str, tuple[Any, Counter[str]]] = {}  # by run: writer, values written per curve

    def epoch(self, state: TrainState) -> None:
        run = state.config.id
        if run not in self._open:
            for old in (self.folder / run).glob(EVENTS):
                old.unlink()
            # purge_step tells a running TensorBoard to drop what it has read of the old file.
            self._open[run] = self._writer(str(self.folder / run), purge_step=0), Counter()
            config = yaml.safe_dump(state.config.to_dict(), sort_keys=False)
            self._open[run][0].add_text("config", textwrap.indent(config, "    "))
        writer, written = self._open[run]
        for name, values in state.curves.items():
            kind = "loss/" if "loss_" in name else "accuracy/" if "accuracy" in name else ""
            for step in range(written[name], len(values)):
                writer.add_scalar(f"{kind}{name}", values[step], step + 1)
            written[name] = len(values)
        writer.flush()
        self.inner.epoch(state)

    def end(self) -> None:
        while self._open:
            self._open.popitem()[1][0].close()
        self.inner.end()
