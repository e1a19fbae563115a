"""Interactive pictures hold what the records say, with and without scripts, inside the book and outside."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import wait
from cells import execute
from conftest import tiny_plain, tiny_review
from evidence import whole
from plotly.offline import get_plotlyjs_version
from scipy import stats
from selenium.webdriver.common.keys import Keys

from rkd import models, paths
from rkd.experiments.chapters import Line
from rkd.experiments.workspace import store_for
from rkd.methods.base import Batch
from rkd.report.book import TOKEN
from rkd.report.interactive import assets, explorer
from rkd.report.interactive.curves import NAMED, curves
from rkd.report.interactive.explorer import configurations, overview
from rkd.report.interactive.markup import Html, tag
from rkd.report.interactive.path import review_path
from rkd.review import ReviewKD, ReviewOptions, level_weights
from rkd.training import DataConfig, RunConfig, SGDConfig

ASSETS = paths.home() / "book" / "_assets"
HOSTILE = 'rm </script><script>alert("1")</script> & <b>x</b>'


def record(config, rng, stop=None, **labels):
    """A made-up run with accuracies in hundredths of a percent, as 10,000 test images give; `stop`: diverged there."""
    tests = np.linspace(20, 70, config.epochs) + rng.normal(0, 1, config.epochs)
    drawn = {"test_accuracy": tests, "train_accuracy": tests + 1, "loss_ce": 4 - tests / 30}
    drawn |= {"lr": 0.1 + 0 * tests} | ({"loss_review": 3 - tests / 40} if config.method else {})
    kept = {name: np.round(values, 2).tolist()[:stop] for name, values in drawn.items()}
    found = kept["test_accuracy"]
    result = {"last_accuracy": found[-1], "best_accuracy": max(found), "epochs": len(found)}
    told = {"labels": labels or {"profile": "mini"}}
    return whole(config, "diverged" if stop else "finished", kept, result, {"arithmetic": "fp32"}, told)


def table(count=3, seeds=3, epochs=6, group=""):
    """Lines of reviewed runs that differ in their loss weight, and their records."""
    rng, lines = np.random.default_rng(0), []
    for i in range(count):
        options = ReviewOptions(loss_weight=0.5 + i, warmup_epochs=0)
        runs = tuple(tiny_review(options, seed=s, epochs=epochs) for s in range(seeds))
        lines.append(Line(f"line{i}", f"line {i}", runs, group))
    return lines, {run.id: record(run, rng) for line in lines for run in line.runs}


def emitted(shown):
    """The first JSON the page carries."""
    page = shown._repr_html_()
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])


def traces(spec, metric, **facets):
    """Those of a curve, by its name in records."""
    wanted = {"metric": NAMED[metric], **facets}
    return [t for t in spec["data"] if wanted.items() <= t["meta"]["facets"].items()]


def means(spec, metric, **facets):
    return [t for t in traces(spec, metric, **facets) if "runs" not in t["meta"]["facets"]]


def crosses(spec):
    marked = (t for t in traces(spec, "test_accuracy") if t.get("marker", {}).get("symbol") == "x")
    return [t["x"] for t in marked]


# --- curves ------------------------------------------------------------------------------------------------------


def test_curves_hold_the_numbers_of_the_records(in_book):
    lines, records = table(group="pair A")
    second = [Line(f"b-{line.key}", line.label, line.runs, "pair B") for line in lines]
    plot = curves([*lines, *second], records, "Curves")
    spec = emitted(plot)
    assert list(plot.controls[0].options) == ["pair A", "pair B"], "one group is shown at a time"
    a, b = ([t["line"] for t in means(spec, "loss_ce", group=group)] for group in plot.controls[0].options)
    assert a == b and len(a) == 3, "a role looks the same in every group"
    for line in lines:
        for metric in ("test_accuracy", "train_accuracy"):
            drawn = [t for t in traces(spec, metric, runs="single") if t["legendgroup"] == line.key]
            assert [t["y"] for t in drawn] == [records[run.id].curves[metric] for run in line.runs]
            assert all((t["x0"], t["dx"]) == (1, 1) for t in drawn), "epochs count from 1"
        for metric in ("test_accuracy", "train_accuracy", "loss_ce", "loss_review", "lr"):
            (mean,) = (t for t in means(spec, metric) if t["legendgroup"] == line.key)
            values = np.mean([records[run.id].curves[metric] for run in line.runs], axis=0)
            assert mean["y"] == pytest.approx(values, abs=0.0051, rel=6e-4) and mean["name"] == line.label
    (metrics,) = (c for c in plot.controls if getattr(c, "name", "") == "metric")
    assert list(metrics.options) == [name for key, name in NAMED.items() if key != "holdout_accuracy"]


def test_curves_say_what_is_missing_or_diverged(in_book):
    lines, records = table(count=2, seeds=4)
    lost, broken = lines[0].runs[1], lines[1].runs[3]
    del records[lost.id]
    records[broken.id] = record(broken, np.random.default_rng(1), stop=2)
    plot = curves(lines, records, "Curves")
    assert "Missing: line 0 (seed 1). Diverged, and in no mean: line 1 (seed 3)." in plot.note
    spec = emitted(plot)
    (mean,) = (t for t in means(spec, "test_accuracy") if t["legendgroup"] == "line1")
    sound = [records[run.id].curves["test_accuracy"] for run in lines[1].runs[:3]]
    assert mean["y"] == pytest.approx(np.mean(sound, axis=0), abs=0.0051)
    assert crosses(spec) == [[2]], "a cross marks where it ended"
    assert traces(spec, "loss_ce", runs="single"), "a diverged run shows its loss as well"
    assert "line 1 diverged" in curves(lines[1:], {broken.id: records[broken.id]}, "Curves").alt


def test_curves_of_a_run_that_ended_in_a_stage_before_the_training(in_book):
    """It is scored where it ends, and has losses of the stage, but neither a rate nor a training accuracy."""
    lines, records = table(count=1, seeds=2, epochs=4)
    early = lines[0].runs[1]
    made = record(early, np.random.default_rng(1), stop=1)
    records[early.id] = replace(made, curves={"ab_loss_ab": [2.0], "test_accuracy": [1.0]})
    spec = emitted(curves(lines, records, "Curves"))
    assert crosses(spec) == [[1]]
    assert "line 0 diverged" in curves(lines, {early.id: records[early.id]}, "Curves").alt


def test_curves_of_one_epoch_of_nothing_and_of_very_many(in_book):
    lines, records = table(epochs=1, seeds=1)
    plot = curves(lines, records, "Curves")
    assert all(t["mode"] == "lines+markers" for t in means(emitted(plot), "lr")), "one point needs a mark"
    assert [c.name for c in plot.controls] == ["metric"]
    nothing = curves(lines, {}, "Curves")
    assert "No run is recorded yet" in nothing.alt and emitted(nothing)["data"] == []
    spec = emitted(curves(*table(count=1, seeds=2, epochs=240), "Curves", step=3))
    mean = means(spec, "lr")[0]
    assert (mean["x0"], mean["dx"], len(mean["y"])) == (3, 3, 80), "the last epoch is drawn"


# --- plots and tables in general -------------------------------------------------------------------------------


def test_labels_cannot_leave_their_place(in_book):
    lines, records = table(count=1)
    plot = curves([Line("k", HOSTILE, lines[0].runs)], records, HOSTILE)
    page = plot._repr_html_()
    assert page.count("</script>") == 1, "the JSON's own end"
    assert "<b>" not in page and page.count("<script") == 1
    assert "<" not in means(emitted(plot), "lr")[0]["name"], "plotly reads tags in names"
    assert tag("b", "<i>", Html("<br>"), title='"', data_x=0, hidden=False) == (
        '<b title="&quot;" data-x="0">&lt;i&gt;<br></b>'
    )


def test_a_plot_brings_all_it_needs_outside_the_book_and_nothing_inside(monkeypatch):
    plot = curves(*table(count=1), "Curves")
    monkeypatch.delenv(TOKEN, raising=False)
    page = plot._repr_html_()
    packed = base64.b64decode(re.search(r'atob\("([^"]+)"\)', page)[1])
    assert gzip.decompress(packed).decode() == (ASSETS / assets.PLOTLY).read_text(encoding="utf-8")
    assert (ASSETS / "interactive.js").read_text(encoding="utf-8") in page
    assert 'src="' not in page.replace('src="data:', ""), "nothing is fetched"
    monkeypatch.setenv(TOKEN, "token")
    page = plot._repr_html_()
    assert "http" not in page and page.count("<script") == 1
    assert re.search(r'<img alt="Curves\. [^"]+" class="rkd-still"', page)


def test_vendored_plotly_is_the_one_the_figures_are_written_for():
    version = get_plotlyjs_version()
    text = (ASSETS / assets.PLOTLY).read_text(encoding="utf-8")
    assert f"v{version}" in text[:200]
    assert f"plotly.js-cartesian-dist-min {version}" in (ASSETS / "README").read_text(encoding="utf-8")
    assert "define.amd" not in text, "it would register with require.js in place of the page"
    assert (ASSETS / "plotly" / "LICENSE").is_file()


# --- explorer ----------------------------------------------------------------------------------------------------


def dot_plot(rows):
    """As the notebook's cell draws it."""
    return execute("explorer", "from textwrap", "def dot_plot")["dot_plot"](rows)


def gathered():
    rng = np.random.default_rng(3)
    full = {"network": "resnet20", "data": DataConfig(), "optimiser": SGDConfig()}  # the published length
    runs = [RunConfig(**full, seed=s) for s in range(4)]
    records = [("paper", record(run, rng, profile="paper", recipe="authors")) for run in runs]
    tiny, other = tiny_review(seed=0), tiny_review(seed=1)
    records += [("mini", record(tiny, rng)), ("mini", record(other, rng, stop=1))]
    records += [("smoke", record(tiny_plain(seed=0), rng, profile="params/smoke.yaml"))]
    # A row that leaves the arithmetic open stands on records in any.
    places = {tiny.request.id: [explorer.Place("table3", "Table 3, full", "reproduction")]}
    return records, configurations([*records, records[0]], places)


def test_runs_that_differ_in_their_seed_are_one_configuration():
    records, rows = gathered()
    assert [len(found) for found in rows["records"]] == [4, 2, 1]
    assert rows["kind"].tolist() == [*explorer.KINDS] and rows["label"].is_unique
    assert rows["recipe"].tolist() == ["authors", "reproduction", "not noted"]
    assert rows["pair"][1] == "ResNet-8 ← ResNet-14" and rows["method"][1] == "ReviewKD: RM + RLF + ABF + HCL"
    assert (rows["n"][1], rows["diverged"][1], rows["95 % interval"][2]) == ("1", "1", "")
    values = np.array([r.result["last_accuracy"] for _, r in records[:4]])
    low, high = stats.t.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
    assert rows["95 % interval"][0] == f"{low:.2f} to {high:.2f}"
    assert rows["half"][0] == pytest.approx((high - low) / 2)


def test_overview_holds_the_numbers_of_the_records(in_book):
    _, rows = gathered()
    page = overview(rows, dot_plot)
    assert "of 2 configurations" in page, "smoke runs are no evidence"
    assert "of 1 configurations" in overview(rows[2:].reset_index(drop=True), dot_plot)
    kinds = re.findall(r'<tr data-kind="([^"]+)"', page)
    assert kinds == ["evidence|results", "shortened run|results", "machinery"]
    means = [t for t in emitted(page)["data"] if "error_x" in t]
    for found, drawn in zip(rows["records"], means, strict=True):
        values = [r.result["last_accuracy"] for r in found if r.status == "finished"]
        assert drawn["x"] == pytest.approx([sum(values) / len(values)], abs=6e-4)
        assert f'<td class="num">{np.mean(values):.2f}</td>' in page
    assert "No run is recorded yet" in overview(configurations([], {}), dot_plot)
    hostile = record(tiny_plain(), np.random.default_rng(0), profile="mini", recipe=HOSTILE)
    page = overview(configurations([("mini", hostile)], {}), dot_plot)
    assert "<b>x" not in page and 'alert("1")</script>' not in page and "rm &lt;/script&gt;" in page


def test_explorer_reads_the_committed_records(in_book, tmp_path):
    rows = explorer.recorded_configurations("mini", str(tmp_path))
    shown = rows[rows["profile"] == "mini"]
    assert sorted(r.id for found in shown["records"] for r in found) == store_for("mini").ids()
    assert "Table 3, RM + RLF" in set(shown["row"])
    notebook = json.loads((paths.home() / "book" / "explorer.ipynb").read_text(encoding="utf-8"))
    assert notebook["metadata"]["rkd"]["last"] is True, "other chapters record first"


# --- review path -------------------------------------------------------------------------------------------------


PATHS = {
    "authors": ReviewOptions(),
    "l2": ReviewOptions(attention=False, loss="l2"),
    "output": ReviewOptions(residual="output", hcl_levels=("h", "h/2"), hcl_weights=(1, 0.5)),
    "direct": ReviewOptions(residual="output_direct", mid_channels=64),
    "mechanism": ReviewOptions(connector="mechanism", stem=True, loss="l2"),
    "none": ReviewOptions(connector="none", stem=True),
}


@pytest.mark.parametrize("options", PATHS.values(), ids=PATHS)
def test_drawing_shows_the_inferred_shapes(options):
    levels = ReviewKD(models.build("resnet8"), models.build("resnet14"), options).describe()
    drawn = review_path(levels, options).split('<div class="rkd-level">')[2:]
    for part, level in zip(drawn, levels, strict=True):
        words, details = part.split("<details>")
        for side in ("student", "teacher"):
            shape = f"{level[f'{side}_channels']} × {level[f'{side}_size']} × {level[f'{side}_size']}"
            assert shape in words and shape in details
        used = level_weights(level["teacher_size"], options)[0] if options.loss == "hcl" else []
        assert ", ".join(str(size) for size, _ in used) in words and options.loss.upper() in words
        assert details.count("HCL at") == len(used) and f"{level['parameters']:,}" in details
    passed = 0 if options.connector == "none" else len(levels) - 1
    assert "".join(drawn).count("rkd-passed") == passed


def test_residual_shapes_follow_a_forward_pass():
    """The residual's shape and the output's, measured by hooks on one forward pass of an unlike pair."""
    options = ReviewOptions()
    student, teacher = models.build("shufflenetv2").eval(), models.build("resnet8x4").eval()
    review = ReviewKD(student, teacher, options).eval()
    passed = []
    for block in review.connector.abfs:
        block.register_forward_hook(lambda m, i, out: passed.append([tuple(t.shape[1:]) for t in out]))
    with torch.no_grad():
        x = torch.zeros(2, 3, 32, 32)
        review.losses(Batch(student.taps(x), teacher.taps(x), torch.zeros(2, dtype=torch.long), None))
    drawn = review_path(review.describe(), options).split("<details>")[1:]
    for i, (output, residual) in enumerate(passed):
        assert f"output</th><td>{' × '.join(map(str, output))}" in drawn[i]
        if i + 1 < len(passed):
            shape = " × ".join(map(str, residual))
            assert f"the fused map, {shape}, to" in drawn[i] and f"↓ {shape}</div>" in drawn[i]


# --- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser, tmp_path, monkeypatch):
    """One page from a file that holds all kinds, as outputs outside the book would show them."""
    monkeypatch.delenv(TOKEN, raising=False)
    parts = [curves(*table(epochs=20), "Curves"), overview(gathered()[1], dot_plot)]
    body = "".join(part._repr_html_() for part in parts)
    style = "<style>html[data-theme=dark]{background:#111;color:#eee}</style>"
    file = tmp_path / "page.html"
    file.write_text(f'<!doctype html><meta charset="utf-8">{style}{body}', encoding="utf-8")
    browser.get_log("browser")  # empties it
    browser.get(file.as_uri())
    wait(browser, "document.querySelectorAll('.drawn').length === 3")
    wait(browser, "document.querySelector('.dt-search')")
    yield browser
    assert not [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]


def find(page, selector):
    return page.find_element("css selector", selector)


@pytest.mark.browser
@pytest.mark.slow
def test_keys_change_the_curves(page):
    area = "document.querySelector('.rkd-area')"
    entry = "document.querySelector('.legend .traces[aria-label=\"line 1\"]')"
    wait(page, f"{area}.data.filter(t => t.visible === true).length === 12")
    page.execute_script(f"{entry}.focus()")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait(page, f"{area}.data.filter(t => t.visible === true).length === 8")
    wait(page, f"{entry}.getAttribute('aria-checked') === 'false'")
    wait(page, f"document.activeElement === {entry}")
    find(page, "select[name=metric]").send_keys("learning")
    wait(page, f"{area}.layout.yaxis.title.text === 'learning rate' && {area}.data.length === 3")
    wait(page, f"{area}.data.filter(t => t.visible === true).length === 2")  # line 1 stays hidden
    find(page, "select[name=metric]").send_keys(Keys.HOME)
    find(page, "select[name=from]").send_keys("last")
    wait(page, f"{area}.data.every(t => t.x[0] === 15)")
    find(page, "input[name=runs]").send_keys(Keys.SPACE)
    wait(page, f"{area}.data.length === 3")
    find(page, "input[name=at]").send_keys(*[Keys.ARROW_LEFT] * 3)
    wait(page, f"{area}.querySelector('.hoverlayer').textContent.includes('epoch 17')")
    assert find(page, "input[name=at] + output").text == "17"


@pytest.mark.browser
@pytest.mark.slow
def test_plot_follows_the_theme_and_gives_way_in_print(page):
    font = "document.querySelector('.rkd-area').layout.font.color"
    for theme, colour in (("dark", "rgb(238, 238, 238)"), ("light", "rgb(0, 0, 0)")):
        page.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        wait(page, f"{font} === '{colour}'")
    seen = """return ['.rkd-area', '.rkd-controls', '.rkd-still'].map(
        (s) => getComputedStyle(document.querySelector('.rkd-figure > ' + s)).display !== 'none')"""
    assert page.execute_script(seen) == [True, True, False]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.execute_script(seen) == [False, False, True]
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
