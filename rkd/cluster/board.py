"""Messages between the driver of a sweep and its workers: progress one way, the order to stop the other way."""

import time
from collections.abc import Callable
from typing import Any

from rkd.experiments.budget import Budget

ASK_SECONDS = 0.25  # between a worker's looks at the board


class Board:
    """A Ray actor on the driver's node that ends with the driver. `seconds` left of its budget; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._limit, self._stopped = Budget(seconds), False
        self._lines, self._at = list[str](), dict[int, int]()

    def left(self) -> float | None:
        """Return the seconds left of the driver's budget; None if there is no limit."""
        return self._limit.left()

    def tell(self, group: int, at: int, lines: list[str]) -> bool:
        """Report how many images a group has processed, with lines for people to read; return whether to stop."""
        self._at[group] = at
        self._lines += lines
        return self._stopped

    def stop(self) -> None:
        """Have every group save and end."""
        self._stopped = True

    def news(self) -> tuple[list[str], dict[int, int]]:
        """Return the lines told since the last call, and the images processed by each group that has begun."""
        lines, self._lines = self._lines, []
        return lines, dict(self._at)


class BoardReporter:
    """Tells the board the progress of a worker's runner, which takes its `stop` from here, too. `tell` sends (images,
    lines) and returns whether to stop; `limit` is what is left of the budget by this node's own clock."""

    def __init__(self, tell: Callable[[int, list[str]], bool], node: str, limit: Budget) -> None:
        self._tell, self._node, self._limit = tell, node, limit
        self._lines = list[str]()
        self._at = self._images = 0
        self._asked, self._stopped = -ASK_SECONDS, False

    def begin(self, title: str, epochs: int, images: int) -> None:
        self._images = images
        self.say(f"{title}: {epochs * images:,} images in all epochs")

    def batch(self, epoch: int, done: int, total: int) -> None:
        self._at = epoch * self._images + done

    def epoch(self, state: Any) -> None:
        from rkd.experiments.progress import epoch_line

        self.say(epoch_line(state))

    def end(self) -> None:
        self.look()

    def say(self, text: str) -> None:
        self._lines.append(f"{self._node}  {text}")

    def look(self) -> bool:
        """Tell the board what is new; return whether to stop."""
        lines, self._lines, self._asked = self._lines, [], time.monotonic()
        self._stopped = self._tell(self._at, lines) or self._stopped
        return self._stopped

    def stop(self, needed: float) -> bool:
        """Whether the runner should stop; the board is asked at most every ASK_SECONDS."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self.look()
        return self._stopped or self._limit.stop(needed)
