"""The declaration: complete against the table of published figures, answerable by runs, and checked on loading."""

import math
import re
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from evidence import PAPER

from rkd import paths, published
from rkd.errors import ConfigError
from rkd.judge import KINDS, load_claims

CLAIMS = load_claims(selectors=PAPER)
BY_ID = {claim.id: claim for claim in CLAIMS}
TABLE = published.load()


REFERENCED = {row for claim in CLAIMS for row in claim.references}


def rows(**equal):
    """Of the table of published figures, with its index."""
    return TABLE[np.logical_and.reduce([TABLE[column] == wanted for column, wanted in equal.items()])]


# --- complete -------------------------------------------------------------------------------------------------------


def test_every_published_accuracy_and_gain_is_judged():
    """But for teachers, averages over data sets, a gain of 0.0, and what the README repeats of the paper."""
    figures = TABLE[TABLE["metric"].isin(["top1_acc_percent", "delta_vs_baseline_percent"])]
    known = figures.index.isin(REFERENCED) | (figures["method"] == "teacher")
    left = figures[~known & figures["number"].notna()]
    repeated = left[left["source"] == "re_readme"]
    judged = rows(source="re_paper", method="ReviewKD").loc[lambda table: table.index.isin(REFERENCED)]
    assert len(repeated) == 20 and set(repeated["number"]) <= set(judged["number"])
    (zero,) = left[(left["source"] != "re_readme") & (left["dataset"] != "avg")]["number"]
    assert zero == 0 and BY_ID["self-cifar10-resnet20-fsp"].published == 92.0


def test_every_quoted_accuracy_is_the_opponent_of_one_comparison():
    quoted = rows(source="re_paper", variant="quoted from prior work")
    assert len(quoted) == 64
    for index, row in quoted.iterrows():
        (claim,) = [c for c in CLAIMS if index in c.references and c.kind == "order"]
        assert set(claim.runs) == {"a"} and claim.published == row["number"]
        assert claim.family == f"{claim.chapter}-baselines" and row["method"] in claim.statement
    assert [sum(c.family == f"table{n}-baselines" for c in CLAIMS) for n in (1, 2)] == [40, 24]


def test_own_questions_are_marked():
    own = [c for c in CLAIMS if c.chapter == "random_teacher"]
    assert len(own) == 8 and {c.who for c in own} == {"this report"}
    assert [c.published for c in own if c.kind == "value"] == [69.50, 69.58, 69.92, 69.50, 69.58]
    assert {c.who for c in CLAIMS} == {
        "ReviewKD paper", "[Re] paper", "[Re] README", "this report", "KDrefine README", "ModReduce README",
        "KnowledgeDistillation README",
    }  # fmt: skip


# --- complete: the neighbouring systems -------------------------------------------------------------------------------


def test_how_many_claims_there_are():
    counted = defaultdict(Counter)
    for claim in CLAIMS:
        counted[claim.chapter][claim.kind] += 1
    assert len(CLAIMS) == 451 and sum(kinds["value"] for kinds in counted.values()) == 284
    assert counted["baselines"] == {"value": 64}
    assert counted["kdrefine"] == {"value": 86 + 6 + 9, "order": 8}
    assert counted["modreduce"] == {"value": 15 + 45 + 11, "order": 30}
    assert counted["soft_targets_and_attention"] == {"value": 5, "effect": 19, "trend": 5}


def test_cells_of_two_sources_are_one_claim_where_they_agree():
    both = [c for c in CLAIMS if c.also_by]
    assert len(both) == 27 and {(c.who, c.also_by) for c in both} == {("[Re] paper", ("KDrefine README",))}
    for claim in both:
        assert claim.chapters == ("baselines", "kdrefine")
        first, second = ([*PAPER.runs([s])] for s in claim.selectors)
        assert first == second, "the same runs"
    two = [BY_ID[f"{c}-wrn_40_1-wrn_40_2-pkt"].published for c in ("baselines", "kdrefine")]
    assert two == [73.54, 73.45], "where the sources differ, both are judged"


def test_orders_where_the_sources_say_so():
    for family, source, method, rival in (
        ("kdrefine-crd", "kdrefine", "KDrefine", "CRD"),
        ("modreduce-crd", "modreduce", "ModReduce", "CRD"),
        ("modreduce-semckd", "modreduce", "ModReduce", "SemCKD"),
        ("modreduce-kd", "modreduce", "ModReduce", "KD (Hinton)"),
    ):
        members = [c for c in CLAIMS if c.family == family]
        bold = rows(source=source, method=method)
        bold = bold[bold["note"].str.startswith("bold")]
        assert len(members) == len(bold) == (8 if source == "kdrefine" else 10)
        assert all(c.kind == "order" and c.published[0] > c.published[1] for c in members)
        for claim, index in zip(members, bold.index, strict=True):
            of = TABLE.loc[list(claim.references)]
            assert claim.references[0] == index and list(of["method"]) == [method, rival]


def test_gains_of_knowledge_distillation_are_the_printed_ones():
    gains = [c for c in CLAIMS if c.family == "self-gains"]
    assert len(gains) == 19
    for claim in gains:
        of = TABLE.loc[list(claim.references)]
        printed = of[of["metric"] == "delta_vs_baseline_percent"]
        assert claim.published == pytest.approx(printed["number"].item())
        (a,), (b,) = claim.groups
        method = {"ST": "kd", "ST + AT": "at+kd"}.get(name := printed["method"].item(), name.lower())
        assert a.endswith(f"-{method}") and b == a.removesuffix(method) + "student"
    averages = [c for c in CLAIMS if c.family == "self-average"]
    assert len(averages) == 5
    for claim in averages:
        ends = [s.endswith("-student") for s in claim.runs["groups"]]
        assert ends == [False] * 4 + [True] * 4 and claim.contrast == (0.25,) * 4 + (-0.25,) * 4


def test_what_sources_report_and_which_student():
    best = {c.who for c in CLAIMS if c.reports == "the best epoch on the test set"}
    assert best == {"ModReduce README", "KnowledgeDistillation README"}
    assert {c.who for c in CLAIMS if c.reports == "the last epoch"} == {"KDrefine README"}
    students = [c for c in CLAIMS if c.which_student]
    assert len(students) == 15 + 30 and {c.which_student for c in students} == {"best"}


# --- answerable -----------------------------------------------------------------------------------------------------


def test_every_side_has_enough_runs_under_the_paper_profile():
    for claim in CLAIMS:
        for group in claim.groups:
            runs = PAPER.runs(group)
            assert len(runs) >= claim.min_seeds == 5, f"{claim.id}: {group} has {len(runs)} runs"
            assert len({run.seed for run in runs.values()}) == len(runs)
        assert set(PAPER.runs(claim.selectors)) <= set(PAPER.needed(claim.selectors))


def test_fields_fit_their_kinds():
    assert load_claims(check=False) == CLAIMS, "the same, without building a chapter"
    assert len(BY_ID) == len(CLAIMS) and {c.kind for c in CLAIMS} == set(KINDS)
    for claim in CLAIMS:
        assert claim.margin is None if claim.kind == "order" else claim.margin > 0
        assert claim.alpha == 0.05 and claim.about and "{" not in claim.statement
        assert bool(claim.family) == (claim.kind in ("order", "effect", "trend"))
        assert claim.chapter == claim.chapters[0] and claim.references
    for family in {c.family for c in CLAIMS} - {""}:
        members = [c for c in CLAIMS if c.family == family]
        assert len({(c.kind, c.alpha, c.chapter) for c in members}) == 1


def test_no_published_accuracy_is_typed():
    """A claim names its figure; its id and statement alone may say it too, and then say what the table prints."""
    table = pd.read_csv(paths.params() / "claims.csv", dtype=str, keep_default_na=False)
    numbers = re.compile(r"\b\d\d\.\d\d\b")
    assert not any(map(numbers.search, table.drop(columns=["id", "statement"]).to_numpy().flat))
    for claim in CLAIMS:
        printed = set(TABLE["value"][list(claim.references)])
        assert set(numbers.findall(f"{claim.id} {claim.statement}")) <= printed, claim.id


def test_contrasts_are_differences_of_weighted_means():
    trends = [c for c in CLAIMS if c.kind == "trend"]
    assert {c.chapter for c in trends} == {"figure6", "table4", "table5", "soft_targets_and_attention"}
    for claim in trends:
        contrast = np.array(claim.contrast)
        assert len(contrast) == len(claim.groups) and math.isclose(contrast.sum(), 0, abs_tol=1e-12)
        assert math.isclose(contrast[contrast > 0].sum(), 1)
    shape = BY_ID["figure6-shape"]
    inside = [0.5 <= PAPER.line(s).x <= 1 for s in shape.runs["groups"]]
    assert [w > 0 for w in shape.contrast] == inside and shape.best == tuple(np.flatnonzero(inside))
    assert shape.published is None and shape.printed == "0.5-1.0"


@pytest.mark.parametrize(
    ("name", "contrast"), [("table4-larger-sizes", [-3, 0, 0, 1, 2]), ("table5-larger-weights", [-1, 0, 1])]
)
def test_contrasts_of_tables_4_and_5_follow_the_mean_size_compared(name, contrast):
    """The yardstick of params/claims.md, computed from the options of the runs."""
    claim = BY_ID[name]
    scores = []
    for selector in claim.runs["groups"]:
        options = PAPER.line(selector).runs[0].options
        sizes = [eval(str(s).replace("h", "32"), {}) / 32 for s in options.hcl_levels]
        scores.append(np.average(sizes, weights=options.hcl_weights))
    centred = np.array(scores) - np.mean(scores)
    assert np.allclose(contrast, centred * (contrast[0] / centred[0]), atol=0.3), "rounded to whole numbers"
    assert np.argmax(scores) in claim.best
    text = (paths.params() / "claims.md").read_text()
    for score in scores:
        assert f" {score:.2f}" in text, "as the comment says"
    said = np.dot(claim.contrast, claim.published)
    assert f"{said:.2f}" in {"0.24", "0.33"}


def test_shared_cells_are_judged_once():
    full = BY_ID["table3-full"]
    assert len(full.references) == 4 and full.table == "Table 3, Table 4, Table 5, Table 6"
    lines = "table3/full", "table4/h_4_2_1", "table5/large_first", "table6/full"
    assert len({tuple(PAPER.runs([line])) for line in lines}) == 1, "the same runs"
    assert set(PAPER.runs(["table3/rm_rlf_hcl"])) == set(PAPER.runs(["table6/add"]))


# --- malformed ------------------------------------------------------------------------------------------------------

RM, RLF = (f"re_paper-table3-resnet56-resnet20-reviewkd-{row}-cifar100" for row in ("rm", "rm+rlf"))
VALUE = {
    "id": "x", "kind": "value", "about": "x", "statement": "x", "figures": RM, "margin": "0.5", "published_n": "3",
    "alpha": "0.05", "min_seeds": "5", "a": "table3/rm",
}  # fmt: skip
ORDER = {k: v for k, v in VALUE.items() if k not in ("margin", "published_n")} | {
    "kind": "order", "minus": RLF, "b": "table3/rm_rlf", "family": "f",
}  # fmt: skip
EFFECT = {**ORDER, "kind": "effect", "margin": "0.5"}
TREND = {k: v for k, v in EFFECT.items() if k not in ("a", "b", "minus")} | {
    "kind": "trend", "groups": "table5/small_first table5/equal table5/large_first", "contrast": "-1 0 1",
}  # fmt: skip


def load(tmp_path, *entries):
    path = tmp_path / "claims.csv"
    pd.DataFrame(entries).to_csv(path, index=False)
    return load_claims(path, PAPER)


@pytest.mark.parametrize("entry", [VALUE, ORDER, EFFECT, TREND])
def test_the_entries_below_are_sound_before_they_are_spoiled(entry, tmp_path):
    assert len(load(tmp_path, entry)) == 1


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({**VALUE, "kind": "valu"}, "unknown kind 'valu' (did you mean 'value'?)"),
        ({**VALUE, "id": ""}, "claim 'number 1': column 'id' is empty"),
        ({**VALUE, "margin": ""}, "column 'margin' is empty; a claim of kind value needs it"),
        ({**EFFECT, "minus": ""}, "column 'minus' is empty: a gain is a difference of two figures"),
        ({**VALUE, "family": "f"}, "column 'family' is 'f'; a claim of kind value has none"),
        ({**VALUE, "margin": "0"}, "margin is 0.0; it must be a finite number > 0"),
        ({**VALUE, "margin": "wide"}, "margin is 'wide'; it must be a finite number"),
        ({**VALUE, "published_n": "0"}, "published_n is 0.0; it must be a whole number >= 1"),
        ({**VALUE, "alpha": "0.5"}, "alpha is 0.5; it must be a number between 0 and 0.5"),
        ({**VALUE, "id": "Table 3"}, "id is 'Table 3'; String should match pattern '^[a-z0-9]"),
        ({**VALUE, "figures": "re_paper-table33"}, "unknown published figure 're_paper-table33'"),
        ({**VALUE, "figures": f"{RM} {RLF}"}, "it names 2 figures that differ: 69.58, 69.92"),
        ({**VALUE, "figures": "re_paper-text3.3-cost-cifar100-gpu_hours_shufflenets"}, "give `published`"),
        ({**VALUE, "published": "69.58"}, "the table of published figures has it: 69.58"),
        ({**VALUE, "also": RLF}, "`also` names a figure that prints 69.92, not 69.58"),
        ({**VALUE, "a": "table3/rlf"}, "unknown line of table3 'rlf'"),
        ({**VALUE, "a": "table33/rm"}, "unknown chapter 'table33' (did you mean 'table3'?)"),
        ({**VALUE, "a": "rm"}, "selector 'rm' is not of the form chapter/line"),
        ({**VALUE, "reports": "best epoch"}, "unknown reports 'best epoch'"),
        ({**VALUE, "which_student": "bset"}, "unknown which_student 'bset' (did you mean 'best'?)"),
        ({**ORDER, "b": ""}, "`minus` needs runs on side b"),
        ({**TREND, "contrast": "-1 1"}, "contrast is '-1 1'; it must be 3 numbers, one for each line"),
        ({**TREND, "contrast": "-1 0 2"}, "that sum to 0 and are not all 0"),
        ({**TREND, "contrast": "0 0 0"}, "that sum to 0 and are not all 0"),
        ({**TREND, "best": "table5/eqal"}, "unknown line in `best`: 'table5/eqal' (did you mean 'table5/equal'?)"),
        # Below a sound one: ids are unique, and families of one kind.
        (ORDER, "claim 'x': id 'x' is taken by an earlier claim"),
        ({**EFFECT, "id": "y"}, "claim 'y': kind is effect, but order for 'x' of the same family"),
        ({**ORDER, "id": "y", "alpha": "0.01"}, "alpha is 0.01, but 0.05 for 'x' of the same family"),
    ],
)  # fmt: skip
def test_malformed_claims_get_one_sentence(entry, sentence, tmp_path):
    above = [ORDER] if "taken by" in sentence or "same family" in sentence else []
    with pytest.raises(ConfigError) as stop:
        load(tmp_path, *above, entry)
    message = str(stop.value)
    assert sentence in message and message.startswith("claims.csv, claim ") and "\n" not in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no table of claims"),
        ("id,kind,abuot\nx,value,y\n", "unknown column in c.csv: 'abuot' (did you mean 'about'?)"),
        ("id,kind\nx,value,y\n", "c.csv, line 2: it needs 2 cells"),
        (None, "is no table of claims"),
    ],
)
def test_files_that_are_no_declaration(text, sentence, tmp_path):
    path = tmp_path / "c.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as stop:
        load_claims(path, PAPER)
    assert sentence in str(stop.value) and "\n" not in str(stop.value)
