"""How many threads compute a step on a CPU: measured on the training's own steps, because what else runs on the machine
decides it. Two threads on two cores are up to twice as quick as one, and many times as slow where another process keeps
one of the cores busy: at every join both wait for the thread that was put aside."""

import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Sequence

import torch

from rkd.config import CountOrAuto, check
from rkd.errors import ConfigError

STEPS = 3  # that are compared, of each number; the first one after a change is not among them
PERIOD = 300.0  # seconds of steps between trials
SHARE = 0.05  # of the time may go into trials: what one took sets when the next may come
BETTER = 0.95  # of the time a trial must stay below, so that nothing is changed for nothing
SLOW = 2.0  # times as long as when the choice was made: something has changed, and a trial is due
HOPELESS = 2.0  # times as long: one such step ends a trial
FIRST_STEP = 1.0  # seconds beyond that for a trial's first step, in which kernels are prepared
RISK = 30.0  # steps' worth of time that must be left for a trial


def numbers(setting: int | str, device: torch.device) -> tuple[int, ...]:
    """The numbers of threads to choose from, ascending; none on CUDA, where torch's own stays.

    "auto" doubles from one to all cores of this process, unless OMP_NUM_THREADS is set: that is then the only choice.

    Raises:
        ConfigError: the setting, or OMP_NUM_THREADS, is no number of threads.
    """
    setting = check(CountOrAuto, "threads", setting)
    if device.type == "cuda":
        return ()
    if setting != "auto":
        return (setting,)
    said = os.environ.get("OMP_NUM_THREADS", "").strip()
    if said:
        first = said.partition(",")[0].strip()  # further ones are of nested teams
        if not first.isdecimal() or int(first) < 1:
            raise ConfigError(f"OMP_NUM_THREADS is {said!r}; it must be a whole number >= 1")
        return (int(first),)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (*(2**i for i in range((cores - 1).bit_length())), cores)


def fixed(setting: int | str, device: torch.device) -> int | None:
    """The number of threads known beforehand; None where it will be measured."""
    choice = numbers(setting, device)
    if not choice:
        return torch.get_num_threads()
    return choice[0] if len(choice) == 1 else None


def better(trial: Sequence[float], usual: float, first: float = FIRST_STEP) -> bool | None:
    """Whether a number of threads is quicker than the one in use; None: more steps must tell.

    Args:
        trial: seconds of its steps so far, the first one after the change included.
        usual: median seconds of a step with the number in use.
        first: seconds that the first step may take besides.
    """
    if trial[0] > HOPELESS * usual + first or any(step > HOPELESS * usual for step in trial[1:]):
        return False
    return None if len(trial) <= STEPS else statistics.median(trial[1:]) < BETTER * usual


class Threads:
    """The number of threads in use, step by step: `take` before a step, `took` after it.

    Starts with the least number and climbs as long as the next one is quicker. Then, when PERIOD has passed or steps
    have become SLOW, its neighbours are tried for a few steps. Between steps (evaluation, checkpoints) the number in
    use is in force, never one on trial; before the first step torch's own, unless there is no choice. Time is told by
    the steps alone.

    Args:
        choice: numbers to choose from, ascending, as of `numbers`; none: torch's own is left alone.
        say: told of each change, and of the first comparison, in words.
        left: seconds that may still be used; no trial is begun in the last steps of a budget, which it might overrun.
        first: see `better`.
    """

    def __init__(
        self,
        choice: Sequence[int] = (),
        say: Callable[[str], None] = lambda text: None,
        left: Callable[[], float] = lambda: math.inf,
        first: float = FIRST_STEP,
    ) -> None:
        self._choice, self._say, self._left, self._first = tuple(choice), say, left, first
        self._at = 0
        self._way: int | None = None  # of the trial under way: 1 up, -1 down
        self._ways = [1]  # still to be tried
        self._passed = self._spent = 0.0  # seconds of steps since the last trial began, and in its own steps
        self._asked = True  # the next verdict is told even if nothing changes
        self._base: float | None = None  # median when the choice was made
        self._usual = math.inf
        self.begin()
        if len(self._choice) == 1:
            torch.set_num_threads(self._choice[0])

    def begin(self) -> None:
        """Other steps follow than so far: nothing measured is comparable. A trial under way is put off."""
        if self._way is not None:
            self._ways.insert(0, self._way)
        self._way, self._base = None, None
        self._settle()

    def _settle(self) -> None:
        """The number in use is measured anew, without the first step."""
        self._steps: deque[float] = deque(maxlen=STEPS)
        self._trial: list[float] = []
        self._cold = True

    def take(self) -> int:
        """Put the number for the next step in force, and return it."""
        if not self._choice:
            return torch.get_num_threads()
        number = self._choice[self._at + (self._way or 0)]
        torch.set_num_threads(number)
        return number

    def took(self, seconds: float, whole: bool = True) -> float:
        """Count the step made, and choose the number for the next.

        Args:
            seconds: it took.
            whole: whether it was of full size, and can be compared.

        Returns:
            Seconds the next step is expected to take, which those of a lost trial do not tell.
        """
        if len(self._choice) < 2:
            return seconds
        self._passed += seconds
        if self._way is None:
            self._used(seconds, whole)
            expected = seconds
        else:
            self._tried(seconds, whole)
            expected = self._usual
        torch.set_num_threads(self._choice[self._at])
        return expected

    def _used(self, seconds: float, whole: bool) -> None:
        if self._cold or not whole:
            self._cold = False
            return
        self._steps.append(seconds)
        if len(self._steps) < STEPS:
            return
        self._usual = statistics.median(self._steps)
        self._base = self._base or self._usual
        changed = self._usual > SLOW * self._base
        if not self._ways and (changed or self._passed >= PERIOD) and self._passed >= self._spent / SHARE:
            self._ways = [1, -1]
            self._passed = self._spent = 0.0
        self._ways = [way for way in self._ways if 0 <= self._at + way < len(self._choice)]
        if self._ways and self._left() > RISK * self._usual:
            self._way = self._ways.pop(0)

    def _tried(self, seconds: float, whole: bool) -> None:
        self._spent += seconds
        if whole:
            self._trial.append(seconds)
        verdict = better(self._trial, self._usual, self._first) if self._trial else None
        if verdict is None:
            return
        there, way = self._at + self._way, self._way
        found = statistics.median(self._trial[1:]) if len(self._trial) > 1 else self._trial[0]
        if verdict or self._asked:
            # Each change is told, those of a climb that goes on too.
            self._say(
                f"{_named(self._choice[there])}: {_seconds(found)} a step, {_named(self._choice[self._at])}: "
                f"{_seconds(self._usual)}; going on with {self._choice[there if verdict else self._at]}"
            )
        self._asked = False
        if verdict:
            self._at, self._usual, self._ways = there, found, [way]
        self._way, self._base = None, None
        self._settle()


def _named(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
