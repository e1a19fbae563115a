"""What the driver of a sweep and its workers tell each other: progress one way, the order to stop the other."""

import time
from collections.abc import Callable
from typing import Any

from rkd.experiments.budget import Budget

ASK_SECONDS = 0.25  # between a worker's looks at the board


class Board:
    """An actor beside the driver, with which it ends. `seconds`: left of the driver's budget; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._limit, self._stopped = Budget(seconds), False
        self._lines, self._at = list[str](), dict[int, int]()

    def left(self) -> float | None:
        """Seconds of the budget."""
        return self._limit.left()

    def tell(self, group: int, at: int, lines: list[str]) -> bool:
        """Of a group, that it has come so many images far, and lines for people; returns whether to stop."""
        self._at[group] = at
        self._lines += lines
        return self._stopped

    def stop(self) -> None:
        """Let every group save and end."""
        self._stopped = True

    def news(self) -> tuple[list[str], dict[int, int]]:
        """Lines told since the last call, and how far each group is that has begun."""
        lines, self._lines = self._lines, []
        return lines, dict(self._at)


class BoardReporter:
    """The progress of a worker's runner, told to the board; `stop` is the runner's, too. `tell` sends (images, lines)
    and returns whether to stop; `limit` is of the budget, by this node's own clock."""

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
        """Tell what is new; returns whether to stop."""
        lines, self._lines, self._asked = self._lines, [], time.monotonic()
        self._stopped = self._tell(self._at, lines) or self._stopped
        return self._stopped

    def stop(self, needed: float) -> bool:
        """As a runner asks; it looks at the board every ASK_SECONDS at most."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self.look()
        return self._stopped or self._limit.stop(needed)
