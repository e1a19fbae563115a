"""Time limits, and signals that end a sweep between two batches instead of inside one."""

import math
import re
import signal
import threading
import time
from types import FrameType

from rkd.errors import ConfigError

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _SECONDS))
_SIGNALS = {signal.SIGTERM: "SIGTERM arrived", signal.SIGINT: "Ctrl-C (SIGINT) arrived"}

# Time kept free at the end of a budget. Callers say how long the next batch or evaluation takes, as measured so far.
# RESERVE_S (or RESERVE_SHARE of a budget too small for it) is for what that leaves out: the checkpoints of a group
# (some 400 MB for eight of the largest, about two seconds with the disk's confirmation), the closing report, which
# reads them again, and the end of the process (freeing a GPU takes about a second). SLOW is a further share of the
# expected time, as the next piece may be slower than those before (a neighbour on the machine, a slow disk).
RESERVE_S = 5.0
RESERVE_SHARE = 0.1
SLOW = 0.5


def parse_duration(text: str) -> float:
    """Return the seconds in a text such as "90s", "9m", "1h30m", "2.5h", "1d12h" or "45" (seconds).

    Raises:
        ConfigError: the text has another form, or the duration is not longer than zero.
    """
    match = _DURATION.fullmatch(re.sub(r"^([\d.]+)$", r"\1s", text.strip().lower()))
    parts = match.groups(0) if match else (0,) * 4
    seconds = sum(float(n) * unit for n, unit in zip(parts, _SECONDS.values(), strict=True))
    if match and text.strip() and seconds == 0:
        raise ConfigError(f"{text!r} is no time at all; a duration must be longer than zero")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{text!r} is not a duration; write 90s, 9m, 1h30m, 2.5h, 2d, or seconds as 45")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration for people to read: "45 s", "9 min", "9 min 30 s", "12 min", "2 h 05 min", "3 d 4 h".

    Seconds are given below ten minutes, minutes below two days.
    """
    s, minutes, hours = round(seconds), round(seconds / 60), round(seconds / 3600)
    if s < 60:
        return f"{s} s"
    if s < 600 and s % 60:
        return f"{s // 60} min {s % 60:02d} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


class Budget:
    """Decides when to stop: its method `stop` is the argument of that name of `Runner` and `train`.

    The clock starts when the object is made. As a context manager it catches SIGTERM and SIGINT (Ctrl-C) until the
    block ends, then restores the old handlers. The first signal sets a flag, so that the current batch is finished and
    the checkpoint written; a second one raises KeyboardInterrupt at once. Python lets only the main thread install
    handlers: in any other thread signals stay as they are, and only the time limit works.

    Attributes:
        reason: why `stop` returns True, in words; None while it does not.
    """

    reason: str | None = None

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self._started = seconds, time.monotonic()
        self._old: dict[int, object] = {}

    def left(self) -> float | None:
        """Return the seconds left of the budget, at least 0; None if there is no limit."""
        return None if self.seconds is None else max(0.0, self.seconds - (time.monotonic() - self._started))

    def stop(self, needed: float) -> bool:
        """Whether to stop now rather than begin a piece of work expected to take `needed` seconds: a signal has
        arrived, or the time left is less than `needed`, half as much again in case it is slow, and a reserve of 5 s (a
        tenth of a budget under 50 s) for saving and leaving. Once True, it stays True.
        """
        if self.seconds is not None and self.reason is None:
            reserve = min(RESERVE_S, RESERVE_SHARE * self.seconds)
            if self.left() < needed * (1 + SLOW) + reserve:
                self.reason = f"the budget of {format_duration(self.seconds)} is used up"
        return self.reason is not None

    def __enter__(self) -> "Budget":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._old[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            # None stands for a handler that was not set from Python, which Python cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old.clear()

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.reason in _SIGNALS.values():
            raise KeyboardInterrupt
        self.reason = _SIGNALS[signal.Signals(number)]
