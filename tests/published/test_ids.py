"""Ids of the published figures: unique, readable, telling what their row says."""

import re

import pytest

from rkd import published
from rkd.errors import ConfigError


def test_ids_are_unique_slugs_of_every_row():
    ids = published.load()["id"]
    assert len(ids) == 471 and ids.is_unique
    assert all(re.fullmatch(r"[a-z0-9_.+]+(-[a-z0-9_.+]+)+", i) for i in ids)
    assert max(map(len, ids)) <= 100


def test_an_id_says_source_data_set_and_metric_of_its_row():
    data_sets = {
        "CIFAR-100": "cifar100",
        "CIFAR-10": "cifar10",
        "CIFAR-10/100": "cifar10+100",
        "avg": "average",
    }
    for row in published.load().itertuples():
        words = row.id.split("-")
        assert words[0] == row.source and data_sets[row.dataset] in words
        metric = row.metric.removesuffix("_percent")
        assert (metric in words) == (row.metric != "top1_acc_percent")
        if row.source == "modreduce":
            assert words[1] == row.table.lower().replace(" ", "")


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("re_paper-table1-resnet56-resnet20-reviewkd-paper-cifar100", "71.89"),
        ("re_readme-same-style-resnet110-resnet32-reviewkd-reproduction-cifar100", "73.61"),
        ("re_paper-table2-resnet32x4-shufflenetv2-kd-cifar100", "73.33"),
        ("re_paper-table3-resnet56-resnet20-reviewkd-rm+rlf+abf-cifar100", "71.28"),
        ("re_paper-text3.2-training-cifar100-epochs", "240"),
        ("modreduce-exp3-resnet56-resnet20-modreduce-cifar100", "71.99"),
        ("knowledge_distillation-results-resnet110-resnet110-st+at-cifar10-delta_vs_baseline", "+1.2"),
        ("kdrefine-benchmark-resnet56-resnet20-kdrefine-cifar100", "71.81"),
    ],
)
def test_ids_stay(claim, value):
    assert published.get(claim).value == value


def test_unknown_id_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'kdrefine-benchmark-resnet56-resnet20-kd-cifar100'"):
        published.get("kdrefine-benchmark-resnet56-resnet20-kdd-cifar100")
