"""Choose how many threads compute a step on a CPU: as many as speed up a small convolution right now. Two threads on
two cores are up to twice as fast as one, but many times slower if another process keeps one of the cores busy: at every
join both wait for the thread that was descheduled. A convolution shows this within milliseconds, so that no training
step is ever made with more threads than there are free cores."""

import math
import os
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from rkd.devices import cores
from rkd.errors import ConfigError

PROBE = 0.02  # seconds of convolutions, for each number of threads
BETTER = 0.9  # more threads must take at most this fraction of the time that fewer take
PERIOD = 60.0  # seconds of steps between probes
SLOW = 2.0  # a step this many times as long as the quickest since the last probe makes a new probe due
SHARE = 0.05  # at most about this share of the time goes into probes


def thread_choices(setting: int | str, device: torch.device) -> tuple[int, ...]:
    """Return the numbers of threads to choose from, ascending; on CUDA only torch's own. "auto" doubles from one to all
    cores of this process, unless OMP_NUM_THREADS is set, which is then the only choice; raise ConfigError if that is
    not a number of threads."""
    if device.type == "cuda":
        return (torch.get_num_threads(),)
    if setting != "auto":
        return (int(setting),)
    said = os.environ.get("OMP_NUM_THREADS", "").strip()
    if said:
        first = said.partition(",")[0].strip()  # further numbers are for nested teams
        if not first.isdecimal() or int(first) < 1:
            raise ConfigError(f"OMP_NUM_THREADS is {said!r}; it must be a whole number >= 1")
        return (int(first),)
    most = cores()
    return (*(2**i for i in range((most - 1).bit_length())), most)


@torch.no_grad()
def convolution_seconds(number: int) -> float:
    """Return the mean seconds of a small convolution with `number` threads: the mean, because a descheduled thread
    delays only a few of them, but by much."""
    torch.set_num_threads(number)
    x = torch.ones(64, 16, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.ones(16, 16, 3, 3)
    F.conv2d(x, weight, padding=1)  # starts the threads
    started, calls, passed = time.perf_counter(), 0, 0.0
    while calls < 3 or passed < PROBE:
        F.conv2d(x, weight, padding=1)
        calls, passed = calls + 1, time.perf_counter() - started
    return passed / calls


class Threads:
    """The number of threads in use, step by step: call `take` before a step and `took` after it.

    Before the first step, when PERIOD has passed and when steps have become SLOW, numbers are probed in ascending
    order as long as the next one is quicker. An empty `choice` means torch's own number. `probe` returns the seconds
    of some work with a given number of threads, `clock` measures how long probes take.
    """

    def __init__(
        self,
        choice: Sequence[int] = (),
        say: Callable[[str], None] = lambda text: None,
        probe: Callable[[int], float] = convolution_seconds,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._choice = tuple(choice) or (torch.get_num_threads(),)
        self._say, self._probe, self._clock = say, probe, clock
        self._number: int | None = None  # in use
        self._passed = self._spent = 0.0  # seconds of steps since the last probe, and of that probe itself
        self.begin()
        if len(self._choice) == 1:
            self._use(*self._choice)

    def begin(self) -> None:
        """Forget the step times measured so far: those of the steps to come are not comparable with them."""
        self._usual, self._slow = math.inf, False

    def take(self) -> int:
        """Set the number of threads for the next step, and return it."""
        due = (self._slow or self._passed >= PERIOD) and self._passed >= self._spent / SHARE
        if self._number is None or (due and len(self._choice) > 1):
            self._choose()
        self._use(self._number)
        return self._number

    def took(self, seconds: float, whole: bool = True) -> None:
        """Count a step that took `seconds`; `whole`: its batch was of full size, so that it can be compared."""
        self._passed += seconds
        if whole:
            self._slow = seconds > SLOW * self._usual
            self._usual = min(self._usual, seconds)

    def _use(self, number: int) -> None:
        self._number = number
        if number != torch.get_num_threads():
            torch.set_num_threads(number)

    def _choose(self) -> None:
        started, took = self._clock(), {}
        best = self._choice[0]
        for number in self._choice:
            took[number] = self._probe(number)
            if took[number] > BETTER * took[best] and number != best:
                break
            best = number
        self._spent, self._passed = self._clock() - started, 0.0
        self.begin()
        if best != self._number:
            found = ", ".join(f"{1000 * seconds:.3g} ms with {number}" for number, seconds in took.items())
            self._say(f"going on with {best} thread{'s' * (best > 1)} (a convolution: {found})")
        self._number = best
