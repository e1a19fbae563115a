"""The published figures: complete, typed, disagreements kept."""

import math

import pytest

from rkd import published
from rkd.errors import ConfigError


def test_all_rows_by_source():
    table = published.load()
    assert len(table) == 471
    counts = table["source"].value_counts().to_dict()
    assert counts == {
        "kdrefine": 144,
        "re_paper": 139,
        "modreduce": 90,
        "knowledge_distillation": 68,
        "re_readme": 30,
    }
    assert list(table.columns) == [*published.COLUMNS, "number"]


def test_values_stay_as_printed_beside_their_number():
    table = published.load()
    for row in table.itertuples():
        if row.value and all(c.isdigit() or c in ".+-" for c in row.value) and row.value.count("-") == 0:
            assert row.number == float(row.value)
    (drop,) = published.load(table="text 4.2.2", metric="acc_drop_percent").itertuples()
    assert drop.value == "0.6 +- 0.1" and math.isnan(drop.number)
    not_reported = table[table["value"] == ""]
    assert set(not_reported["note"]) == {"not reported"} and not_reported["number"].isna().all()


def test_disagreements_stand_side_by_side():
    rm = published.load(method="ReviewKD", variant="RM", metric="top1_acc_percent")
    assert dict(zip(rm["source"], rm["number"], strict=True)) == {"re_readme": 69.53, "re_paper": 69.58}
    with pytest.raises(ConfigError, match="2 different published values"):
        published.number(method="ReviewKD", variant="RM", metric="top1_acc_percent")
    assert published.number(source="re_paper", table="Table 6", variant="No change") == 71.79


def test_text_of_tables_3_to_6():
    numbers = {
        t: published.load(source="re_paper", table=f"Table {t}", method="ReviewKD")["number"].tolist()
        for t in (3, 4, 5, 6)
    }
    assert numbers == {
        3: [69.50, 69.58, 69.92, 71.28, 71.51, 71.79], 4: [71.62, 71.62, 71.79, 71.77, 71.91],
        5: [71.46, 71.75, 71.79], 6: [71.79, 71.51, 71.62],
    }  # fmt: skip


def test_unknown_column_is_named():
    with pytest.raises(ConfigError, match="unknown column 'tabel'"):
        published.load(tabel="Table 1")


def test_returned_tables_do_not_alias():
    table = published.load()
    table.loc[0, "value"] = "spoiled"
    assert published.load().loc[0, "value"] != "spoiled"
