"""The performance chapter: its tables and figure say what a measurement holds; executed as a user would."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from cells import execute, papermill
from conftest import tiny_plain
from evidence import whole

from rkd import paths
from rkd.bench import BenchResult, Row, save, tables
from rkd.bench.steps import TEACHER, Variant
from rkd.experiments.estimate import dataset_sizes, recorded_work, run_macs
from rkd.experiments.settings import load_profile
from rkd.models import display_name

COUNTS = {"ops": 500, "host_reads": 0, "flops": 8_000_000_000}
HEADER = {
    "device": "cpu", "device_name": "a <CPU>", "threads": 2, "cpus": 2, "load_before": 0.1, "load_after": 1.9,
    "python": "3.12.0", "torch": "2.14.1", "cuda": None, "cudnn": None, "system": "Linux", "commit": "0123456789abcdef",
    "changed": None, "began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z", "teacher": "resnet20",
    "student": "resnet8", "batch_size": 64, "train_images": 4992, "precision": ["fp32", "auto"],
    "teacher_batch_norm": ["batch"], "group": 2, "compile": "engine", "seconds": 20.0, "seconds_used": 21.5,
    "rounds": 2,
}  # fmt: skip


@pytest.fixture
def result():
    rows = (
        Row(Variant("batch", conventional=True), "fp32", 64, (200.0, 400.0), 1.0, COUNTS),
        Row(Variant("batch", "auto"), "bf16", 64, (50.0, 80.0), 0.5, COUNTS),
        Row(Variant("batch", "auto", compile=TEACHER), "bf16", 64, (40.0, 50.0), 9.0, None),
        Row(Variant("batch", "auto", group=2), "bf16", 64, (45.0, 40.0), 0.5, COUNTS),
    )
    evaluation = {"images": 100, "conventional": 500.0, "ours": 2000.0}
    return BenchResult(HEADER, rows, evaluation, ("it was <busy>",))


def opened(**given):
    """What the page's first cell makes of parameters."""
    return execute("performance", "Request(", **given)


def test_header_is_honest_and_escaped(result):
    shown = []
    names = {**opened(), "on_file": result, "own": {"recorded": "x/a.json"}}
    execute("performance", "def show_measurement", **names, display=lambda *made: shown.extend(made))
    table = "".join(made._repr_html_() for made in shown)
    assert "<code>a.json</code>; nothing is timed now" in table and table.count("<table") == 2
    assert "a &lt;CPU&gt;, 2 threads on 2 cores" in table and "it was &lt;busy&gt;" in table
    text = tables.header_lines(result)
    assert text["machine"].endswith("load average 0.10 before, 1.90 after")
    assert text["again"] == (
        "rkd bench speed --pair resnet20/resnet8 --batch-size 64 --device cpu "
        "--teacher-batch-norm batch --group 2 --compile engine --seconds 20 --threads 2"
    )
    assert "commit 0123456789ab" in text["versions"] and "2 rounds in 22 s" in text["measured"]


def test_times_ratios_and_work_of_one_student(result):
    (rows,) = tables.times(result).values()
    assert rows.loc["conventional"].tolist()[:3] == ["300.00 (200.00)", "213", "1.00 (1.00–1.00)"]
    assert rows.loc["bf16"].tolist()[:3] == ["65.00 (50.00)", "985", "4.50 (4.25–4.75)"]  # rounds: 4 and 5
    # 50,000 / 984.6 + 10,000 / 2,000
    assert rows.loc["bf16", "first step, s":].tolist()[:3] == ["0.5", "55.8", "3.72"]
    assert rows.loc["conventional", "s/epoch"] == f"{50_000 / (64 / 0.3) + 10_000 / 500:.1f}"
    work = rows[["operations", "host reads", "GFLOP"]]
    assert work.loc["bf16"].tolist() == ["500", "0", "8.00"]
    assert work.loc["bf16, group of 2"].tolist() == ["250", "0", "4.00"]
    assert work.loc["bf16, compiled teacher"].tolist() == ["", "", ""]


def test_figure_draws_each_variant(result):
    found = execute("performance", "sns.catplot", result=result, tables=tables)
    ax = found["grid"].axes_dict["teacher on batch statistics"]
    widths = [round(bar.get_width(), 6) for bar in ax.patches if bar.get_width()]
    assert sorted(widths) == sorted(row.median_ms for row in result.rows)
    assert [text.get_text() for text in ax.texts][:2] == ["300.0", "65.0 (4.50 ×)"]
    assert "bf16, group of 2, teacher on batch statistics: 42.5 ms" in found["said"]


def test_spent_and_projected_from_records_and_measurements(store, result):
    runs = {"one": [tiny_plain(), tiny_plain(seed=1)], "two": [tiny_plain()]}
    lines = {name: [SimpleNamespace(runs=part)] for name, part in runs.items()}
    names = {"chapter_names": lambda: runs, "resolve": lambda name, given: name}
    names |= {"store_for": lambda profile: store, "frame": lambda table: table, "required": list}
    names["get_chapter"] = lambda name: SimpleNamespace(recipe="text", lines=lines.get)
    names |= {
        "pd": pd,
        "result": result,
        "recorded_here": {},
        "on_file": None,
        "Path": Path,
        "run_macs": run_macs,
    }
    names |= {"dataset_sizes": dataset_sizes, "display_name": display_name, "recorded_work": recorded_work}
    found = execute("performance", "def spent", **names)
    assert list(found["spent"]("one", runs["one"]).values()) == ["one", 2, 0, "none yet", "not counted"]
    cost = {"train_seconds": 7200.0, "gang": 1, "arithmetic": "fp16", "energy_kj": 3600.0}
    provenance = {"device_name": "a GPU", "train_images": 100}
    store.save(whole(tiny_plain(), cost=cost, provenance=provenance))
    found = execute("performance", "def spent", "projected = ", **names)
    every = found["spent"]("all", found["each"])
    assert list(every.values()) == ["all", 2, 1, "2.00 (a GPU)", "1.00 (1 runs)"]
    # Two runs of two hours each, and scoring: one forward pass of as many images as training takes three passes of.
    by_record, by_file = found["projected"].to_numpy().tolist()
    assert by_record[0] == "1 recorded runs" and by_record[-1] == f"{2 * 2 * 4 / 3:.1f}"
    assert by_file[:2] == ["this page's measurement", "a <CPU>"] and by_file[2].startswith("bf16, group of 2")


def test_the_profile_decides_pair_and_length_but_not_the_arithmetic():
    injected = load_profile("smoke")  # as papermill does it
    smoke = opened(**injected | {"seeds": [0]})["request"]
    assert (smoke.teacher, smoke.student, smoke.batch_size) == ("resnet20", "resnet8", 16)
    assert smoke.seconds == 8 and smoke.precision == ("fp32", "auto") and smoke.compile == "no"
    paper = opened(profile="paper", precision="bf16", compile=True, group=4)["request"]
    assert (paper.teacher, paper.student, paper.seconds) == ("resnet56", "resnet20", 100)
    assert paper.precision == ("fp32", "bf16") and paper.compile == "engine" and paper.group == 4
    assert opened(teacher_batch_norm="batch")["request"].teacher_batch_norm == ("batch",)


@pytest.mark.slow
def test_chapter_executes(result, tmp_path):
    named = tmp_path / "named.json"
    save(named, result)
    out = tmp_path / "out.ipynb"
    done = papermill("performance", out, "-f", paths.params() / "smoke.yaml", "-p", "recorded", named)
    assert done.returncode == 0, done.stderr[-2000:]
    text = json.dumps(nbformat.read(out, as_version=4).cells, ensure_ascii=False)
    for said in (
        "nothing is timed now", "4.50 (4.25–4.75)", "alt=", "278,324", "38.9", "hours for all of them",
        "rkd bench speed --pair resnet20/resnet8",
    ):  # fmt: skip
        assert said in re.sub(r"</?strong>", "", text), said
