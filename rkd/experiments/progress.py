"""Progress of training: a bar on a terminal or in a notebook, one line per epoch in a log."""

import io
import sys
from typing import Any

from tqdm import tqdm

from rkd.training.step import TrainState


def epoch_line(state: TrainState) -> str:
    """Return one finished epoch's losses and accuracies in words."""
    curves, stage = state.curves, state.stage
    prefix = f"{stage.name}_loss_" if stage else "loss_"
    losses = (f"{n.removeprefix(prefix)} {v[-1]:.3f}" for n, v in curves.items() if n.startswith(prefix))
    begun = f"{state.config.id} epoch {state.epoch}/{state.config.total_epochs}: "
    if stage:
        return f"{begun}stage {stage.name}, {', '.join(losses)}"
    train, test = curves["train_accuracy"][-1], curves["test_accuracy"][-1]
    return f"{begun}{', '.join(losses)}; train {train:.2f} %, test {test:.2f} %"


class Progress:
    """The runner's reporting interface; `begin` and `end` bracket one group. This class is for a log file or a pipe: it
    writes one line per epoch, with images/s and the time left."""

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._images, self._begun = images, False
        self._bar = self._made(total=epochs * images, desc=title, unit=" images", unit_scale=True)

    def _made(self, **about: Any) -> tqdm:
        self.say(f"{about['desc']}: {about['total']:,} images in all epochs")
        return tqdm(file=io.StringIO(), bar_format="{rate_fmt}, {remaining} left", **about)

    def batch(self, epoch: int, done: int, total: int) -> None:
        at = epoch * self._images + done
        if not self._begun:  # a resumed run does not start at zero
            self._bar.initial = self._bar.n = self._bar.last_print_n = at
        self._begun = True
        self._bar.update(at - self._bar.n)

    def epoch(self, state: TrainState) -> None:
        self.say(f"{epoch_line(state)}; {self._bar}")

    def end(self) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bar(Progress):
    """A tqdm bar over the images of all epochs, on the terminal or in a notebook's `cell`."""

    def __init__(self, cell: "Cell | None" = None) -> None:
        self._cell = cell

    def _made(self, **about: Any) -> tqdm:
        return tqdm(file=self._cell, leave=self._cell is None, dynamic_ncols=True, **about)

    def epoch(self, state: TrainState) -> None:
        self._bar.set_postfix_str(epoch_line(state).partition(" ")[2])

    def say(self, text: str) -> None:
        if self._cell is None:
            tqdm.write(text, file=sys.stderr)
        else:
            print(text)


class Cell:
    """A writable stream shown in a notebook cell's output: each text replaces the one before, and blanks erase it."""

    encoding, _shown = "utf-8", None

    def write(self, text: str) -> None:
        from IPython.display import display

        data = {"text/plain": text.strip()} if text.strip() else {"text/html": ""}
        if self._shown is not None:
            self._shown.update(data, raw=True)
        elif text.strip():
            self._shown = display(data, raw=True, display_id=True)

    def flush(self) -> None:
        pass


def default_progress() -> Progress:
    """Return the progress that suits where this process writes: a notebook, a terminal, or a file or pipe."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    if kernel is not None and kernel.IPKernelApp.initialized():
        return Bar(Cell())
    return Bar() if sys.stderr.isatty() else Progress()
