"""Progress for whoever watches: a bar on a terminal, one line that renews itself in a notebook, one line an epoch
in a log."""

import sys
import time
from typing import Protocol

from tqdm import tqdm

from rkd.training.state import TrainState


class Progress(Protocol):
    """What the runner reports to. `begin` and `end` bracket one group."""

    def begin(self, title: str, epochs: int, images: int) -> None: ...

    def batch(self, epoch: int, done: int, total: int) -> None: ...

    def epoch(self, state: TrainState) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None: ...


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


class Bar:
    """A tqdm bar over the images of all epochs, on a terminal."""

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._bar = tqdm(total=epochs * images, desc=title, unit="img", unit_scale=True, dynamic_ncols=True)
        self._images = images

    def batch(self, epoch: int, done: int, total: int) -> None:
        self._bar.update(epoch * self._images + done - self._bar.n)

    def epoch(self, state: TrainState) -> None:
        self._bar.set_postfix_str(epoch_line(state).partition(" ")[2])

    def end(self) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)


class Lines:
    """Where nobody watches (a log file, a pipe): one line an epoch, with images/s and the time left."""

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._title, self._epochs, self._images = title, epochs, images
        self._started, self._first, self._seen = time.perf_counter(), None, 0
        self.say(f"{title}: {epochs} epochs of {images} images")

    def batch(self, epoch: int, done: int, total: int) -> None:
        position = epoch * total + done
        if self._first is None:  # a resumed run does not start at zero
            self._first = position - done
        self._seen = position - self._first

    def epoch(self, state: TrainState) -> None:
        self.say(f"{epoch_line(state)}; {self._speed(state.epoch)}")

    def end(self) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _speed(self, epoch: int) -> str:
        rate = self._seen / max(time.perf_counter() - self._started, 1e-9)
        left = (self._epochs - epoch) * self._images / max(rate, 1e-9)
        return f"{rate:.0f} images/s, {left:.0f} s left"


class NotebookLine(Lines):
    """In a notebook: one output that is renewed in place, at most twice a second."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": "preparing"}, raw=True, display_id=True)
        self._shown = 0.0
        self._last = ""

    def batch(self, epoch: int, done: int, total: int) -> None:
        super().batch(epoch, done, total)
        if time.perf_counter() - self._shown > 0.5:
            self._show(
                f"{self._title}: epoch {epoch + 1}/{self._epochs}, {done}/{total} images, {self._speed(epoch)}"
            )

    def epoch(self, state: TrainState) -> None:
        self._last = f"{epoch_line(state)}; {self._speed(state.epoch)}"

    def end(self) -> None:
        self._last = ""
        self._show(f"{self._title}: done")

    def say(self, text: str) -> None:
        self._show(text)

    def _show(self, text: str) -> None:
        self._handle.update({"text/plain": f"{text}\n{self._last}".strip()}, raw=True)
        self._shown = time.perf_counter()


def default_progress() -> Progress:
    """The right one for where this process writes."""
    if "ipykernel" in sys.modules and sys.modules["ipykernel"].kernelapp.IPKernelApp.initialized():
        return NotebookLine()
    return Bar() if sys.stderr.isatty() else Lines()
