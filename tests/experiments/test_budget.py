"""Durations, the limit of time with its reserve, and what signals do."""

import os
import signal
import threading
import time

import pytest

from rkd.errors import ConfigError
from rkd.experiments.budget import Budget, format_duration, parse_duration


def test_durations_and_the_sentence_for_what_is_none():
    seconds = {
        "9m": 540, "90s": 90, "1h30m": 5400, "2.5h": 9000, "45": 45, " 1H30M15s ": 5415, "1d12h": 129_600,
    }  # fmt: skip
    assert {text: parse_duration(text) for text in seconds} == seconds
    for text in ("", "soon", "9 m", "-5m", "30m1h", "1h30", "nan", "9" * 400):
        with pytest.raises(ConfigError, match="is not a duration; write 90s") as error:
            parse_duration(text)
        assert repr(text) in str(error.value)
    with pytest.raises(ConfigError, match="'0m' is no time at all"):
        parse_duration("0m")
    words = {
        0.2: "0 s", 59.6: "1 min", 90: "1 min 30 s", 540: "9 min", 599.7: "10 min", 719: "12 min",
        3571: "1 h 00 min", 7500: "2 h 05 min", 172_700: "47 h 58 min", 172_800: "2 d 0 h",
    }  # fmt: skip
    assert {seconds: format_duration(seconds) for seconds in words} == words


def test_stops_while_half_as_much_again_and_the_reserve_still_fit(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    long, small, endless = (Budget(seconds) for seconds in (600, 10, None))
    now += 9
    assert not small.stop(0)
    now += 0.001
    assert small.stop(0), "a tenth of a small budget is kept"
    now = 1565.0  # 600 - t < 20 * 1.5 + 5 holds first beyond
    assert not long.stop(20) and long.reason is None
    now += 0.001
    assert long.stop(20) and long.reason == "the budget of 10 min is used up"
    assert long.stop(0), "it stays at its word for smaller pieces"
    now += 1e9
    assert not endless.stop(1e9) and endless.reason is None


def test_first_signal_sets_a_flag_second_interrupts_old_handlers_return():
    reasons = {signal.SIGTERM: "SIGTERM arrived", signal.SIGINT: "Ctrl-C (SIGINT) arrived"}
    before, seen = {n: signal.getsignal(n) for n in reasons}, []
    for number, reason in reasons.items():
        with Budget() as budget:
            assert not budget.stop(0)
            os.kill(os.getpid(), number)
            assert budget.stop(0) and budget.reason == reason
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert {n: signal.getsignal(n) for n in before} == before

    def elsewhere():
        with Budget(5) as budget:
            seen.append((signal.getsignal(signal.SIGTERM), budget.stop(100)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before[signal.SIGTERM], True)], "another thread leaves signals alone"
