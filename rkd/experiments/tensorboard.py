"""TensorBoard event files of runs while they train: DIR/<run id>/events.out.tfevents.*, one per run."""

from pathlib import Path

import yaml

from rkd.errors import ConfigError
from rkd.experiments.progress import Progress, default_progress
from rkd.training.step import TrainState

EVENTS = "events.out.tfevents.*"


def watch(folder: str | Path | None) -> "TensorBoard | None":
    """The progress for `--tensorboard FOLDER`; None, the usual one, where no folder is named.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    return None if folder is None else TensorBoard(Path(folder))


class TensorBoard:
    """A progress that writes every epoch's curves, under the names they have in records; `inner` is told all as well.

    The step is the number of epochs done (of the stage, for a stage's losses). A run's file starts anew whenever its
    training is taken up, with all epochs of its checkpoint: after a resume each step is there once, and epochs that
    were written but lost with a killed process are gone.

    Args:
        folder: of all runs.
        inner: None: the usual one.

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
        self.folder, self.inner = folder, inner or default_progress()
        self.begin, self.batch, self.say = self.inner.begin, self.inner.batch, self.inner.say
        self._writer = SummaryWriter
        self._open: dict[str, SummaryWriter] = {}  # by run
        self._written: dict[tuple[str, str], int] = {}  # (run, curve) -> values in the file

    def epoch(self, state: TrainState) -> None:
        run = state.config.id
        if run not in self._open:
            self._open[run] = self._start(state)
        writer = self._open[run]
        for name, values in state.curves.items():
            first = self._written.get((run, name), 0)
            for i, value in enumerate(values[first:], first):
                writer.add_scalar(_tag(name), value, i + 1)
            self._written[run, name] = len(values)
        writer.flush()
        self.inner.epoch(state)

    def end(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()
        self._written.clear()
        self.inner.end()

    def _start(self, state: TrainState) -> object:
        folder = self.folder / state.config.id
        for old in folder.glob(EVENTS):
            old.unlink()
        # purge_step tells a TensorBoard that is looking on to drop what it has read of the old file.
        writer = self._writer(str(folder), purge_step=0)
        config = yaml.safe_dump(state.config.to_dict(), sort_keys=False)
        writer.add_text("config", "\n".join(f"    {line}" for line in config.splitlines()))
        return writer


def _tag(curve: str) -> str:
    """The curve's name under the heading it shares with others of its kind."""
    kind = "loss" if "loss_" in curve else "accuracy" if "accuracy" in curve else ""
    return f"{kind}/{curve}" if kind else curve
