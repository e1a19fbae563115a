"""Grades of evidence: which runs count under each, what they decide, and which grade speaks for a claim."""

import dataclasses

import numpy as np
import pytest
from evidence import PAPER, around, put, told
from scipy import stats

from rkd.errors import ConfigError
from rkd.experiments.selectors import Selectors
from rkd.judge import GRADES, assess, load_claims
from rkd.judge.decide import VERDICTS
from rkd.records import Store

CLAIMS = {claim.id: claim for claim in load_claims(selectors=PAPER)}
SHORT = Selectors("short")
FULL, ALONE = "table1/resnet20-resnet56-reviewkd", "table1/resnet20-resnet56-student"
VALUE, ORDER = "table1-resnet20-resnet56-paper", "table1-resnet20-resnet56-beats-student"
RNG = np.random.default_rng(0)


@pytest.fixture
def judged(tmp_path):
    """Claims by name, with their families, assessed on given runs: records by grade, none where none are given."""

    def of(*names, others=(), **stores):
        families = {CLAIMS[name].family for name in names} - {""}
        claims = [c for c in CLAIMS.values() if c.id in names or c.family in families]
        empty = {grade: Store(tmp_path / f"no {grade}", tmp_path) for grade in "AC"}
        return {a.claim.id: a for a in assess(claims, stores=empty | stores, others=others)}

    return of


def test_every_verdict_has_words_in_every_grade():
    assert list(GRADES) == list("ABCD")
    assert all(GRADES["A"].wording(verdict) == verdict for verdict in VERDICTS)
    assert GRADES["B"].wording("reproduced") == "supported" and GRADES["D"].wording("reproduced") == "follows"
    assert GRADES["C"].wording("not reproduced") == "opposite direction"
    assert not {"reproduced", "not reproduced"} & {w for g in "BCD" for w in GRADES[g].says.values()}


# --- others' runs ------------------------------------------------------------------------------------------------


def test_three_a_side_decide_and_two_do_not(judged):
    published = CLAIMS[VALUE].published
    for n, verdict in ((3, "reproduced"), (2, "inconclusive"), (0, "not run")):
        runs = told(FULL, around(published, 0.05, n)) if n else []
        found = judged(VALUE, others=runs)[VALUE]
        assert found.found["B"].verdict == verdict and found.found["B"].grade == "B"
    assert found.grade == "" and found.verdict == found.best.wording == "not run"
    assert CLAIMS[VALUE].min_seeds == 5, "more than of others' runs"


def test_independent_runs_before_the_sources_own(judged):
    published = CLAIMS[VALUE].published
    own = told(FULL, around(published, 0.1, 3), behind="re_paper")
    found = judged(VALUE, others=own)[VALUE]
    assert found.best.wording == "supported" and found.best.last.sentence.startswith(
        "the source's own runs: "
    )
    found = judged(VALUE, others=[*own, *told(FULL, around(published - 2, 0.1, 3))])[VALUE]
    assert (found.best.wording, found.best.last.n) == ("not supported", (3,)), "the source's own are left out"
    assert found.best.last.sentence.startswith("independent of the source: ")


def test_both_sides_are_of_one_kind(judged):
    """Independent runs of one side alone are set against no run of the source's."""
    own = told(FULL, around(72, n=3), behind="re_paper") + told(ALONE, around(69, n=3), behind="re_paper")
    found = judged(ORDER, others=[*own, *told(FULL, around(60, n=3))])[ORDER].found["B"]
    assert found.verdict == "reproduced" and found.last.sentence.startswith("the source's own runs: mean 72")


def test_the_best_epoch_only_where_no_last_one_is_told(judged):
    published = CLAIMS[VALUE].published
    near = around(published, 0.05, 3).tolist()
    found = judged(VALUE, others=told(FULL, best=near))[VALUE].found["B"]
    whose = "independent of the source, by their best epochs on the test set, all that is told: "
    assert found.verdict == "reproduced" and found.last.sentence.startswith(f"{whose}mean 71.89")
    assert np.isnan(found.optimism)
    both = told(FULL, last=near, best=[a + 1.2 for a in near])
    found = judged(VALUE, others=both)[VALUE].found["B"]
    assert found.verdict == "reproduced" and "best epoch" not in found.last.sentence
    assert found.best.verdict == "exceeded" and found.optimism == pytest.approx(1.2)
    mixed = judged(VALUE, others=[*both, *told(FULL, best=near)])[VALUE].found["B"]
    assert mixed.last.n == (6,) and mixed.last.sentence.startswith(whose), "one epoch for all"
    neither = judged(VALUE, others=[*told(FULL, last=near), *told(FULL, best=near)])[VALUE].found["B"]
    assert neither.verdict == "not run" and neither.last.sentence.startswith("no epoch is told of all")


def test_holm_within_families_by_a_naive_loop(judged):
    family = [c for c in CLAIMS.values() if c.family == CLAIMS[ORDER].family]
    runs = []
    for claim in family:
        for side, mean in zip(claim.groups, (70.5, 70.0), strict=False):
            runs += told(side[0], RNG.normal(mean, 0.4, 4))
    found = [a.found["B"].last for a in judged(ORDER, others=runs).values()]
    ordered = sorted(found, key=lambda r: r.p)
    raised = 0.0
    for i, result in enumerate(ordered):
        raised = max(raised, min(1.0, result.p * (len(ordered) - i)))
        assert result.p_holm == pytest.approx(raised)
    assert len(ordered) == len(family) > 3 and any(r.p < 0.05 <= r.p_holm for r in ordered)
    assert all(r.verdict == "inconclusive" for r in ordered if r.p_holm >= 0.05)


def test_a_run_of_an_unknown_line_is_one_sentence(judged):
    said_of = {"table1/resnet21": "'resnet21'", "table9/full": "'table9'", "table1": "'table1' is not"}
    for line, said in said_of.items():
        with pytest.raises(ConfigError, match=said) as error:
            judged(VALUE, others=told(line, [70.0]))
        assert "\n" not in str(error.value)


# --- short runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Short runs of Table 3, three seeds each, and their accuracies by row."""
    store = Store(tmp_path_factory.mktemp("short"), tmp_path_factory.mktemp("work"))
    accuracies = {}
    seed_effects = RNG.normal(0, 2, 3)  # shared by all lines: only pairs cancel them
    for i, line in enumerate(("none", "rm", "rm_rlf", "rm_rlf_abf", "rm_rlf_hcl", "full")):
        accuracies[line] = (50 + seed_effects + 0.4 * i + RNG.normal(0, 0.1, 3)).round(2)
        put(store, f"table3/{line}", accuracies[line], selectors=SHORT)
    return store, accuracies


def test_pairs_of_seeds_by_a_naive_analysis_of_rows_and_seeds(judged, short):
    store, accuracies = short
    found = judged("table3-rm-beats-none", C=store)
    rows = list(accuracies.values())
    of_row, of_seed, all_ = np.mean(rows, 1), np.mean(rows, 0), np.mean(rows)
    left = [(rows[i][j] - of_row[i] - of_seed[j] + all_) ** 2 for i in range(6) for j in range(3)]
    error = np.sqrt(sum(left) / 10 * 2 / 3)  # (6 - 1) (3 - 1) degrees of freedom; two means over three seeds
    for name, assessed in found.items():
        claim, result = CLAIMS[name], assessed.found["C"].last
        ours, theirs = (accuracies[side[0].partition("/")[2]] for side in claim.groups)
        gap = np.mean(ours) - np.mean(theirs)
        assert (result.estimate, result.p) == pytest.approx((gap, stats.t(10).sf(gap / error)))
        assert result.interval == pytest.approx(stats.t(10, gap, error).interval(0.9))
        assert result.p_holm == assessed.found["C"].best.p_holm >= result.p, "each run's epochs are alike"
        assert len(assessed.found["C"].records) == 6
    welch = stats.ttest_ind(ours, theirs, equal_var=False, alternative="greater").pvalue
    assert result.p < welch / 3, "pairing is what shows it"
    assert found[name].grade == "C" and found[name].best.wording == "same direction"


def test_the_other_way_is_corrected_for_itself(judged, store):
    """One row far below, against what is claimed: its p is that of below, and counts among those that point there."""
    lines = ("none", "rm", "rm_rlf", "rm_rlf_abf", "rm_rlf_hcl", "full")
    for line, shift in zip(lines, (0, 0.0, -1.0, -1.0, -1.0, -1.25), strict=True):
        put(store, f"table3/{line}", 60 + shift + RNG.normal(0, 0.1, 3).round(2), selectors=SHORT)
    found = judged("table3-rm-beats-none", C=store)
    p = {True: [], False: []}
    for assessed in found.values():
        last = assessed.found["C"].last
        p[last.estimate < 0].append(last.p)
        assert last.p <= 0.5 and ("against the claimed way" in last.sentence) == (last.estimate < 0)
    for assessed in found.values():
        last = assessed.found["C"].last
        padded = sorted(p[last.estimate < 0]) + [1.0] * len(p[last.estimate > 0])
        stepped = [min(1.0, value * (len(padded) - i)) for i, value in enumerate(padded)]
        assert last.p_holm == pytest.approx(max(stepped[: padded.index(last.p) + 1]))
        assert (last.verdict == "not reproduced") == (last.estimate < 0 and last.p_holm < 0.05)
    assert found["table3-rm_rlf-beats-rm"].best.wording == "opposite direction"


def test_a_family_counts_what_short_runs_can_answer(judged, store):
    family = [c for c in CLAIMS.values() if c.family == CLAIMS[ORDER].family]
    assert [all(map(SHORT.has, c.selectors)) for c in family].count(True) == 1 < len(family)
    for side, shift in zip(CLAIMS[ORDER].groups, (0, 3), strict=True):
        put(store, side[0], [64.0 - shift, 64.2 - shift, 64.3 - shift], selectors=SHORT)
    found = judged(ORDER, C=store)[ORDER].found["C"]
    assert found.verdict == "reproduced" and found.last.p_holm is None, "the only one"


def test_a_trend_is_the_weighted_sum_of_each_seed(judged, store):
    claim = CLAIMS["table4-larger-sizes"]
    groups = [RNG.normal(50 + 0.2 * i, 0.5, 3).round(2) for i, _ in enumerate(claim.groups)]
    for (line,), accuracies in zip(claim.groups, groups, strict=True):
        put(store, line, accuracies, selectors=SHORT)
    found = judged(claim.id, C=store)[claim.id].found["C"].last
    total = sum(w * np.mean(group) for w, group in zip(claim.contrast, groups, strict=True))
    assert found.estimate == pytest.approx(total) and found.n == (3,)
    left = np.array(groups) - np.mean(groups, 1, keepdims=True) - np.mean(groups, 0) + np.mean(groups)
    free = (len(groups) - 1) * 2
    error = np.sqrt((left**2).sum() / free * np.square(claim.contrast).sum() / 3)
    assert found.p == pytest.approx(stats.t(free).sf(total / error))


def test_only_seeds_that_all_sides_have(judged, store):
    _, *ids = put(store, "table3/rm", [90.0, 51.0, 52.0], optimism=0.5, selectors=SHORT)
    ids += put(store, "table3/none", [50.1, 50.9], first=1, selectors=SHORT)
    found = judged("table3-rm-beats-none", C=store)["table3-rm-beats-none"].found["C"]
    assert found.last.n == (2,) and found.last.estimate == pytest.approx(1.0)
    assert found.best.estimate == pytest.approx(1.5) and found.optimism == pytest.approx(0.25)
    assert set(found.records) == set(ids) and found.arithmetics == "fp32 (4)" and found.left_out == ""


def test_short_runs_pair_within_one_arithmetic(judged, store):
    """That in which the most seeds have finished on all sides, though another has more runs."""
    name, bf16 = "table3-rm-beats-none", {"arithmetic": "bf16", "teachers": "bf16", "selectors": SHORT}
    put(store, "table3/rm", [90.0, 90.0], selectors=SHORT)
    put(store, "table3/none", [50.0], first=2, **bf16)
    found = judged(name, C=store)[name].found["C"]
    assert found.last.sentence == "no short run is recorded in fp32 of table3/none; bf16 (1) is recorded"
    put(store, "table3/none", [49.0], first=2, selectors=SHORT)
    found = judged(name, C=store)[name].found["C"]
    assert found.last.sentence == "no seed has finished on all sides" and found.left_out == ""
    put(store, "table3/rm", [51.0], first=2, **bf16)
    found = judged(name, C=store)[name].found["C"]
    assert (found.last.estimate, found.last.n) == (1.0, (1,))
    assert (found.arithmetics, found.left_out) == ("bf16 (2)", "fp32 (2)")


def test_short_runs_judge_no_value_and_two_seeds_nothing(judged, short, store):
    values = [c.id for c in CLAIMS.values() if c.kind in ("value", "bound", "chance")]
    found = [a.found["C"].last for a in judged(*values, C=short[0]).values() if a.claim.id in values]
    assert {(r.verdict, r.sentence) for r in found} == {("not run", "short runs say nothing of it")}
    put(store, "table3/rm", [50.0, 51.0], selectors=SHORT)
    put(store, "table3/none", [49.0, 50.1], selectors=SHORT)
    found = judged("table3-rm-beats-none", C=store)["table3-rm-beats-none"].found["C"]
    assert found.verdict == "inconclusive" and found.last.n == (2,)


# --- which grade speaks ------------------------------------------------------------------------------------------


def test_runs_speak_before_print_and_the_best_grade_that_decides(judged, store, tmp_path):
    assert judged(ORDER)[ORDER].best.wording == "follows" and judged(ORDER)[ORDER].grade == "D"
    open_ = told(FULL, around(70, 1, 3)) + told(ALONE, around(69.9, 1, 3))
    found = judged(ORDER, others=open_)[ORDER]
    assert (found.grade, found.best.wording) == ("B", "inconclusive"), "open runs, before print that decides"
    put(store, "table3/none", around(50), selectors=SHORT)
    clear = told(FULL, around(72, n=3)) + told(ALONE, around(69, n=3))
    found = judged(ORDER, others=clear)[ORDER]
    assert (found.grade, found.best.wording, found.verdict) == ("B", "supported", "reproduced")
    put(store, FULL, around(69))
    put(store, ALONE, around(72))
    found = judged(ORDER, others=clear, A=store)[ORDER]
    assert (found.grade, found.best.wording) == ("A", "not reproduced"), (
        "the best grade wins, whatever it says"
    )
    verdicts = ["not reproduced", "reproduced", "not run", "reproduced"]
    assert [e.verdict for e in found.found.values()] == verdicts
    assert dataclasses.replace(found, found={**found.found, "A": found.found["C"]}).grade == "B"
