"""Records in several arithmetics: never mixed unless a gate shows them equal, and what was used is named."""

import dataclasses

import pytest
from evidence import PAPER, around, put, record

from rkd.bench import committed
from rkd.bench.gate import Gate, Pair
from rkd.judge import evaluate, load_claims
from rkd.report.verdict_text import computed, facts

CLAIMS = {claim.id: claim for claim in load_claims(selectors=PAPER)}
FULL, ALONE = "table1/resnet20-resnet56-reviewkd", "table1/resnet20-resnet56-student"
GAIN, VALUE = CLAIMS["table1-resnet20-resnet56-gain"], CLAIMS["table1-resnet20-resnet56-paper"]


def gate(name, differences=(0.1, 0.0, -0.1), epochs=240, images=50_000, dataset="cifar100"):
    pairs = tuple(Pair(seed, 70.0, 70.0 + d) for seed, d in enumerate(differences))
    return Gate({"dataset": dataset, "epochs": epochs, "train_images": images}, name, pairs)


def verdict(store, claim, *gates):
    (found,) = evaluate(claims=[claim], store=store, gates=gates)
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
    for words in ("in fp16", ALONE, "bf16 (5) is recorded", "no gate shows equal"):
        assert words in found.last.sentence
    assert found.arithmetics == "fp16 from a fp32 teacher (5)" and found.left_out == "bf16 (5)"
    assert found.missing == (next(iter(PAPER.needed([FULL]))),), (
        "the teacher; what is recorded is not missing"
    )
    assert "left out, in another arithmetic: bf16 (5)" in computed(found)


@pytest.mark.parametrize(
    ("gates", "pooled"),
    [
        ([gate("bf16")], True),
        ([gate("bf16", epochs=4, images=12_000)], False),
        ([gate("bf16", dataset="cifar10")], False),
        ([gate("bf16", (0.6, 0.6, 0.6))], False),
        ([gate("bf16", (0.0, 1.0, -1.0))], False),
        ([gate("fp16")], False),
        ([gate("bf16"), gate("bf16", (2.0, 2.0, 2.0))], False),
    ],
    ids=["shown", "short", "other data", "differs", "uncertain", "other arithmetic", "contradicted"],
)
def test_a_gate_in_the_same_setting_lets_them_be_pooled(gates, pooled, store):
    put(store, FULL, around(72.83))
    put(store, ALONE, around(70), arithmetic="bf16")
    found = verdict(store, GAIN, *gates)
    assert found.verdict == ("reproduced" if pooled else "not run")
    assert found.arithmetics == ("fp32 (5), bf16 (5)" if pooled else "fp32 (5)")
    assert found.left_out == ("" if pooled else "bf16 (5)")


def test_a_mean_over_two_arithmetics_is_refused_too(store):
    """Three runs of five in fp16: judged by these; the other two are named."""
    put(store, FULL, [71.8, 71.9, 72.0], arithmetic="fp16", teachers="fp16")
    put(store, FULL, [60.0, 60.0], first=3)
    found = verdict(store, VALUE)
    assert found.last.n == (3,) and found.last.details["mean"] == pytest.approx(71.9)
    assert (found.arithmetics, found.left_out) == ("fp16 (3)", "fp32 (2)")
    both = verdict(store, VALUE, gate("fp16"))
    assert both.last.n == (5,) and both.arithmetics == "fp16 (3), fp32 (2)" and both.left_out == ""


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


def test_equal_to_the_same_is_not_equal_to_each_other(store):
    """bf16 within half a point of fp32, and fp16 too, may be a point apart."""
    put(store, FULL, [71.0, 71.0])
    put(store, FULL, [71.0, 71.0], first=2, arithmetic="fp16")
    put(store, FULL, [71.0], first=4, arithmetic="bf16")
    found = verdict(store, VALUE, gate("fp16"), gate("bf16"))
    assert found.last.n == (4,) and found.left_out == "bf16 from a fp32 teacher (1)"


def test_a_run_recorded_twice_counts_once(store):
    put(store, FULL, around(71.89), arithmetic="fp16")
    put(store, FULL, around(60.0))
    found = verdict(store, VALUE, gate("fp16"))
    assert found.last.n == (5,) and found.last.details["mean"] == pytest.approx(60), "a tie: fp32 leads"


def test_diverged_runs_choose_no_arithmetic(store):
    for config in list(PAPER.runs([FULL]).values())[:3]:
        store.save(record(config, 1.0, status="diverged", arithmetic="fp16"))
    put(store, FULL, [71.0, 72.0], first=3)
    found = verdict(store, VALUE)
    assert found.last.n == (2,) and found.arithmetics == "fp32 (2)" and found.diverged == ()


def test_the_gate_on_record_is_about_its_own_setting():
    """bf16 against fp32 on three seeds: 0.11 +- 2.92 * 0.127, within half a point; of 4 epochs on 12,000 images."""
    (found,) = [g for g in committed(Gate).values() if g.arithmetic == "bf16"]
    half = 2.919986 * 0.12701705922171702
    assert found.interval == pytest.approx((0.11 - half, 0.11 + half)) and found.equal
    assert found.setting == ("cifar100", 4, 12_000)
    assert found.finding == (
        "bf16 against fp32: equal within 0.5 points (-0.26 to +0.48, 90 %) in 4 epochs on 12,000 images of cifar100"
    )
    lost = dataclasses.replace(found, pairs=(*found.pairs, Pair(3, 25.0, None)))
    alone = dataclasses.replace(found, pairs=found.pairs[:1])
    assert not lost.equal and not alone.equal and "(" not in alone.finding
