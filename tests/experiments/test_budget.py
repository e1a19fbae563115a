"""Durations, the limit of time with its reserve, and what signals do."""

import os
import signal
import threading

import pytest

from rkd.errors import ConfigError
from rkd.experiments.budget import Budget, in_words, parse_duration


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("9m", 540), ("90s", 90), ("1h30m", 5400), ("2.5h", 9000), ("45", 45), ("0.5", 0.5), (" 1H30M15s ", 5415),
        ("2d", 172_800), ("1d12h", 129_600), ("1h0.5m", 3630),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "9 m", "-5m", "0m", "30m1h", "1h30", "nan", "1e3", ".5h"],
)
def test_what_is_no_duration_gets_one_sentence(text):
    with pytest.raises(ConfigError, match="is not a duration; write 90s") as error:
        parse_duration(text)
    assert repr(text) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (90, "1 min 30 s"), (540, "9 min"), (599.7, "10 min"),
        (719, "12 min"), (3569, "59 min"), (3571, "1 h 00 min"), (7500, "2 h 05 min"), (172_700, "47 h 58 min"),
        (172_800, "2 d 0 h"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_no_limit_never_stops():
    clock = Clock()
    budget = Budget(clock=clock)
    clock.now += 1e9
    assert not budget.stop(1e9) and budget.reason is None


def test_stops_while_half_as_much_again_and_the_reserve_still_fit():
    clock = Clock()
    budget = Budget(600, clock)
    clock.now += 565  # 600 - t < 20 * 1.5 + 5 holds first beyond
    assert not budget.stop(20) and budget.reason is None
    clock.now += 0.001
    assert budget.stop(20) and budget.reason == "the budget of 10 min is used up"
    assert budget.stop(0), "it stays at its word for smaller pieces"


def test_a_small_budget_keeps_a_small_reserve():
    clock = Clock()
    budget = Budget(10, clock)
    clock.now += 9
    assert not budget.stop(0)
    clock.now += 0.001
    assert budget.stop(0)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGTERM, "SIGTERM arrived"), (signal.SIGINT, "Ctrl-C (SIGINT) arrived")],
)
def test_first_signal_sets_a_flag_second_interrupts_old_handlers_return(number, reason):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    with Budget() as budget:
        assert not budget.stop(0)
        os.kill(os.getpid(), number)
        assert budget.stop(0) and budget.reason == reason
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert {n: signal.getsignal(n) for n in before} == before


def test_another_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Budget(5) as budget:
            seen.append((signal.getsignal(signal.SIGTERM), budget.stop(100)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, True)] and signal.getsignal(signal.SIGTERM) is before
