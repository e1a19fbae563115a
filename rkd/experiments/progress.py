"""Progress for whoever watches: a bar on a terminal or in a notebook, one line an epoch in a log."""

import sys
import time

from tqdm import tqdm

from rkd.training.step import TrainState


def epoch_line(state: TrainState) -> str:
    """One finished epoch in words."""
    curves, stage = state.curves, state.stage
    prefix = "loss_" if stage is None else f"{stage.name}_loss_"
    losses = ", ".join(
        f"{name.removeprefix(prefix)} {values[-1]:.3f}"
        for name, values in curves.items()
        if name.startswith(prefix)
    )
    begun = f"{state.config.id} epoch {state.epoch}/{state.config.total_epochs}: "
    if stage is not None:
        return f"{begun}stage {stage.name}, {losses}"
    return f"{begun}{losses}; train {curves['train_accuracy'][-1]:.2f} %, test {curves['test_accuracy'][-1]:.2f} %"


class Progress:
    """What the runner reports to; `begin` and `end` bracket one group. This one is for a log file or a pipe: one line
    an epoch, with images/s and the time left."""

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._images, self._total = images, epochs * images
        self._started, self._first, self._at = time.perf_counter(), None, 0
        self.say(f"{title}: {epochs} epochs of {images} images")

    def batch(self, epoch: int, done: int, total: int) -> None:
        self._at = epoch * total + done
        if self._first is None:  # a resumed run does not start at zero
            self._first = self._at - done

    def epoch(self, state: TrainState) -> None:
        rate = max((self._at - (self._first or 0)) / (time.perf_counter() - self._started), 1e-9)
        left = (self._total - state.epoch * self._images) / rate
        self.say(f"{epoch_line(state)}; {rate:.0f} images/s, {left:.0f} s left")

    def end(self) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bar(Progress):
    """A tqdm bar over the images of all epochs.

    Args:
        file: written to; None: the terminal.
    """

    def __init__(self, file: "Cell | None" = None) -> None:
        self._file = file

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._bar = tqdm(
            total=epochs * images,
            desc=title,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            file=self._file,
            leave=self._file is None,  # a page shows what came out
        )
        self._images = images

    def batch(self, epoch: int, done: int, total: int) -> None:
        self._bar.update(epoch * self._images + done - self._bar.n)

    def epoch(self, state: TrainState) -> None:
        self._bar.set_postfix_str(epoch_line(state).partition(" ")[2])

    def end(self) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        if self._file is None:
            tqdm.write(text, file=sys.stderr)
        else:
            print(text)


class Cell:
    """What is written shows in the output of a notebook's cell, in place of what was before; blanks erase it."""

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
    """The right one for where this process writes."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    if kernel is not None and kernel.IPKernelApp.initialized():
        return Bar(Cell())
    return Bar() if sys.stderr.isatty() else Progress()
