"""Every demonstration's facts, against formulas of their own or counts made by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd.audit import baselines, batchnorm, committed, features, fusion, printed, pyramid, reporting, training
from rkd.audit.subject import BATCH, batch_norms, subject
from rkd.data import preset
from rkd.review import ReviewOptions, hcl


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The committed teacher and drawn images: an empty folder holds no CIFAR-100."""
    found = subject(tmp_path_factory.mktemp("data"), 0)
    assert not found.labels and found.images.name == "embedded"
    return found


# --- figures in print -------------------------------------------------------------------------------------------


def test_report_and_readme_differ_in_two_accuracies():
    both = printed.paper_and_readme()
    assert len(both) == 22
    differ = both[both["difference"] != 0]
    assert sorted(zip(differ["[Re] paper"], differ["[Re] README"], strict=True)) == [
        (69.58, 69.53),
        (73.71, 73.61),
    ]


def test_only_resnet20_has_two_loss_weights():
    table = printed.loss_weights().set_index("pair")
    assert len(table) == 8
    assert table.loc["ResNet-20 ← ResNet-56"].tolist() == [0.7, 0.7, 0.6, 0.6]
    rest = table.drop("ResNet-20 ← ResNet-56")
    assert (rest.nunique(axis=1) == 1).all()
    assert table["printed"].tolist() == [0.7, 1, 5, 5, 5, 5, 5, 8]


def test_steps_of_table_3():
    worth = printed.steps().set_index("change")["points"]
    assert worth["HCL, with attention"] == 0.51
    said, margin = printed.SAID_DROP
    assert said - margin <= worth["HCL, with attention"] <= said + margin
    assert worth["attention (ABF), under L2"] == 1.36 and worth["attention (ABF), under HCL"] == 0.28
    # Both ways from RM + RLF to the full method add up to the same.
    assert pytest.approx(worth["HCL, without attention"] + 0.28) == 1.36 + 0.51


def test_rows_of_table_3_above_the_student_alone():
    above = printed.table3()["above the student alone"].tolist()
    assert above == [0.44, 0.52, 0.86, 2.22, 2.45, 2.73]


def test_largest_gap_is_within_the_stated_bound():
    gaps = printed.gaps()
    assert len(gaps) == 8
    assert gaps["difference"].abs().max() == abs(gaps["difference"].iloc[0])
    assert gaps["difference"].iloc[0] == -0.51
    assert gaps["pair"].iloc[0] == "ShuffleNetV1 ← ResNet32x4"
    assert (gaps["difference"] > 0).sum() == 5


def test_costs_and_the_network_without_a_row():
    assert sorted(printed.costs()["hours"]) == ["3.7", "4 to 5", "5 to 6", ">3.5"]
    assert printed.rows_about("wrn_16_1") == 0
    assert printed.rows_about("resnet20") > 10


def test_misspelt_network_is_refused_with_the_right_name():
    assert "did you mean 'resnet8x4'" in printed.spelling("ReNet8x4")
    assert printed.spelling("ResNet8x4") == "resnet8x4"


# --- training recipe and data -----------------------------------------------------------------------------------


def test_epochs_per_learning_rate():
    table = training.epochs_per_rate().set_index("rule")
    assert table.loc["decayed after"].tolist() == [151, 30, 30, 29]
    assert table.loc["decayed before"].tolist() == [150, 30, 30, 30]


def test_schedules_differ_in_three_epochs_and_warm_up_in_twenty():
    table = training.schedules()
    late = table[table["decayed before"] != table["decayed after"]]
    assert late["epoch"].tolist() == [150, 180, 210]
    ramp = table[table["warm-up"] != table["no warm-up"]]
    assert ramp["epoch"].tolist() == list(range(20)) and ramp["warm-up"].tolist()[10] == 0.5


def test_warm_up_takes_four_percent_of_the_weight():
    table = training.warm_up().set_index("recipe")
    assert table.loc["authors", "mean of all epochs"] == pytest.approx((240 - 20 + 9.5) / 240)
    assert table.loc["authors", "full from epoch"] == 20 and table.loc["authors", "first epoch"] == 0
    assert table.loc["reproduction", "mean of all epochs"] == table.loc["text", "mean of all epochs"] == 1


def test_only_shufflenets_have_another_learning_rate():
    table = training.learning_rates().set_index("student")
    slow = table[table["recipe authors"] != table["recipe text"]]
    assert list(slow.index) == ["ShuffleNetV1", "ShuffleNetV2"] and (slow["recipe authors"] == 0.02).all()
    assert (table["recipe text"] == 0.1).all()


def test_committed_setting_makes_a_sixth_of_the_updates():
    assert training.updates(240, 128) == 240 * 391 == 93_840
    assert training.updates(20, 64) == 20 * 782 == 15_640
    table = training.committed_settings().set_index("")
    assert table.loc["updates in all"].tolist() == ["93,840", "15,640"]
    assert table.loc["data set"].tolist() == ["CIFAR-100", "CIFAR-10"]


def test_sixty_thousand_images():
    table = training.training_images()
    assert table["training images"].tolist() == [60_000, 50_000]
    assert table["steps per epoch"].tolist() == [469, 391]


def test_normalisation_with_foreign_statistics():
    random = torch.Generator().manual_seed(0)
    own, used = preset("cifar100"), preset("cifar10_reviewkd")
    table = training.normalised_with()
    for i, row in enumerate(table.itertuples(index=False)):
        x = torch.randn(4000, generator=random, dtype=torch.float64)
        x = (x - x.mean()) / x.std() * own.std[i] + own.mean[i]  # pixels with the data's own statistics
        y = (x - used.mean[i]) / used.std[i]
        assert row.mean == pytest.approx(y.mean().item())
        assert row[2] == pytest.approx(y.std().item())
    assert table["standard deviation"].between(1.05, 1.09).all()


# --- teacher and features ---------------------------------------------------------------------------------------


def test_drift_is_what_train_mode_does(pair):
    steps = 3
    said = batchnorm.drift(pair, steps=steps)
    network, batches = pair.copy().train(), pair.training()
    start = [(n.running_mean.clone(), n.running_var.clone()) for n in batch_norms(network)]
    with torch.no_grad():
        for x in batches[:steps]:
            network(x)
    shifts = [
        ((n.running_mean - mean) / var.sqrt()).square().mean().sqrt().item()
        for n, (mean, var) in zip(batch_norms(network), start, strict=True)
    ]
    assert said["fed as trained"].iloc[-1] == pytest.approx(max(shifts), rel=1e-3)
    assert said["this package"].eq(0).all()
    assert said["fed other statistics"].iloc[-1] > 2 * said["fed as trained"].iloc[-1]


def test_batch_statistics_change_the_targets(pair):
    table = batchnorm.two_modes(pair).set_index("map")
    assert list(table.index) == ["stage 1", "stage 2", "stage 3", "pooled", "logits"]
    assert ((table > 1) & (table < 50)).all(axis=None)
    with torch.no_grad():
        first, second = pair.training()[:2]
        mixed = torch.cat([first[: BATCH // 2], second[BATCH // 2 :]])
        a, b = pair.network(first)[: BATCH // 2], pair.network(mixed)[: BATCH // 2]
    assert torch.allclose(a, b, atol=1e-4)  # on running statistics company does not matter


def test_predictions_of_the_two_modes(pair):
    images = replace(pair.images, test_x=pair.images.test_x[:64], test_y=pair.images.test_y[:64])
    few = replace(pair, images=images)
    table = batchnorm.predictions(few)
    assert table["same class, %"].iloc[0] == 100
    assert (table["same class, %"].iloc[1:] < 100).all()
    assert "accuracy, %" not in table  # labels of drawn images mean nothing to this teacher
    known = batchnorm.predictions(replace(few, labels=True))
    with torch.no_grad():
        ((x, y),) = few.test()
        correct = 100 * (pair.network(x).argmax(1) == y).double().mean().item()
    assert known["accuracy, %"].iloc[0] == pytest.approx(correct)


def test_only_maps_before_relu_are_negative(pair):
    table = features.negative_shares(pair)
    assert (table["after ReLU (student's tap)"] == 0).all()
    assert table["before ReLU (teacher's tap)"].between(5, 95).all()


def test_listed_connectors_reach_no_optimiser():
    table = features.registration().set_index("connectors")
    for row, parameters in (("row 1", 10_304), ("row 2", 24_592)):
        listed, ours = table.loc[f"{row}, plain list"], table.loc[f"{row}, this package"]
        assert listed["parameters"] == ours["parameters"] == ours["in the optimiser"] == parameters
        assert listed["in the optimiser"] == listed["in the checkpoint"] == 0
        assert ours["in the checkpoint"] > 0
        assert (listed["after eval()"], ours["after eval()"]) == ("train", "eval")


def test_random_connectors_keep_a_perfect_student_at_a_distance():
    table = features.perfect_student().set_index("comparison")
    assert (table.loc["maps as they are (text)"] == 0).all()
    assert table.loc["through random connectors (code)"].between(1, 3).all()


def test_readings_of_the_review_mechanism():
    table = features.separate_or_summed()
    assert table["comparisons"].tolist() == [15, 5]
    # Unit-variance maps: a separate term is near 2, a sum of n maps near n + 1.
    assert table["loss at the first step"].iloc[0] == pytest.approx(15 * 2, rel=0.05)
    assert table["loss at the first step"].iloc[1] == pytest.approx(sum(n + 1 for n in range(1, 6)), rel=0.05)


def test_five_levels_or_four(pair):
    table = features.level_terms(pair)
    assert table["level"].tolist() == ["stem", "stage 1", "stage 2", "stage 3", "pooled"]
    assert table["five levels (rows 1, 2)"].gt(0).all()
    assert math.isnan(table["four levels (rows 3 to 6)"].iloc[0])
    assert table["four levels (rows 3 to 6)"].iloc[1:].gt(0).all()


def test_subject_is_frozen_and_its_statistics_are_those_of_its_images(pair):
    assert not pair.network.training and not any(p.requires_grad for p in pair.network.parameters())
    first = batch_norms(pair.network)[0]
    with torch.no_grad():
        means = torch.stack([pair.network.conv1(x).mean((0, 2, 3)) for x in pair.training()]).mean(0)
    assert torch.allclose(first.running_mean, means, atol=1e-4)


# --- ABF --------------------------------------------------------------------------------------------------------


def test_what_blocks_pass_on():
    table = fusion.passed_on()
    assert table["parameters"].tolist() == [114_278, 124_902, 146_182, 113_504]
    mid, output, direct, plain = (row for row in table.itertuples(index=False))
    assert mid.attention == 3 * 258 and plain.attention == 0
    assert mid.parameters - plain.parameters == mid.attention
    # The residual's 1x1 convolutions and BN: 64, 64 and 32 channels to 64.
    assert output[4] == sum(c * 64 + 2 * 64 for c in (64, 64, 32)) == output.parameters - mid.parameters
    assert mid[5] == "64 × 1², 64 × 8², 64 × 16²" and direct[5] == "64 × 1², 64 × 8², 32 × 16²"


def test_idle_attention():
    table = fusion.unused_attention().set_index("part")
    assert table["parameters"].tolist() == [114_278, 258, 114_536]
    assert table["with a gradient"].tolist() == [114_278, 0, 114_278]
    assert 258 == 2 * 64 * 2 + 2


@pytest.mark.slow
def test_mid_widths():
    table = fusion.mid_widths()
    assert table["width, rule"].tolist() == [64, 64, 256, 128, 64, 512, 512, 512]
    assert (table["width, fixed"] == 64).all()
    published = [114_278, 114_278, 1_808_774, 453_830, 216_006, 4_607_366, 2_984_646, 4_195_718]
    assert table["parameters, rule"].tolist() == published


def test_attention_starts():
    table = fusion.attention_start().set_index("initialisation")
    fan_in = 2 * 64
    assert table.loc["default", "largest weight"] == pytest.approx(1 / fan_in**0.5, rel=0.02)
    assert table.loc["kaiming", "largest weight"] == pytest.approx((3 / fan_in) ** 0.5, rel=0.02)
    assert table.loc["kaiming", "sd of the attention"] > 1.3 * table.loc["default", "sd of the attention"]


# --- HCL --------------------------------------------------------------------------------------------------------


def test_weight_of_the_pooled_level():
    table = pyramid.pooled_weights()
    by_rule = dict(zip(zip(table["sizes"], table["weights"], strict=True), table["[Re] code"], strict=True))
    assert by_rule["h, 4, 2, 1", "1, 0.5, 0.25, 0.125"] == pytest.approx(0.6)
    assert by_rule["4, 1", "1, 0.5"] == pytest.approx(1 / 3)
    assert by_rule["h, 2, 1", "1, 0.5, 0.25"] == pytest.approx(1.25 / 1.75)
    assert by_rule["h, 4, 2, 1", "0.125, 0.25, 0.5, 1"] == pytest.approx(0.6)
    assert by_rule["h, 4, 2, 1", "1, 1, 1, 1"] == pytest.approx(0.5)
    assert len(table) == 7 and table["[Re] code"].isna().sum() == 2
    assert table["authors' rule"].tolist() == [1] * 7


def test_committed_rule_is_the_recipe_of_this_package():
    options = ReviewOptions(**pyramid._recipe("reproduction"))
    random = torch.Generator().manual_seed(1)
    for h in (1, 2, 4, 8, 16):
        a, b = (torch.randn(3, 5, h, h, generator=random, dtype=torch.float64) for _ in range(2))
        naive = pyramid.committed_hcl(a, b, options.hcl_levels, options.hcl_weights)
        assert hcl(a, b, options).item() == pytest.approx(naive.item(), rel=1e-12)


def test_size_zero_gives_nan_and_a_negative_one_an_error():
    zero, _ = pyramid.run_committed(1, ("h", "h/2", "h/4"), (1, 0.5, 0.25))
    assert math.isnan(zero.loss) and zero.error == ""
    below, _ = pyramid.run_committed(1, ("h", "h-1", "h-2", "h-3"), (1, 0.5, 0.25, 0.125))
    assert math.isnan(below.loss) and "output_size" in below.error
    with pytest.raises(RuntimeError, match="output_size"):
        maps = torch.randn(2, 3, 1, 1)
        pyramid.committed_hcl(maps, maps, ("h", "h-1", "h-2"), (1, 0.5, 0.25))
    fine, mse = pyramid.run_committed(8, ("h", "h-1", "h-2", "h-3"), (1, 0.5, 0.25, 0.125))
    assert fine.error == "" and 0 < fine.loss < mse


def test_failures_are_the_two_columns_of_table_4():
    table = pyramid.failures()
    assert table["sizes"].tolist() == ["h, h/2, h/4", "h, h-1, h-2, h-3"]
    assert table["asked of the 1 × 1 map"].tolist() == ["1, 0, 0", "1, 0, -1, -2"]
    assert "NaN" in table["what happens"].iloc[0] and "output_size" in table["what happens"].iloc[1]
    assert table["this package compares at"].tolist() == ["1", "1"]


def test_normalisers():
    table = pyramid.normalisers().set_index("map")
    assert (table["authors: weights used"] == 1).all()
    ours = table["[Re] code: all weights"]
    assert (ours[["32 × 32", "16 × 16", "8 × 8"]] == 1).all()
    assert ours["1 × 1"] == pytest.approx(0.6) and ours["2 × 2"] == pytest.approx((1 + 0.25 + 0.125) / 1.875)


def test_average_and_max_pooling():
    found = pyramid.average_and_max()
    terms = found.terms.set_index("pooling")
    assert terms.loc["average", "8 × 8"] == terms.loc["max", "8 × 8"]
    mean, top = (
        (found.student.mean() - found.teacher.mean()) ** 2,
        (found.student.max() - found.teacher.max()) ** 2,
    )
    assert terms.loc["average", "1 × 1"] == pytest.approx(mean.item(), rel=1e-4)
    assert terms.loc["max", "1 × 1"] == pytest.approx(top.item(), rel=1e-4)
    assert terms.loc["max", "1 × 1"] > 10 * terms.loc["average", "1 × 1"]
    for kind in ("average", "max"):
        weights = {"8 × 8": 1, "4 × 4": 0.5, "2 × 2": 0.25, "1 × 1": 0.125}
        whole = sum(w * terms.loc[kind, size] for size, w in weights.items()) / 1.875
        assert terms.loc[kind, "HCL"] == pytest.approx(whole, rel=1e-5)
        assert found.maps[kind, 2][0].shape == (2, 2)


def test_classifier_gets_no_gradient_from_the_review_loss():
    head = pyramid.head_without_gradient()
    assert head.gradient_of_its_weights is None
    assert head.largest_gradient_elsewhere > 0
    assert head.cosine_with_the_start == pytest.approx(1, abs=1e-6)  # weight decay alone
    assert 0.99 < head.norm_afterwards < 1


# --- committed code ---------------------------------------------------------------------------------------------


def test_channels_do_not_match():
    table = committed.mismatched_channels()
    assert table["built for"].tolist() == [32, 16, 1] and table["handed"].tolist() == [64, 64, 32]
    for row in table.itertuples(index=False):
        assert f"to have {row[1]} channels, but got {row[2]} channels" in row[3]


def test_ten_logits_take_no_label_of_a_hundred():
    assert committed.ten_classes() == "Target 57 is out of bounds."
    assert committed.ten_classes(label=3) == "runs"


def test_chained_students_start_warm():
    table = committed.chained_students()
    assert table["one student: updates before"].tolist() == [0, 3, 6]
    assert table["first loss"].is_monotonic_decreasing and table["first loss"].is_unique
    assert table["its first loss"].nunique() == 1
    assert table["first loss"].iloc[0] == table["its first loss"].iloc[0]


def test_shared_dictionary_keeps_the_decayed_rate():
    table = committed.mutated_parameters()
    assert table["shared dictionary"].tolist() == pytest.approx([0.1, 0.001, 0.00001])
    assert table["frozen config"].tolist() == [0.1] * 3
    assert committed.frozen_config().startswith("FrozenInstanceError")


# --- reporting --------------------------------------------------------------------------------------------------


def test_last_batch_scatters_twenty_five_times_as_much():
    table = reporting.last_batch(epochs=2000).set_index("logged")
    assert table["images"].tolist() == [80, 50_000]
    ratio = table["standard deviation"].iloc[0] / table["standard deviation"].iloc[1]
    assert ratio == pytest.approx((50_000 / 80) ** 0.5, rel=0.1)
    assert table["standard deviation"].iloc[0] == pytest.approx(1.2 / 80**0.5, rel=0.1)
    assert table["mean"].tolist() == pytest.approx([1, 1], abs=0.02)


def test_best_epoch_is_optimistic():
    table = reporting.best_epoch().set_index("scatter between epochs")
    # The expected largest of 10 standard normal numbers is 1.5388.
    assert table.loc[0.1, "10 epochs"] == pytest.approx(0.15388, abs=0.005)
    assert (table["60 epochs"] > table["30 epochs"]).all()
    assert table.loc[0.2, "30 epochs"] == pytest.approx(4 * table.loc[0.05, "30 epochs"], rel=0.05)


def test_recorded_optimism_is_never_negative():
    table = reporting.recorded_optimism()
    assert table["runs"].sum() > 0 and (table["best − last, mean"] >= 0).all()
    assert (table["largest"] >= table["best − last, mean"]).all()
    assert (table["last was best"] <= table["runs"]).all()


def test_resolution_by_student_t():
    table = reporting.resolution().set_index("runs")
    assert table.loc[3, "a mean"] == pytest.approx(2.919986 * 0.25 / 3**0.5, rel=1e-6)
    assert table.loc[3, "a difference"] == pytest.approx(2.131847 * 0.25 * (2 / 3) ** 0.5, rel=1e-6)
    assert reporting.published_differences()["largest"].max() == 0.33 < table.loc[3, "a difference"]


# --- baselines --------------------------------------------------------------------------------------------------


def test_teachers_of_quoted_and_reproduced_rows():
    assert baselines.teachers()["difference"].tolist() == [0.70, 0.07, -0.28, 1.05]


def test_three_misquoted_baselines():
    table = baselines.misquoted()
    assert sorted(table["difference"]) == [-1.12, -1.00, 0.09]
    assert len(baselines.crd_readme()) == 3


def test_leads_over_the_best_do_not_change():
    table = baselines.margins()
    assert len(table) == 8 and (table["lead as quoted"] == table["lead by CRD's README"]).all()
    assert table["lead as quoted"].min() == 0.23 and table["lead as quoted"].max() == 1.39


def test_naive_pooling_agrees_with_a_loop():
    """committed_hcl's pooling, once, by hand: means of 2x2 blocks."""
    a, b = torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    blocks = [a[0, 0, i : i + 2, j : j + 2].mean() for i in (0, 2) for j in (0, 2)]
    by_hand = sum(m**2 for m in blocks) / 4
    assert pyramid.committed_hcl(a, b, (2,), (1.0,)).item() == pytest.approx(by_hand.item())
    assert F.mse_loss(a, b).item() > by_hand.item()
