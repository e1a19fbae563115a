"""Records in several arithmetics are never mixed, and what was used and what left out is named."""

import pytest
from evidence import PAPER, around, put, record

from rkd.judge import evaluate, load_claims
from rkd.report.verdict_text import computed, facts

CLAIMS = {claim.id: claim for claim in load_claims(selectors=PAPER)}
FULL, ALONE = "table1/resnet20-resnet56-reviewkd", "table1/resnet20-resnet56-student"
GAIN, VALUE = CLAIMS["table1-resnet20-resnet56-gain"], CLAIMS["table1-resnet20-resnet56-paper"]


def verdict(store, claim):
    (found,) = evaluate(claims=[claim], store=store)
    return found


def test_one_arithmetic_is_named(store):
    put(store, FULL, around(72.83), arithmetic="fp16", teachers="fp16")
    put(store, ALONE, around(70), arithmetic="fp16")
    found = verdict(store, GAIN)
    assert found.verdict == "reproduced" and found.arithmetics == "fp16 (10)" and found.left_out == ""
    assert ("computed in", "fp16 (10)") in facts(found) and computed(found) == "Computed in fp16 (10)."


def test_two_sides_in_two_arithmetics_are_not_compared(store):
    put(store, FULL, around(72.83), arithmetic="fp16")
    put(store, ALONE, around(70), arithmetic="bf16")
    found = verdict(store, GAIN)
    assert found.verdict == found.best.verdict == "not run"
    assert found.last.sentence.endswith(f"is recorded in fp16 of {ALONE}; bf16 (5) is recorded")
    assert found.arithmetics == "fp16 from a fp32 teacher (5)" and found.left_out == "bf16 (5)"
    assert found.missing == (next(iter(PAPER.needed([FULL]))),), (
        "the teacher; what is recorded is not missing"
    )
    assert "left out, in another arithmetic: bf16 (5)" in computed(found)


def test_a_mean_over_two_arithmetics_is_refused_too(store):
    """Three runs of five in fp16: judged by these; the other two are named."""
    put(store, FULL, [71.8, 71.9, 72.0], arithmetic="fp16", teachers="fp16")
    put(store, FULL, [60.0, 60.0], first=3)
    found = verdict(store, VALUE)
    assert found.last.n == (3,) and found.last.details["mean"] == pytest.approx(71.9)
    assert (found.arithmetics, found.left_out) == ("fp16 (3)", "fp32 (2)")


def test_a_tie_goes_to_fp32_then_fp16(store):
    put(store, FULL, [71.0, 71.0], arithmetic="bf16")
    put(store, FULL, [72.0, 72.0], first=2, arithmetic="fp16")
    assert verdict(store, VALUE).last.details["mean"] == 72
    put(store, FULL, [73.0], first=4)
    put(store, FULL, [73.0], first=0)
    assert verdict(store, VALUE).last.details["mean"] == 73


def test_an_arithmetic_of_both_sides_goes_before_one_of_more_runs(store):
    put(store, FULL, around(90), arithmetic="fp16")
    put(store, FULL, around(72.83, n=2))
    put(store, ALONE, around(70, n=2))
    found = verdict(store, GAIN)
    assert found.last.n == (2, 2) and found.arithmetics == "fp32 (4)"
    assert found.left_out == "fp16 from a fp32 teacher (3)", "of the runs that are recorded in no other"


def test_a_run_recorded_twice_counts_once(store):
    put(store, FULL, around(71.89), arithmetic="fp16")
    put(store, FULL, around(60.0))
    found = verdict(store, VALUE)
    assert found.last.n == (5,) and found.last.details["mean"] == pytest.approx(60), "a tie: fp32 leads"
    assert found.left_out == ""


def test_diverged_runs_choose_no_arithmetic(store):
    for config in list(PAPER.runs([FULL]).values())[:3]:
        store.save(record(config, 1.0, status="diverged", arithmetic="fp16"))
    put(store, FULL, [71.0, 72.0], first=3)
    found = verdict(store, VALUE)
    assert found.last.n == (2,) and found.arithmetics == "fp32 (2)" and found.diverged == ()
