"""What printed numbers decide: counted by kind, and their arithmetic done again by hand."""

import csv
from collections import Counter, defaultdict

import numpy as np
import pytest

from rkd import published
from rkd.judge import load_claims, printed
from rkd.published import others

STATEMENTS = printed.statements()
CLAIMS = {claim.id: claim for claim in load_claims(check=False)}
SELF = "knowledge_distillation-results-"


def of(kind):
    return {found.figure: found for found in STATEMENTS if found.kind == kind}


def test_what_follows_and_what_does_not():
    assert Counter(found.kind for found in STATEMENTS) == {
        "derived": 33, "distance": 8, "comparison": 118, "mean of runs": 24, "bold": 24, "printings": 69,
    }  # fmt: skip
    assert list(dict.fromkeys(found.kind for found in STATEMENTS)) == list(printed.KINDS)
    assert [(found.kind, found.figure, found.why) for found in STATEMENTS if not found.follows] == [
        ("derived", f"{SELF}all-st+at-average-delta_vs_baseline",
         "mean of 92.6, 93.7, 68.7, 73.7 − mean of 92.0, 92.5, 67.6, 71.6 = 1.250"),
        ("printings", "re_readme-same-style-resnet110-resnet32-reviewkd-reproduction-cifar100",
         "73.61 ([Re] README, same-style) and 73.71 ([Re] paper, Table 1)"),
        ("printings", "re_readme-ablation-resnet56-resnet20-reviewkd-rm-cifar100",
         "69.53 ([Re] README, ablation) and 69.58 ([Re] paper, Table 3)"),
        ("printings", "modreduce-exp6-vgg13-mobilenetv2-student-cifar100",
         "64.60 (ModReduce README, Exp 6) and 65.43 (ModReduce README, Exp 15)"),
        ("printings", "re_paper-table1-wrn_40_2-wrn_40_1-pkt-cifar100",
         "73.54 ([Re] paper, Table 1) and 73.45 (KDrefine README, Benchmark)"),
    ]  # fmt: skip


def test_averages_and_signed_gains_of_knowledge_distillation():
    table = published.load(source="knowledge_distillation", table="Result Sharing").set_index("id")
    printed_accuracies = table[table["metric"] == "top1_acc_percent"]
    accuracy = printed_accuracies.pivot(index="method", columns=["student", "dataset"], values="number")
    gains = accuracy - accuracy.loc["baseline"]
    off = {}
    for row in table[table["metric"] != "top1_acc_percent"].itertuples():
        off[row.Index] = abs(gains.loc[row.method, (row.student, row.dataset)] - row.number)
    assert len(off) == 25, "20 gains and 5 of averages; the averages as printed are subtracted here"
    wrong = [figure for figure, gap in off.items() if gap > 0.101]
    assert wrong == [f"{SELF}all-st+at-average-delta_vs_baseline"] and off[wrong[0]] == pytest.approx(0.2)
    columns = accuracy.drop(columns=[("all", "avg")])
    assert np.allclose(columns.mean(axis=1), accuracy[("all", "avg")], atol=0.0501)


@pytest.mark.parametrize(
    ("value", "follows"), [("+1.4", True), ("+1.1", True), ("+1.5", False), ("+1.35", True), ("+1.36", False)]
)
def test_rounding_is_allowed_for_once_in_every_number(value, follows):
    """Of 1.25: 0.1 for two means of numbers with one digit, and half a unit of the figure's own last digit."""
    row = published.get(f"{SELF}all-st+at-average-delta_vs_baseline")
    assert printed.check_derived(row._replace(value=value)).follows is follows


def test_a_tolerance_in_print_is_allowed_for():
    (drop,) = (f for f in published.rows().values() if f.metric == "acc_drop_percent")
    found = printed.check_derived(drop)
    assert found.follows and found.why == "71.79 − 71.28 = 0.51"
    assert not printed.check_derived(drop._replace(value="0.6")).follows
    assert printed.check_derived(drop._replace(answer="run")) is None


def test_distances_of_a_reproduction():
    gaps = {figure: found.why.rpartition(" = ")[2] for figure, found in of("distance").items()}
    assert sorted(gaps.values()) == ["+0.08", "+0.12", "+0.15", "+0.30", "+0.39", "−0.10", "−0.18", "−0.51"]
    (bound,) = (f for f in published.rows().values() if f.metric.startswith(printed.BOUND))
    assert printed.check_derived(bound).why == "the widest gap: 76.94 − 77.45 = −0.51"
    assert not printed.check_derived(bound._replace(value="0.5 (claimed bound)")).follows


def test_means_against_a_loop_over_the_table_of_runs():
    runs = defaultdict(list)
    for path in others.others_folder().glob("*.csv"):
        for row in csv.DictReader(path.open(encoding="utf-8")):
            if row["behind"] == "knowledge_distillation":
                runs[row["lines"]].append(float(row["best"]))
    assert sum(map(len, runs.values())) == 69
    found = of("mean of runs")
    for figure in map(published.get, found):
        mean = sum(runs[figure.lines]) / len(runs[figure.lines])
        assert found[figure.id].follows == (round(mean, 1) == figure.number)


def test_bold_cells_are_the_largest_of_their_columns(monkeypatch):
    assert Counter(published.get(figure).source for figure in of("bold")) == {"modreduce": 15, "kdrefine": 9}
    changed = {
        f.id: f._replace(number=70.0) if f.id == "modreduce-exp3-resnet56-resnet20-modreduce-cifar100" else f
        for f in published.rows().values()
    }
    monkeypatch.setattr(published, "rows", lambda: changed)
    (found,) = (s for s in printed.statements() if s.kind == "bold" and not s.follows)
    assert found.why == "the largest is 71.72 (CRD)"


def test_claims_by_printed_numbers():
    def verdict(name):
        return printed.judge_printed(CLAIMS[name]).verdict

    assert verdict("self-average-stat") == "not reproduced" and verdict("self-average-st") == "reproduced"
    assert verdict("self-cifar100-resnet20-st-gain") == verdict("within-0.8-of-the-paper") == "reproduced"
    assert verdict("table4-larger-sizes") == "reproduced" and verdict("figure6-shape") == "not run"
    order = printed.judge_printed(CLAIMS["table1-resnet20-resnet56-beats-crd"])
    assert order.verdict == "reproduced" and order.estimate == pytest.approx(71.79 - 71.16)
    assert order.sentence.endswith("against 71.16 in print") and order.p is None
    values = [claim for claim in CLAIMS.values() if claim.kind == "value"]
    assert {printed.judge_printed(claim).verdict for claim in values} == {"not run"}
