"""Means, spreads and tables of measured lines."""

import dataclasses
import math

import pytest
from conftest import tiny_plain

from rkd.experiments.chapters import Line, Published
from rkd.records import Record
from rkd.report import figures, tables
from rkd.report.summary import measure, same_runs


def record(config, last, best, status="finished"):
    result = {"last_accuracy": last, "best_accuracy": best, "best_epoch": 0, "epochs": 2}
    provenance = {
        "commit": "0123456789abcdef",
        "changed": None,
        "device_name": "a CPU",
        "threads": 1,
        "ended": "2026-01-01T00:00:00Z",
    }
    return Record(
        config,
        status,
        {"loss_ce": [1.0]},
        result,
        {"train_seconds": 1.0, "images_per_second": 200.0},
        provenance,
    )


RUNS = tuple(tiny_plain(seed=seed) for seed in range(4))
LINE = Line("full", "the full method", RUNS, published=(Published("[Re] paper", 71.79, "a note"),))


def records(*lasts, diverged=()):
    made = {run.id: record(run, last, last + 1) for run, last in zip(RUNS, lasts, strict=False)}
    return made | {run.id: record(run, 1.0, 1.0, "diverged") for run in diverged}


def test_mean_and_sample_standard_deviation():
    m = measure(LINE, records(70.0, 71.0, 73.0))
    assert m.mean() == pytest.approx(214 / 3) and m.mean("best") == pytest.approx(214 / 3 + 1)
    mean = 214 / 3
    assert m.spread() == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in (70, 71, 73)) / 2))
    assert (m.missing, m.diverged) == (1, 0)


def in_arithmetics(*names):
    found = [dataclasses.replace(run, precision=name) for run, name in zip(RUNS, names, strict=False)]
    return {run.id: record(now, 70.0, 71.0) for run, now in zip(RUNS, found, strict=False)}


def test_a_mean_over_several_arithmetics_says_so():
    m = measure(LINE, in_arithmetics("fp16", "fp32", "fp16", "fp16"))
    assert m.arithmetics == ("fp16", "fp32")
    assert "fp16 (3), fp32 (1)" in tables.numbers(m, "last")
    one = measure(LINE, in_arithmetics("fp16", "fp16"))
    assert "fp16" not in tables.numbers(one, "last"), "a table in one arithmetic need not repeat it"
    lost = in_arithmetics("fp16", "fp16") | records(diverged=RUNS[2:3])
    assert measure(LINE, lost).arithmetics == ("fp16",), "what enters no mean mixes nothing"


def test_rows_and_columns_in_several_arithmetics_name_theirs():
    other = dataclasses.replace(LINE, key="other", label="another")
    sixteen, plain = (measure(LINE, in_arithmetics(name, name)) for name in ("fp16", "fp32"))
    both = tables.result_table([LINE, other], {"full": sixteen, "other": plain}, {}, "here")
    assert both.count("fp16 (2)") == both.count("fp32 (2)") == 2, "last and best epoch"
    one = tables.result_table([LINE, other], {"full": sixteen, "other": sixteen}, {}, "here")
    assert "fp16 (2)" not in one
    beside = tables.result_table([LINE], {"full": sixteen}, {"recorded: paper": {"full": plain}}, "here")
    assert "fp16 (2)" in beside and "fp32 (2)" in beside


def test_nothing_measured_is_nan_and_missing():
    m = measure(LINE, {})
    assert math.isnan(m.mean()) and math.isnan(m.spread()) and m.missing == 4
    html = tables.result_table([LINE], {"full": m}, {}, "here")
    assert "missing" in html and "nan" not in html and "0.00" not in html


def test_diverged_runs_are_counted_apart():
    m = measure(LINE, records(70.0, diverged=[RUNS[1]]))
    assert m.last == (70.0,) and m.diverged == 1 and m.missing == 2
    assert math.isnan(m.spread())
    html = tables.result_table(
        [LINE], {"full": m}, {"recorded, paper profile": {"full": measure(LINE, {})}}, "here"
    )
    assert (
        "1 diverged" in html
        and "2 missing" in html
        and "70.00" in html
        and "71.79" in html
        and "n = 1" in html
    )


def test_provenance_names_every_run():
    html = tables.provenance_table([LINE], {"full": measure(LINE, records(70.0, 71.0))}, "results/x")
    assert all(run.id in html for run in RUNS) and html.count("missing") >= 2 and "01234567" in html


def test_text_is_escaped():
    line = Line("x", "<b>", RUNS[:1], note="a & b")
    html = tables.result_table([line], {"x": measure(line, {})}, {}, "<here>")
    assert "<b>" not in html and "&lt;b&gt;" in html and "a &amp; b" in html and "<here>" not in html


def test_lines_with_the_same_runs_are_named():
    other = Line("again", "again", RUNS)
    assert same_runs([LINE, other, Line("y", "y", RUNS[:2])]) == {"again": "the full method"}


@pytest.mark.parametrize("together", [True, False])
def test_figures_show_what_was_measured(together):
    m = {"full": measure(LINE, records(70.0, 71.0, 73.0))}
    figure = figures.dot_plot([LINE], m, "here", together)
    drawn = {round(float(x), 2) for ax in figure.axes for artist in ax.lines for x in artist.get_xdata()}
    assert {70.0, 71.0, 73.0, 71.79} <= drawn
    line = Line("w", "w", RUNS, x=0.5)
    figure = figures.weight_plot([line], {"w": measure(line, records(70.0, 71.0))}, "here")
    ys = {round(float(y), 2) for artist in figure.axes[0].lines for y in artist.get_ydata()}
    assert {70.0, 71.0, 70.5} <= ys


def test_figures_without_any_measurement():
    figures.dot_plot([LINE], {"full": measure(LINE, {})}, "here", False)
    figures.weight_plot([Line("w", "w", RUNS, x=0.5)], {"w": measure(LINE, {})}, "here")


def test_mini_records_get_a_column_of_their_own_where_there_are_some(tmp_path, monkeypatch):
    """Labelled with what they stand on; without any, the column is left out."""
    from rkd.records import Record, Store
    from rkd.report import page as page_module

    stores = {name: Store(tmp_path / name, tmp_path / "work") for name in ("paper", "mini", "smoke")}
    monkeypatch.setattr(page_module, "store_for", lambda profile: stores[profile])
    monkeypatch.setattr(page_module, "store_of", lambda settings: stores["smoke"])
    page = page_module.Page(page_module.chapter_in("table3", {}), {"profile": "smoke", "on_missing": "skip"})
    page.run()
    assert "recorded: paper profile" in page.table().data and "mini" not in page.table().data
    mini = page.chapter.lines(page_module.parameters.resolve("table3", {"profile": "mini"}))[-1].runs[0]
    mini = mini.settled("fp32", "fp32")
    cost = {"train_seconds": 1.0, "gang": 1}
    result = {"last_accuracy": 24.5, "best_accuracy": 25.0, "best_epoch": 3, "epochs": 4}
    stores["mini"].save(Record(mini, "finished", {"test_accuracy": [24.5]}, result, cost, {}))
    html = page.table().data
    assert "recorded: mini profile" in html and "24.50" in html and "n = 1" in html
    assert "Mini profile: ResNet-8 ← ResNet-20, 4 epochs on 12,000 images of CIFAR-100" in html
