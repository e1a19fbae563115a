"""Every published figure has an answer, and the answer is about that figure."""

import math

import pytest

from rkd import published
from rkd.errors import ConfigError
from rkd.experiments.answers import KINDS, Lines, answer_of
from rkd.experiments.answers import answers as all_answers
from rkd.experiments.chapters import get_chapter
from rkd.experiments.selectors import split
from rkd.experiments.settings import resolve as settings
from rkd.models import canonical

ROWS = {row.id: row for row in published.load().itertuples()}
SELF = "soft_targets_and_attention"


@pytest.fixture(scope="module")
def answers():
    return {answer.figure: answer for answer in all_answers()}


@pytest.fixture(scope="module")
def paper():
    """The lines of all chapters that answers name, built whole."""
    names = {split(selector)[0] for answer in all_answers() for selector in answer.lines}
    given = {"profile": "paper", "seeds": [0]}
    return {
        f"{name}/{line.key}": line
        for name in names
        for line in get_chapter(name).lines(settings(name, given))
    }


def test_every_figure_is_answered(answers):
    assert list(answers) == list(ROWS) and len(answers) == 471
    counts = {}
    for claim, answer in answers.items():
        assert answer.kind in KINDS
        by_kind = counts.setdefault(ROWS[claim].source, dict.fromkeys(KINDS, 0))
        by_kind[answer.kind] += 1
    assert {source: tuple(by_kind.values()) for source, by_kind in counts.items()} == {
        "re_readme": (22, 0, 8, 0),
        "modreduce": (90, 0, 0, 0),
        "re_paper": (114, 3, 18, 4),
        "knowledge_distillation": (24, 31, 13, 0),
        "kdrefine": (140, 0, 0, 4),
    }


def test_accuracies_are_run_or_derived_and_reasons_are_few(answers):
    for claim, answer in answers.items():
        row = ROWS[claim]
        if row.metric == "top1_acc_percent" and row.value:
            assert answer.kind in ("run", "derived")
        if answer.kind == "explained":
            assert answer.how and not answer.lines
            assert row.value == "" or row.method == "cost"
        assert bool(answer.lines) == (answer.kind in ("run", "derived"))


def test_every_line_is_in_its_chapter_and_shows_the_figure(answers, paper):
    for claim, answer in answers.items():
        assert all(selector in paper for selector in answer.lines)
        row = ROWS[claim]
        if answer.kind == "run" and not math.isnan(row.number):
            (selector,) = answer.lines
            assert row.number in [p.value for p in paper[selector].published], claim


def test_runs_are_of_the_rows_networks_and_method(answers, paper):
    methods = {
        "KD (Hinton)": "kd",
        "ST": "kd",
        "ST + AT": "at+kd",
        ("modreduce", "SemCKD"): "semckd+kd",
        ("modreduce", "CRD"): "crd+kd",
    }
    for claim, answer in answers.items():
        row = ROWS[claim]
        if answer.kind != "run":
            continue
        (run,) = paper[answer.lines[0]].runs
        wide = "_7x7" if row.source == "knowledge_distillation" else ""
        student, teacher = (
            canonical(name + wide) if name != "-" else None for name in (row.student, row.teacher)
        )
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
    checked = 0
    for claim, answer in answers.items():
        row = ROWS[claim]
        if answer.kind != "derived" or row.source != "knowledge_distillation":
            continue
        values = [ROWS[part].number for part in answer.parts]
        if row.metric == "top1_acc_percent":
            assert len(values) == 4
            found = sum(values) / 4
        else:
            half = len(values) // 2
            assert half in (1, 4)
            found = (sum(values[:half]) - sum(values[half:])) / half
        assert found == pytest.approx(slips.get(claim, row.number), abs=0.051)
        checked += 1
    assert checked == 31
    drop = answers["re_paper-text4.2.2-resnet56-resnet20-reviewkd-l2-instead-of-hcl-cifar100-acc_drop"]
    assert drop.lines == ("table3/full", "table3/rm_rlf_abf")
    bound = answers["re_paper-text-results-all-reviewkd-cifar100-max_abs_difference"]
    assert len(bound.lines) == len(bound.parts) == 8
    swept = answers["re_paper-figure6-resnet56-resnet20-reviewkd-cifar100-best_loss_weight_range"]
    assert len(swept.lines) == 7 and not swept.parts


def test_chapters_share_the_runs_of_their_common_cells(paper):
    for method in ("kd", "fitnet", "at", "vid", "rkd", "pkt", "crd", "student", "teacher"):
        cells = [f"{chapter}/resnet20-resnet56-{method}" for chapter in ("baselines", "kdrefine")]
        assert [run.id for run in paper[cells[0]].runs] == [run.id for run in paper[cells[1]].runs]
    for key in ("kdrefine/resnet20-resnet56-kdrefine", "kdrefine/resnet20-resnet56-kdrefine-unbiased"):
        (run,) = paper[key].runs
        assert run.network == "represnet20" and run.optimiser.lr == 0.01 and run.ce_weight == 0.1
        assert run.teacher.run.id == paper["baselines/resnet20-resnet56-teacher"].runs[0].id


def test_quoted_baselines_run_under_the_recipe_that_made_them(paper):
    (kd,) = paper["baselines/shufflenetv2-resnet32x4-kd"].runs
    assert (kd.batch_size, kd.optimiser.lr, kd.ce_weight, kd.options.loss_weight) == (64, 0.01, 0.1, 0.9)
    assert kd.teacher.batch_norm == "running" and not kd.optimiser.nesterov
    assert "74.45" in paper["baselines/shufflenetv2-resnet32x4-kd"].note
    notes = [key for key, line in paper.items() if "RepDistiller's README prints" in line.note]
    cells = {key.partition("/")[2] for key in notes}
    assert cells == {
        "shufflenetv2-resnet32x4-kd",
        "shufflenetv1-wrn_40_2-pkt",
        "wrn_40_1-wrn_40_2-pkt",
    }


def test_self_distillation_is_as_its_source_has_it(paper):
    (both,) = paper[f"{SELF}/cifar10-resnet20_7x7-resnet20_7x7-at+kd"].runs
    assert {p.method: p.options.loss_weight for p in both.options.parts} == {"at": 1000.0, "kd": 0.9}
    (soft,) = paper[f"{SELF}/cifar100-resnet110_7x7-resnet110_7x7-kd"].runs
    assert (soft.epochs, soft.batch_size, soft.ce_weight, soft.options.loss_weight) == (200, 128, 1.0, 1.0)
    assert soft.drop_last and soft.data.padding_mode == "reflect" and soft.teacher.batch_norm == "batch"
    assert soft.teacher.weights == "best" and soft.teacher.run.network == soft.network
    (logits,) = paper[f"{SELF}/cifar10-resnet20_7x7-resnet20_7x7-logits"].runs
    (fsp,) = paper[f"{SELF}/cifar10-resnet20_7x7-resnet20_7x7-fsp"].runs
    assert logits.options.on == "pooled" and fsp.stages == () and fsp.options.loss_weight == 1.0


def test_cells_the_source_leaves_empty_have_no_line(paper):
    fsp = {key for key in paper if key.startswith("kdrefine/") and key.endswith("-fsp")}
    assert fsp == {
        f"kdrefine/{pair}-fsp"
        for pair in (
            "wrn_16_2-wrn_40_2", "resnet20-resnet56", "resnet20-resnet110", "resnet32-resnet110", "vgg8-vgg13",
        )
    }  # fmt: skip


def test_under_another_profile_a_claim_keeps_its_networks():
    lines = Lines({"profile": "smoke", "seeds": [3]})
    (run,) = lines.line("kdrefine/vgg8-vgg13-crd").runs
    assert (run.network, run.teacher.name, run.data.name, run.seed) == ("vgg8", "vgg13", "embedded", 3)
    (run,) = lines.line("table3/rm").runs
    assert (run.network, run.teacher.name) == ("resnet20", "resnet56")
    (run,) = lines.line(f"{SELF}/cifar10-resnet110_7x7-resnet110_7x7-at").runs
    assert (run.network, run.data.name) == ("resnet110_7x7", "embedded")
    with pytest.raises(ConfigError, match="chapter kdrefine has no line 'vgg8-vgg13-ofd'"):
        lines.line("kdrefine/vgg8-vgg13-ofd")


def test_unknown_claims_are_named():
    with pytest.raises(ConfigError, match="unknown published figure 're_paper-table9'"):
        answer_of("re_paper-table9")
