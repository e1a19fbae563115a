"""Interactive pictures hold what the records say, with and without scripts, inside the book and outside."""

import base64
import gzip
import json
import math
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("plotly", reason="plotly is not installed (pip install -e .[book])")
pytest.importorskip("itables", reason="itables is not installed (pip install -e .[book])")

import plotly.graph_objects as go
from browser import chromium
from conftest import tiny_plain, tiny_review
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs_version
from scipy import stats

from rkd import models, paths
from rkd.errors import ConfigError
from rkd.experiments.chapters import Line
from rkd.experiments.workspace import store_for
from rkd.records import Record
from rkd.report.interactive import assets
from rkd.report.interactive.curves import COLOURS, DASHES, curves, decimated
from rkd.report.interactive.explorer import (
    EVIDENCE,
    MACHINERY,
    SHORT,
    Explorer,
    Overview,
    Place,
    _row,
    configurations,
)
from rkd.report.interactive.path import review_details, review_diagram_svg, review_paths
from rkd.report.interactive.plot import Choice, Entry, Plot
from rkd.review import ReviewKD, ReviewOptions, level_weights
from rkd.training import DataConfig, RunConfig, SGDConfig

ASSETS = paths.home() / "book" / "_assets"
HOSTILE = 'rm </script><script>alert("1")</script> & <b>x</b>'


@pytest.fixture
def in_book(monkeypatch):
    monkeypatch.setenv(assets.BUILDING, "token")


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.delenv(assets.BUILDING, raising=False)


def record(config, rng, stop=None, level=70.0, labels=None):
    """A made-up run with accuracies in hundredths of a percent, as 10,000 test images give; `stop`: diverged there."""
    epochs = config.epochs
    tests = np.round(
        np.clip(level * (1 - np.exp(-np.arange(1, epochs + 1) / 9)) + rng.normal(0, 1, epochs), 0, 99), 2
    )
    drawn = {
        "test_accuracy": tests,
        "train_accuracy": np.round(tests + 1, 2),
        "loss_ce": 4 - tests / 30,
        "lr": np.full(epochs, 0.1),
    }
    if config.method:
        drawn["loss_review"] = 3 - tests / 40
    kept = {name: [float(v) for v in values[:stop]] for name, values in drawn.items()}
    result = {
        "last_accuracy": kept["test_accuracy"][-1],
        "best_accuracy": max(kept["test_accuracy"]),
        "best_epoch": int(np.argmax(kept["test_accuracy"])),
        "epochs": len(kept["lr"]),
    }
    provenance = {"labels": {"profile": "mini"} if labels is None else labels}
    return Record(
        config, "diverged" if stop else "finished", kept, result, {"arithmetic": "fp32"}, provenance
    )


def table(count=3, seeds=3, epochs=6, group="", **more):
    """Lines of reviewed runs that differ in their loss weight, and their records."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        runs = [
            tiny_review(ReviewOptions(loss_weight=0.5 + i, warmup_epochs=0), seed=s, epochs=epochs)
            for s in range(seeds)
        ]
        lines.append(Line(f"line{i}", f"line {i}", tuple(runs), group, **more))
    return lines, {run.id: record(run, rng) for line in lines for run in line.runs}


def emitted(shown):
    """The JSON the page carries."""
    return json.loads(
        re.search(r'<script type="application/json">(.*?)</script>', shown._repr_html_(), re.S)[1]
    )


def traces(spec, **meta):
    return [t for t in spec["data"] if all(t["meta"].get(k) == v for k, v in meta.items())]


# --- curves ------------------------------------------------------------------------------------------------------


def test_curves_hold_the_numbers_of_the_records(in_book):
    lines, records = table()
    spec = emitted(curves(lines, records, "Curves"))
    for line in lines:
        for metric in ("test_accuracy", "train_accuracy"):
            drawn = traces(spec, line=line.key, metric=metric, runs="single")
            assert [t["y"] for t in drawn] == [records[run.id].curves[metric] for run in line.runs]
            assert all((t["x0"], t["dx"]) == (1, 1) for t in drawn), "epochs count from 1"
        for metric in ("test_accuracy", "train_accuracy", "loss_ce", "loss_review", "lr"):
            (mean,) = traces(spec, line=line.key, metric=metric, readout=True)
            for epoch, drawn in enumerate(mean["y"]):
                values = [records[run.id].curves[metric][epoch] for run in line.runs]
                assert drawn == pytest.approx(sum(values) / len(values), abs=0.0051, rel=6e-4)
    metrics = next(c for c in spec["controls"] if c.get("facet") == "metric")
    assert [e["value"] for e in metrics["entries"]][:2] == ["test_accuracy", "train_accuracy"]


def test_curves_say_what_is_missing_or_diverged(in_book):
    lines, records = table(count=2, seeds=4)
    lost, broken = lines[0].runs[1], lines[1].runs[3]
    del records[lost.id]
    records[broken.id] = record(broken, np.random.default_rng(1), stop=2)
    plot = curves(lines, records, "Curves")
    assert "Missing: line 0 (seed 1)." in plot.note
    assert "Diverged, and in no mean: line 1, seed 3, after epoch 2." in plot.note
    spec = emitted(plot)
    (mean,) = traces(spec, line="line1", metric="test_accuracy", readout=True)
    sound = [records[run.id].curves["test_accuracy"] for run in lines[1].runs[:3]]
    assert mean["y"] == pytest.approx(np.mean(sound, axis=0), abs=0.0051)
    (cut,) = [t for t in traces(spec, line="line1", metric="test_accuracy") if "diverged" in t["name"]]
    assert len(cut["y"]) == 2 and cut["marker"]["size"] == [0, 9], "a cross marks where it ended"
    assert traces(spec, line="line1", metric="loss_ce", runs="single"), (
        "a diverged run shows its loss as well"
    )


def test_curves_of_a_line_that_only_diverged(in_book):
    lines, records = table(count=1, seeds=1)
    records = {run: record(r.config, np.random.default_rng(0), stop=3) for run, r in records.items()}
    plot = curves(lines, records, "Curves")
    assert "line 0 diverged" in plot.alt and not traces(emitted(plot), readout=True)


def test_curves_of_one_epoch_and_of_nothing(in_book):
    lines, records = table(epochs=1, seeds=1)
    spec = emitted(curves(lines, records, "Curves"))
    assert all(t["mode"] == "lines+markers" for t in traces(spec, readout=True)), "one point needs a mark"
    assert not [c for c in spec["controls"] if c["kind"] == "cursor" or c.get("facet") in ("span", "runs")]
    nothing = curves(lines, {}, "Curves")
    assert "No run is recorded yet" in nothing.alt and emitted(nothing)["data"] == []


def test_one_group_is_shown_at_a_time(in_book):
    first, records = table(count=2, group="pair A")
    second, more = table(count=2, group="pair B")
    second = [Line(f"b-{line.key}", line.label, line.runs, line.group) for line in second]
    spec = emitted(curves([*first, *second], {**records, **more}, "Curves"))
    (choice,) = [c for c in spec["controls"] if c.get("facet") == "group"]
    assert [e["value"] for e in choice["entries"]] == ["pair A", "pair B"]
    legend = next(c for c in spec["controls"] if c.get("facet") == "line")
    assert [e["only"]["group"] for e in legend["entries"]] == [["pair A"]] * 2 + [["pair B"]] * 2
    styles = [(e["colour"], e.get("dash")) for e in legend["entries"]]
    assert styles[:2] == styles[2:], "a role looks the same in every group"


def test_thirty_lines_are_told_apart_without_colours_alone():
    styles = [(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]) for i in range(30)]
    assert len(set(styles)) == 30


@pytest.mark.parametrize("length", [3, 240, 241, 500, 4801])
def test_decimation_keeps_ends_and_extremes(length):
    values = np.random.default_rng(length).normal(size=length).tolist()
    positions, kept = decimated(values, 240)
    assert len(kept) <= 240 and positions == sorted(set(positions))
    assert kept == [values[i] for i in positions]
    assert {0, length - 1, int(np.argmin(values)), int(np.argmax(values))} <= set(positions)
    if length <= 240:
        assert kept == values


def test_decimation_keeps_a_gap():
    values = [1.0] * 100 + [math.nan] * 300 + [2.0] * 100
    _, kept = decimated(values, 50)
    assert any(math.isnan(v) for v in kept) and kept[0] == 1.0 and kept[-1] == 2.0


def test_a_table_of_the_paper_profile_stays_small(in_book):
    lines, records = table(count=8, seeds=5, epochs=240)
    assert len(curves(lines, records, "Curves")._repr_html_()) < 300_000


# --- plot --------------------------------------------------------------------------------------------------------


def test_labels_cannot_leave_their_place(in_book):
    lines, records = table(count=1)
    lines = [Line("k", HOSTILE, lines[0].runs)]
    plot = curves(lines, records, HOSTILE)
    page = plot._repr_html_()
    assert page.count("</script>") == 1, "the JSON's own end"
    assert "<b>" not in page and "<script>" not in page
    spec = emitted(plot)
    legend = next(c for c in spec["controls"] if c.get("facet") == "line")
    assert legend["entries"][0]["label"] == HOSTILE, "set as text by the script"
    (mean,) = traces(spec, metric="test_accuracy", readout=True)
    assert "<" not in mean["name"], "plotly reads tags in names"


def test_in_the_book_a_plot_names_no_host_and_brings_no_script(in_book):
    lines, records = table(count=1)
    page = curves(lines, records, "Curves")._repr_html_()
    assert "http" not in page and page.count("<script") == 1
    assert re.search(r'<img class="rkd-plot-fallback"[^>]* alt="Curves\. [^"]+"', page)


def test_outside_the_book_a_plot_brings_all_it_needs(outside):
    lines, records = table(count=1)
    page = curves(lines, records, "Curves")._repr_html_()
    packed = re.search(r'atob\("([^"]+)"\)', page)[1]
    assert gzip.decompress(base64.b64decode(packed)).decode() == (ASSETS / assets.PLOTLY).read_text(
        encoding="utf-8"
    )
    assert (ASSETS / "interactive.js").read_text(encoding="utf-8") in page
    assert 'src="' not in page.replace('src="data:', ""), "nothing is fetched"


def test_a_trace_no_control_offers_is_an_error():
    figure = go.Figure(go.Scatter(y=[1], name="lost", meta={"metric": "loss"}))
    control = Choice("metric", "Show", (Entry("accuracy", "accuracy"),))
    with pytest.raises(ConfigError, match="trace 'lost' has metric 'loss', which no control offers"):
        Plot(figure, Figure(), "nothing", controls=(control,))


def test_vendored_plotly_is_the_one_the_figures_are_written_for():
    version = get_plotlyjs_version()
    text = (ASSETS / assets.PLOTLY).read_text(encoding="utf-8")
    assert f"v{version}" in text[:200]
    assert f"plotly.js-cartesian-dist-min {version}" in (ASSETS / "README").read_text(encoding="utf-8")
    assert "define.amd" not in text, "it would register with require.js in place of the page"
    assert (ASSETS / "plotly" / "LICENSE").is_file()


# --- explorer ----------------------------------------------------------------------------------------------------


def full(**values):
    """A run of the published length."""
    return RunConfig(network="resnet20", data=DataConfig(), optimiser=SGDConfig(), **values)


def gathered():
    rng = np.random.default_rng(3)
    runs = [full(seed=s) for s in range(4)]
    records = [("paper", record(run, rng, labels={"profile": "paper", "recipe": "authors"})) for run in runs]
    tiny, other = tiny_review(seed=0), tiny_review(seed=1)
    records += [("mini", record(tiny, rng)), ("mini", record(other, rng, stop=1))]
    records += [("smoke", record(tiny_plain(seed=0), rng, labels={"profile": "params/smoke.yaml"}))]
    places = {tiny.id: [Place("table3", "Table 3, full", "reproduction")]}
    return records, configurations([*records, records[0]], places)


def test_runs_that_differ_in_their_seed_are_one_configuration():
    records, rows = gathered()
    assert [len(c.records) for c in rows] == [4, 2, 1] and sum(len(c.records) for c in rows) == len(records)
    assert [c.kind for c in rows] == [EVIDENCE, SHORT, MACHINERY]
    assert [c.recipe for c in rows] == ["authors", "reproduction", ""]
    assert rows[1].pair == "ResNet-8 ← ResNet-14" and rows[1].method == "ReviewKD: RM + RLF + ABF + HCL"
    assert (len(rows[1].accuracies()), rows[1].diverged) == (1, 1)
    assert len({c.label for c in rows}) == 3


def test_rows_that_leave_the_arithmetic_open_stand_on_records_in_any():
    """Each arithmetic is a configuration of its own, and names it."""
    rng = np.random.default_rng(3)
    asked = tiny_review(precision="auto").request
    records = [("mini", record(asked.settled(name, "fp32"), rng)) for name in ("fp16", "bf16")]
    rows = configurations(records, {asked.id: [Place("table3", "Table 3, full", "reproduction")]})
    assert [c.places[0].row for c in rows] == ["Table 3, full"] * 2
    assert {row["precision"] for row in map(_row, rows)} == {"fp16", "bf16"}


def test_interval_is_students():
    _, rows = gathered()
    values = np.array([r.result["last_accuracy"] for r in rows[0].records])
    expected = stats.t.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
    assert rows[0].interval() == pytest.approx(expected)
    assert all(math.isnan(v) for v in rows[2].interval())


def test_smoke_runs_are_no_evidence(in_book):
    _, rows = gathered()
    overview = Overview(rows)
    assert "2 configurations" in overview.alt() and "smoke" not in overview.alt()
    spec = emitted(overview)
    assert [r["kind"] for r in spec["rows"]] == [EVIDENCE, SHORT, MACHINERY] and spec[
        "machinery"
    ] == MACHINERY
    assert "1 configurations" in Overview(rows[2:]).alt(), "shown where there is nothing else"


def test_overview_holds_the_numbers_of_the_records(in_book):
    _, rows = gathered()
    for c, row in zip(rows, emitted(Overview(rows))["rows"], strict=True):
        values = [r.result["last_accuracy"] for r in c.records if r.status == "finished"]
        assert row["runs"] == values and row["mean"] == pytest.approx(sum(values) / len(values), abs=6e-4)
        assert (row["low"] is None) == (len(values) < 2)
    assert "No run is recorded yet" in Overview([])._repr_html_()


def test_overview_escapes_what_it_shows(in_book):
    rng = np.random.default_rng(0)
    rows = configurations(
        [("mini", record(tiny_plain(), rng, labels={"profile": "mini", "recipe": HOSTILE}))], {}
    )
    page = Overview(rows)._repr_html_()
    assert "<b>x" not in page and 'alert("1")</script>' not in page
    assert emitted(Overview(rows))["rows"][0]["recipe"] == HOSTILE


def test_explorer_reads_the_committed_records(in_book, tmp_path):
    explorer = Explorer("mini", str(tmp_path))
    mini = store_for("mini")
    shown = {r.id: r for c in explorer.rows for r in c.records if c.profile == "mini"}
    assert sorted(shown) == mini.ids() and explorer.used() == []
    by_row = {c.places[0].row: c for c in explorer.rows if c.profile == "mini"}
    means = {
        row: np.mean([json.loads(mini.path(r.id).read_text())["result"]["last_accuracy"] for r in c.records])
        for row, c in by_row.items()
    }
    spec = emitted(explorer.overview())
    drawn = {r["label"]: r["mean"] for r in spec["rows"] if r["profile"] == "mini"}
    assert drawn == pytest.approx(means, abs=6e-4) and "Table 3, RM + RLF" in drawn


@pytest.mark.slow
def test_explorer_notebook_runs_last_and_writes_its_mark(tmp_path):
    notebook = paths.home() / "book" / "explorer.ipynb"
    assert json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["rkd"] == {"last": True}
    call = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(tmp_path / "out.ipynb"),
        "--no-progress-bar",
    ]
    call += ["-p", "profile", "mini", "-p", "results", str(tmp_path / "empty")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, cwd=notebook.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rkd-explorer" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")


# --- review path -------------------------------------------------------------------------------------------------


def described(options, student="resnet8", teacher="resnet14"):
    return ReviewKD(models.build(student), models.build(teacher), options).describe()


@pytest.mark.parametrize(
    "options",
    [
        ReviewOptions(),
        ReviewOptions(attention=False, loss="l2"),
        ReviewOptions(residual="output", hcl_levels=("h", "h/2"), hcl_weights=(1, 0.5)),
        ReviewOptions(residual="output_direct", mid_channels=64),
        ReviewOptions(connector="mechanism", stem=True, loss="l2"),
        ReviewOptions(connector="none", stem=True),
    ],
    ids=["authors", "l2", "output", "direct", "mechanism", "none"],
)
def test_drawing_shows_the_inferred_shapes(options):
    levels = described(options)
    tree = ElementTree.fromstring(review_diagram_svg(levels, options))
    groups = [g for g in tree.iter("g") if g.get("class") == "rkd-level"]
    assert [g.get("data-level") for g in groups] == [str(i) for i in range(len(levels))]
    for group, level, details in zip(groups, levels, review_details(levels, options), strict=True):
        assert group.get("tabindex") == "0" and str(level["level"]) in group.get("aria-label")
        words = [text.text for text in group.iter("text")]
        for side in ("student", "teacher"):
            shape = f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"
            assert shape in words and shape in details
        assert f"{level['parameters']:,}" in details
        if options.loss == "hcl":
            used, _ = level_weights(level["teacher_size"], options)
            assert ", ".join(str(size) for size, _ in used) in words
            assert all(f"HCL at {size} × {size}" in details for size, _ in used)
        else:
            assert "L2" in words and "HCL" not in details
    arrows = [line for line in tree.iter("line") if line.get("stroke") == "#009e73"]
    count = {"residual": len(levels) - 1, "mechanism": len(levels) * (len(levels) - 1) // 2, "none": 0}
    assert len(arrows) == count[options.connector], "what a level gets from deeper ones"


def test_residual_shapes_follow_a_forward_pass():
    """The residual's shape and the output's, measured by hooks on one forward pass of an unlike pair."""
    import torch

    from rkd.methods.base import Batch

    options = ReviewOptions()
    student, teacher = models.build("shufflenetv2").eval(), models.build("resnet8x4").eval()
    review = ReviewKD(student, teacher, options).eval()
    passed = []
    for block in review.connector.abfs:
        block.register_forward_hook(lambda m, i, out: passed.append([tuple(t.shape[1:]) for t in out]))
    with torch.no_grad():
        x = torch.zeros(2, 3, 32, 32)
        review.losses(Batch(student.taps(x), teacher.taps(x), torch.zeros(2, dtype=torch.long), None))
    levels = review.describe()
    drawn = review_details(levels, options)
    for i, (output, residual) in enumerate(passed):
        assert f"output</th><td>{' × '.join(map(str, output))}" in drawn[i]
        if i + 1 < len(levels):
            assert f"the fused map, {' × '.join(map(str, residual))}, to" in drawn[i]


@pytest.mark.slow
def test_review_path_has_the_pairs_of_both_tables(in_book):
    shown = review_paths("resnet14", "resnet8")
    assert len(shown.pairs) == 9 and next(iter(shown.pairs)) == "ResNet-8 ← ResNet-14"
    page = shown._repr_html_()
    assert page.count("<svg") == 9 and page.count("<option>") == 9 and "http" not in page
    assert page.count("</script>") == 1 and 'class="rkd-plot-fallback"' in page


# --- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One page from a file that holds all three kinds, as an output outside the book would show them."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(assets.BUILDING, raising=False)
        lines, records = table(epochs=20)
        _, rows = gathered()
        review = review_paths("resnet14", "resnet8")
        parts = [curves(lines, records, "Curves"), review, Overview(rows)]
        body = "".join(part._repr_html_() for part in parts)
    text = '<!doctype html><meta charset="utf-8"><style>html[data-theme=dark]{background:#111;color:#eee}</style>'
    (folder / "page.html").write_text(text + body, encoding="utf-8")
    chrome = chromium(tmp_path_factory.mktemp("chromium"))
    chrome.get((folder / "page.html").as_uri())
    wait(chrome, "return document.querySelectorAll('.drawn').length === 3")
    wait(chrome, "return [...document.querySelectorAll('.rkd-explorer table')].some(t => t.rkdApi)")
    yield chrome
    chrome.quit()


def wait(chrome, script, *arguments):
    deadline = time.monotonic() + 20
    while not chrome.execute_script(script, *arguments):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)


def drawn_traces(chrome):
    return chrome.execute_script("return document.querySelector('.rkd-plot-area').data.map(t => t.name)")


@pytest.mark.browser
@pytest.mark.slow
def test_keys_change_the_curves(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    plot = page.find_element(By.CSS_SELECTOR, ".rkd-plot")
    before = drawn_traces(page)
    assert "line 1" in before and "line 1, seed 0" in before
    box = plot.find_element(By.CSS_SELECTOR, "input[value='line1']")
    box.send_keys(Keys.SPACE)
    wait(page, "return !document.querySelector('.rkd-plot-area').data.some(t => t.name.startsWith('line 1'))")
    plot.find_element(By.CSS_SELECTOR, "select[data-facet='metric']").send_keys("learning")
    title = "return document.querySelector('.rkd-plot-area').layout.yaxis.title.text === arguments[0]"
    wait(page, title, "learning rate")
    plot.find_element(By.CSS_SELECTOR, "select[data-facet='metric']").send_keys(Keys.HOME)
    wait(page, title, "test accuracy, %")
    slider = plot.find_element(By.CSS_SELECTOR, "input[type='range']")
    value = "return document.querySelector(\"input[value='line0']\").parentElement.querySelector('output').textContent"
    last = page.execute_script(value)
    for _ in range(15):
        slider.send_keys(Keys.ARROW_LEFT)
    wait(page, "return document.querySelector('.rkd-plot-area').layout.shapes.at(-1).x0 === 5")
    lines, records = table(epochs=20)
    runs = [records[run.id].curves["test_accuracy"] for run in lines[0].runs]
    assert float(last) == pytest.approx(np.mean([r[-1] for r in runs]), abs=0.0051)
    assert float(page.execute_script(value)) == pytest.approx(np.mean([r[4] for r in runs]), abs=0.0051)
    box.send_keys(Keys.SPACE)
    wait(page, "return document.querySelector('.rkd-plot-area').data.some(t => t.name === 'line 1')")


@pytest.mark.browser
@pytest.mark.slow
def test_plot_follows_the_theme_and_gives_way_in_print(page):
    font = "return document.querySelector('.rkd-plot-area').layout.font.color"
    assert page.execute_script(font) == "rgb(0,0,0)"
    page.execute_script("document.documentElement.dataset.theme = 'dark'")
    wait(page, f"{font} === 'rgb(238,238,238)'")
    page.execute_script("document.documentElement.dataset.theme = 'light'")
    wait(page, f"{font} === 'rgb(0,0,0)'")
    seen = """return ['.rkd-plot-area', '.rkd-plot-controls', '.rkd-plot-fallback'].map(
        (s) => getComputedStyle(document.querySelector('.rkd-plot > ' + s)).display !== 'none')"""
    assert page.execute_script(seen) == [True, True, False]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.execute_script(seen) == [False, False, True]
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.browser
@pytest.mark.slow
def test_keys_change_the_review_path(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    root = page.find_element(By.CSS_SELECTOR, ".rkd-path")

    def shown():
        return root.find_element(By.CSS_SELECTOR, ".rkd-pair:not([hidden]) .rkd-details").text

    level = root.find_element(By.CSS_SELECTOR, ".rkd-pair:not([hidden]) .rkd-level")
    level.send_keys(Keys.ENTER)
    assert "Level “pooled”" in shown()
    level.send_keys(Keys.ARROW_DOWN)
    assert "Level “stage 3”" in shown() and "64 × 8 × 8" in shown()
    root.find_element(By.CSS_SELECTOR, "select").send_keys("ShuffleNetV2")
    assert "464 × 4 × 4" in shown(), "the same level of the other pair"


@pytest.mark.browser
@pytest.mark.slow
def test_filters_act_on_table_and_plot(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    root = page.find_element(By.CSS_SELECTOR, ".rkd-explorer")
    area = "document.querySelector('.rkd-explorer > .rkd-plot-area')"
    ticks = f"return {area}.layout.yaxis.tickvals.length === arguments[0]"
    rows = "return document.querySelectorAll('.rkd-explorer .dataTable tbody tr').length === arguments[0]"
    wait(page, ticks, 2)
    wait(page, rows, 2)
    root.find_element(By.CSS_SELECTOR, ".rkd-plot-controls input[type='checkbox']").send_keys(Keys.SPACE)
    wait(page, ticks, 3)
    wait(page, rows, 3)
    root.find_element(By.CSS_SELECTOR, "select[data-filter='pair']").send_keys("ResNet-8 ←")
    wait(page, ticks, 1)
    wait(page, rows, 1)
    severe = [e["message"] for e in page.get_log("browser") if e["level"] == "SEVERE"]
    assert not severe
