"""Every published figure has an answer, and the answer is about that figure."""

import math

import pytest

from rkd import published
from rkd.errors import ConfigError
from rkd.experiments.answers import answer_of
from rkd.experiments.chapters import get_chapter
from rkd.experiments.selectors import Selectors, split
from rkd.experiments.settings import resolve as settings
from rkd.models import canonical

ROWS = {row.id: row for row in published.load().itertuples()}
SELF = "soft_targets_and_attention"


@pytest.fixture(scope="module")
def answers():
    return {figure: answer_of(figure) for figure in ROWS}


@pytest.fixture(scope="module")
def paper(answers):
    """The lines of all chapters that answers name, built whole."""
    names = {split(selector)[0] for answer in answers.values() for selector in answer.lines}
    given = {"profile": "paper", "seeds": [0]}
    return {f"{n}/{line.key}": line for n in names for line in get_chapter(n).lines(settings(n, given))}


def test_every_line_is_in_its_chapter_and_shows_the_figure(answers, paper):
    assert len(answers) == 471
    for claim, answer in answers.items():
        assert all(selector in paper for selector in answer.lines)
        row = ROWS[claim]
        if answer.kind == "run" and not math.isnan(row.number):
            (selector,) = answer.lines
            assert row.number in [p.value for p in paper[selector].published], claim


def test_runs_are_of_the_rows_networks_and_method(answers, paper):
    methods = {"KD (Hinton)": "kd", "ST": "kd", "ST + AT": "at+kd"}
    methods |= {("modreduce", "SemCKD"): "semckd+kd", ("modreduce", "CRD"): "crd+kd"}
    for claim, answer in answers.items():
        row = ROWS[claim]
        if answer.kind != "run":
            continue
        (run,) = paper[answer.lines[0]].runs
        wide = "_7x7" if row.source == "knowledge_distillation" else ""
        student, teacher = (n != "-" and canonical(n + wide) for n in (row.student, row.teacher))
        if row.method == "teacher":
            assert run.network == teacher and run.method is None
        elif row.method in ("student baseline", "baseline"):
            assert run.network == student and run.method is None
        else:
            method = methods.get((row.source, row.method), methods.get(row.method, row.method.lower()))
            trained = get_chapter("kdrefine").trained_as[student] if method == "kdrefine" else student
            assert (run.network, run.teacher.name, run.method) == (trained, teacher, method)
        assert run.data.name == ("cifar10" if row.dataset == "CIFAR-10" else "cifar100")


def test_settings_are_the_printed_ones_but_for_four(answers):
    differ = {claim: answer.ours for claim, answer in answers.items() if not answer.agrees}
    assert differ == {
        "re_paper-text3.2-dataset-cifar100-train_samples": "50000",
        "re_paper-text3.2-training-cifar100-runs_averaged": "5",
        "knowledge_distillation-setting-training-cifar10+100-runs_averaged": "5",
        "knowledge_distillation-setting-training-cifar10+100-feature_map_shapes": "28x28,14x14,7x7",
    }
    for claim in differ:
        assert ";" in answers[claim].how, "the difference is remarked on"
    assert all(a.ours and a.how for a in answers.values() if a.kind == "setting")


def test_derived_figures_follow_from_the_printed_ones(answers):
    """The rows an answer names give the printed figure, by the source's own numbers."""
    slips = {"knowledge_distillation-results-all-st+at-average-delta_vs_baseline": 1.3}
    derived = [answer for answer in answers.values() if answer.kind == "derived"]
    theirs = [answer for answer in derived if ROWS[answer.figure].source == "knowledge_distillation"]
    assert len(theirs) == 31
    for answer in theirs:
        row, values = ROWS[answer.figure], [ROWS[part].number for part in answer.parts]
        half = len(values) // 2
        difference = (sum(values[:half]) - sum(values[half:])) / half
        found = sum(values) / 4 if row.metric == "top1_acc_percent" else difference
        assert found == pytest.approx(slips.get(answer.figure, row.number), abs=0.051)
    drop = answers["re_paper-text4.2.2-resnet56-resnet20-reviewkd-l2-instead-of-hcl-cifar100-acc_drop"]
    assert drop.lines == ("table3/full", "table3/rm_rlf_abf")
    bound = answers["re_paper-text-results-all-reviewkd-cifar100-max_abs_difference"]
    assert len(bound.lines) == len(bound.parts) == 8
    swept = answers["re_paper-figure6-resnet56-resnet20-reviewkd-cifar100-best_loss_weight_range"]
    assert len(swept.lines) == 7 and not swept.parts


def test_cells_the_source_leaves_empty_have_no_line(paper):
    fsp = {key.split("/")[1] for key in paper if key.startswith("kdrefine/") and key.endswith("-fsp")}
    pairs = "wrn_16_2-wrn_40_2", "resnet20-resnet56", "resnet20-resnet110", "resnet32-resnet110", "vgg8-vgg13"
    assert fsp == {f"{pair}-fsp" for pair in pairs}


def test_under_another_profile_a_claim_keeps_its_networks():
    lines = Selectors("smoke", {"seeds": [3]})
    (run,) = lines.line_of_paper("kdrefine/vgg8-vgg13-crd").runs
    assert (run.network, run.teacher.name, run.data.name, run.seed) == ("vgg8", "vgg13", "embedded", 3)
    (run,) = lines.line_of_paper("table3/rm").runs
    assert (run.network, run.teacher.name) == ("resnet20", "resnet56")
    (run,) = lines.line_of_paper(f"{SELF}/cifar10-resnet110_7x7-resnet110_7x7-at").runs
    assert (run.network, run.data.name) == ("resnet110_7x7", "embedded")
    with pytest.raises(ConfigError, match="unknown line of kdrefine 'vgg8-vgg13-ofd'"):
        lines.line_of_paper("kdrefine/vgg8-vgg13-ofd")
    with pytest.raises(ConfigError, match="unknown published figure 're_paper-table9'"):
        answer_of("re_paper-table9")
