"""The published figures: complete, typed, disagreements kept; ids that tell what their row says."""

import math
import re

import pytest

from rkd import published
from rkd.errors import ConfigError

TABLE = published.load()


def test_all_rows_by_source():
    assert TABLE["source"].value_counts().to_dict() == {
        "kdrefine": 144, "re_paper": 139, "modreduce": 90, "knowledge_distillation": 68, "re_readme": 30,
    }  # fmt: skip
    assert list(TABLE.columns) == [*published.COLUMNS, "number"]


def test_ids_say_source_data_set_and_metric_of_their_rows():
    data_sets = {
        "CIFAR-10/100": "cifar10+100",
        "CIFAR-100": "cifar100",
        "CIFAR-10": "cifar10",
        "avg": "average",
    }
    assert TABLE["id"].is_unique and TABLE["id"].str.len().max() <= 100
    for row in TABLE.itertuples():
        words = row.id.split("-")
        assert re.fullmatch(r"[a-z0-9_.+]+(-[a-z0-9_.+]+)+", row.id)
        assert words[0] == row.source and data_sets[row.dataset] in words
        assert (row.metric.removesuffix("_percent") in words) == (row.metric != "top1_acc_percent")
        assert row.source != "modreduce" or words[1] == row.table.lower().replace(" ", "")


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("re_paper-table1-resnet56-resnet20-reviewkd-paper-cifar100", "71.89"),
        ("re_readme-same-style-resnet110-resnet32-reviewkd-reproduction-cifar100", "73.61"),
        ("re_paper-table3-resnet56-resnet20-reviewkd-rm+rlf+abf-cifar100", "71.28"),
        ("re_paper-text3.2-training-cifar100-epochs", "240"),
        ("modreduce-exp3-resnet56-resnet20-modreduce-cifar100", "71.99"),
        ("knowledge_distillation-results-resnet110-resnet110-st+at-cifar10-delta_vs_baseline", "+1.2"),
        ("kdrefine-benchmark-resnet56-resnet20-kdrefine-cifar100", "71.81"),
    ],
)
def test_ids_stay(figure, value):
    assert published.get(figure).value == value


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'kdrefine-benchmark-resnet56-resnet20-kd-cifar100'"):
        published.get("kdrefine-benchmark-resnet56-resnet20-kdd-cifar100")
    with pytest.raises(ConfigError, match="unknown column 'tabel'"):
        published.load(tabel="Table 1")


def test_values_stay_as_printed_beside_their_number():
    plain = TABLE[TABLE["value"].str.fullmatch(r"\+?[\d.]+")]
    assert len(plain) > 400 and (plain["number"] == plain["value"].map(float)).all()
    (drop,) = published.load(table="text 4.2.2", metric="acc_drop_percent").itertuples()
    assert drop.value == "0.6 +- 0.1" and math.isnan(drop.number)
    not_reported = TABLE[TABLE["value"] == ""]
    assert set(not_reported["note"]) == {"not reported"} and not_reported["number"].isna().all()


def test_disagreements_stand_side_by_side():
    rm = {"method": "ReviewKD", "variant": "RM", "metric": "top1_acc_percent"}
    found = published.load(**rm)
    assert dict(zip(found["source"], found["number"], strict=True)) == {"re_readme": 69.53, "re_paper": 69.58}
    with pytest.raises(ConfigError, match="2 different published values"):
        published.find_number(**rm)
    assert published.find_number(source="re_paper", table="Table 6", variant="No change") == 71.79


def test_text_of_tables_3_to_6():
    numbers = {
        t: published.load(source="re_paper", table=f"Table {t}", method="ReviewKD")["number"].tolist()
        for t in (3, 4, 5, 6)
    }
    assert numbers == {
        3: [69.50, 69.58, 69.92, 71.28, 71.51, 71.79], 4: [71.62, 71.62, 71.79, 71.77, 71.91],
        5: [71.46, 71.75, 71.79], 6: [71.79, 71.51, 71.62],
    }  # fmt: skip
