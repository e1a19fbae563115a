"""Claims evaluated on synthetic records: each verdict, what is no evidence, what is missing, several arithmetics."""

import dataclasses
import math

import numpy as np
import pytest
from evidence import PAPER, around, put, record

from rkd import paths
from rkd.experiments.selectors import Selectors, is_published_setting, split
from rkd.judge import evaluate_claims, load_claims
from rkd.records import Store
from rkd.report.verdict_text import arithmetic_sentence, evidence_facts

CLAIMS = {claim.id: claim for claim in load_claims(selectors=PAPER)}
FULL = "table1/resnet20-resnet56-reviewkd"
ALONE = "table1/resnet20-resnet56-student"
GAIN, VALUE = "table1-resnet20-resnet56-gain", "table1-resnet20-resnet56-paper"


def verdict(store, name):
    """One claim, and its whole family, judged from a store."""
    wanted = CLAIMS[name]
    together = [c for c in CLAIMS.values() if c.id == name or (c.family and c.family == wanted.family)]
    (found,) = [v for v in evaluate_claims(claims=together, store=store) if v.claim.id == name]
    return found


# --- every kind -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "n", "expected"),
    [(0.0, 5, "reproduced"), (-1.0, 5, "not reproduced"), (0.0, 4, "inconclusive")],
)
def test_values(shift, n, expected, store):
    claim = CLAIMS[VALUE]
    ids = put(store, FULL, around(claim.published + shift, n=n))
    found = verdict(store, claim.id)
    assert found.verdict == found.last.verdict == expected
    assert found.records == tuple(ids) and found.last.n == (n,)
    assert found.last.estimate == pytest.approx(shift)
    assert found.last.details["mean"] == pytest.approx(claim.published + shift)


def test_effects_and_orders_of_two_lines_and_against_one_figure(store):
    put(store, FULL, around(71.5))
    put(store, ALONE, around(70))
    gain = verdict(store, GAIN)
    assert gain.verdict == "reproduced, smaller effect" and gain.last.n == (5, 5)
    family = [c for c in CLAIMS.values() if c.family == CLAIMS[GAIN].family]
    assert len(family) > 1 and gain.last.p_holm == pytest.approx(len(family) * gain.last.p)
    assert gain.last.estimate == pytest.approx(1.5)
    assert verdict(store, "table1-resnet20-resnet56-beats-student").verdict == "reproduced"
    quoted = CLAIMS["table1-resnet20-resnet56-beats-crd"]
    put(store, FULL, around(quoted.published - 1))
    found = verdict(store, quoted.id)
    assert found.verdict == "not reproduced" and found.last.n == (5,) and found.last.estimate < 0.5


def test_trends_and_chance(store):
    claim, means = CLAIMS["figure6-shape"], (70, 71, 72, 72, 72, 71, 70)
    for selector, mean in zip(claim.runs["groups"], means, strict=True):
        put(store, selector, around(mean))
    found = verdict(store, claim.id)
    assert found.verdict == "reproduced" and found.last.n == (5,) * 7
    assert found.last.estimate == pytest.approx(1.5) and found.last.details["argmax_inside"] == 1
    assert found.last.p_holm is None, "a family of one is not corrected"
    put(store, "no_cross_entropy/alone", around(1.5))
    assert verdict(store, "no_cross_entropy-at-chance").verdict == "reproduced"


def test_bound_over_all_pairs(store):
    claim = CLAIMS["within-0.8-of-the-paper"]
    lines = claim.runs["groups"]
    put(store, lines[0], around(claim.published[0]))
    found = verdict(store, claim.id)
    assert found.verdict == "inconclusive" and len(found.records) == 5, "seven pairs are missing"
    for selector, published in zip(lines, claim.published, strict=True):
        put(store, selector, around(published + 0.3))
    assert verdict(store, claim.id).verdict == "reproduced"


# --- evidence -------------------------------------------------------------------------------------------------------


def test_one_side_alone_is_not_run_and_says_which_is_missing(store):
    put(store, FULL, around(72))
    found = verdict(store, GAIN)
    assert found.verdict == "not run" and ALONE in found.last.sentence and FULL not in found.last.sentence
    assert found.last.more_seeds is None and len(found.records) == 5
    assert math.isclose(found.optimism, 0)


def test_nothing_recorded_is_not_run_with_all_that_is_missing(tmp_path):
    store = Store(tmp_path / "nowhere", tmp_path / "work")
    verdicts = evaluate_claims(store=store)
    assert len(verdicts) == len(CLAIMS) and {v.verdict for v in verdicts} == {"not run"}
    for v in verdicts:
        assert v.best.verdict == "not run" and math.isnan(v.optimism) and not v.records and not v.diverged
        assert set(v.missing) == set(PAPER.needed(v.claim.selectors))
    full = next(v for v in verdicts if v.claim.id == "table3-full")
    assert len(full.missing) == 6, "five students and their teacher"


def test_what_is_missing_shrinks_with_the_records(store):
    teacher, *students = PAPER.needed(["table3/full"]).items()
    store.save(record(teacher[1], 73.0))
    put(store, "table3/full", [71.8, 71.9])
    found = verdict(store, "table3-full")
    assert found.missing == tuple(run for run, _ in students[2:]) and len(found.missing) == 3
    assert found.last.more_seeds >= 3


def test_short_or_partial_runs_are_no_evidence(store, tmp_path):
    text = (paths.params() / "paper.yaml").read_text()
    claim = CLAIMS["table3-full"]
    changes = {
        "recipe: null": "epochs: 239",
        "dataset: cifar100": "dataset: cifar10",
        "profile: paper": "profile: paper\ntrain_images: 10000",
        "\nseeds:": "\ntest_images: 1000\nseeds:",
        "data_root:": "holdout: 5000\ndata_root:",
        "on_missing:": "teacher_epochs: 10\non_missing:",
    }
    for old, new in changes.items():
        assert old in text
        profile = tmp_path / "changed.yaml"
        profile.write_text(text.replace(old, new))
        put(store, "table3/full", around(71.79), selectors=Selectors(str(profile)))
        (found,) = evaluate_claims(str(profile), [claim], store)
        assert found.verdict == "not run", new
    put(store, "table3/full", around(71.79))
    (found,) = evaluate_claims("paper", [claim], store)
    assert found.verdict == "reproduced"


def test_every_run_of_the_paper_profile_is_of_its_chapters_setting():
    """Of its recipe's epochs or more, and on the chapter's data: 200 on CIFAR-10 and CIFAR-100 for
    KnowledgeDistillation. Untrained teachers are."""
    for selector in {s for c in CLAIMS.values() for s in c.selectors}:
        setting = split(selector)[0], PAPER.line(selector).recipe
        assert all(is_published_setting(run, *setting) for run in PAPER.needed([selector]).values()), selector
    own = "soft_targets_and_attention"
    run = next(iter(PAPER.runs([f"{own}/cifar10-resnet20_7x7-resnet20_7x7-kd"]).values()))
    assert (run.epochs, run.data.name) == (200, "cifar10") and not is_published_setting(run, "table1")
    for epochs, published in ((199, False), (400, True)):
        assert is_published_setting(dataclasses.replace(run, epochs=epochs), own) == published


def test_the_best_of_three_students_is_judged_where_that_is_claimed(store):
    """Per run the largest of the three, at the last epoch and at the best; of other methods the one student."""
    claim = CLAIMS["modreduce-resnet20-resnet56-modreduce-beats-crd"]
    selector, rival = claim.groups[0][0], claim.groups[1][0]
    others = {"relational": (0.3, 0.9), "feature": (-0.4, 0.1), "group": (5.0, 6.0)}
    for n, config in enumerate(PAPER.runs([selector]).values()):
        made = record(config, 71.0 + n / 10, 71.2 + n / 10)
        for name, (last, best) in others.items():
            made.result[f"last_accuracy_{name}"] = 71.0 + n / 10 + last
            made.result[f"best_accuracy_{name}"] = 71.0 + n / 10 + best
        store.save(made)
    put(store, rival, around(70.0))
    value = verdict(store, "modreduce-resnet20-resnet56-modreduce")
    assert (value.last.details["mean"], value.best.details["mean"]) == pytest.approx((71.5, 72.1))
    assert value.optimism == pytest.approx(0.6)
    assert (value.verdict, value.best.verdict) == ("inconclusive", "reproduced")
    (order,) = evaluate_claims(claims=[claim], store=store)
    assert order.verdict == "reproduced" and order.last.n == (5, 5)
    (one,) = evaluate_claims(claims=[dataclasses.replace(claim, which_student="response")], store=store)
    (own,) = evaluate_claims(claims=[dataclasses.replace(claim, which_student="")], store=store)
    assert one.last.sentence == own.last.sentence != order.last.sentence


def test_runs_of_two_chapters_are_evidence_in_both(store):
    claim = CLAIMS["baselines-resnet20-resnet56-crd"]
    put(store, "kdrefine/resnet20-resnet56-crd", around(claim.published))
    found = verdict(store, claim.id)
    assert found.verdict == "reproduced" and found.last.n == (5,), "counted once"


def test_a_profile_with_more_seeds(store, tmp_path):
    profile = tmp_path / "ten.yaml"
    text = (paths.params() / "paper.yaml").read_text()
    profile.write_text(text.replace("[0, 1, 2, 3, 4]", str(list(range(10)))))
    put(store, "table3/full", around(71.79, n=10), selectors=Selectors(str(profile)))
    claim = CLAIMS["table3-full"]
    (ten,), (five,) = evaluate_claims(str(profile), [claim], store), evaluate_claims("paper", [claim], store)
    assert ten.last.n == (10,) and five.last.n == (5,)


def test_diverged_runs_enter_no_mean_and_are_named(store):
    run, config = list(PAPER.runs([FULL]).items())[4]
    put(store, FULL, around(71.89, n=4))
    lost = record(config, 1.0, 1.0, "diverged")
    store.save(lost)
    found = verdict(store, VALUE)
    assert found.last.n == (4,) and found.diverged == (lost.id,) and run not in found.missing
    assert found.verdict == "inconclusive" and found.last.details["mean"] == pytest.approx(71.89)


def test_a_damaged_record_is_a_gap_that_is_said(store, capsys):
    ids = put(store, FULL, around(71.89))
    store.path(ids[2]).write_text("{")
    found = verdict(store, VALUE)
    assert found.verdict == "inconclusive" and found.last.n == (4,) and found.missing
    assert capsys.readouterr().err.count(f"record {store.path(ids[2])} is damaged") == 1


# --- several arithmetics -----------------------------------------------------------------------------------------


def test_one_arithmetic_is_named(store):
    put(store, FULL, around(72.83), arithmetic="fp16", teachers="fp16")
    put(store, ALONE, around(70), arithmetic="fp16")
    found = verdict(store, GAIN)
    assert found.verdict == "reproduced" and found.arithmetics == "fp16 (10)" and found.left_out == ""
    assert ("computed in", "fp16 (10)") in evidence_facts(found)
    assert arithmetic_sentence(found) == "Computed in fp16 (10)."


def test_two_sides_in_two_arithmetics_are_not_compared(store):
    put(store, FULL, around(72.83), arithmetic="fp16")
    put(store, ALONE, around(70), arithmetic="bf16")
    found = verdict(store, GAIN)
    assert found.verdict == found.best.verdict == "not run"
    assert found.last.sentence.endswith(f"is recorded in fp16 of {ALONE}; bf16 (5) is recorded")
    assert found.arithmetics == "fp16 from a fp32 teacher (5)" and found.left_out == "bf16 (5)"
    assert found.missing == (next(iter(PAPER.needed([FULL]))),), "the teacher; the rest is recorded"
    assert "left out, in another arithmetic: bf16 (5)" in arithmetic_sentence(found)


FP16 = {"arithmetic": "fp16", "teachers": "fp16"}
BF16 = {"arithmetic": "bf16", "teachers": "bf16"}


@pytest.mark.parametrize(
    ("of_one", "of_other", "mean", "n", "arithmetics", "left_out"),
    [
        (([71.8, 71.9, 72.0], FP16), ([60.0, 60.0], {"first": 3}), 71.9, 3, "fp16 (3)", "fp32 (2)"),
        (([71.0, 71.0], BF16), ([72.0, 72.0], FP16 | {"first": 2}), 72, 2, "fp16 (2)", "bf16 (2)"),
        (([71.0, 71.0], FP16), ([72.0, 73.0], {"first": 2}), 72.5, 2, "fp32 (2)", "fp16 (2)"),
        # Recorded twice, each run counts once.
        ((around(71.89), FP16), (around(60.0), {}), 60, 5, "fp32 (5)", ""),
        (([1.0] * 3, FP16 | {"status": "diverged"}), ([71.0, 72.0], {"first": 3}), 71.5, 2, "fp32 (2)", ""),
    ],
)
def test_no_mean_is_over_two_arithmetics(of_one, of_other, mean, n, arithmetics, left_out, store):
    """The one of most finished runs leads, of equals fp32, then fp16; the others are named."""
    for accuracies, how in (of_one, of_other):
        put(store, FULL, accuracies, **how)
    found = verdict(store, VALUE)
    assert found.last.details["mean"] == pytest.approx(mean) and found.last.n == (n,)
    assert (found.arithmetics, found.left_out, found.diverged) == (arithmetics, left_out, ())


def test_an_arithmetic_of_both_sides_goes_before_one_of_more_runs(store):
    put(store, FULL, around(90), arithmetic="fp16")
    put(store, FULL, around(72.83, n=2))
    put(store, ALONE, around(70, n=2))
    found = verdict(store, GAIN)
    assert found.last.n == (2, 2) and found.arithmetics == "fp32 (4)"
    assert found.left_out == "fp16 from a fp32 teacher (3)", "of the runs that are recorded in no other"


# --- last and best epoch, correction, repetition --------------------------------------------------------------------


def test_the_last_epoch_decides_and_the_best_stands_beside_it(store):
    put(store, FULL, around(71.89 - 1), optimism=1.0)
    put(store, ALONE, around(69), optimism=0.5)
    found = verdict(store, VALUE)
    assert (found.verdict, found.best.verdict) == ("not reproduced", "reproduced")
    assert found.best.estimate - found.last.estimate == pytest.approx(found.optimism) == pytest.approx(1.0)
    assert verdict(store, GAIN).optimism == pytest.approx(0.75), "over all sides"


def test_the_same_records_give_the_same_verdict_whatever_else_is_judged(store):
    rng = np.random.default_rng(0)
    for selector, mean in ((FULL, 70.2), (ALONE, 70.0)):
        put(store, selector, mean + 0.3 * rng.standard_normal(5))
    name = "table1-resnet20-resnet56-beats-student"
    (alone,) = evaluate_claims(claims=[CLAIMS[name]], store=store)
    table1 = [c for c in CLAIMS.values() if c.chapter == "table1"]
    first, again = ({v.claim.id: v for v in evaluate_claims(claims=table1, store=store)} for _ in range(2))
    assert first[name].last.interval == again[name].last.interval == alone.last.interval
    assert 0 < alone.last.interval[0] < alone.last.interval[1] < 1
