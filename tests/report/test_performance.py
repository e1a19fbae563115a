"""The performance chapter: its tables and figure say what a measurement holds; executed as a user would."""

import html
import json
import re
import subprocess
import sys

import nbformat
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")
pytest.importorskip("IPython", reason="IPython is not installed (pip install -e .[book])")

from conftest import tiny_plain

from rkd import paths
from rkd.bench import Result, Row, tables
from rkd.bench.clock import Ceilings, Counts
from rkd.bench.gate import Gate, Pair
from rkd.bench.steps import TEACHER, Variant
from rkd.errors import ConfigError, RecordError
from rkd.experiments.settings import load_profile
from rkd.records import Record
from rkd.report import performance
from rkd.report.performance import PerformancePage, open_performance

COUNTS = Counts(500, 0, 8_000_000_000, {"16": 4_000_000_000})
HEADER = {
    "device": "cpu", "device_name": "a <CPU>", "threads": 2, "cpus": 2, "load_before": 0.1, "load_after": 1.9,
    "python": "3.12.0", "torch": "2.14.1", "cuda": None, "cudnn": None, "system": "Linux", "commit": "0123456789abcdef",
    "changed": None, "began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z", "teacher": "resnet20",
    "student": "resnet8", "batch_size": 64, "train_images": 4992, "precisions": ["fp32", "auto"],
    "batch_norms": ["batch"], "group": 2, "compile": "engine", "seconds_asked": 20.0, "seconds_used": 21.5, "rounds": 2,
}  # fmt: skip


@pytest.fixture
def result():
    rows = (
        Row(Variant("batch", conventional=True), "fp32", 64, (200.0, 400.0), 1.0, COUNTS),
        Row(Variant("batch", "auto"), "bf16", 64, (50.0, 80.0), 0.5, COUNTS),
        Row(Variant("batch", "auto", compile=TEACHER), "bf16", 64, (40.0, 50.0), 9.0, None),
        Row(Variant("batch", "auto", group=2), "bf16", 64, (45.0, 40.0), 0.5, COUNTS),
    )
    ceilings = Ceilings({"fp32": 1e11, "bf16": 4e11}, {"fp32": {"16": 5e10}, "bf16": {"16": 1e11}})
    evaluation = {"images": 100, "conventional": 500.0, "ours": 2000.0}
    return Result(HEADER, rows, ceilings, evaluation, ("it was <busy>",))


@pytest.fixture
def page(result, tmp_path, store):
    result.save(tmp_path / "named.json")
    return PerformancePage({"recorded": str(tmp_path / "named.json")}, tmp_path / "bench", store)


def cells(table):
    """Text of each row's cells."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table)
    return [
        [
            html.unescape(re.sub(r"<[^>]+>", "", cell))
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


def test_header_is_honest_and_escaped(result):
    table = performance.header_table(result)
    assert "a &lt;CPU&gt;, 2 threads on 2 cores" in table and "it was &lt;busy&gt;" in table
    text = dict(row for row in cells(table) if len(row) == 2)
    assert text["machine"].endswith("load average 0.10 before, 1.90 after")
    assert text["again"] == (
        "rkd bench --pair resnet20/resnet8 --batch-size 64 --device cpu --precision fp32 auto "
        "--teacher-batch-norm batch --seconds 20 --threads 2 --group 2 --compile engine"
    )
    assert "commit 0123456789ab" in text["versions"] and "2 rounds in 22 s" in text["measured"]


def test_times_and_ratios(result):
    table = cells(performance.shown(tables.times(result)))
    assert {len(row) for row in table if len(row) > 1} == {7}, "as many heads as cells"
    rows = {row[0]: row[1:] for row in table}
    assert rows["conventional"][:3] == ["300.00 (200.00)", "213", "1.00 (1.00–1.00)"]
    assert rows["bf16"][:3] == ["65.00 (50.00)", "985", "4.50 (4.25–4.75)"]  # rounds: 4 and 5
    assert rows["bf16"][3:] == ["0.5", "55.8", "3.72"]  # 50,000 / 984.6 + 10,000 / 2,000; 240 of them
    assert rows["conventional"][4] == f"{50_000 / (64 / 0.3) + 10_000 / 500:.1f}"
    assert "bf16, compiled teacher" in rows and "bf16, group of 2" in rows


def test_work_is_per_student_and_the_floor_of_a_compiled_step_is_its_twins(result):
    work = {row[0]: row[1:] for row in cells(performance.shown(tables.work(result)))}
    # 4e9 / 1e11 of convolutions and 4e9 / 4e11 of the rest
    assert work["bf16"] == ["500", "0", "8.00", "65.00", "50.00", "77 %"]
    assert work["bf16, group of 2"] == ["250", "0", "4.00", "42.50", "25.00", "59 %"]
    assert work["bf16, compiled teacher"] == ["not counted", "", "", "45.00", "50.00", "111 %"]
    assert work["conventional"][3:] == ["300.00", "120.00", "40 %"]


def test_figure_draws_each_variant_with_its_floor(result, page):
    figure = performance.step_bars(result)
    (ax,) = figure.axes
    assert [patch.get_width() for patch in ax.patches] == [row.median_ms for row in result.rows]
    floors = [line.get_xdata()[0] for line in ax.lines]
    assert floors == pytest.approx([result.floor_ms(row) for row in result.rows])
    shown = [text.get_text() for text in ax.texts]
    assert shown[0] == "300.0" and shown[1] == "65.0 (4.50 ×)"
    page.measure()
    assert 'alt="' in page.figure()._repr_html_() and "bf16, group of 2" in page.figure().alt


def test_gate_table():
    header = {
        "teacher": "resnet20", "student": "resnet8", "row": "full", "chapter": "table3", "epochs": 4,
        "train_images": 12000, "test_images": 10000, "dataset": "cifar100", "device_name": "a CPU", "torch": "2",
        "ended": "2026",
    }  # fmt: skip
    rows = cells(
        performance.shown(
            performance.gate_table(Gate(header, "bf16", (Pair(0, 50.0, 50.5), Pair(1, 52.0, None))))
        )
    )
    assert rows[1:] == [
        ["0", "50.00", "50.50", "+0.50"],
        ["1", "52.00", "diverged", ""],
        ["mean ± standard error", "", "", "+0.50"],
    ]


def test_recorded_files_are_shown_and_none_is_said(page, result):
    assert "No measurement is recorded" in page.recorded().data and "No paired" in page.gates().data
    page.folder.mkdir()
    result.save(page.folder / "cpu.json")
    header = {key: "x" for key in ("row", "chapter", "dataset", "device_name", "torch", "ended")}
    header |= {"teacher": "resnet20", "student": "resnet8", "epochs": 4, "train_images": 1, "test_images": 1}
    Gate(header, "bf16", (Pair(7, 50.0, 50.5),)).save(page.folder / "gate.json")
    assert page.recorded().data.count("<table") == 2 and "a &lt;CPU&gt;" in page.recorded().data
    assert "<td>+0.50</td>" in page.gates().data


def test_spent_and_projected_from_records_and_measurements(page, store, result):
    runs = {"one": [tiny_plain(), tiny_plain(seed=1)], "two": [tiny_plain()]}
    rows = cells(performance.spent_table(runs, store))
    assert rows[1] == ["one", "2", "0", "none yet"] and "kWh" not in str(rows[0])
    cost = {"train_seconds": 7200.0, "gang": 1, "arithmetic": "fp16", "energy_kj": 3600.0}
    provenance = {"device_name": "a GPU", "train_images": 100}
    store.save(Record(tiny_plain(), "finished", {}, {"epochs": 2}, cost, provenance))
    rows = cells(performance.spent_table(runs, store))
    assert rows[0][-1] == "kWh of the GPU"
    assert rows[3] == ["all, each run once", "2", "1", "2.00 (a GPU)", "1.00 (1 runs)"]
    rows = cells(performance.projection_table(runs, store, [("the file", result)]))
    by_record, by_file = rows[1:]
    # Two runs of two hours each, and scoring: one forward pass of as many images as training takes three passes of.
    assert by_record[0] == "1 recorded runs" and by_record[-1] == f"{2 * 2 * 4 / 3:.1f}"
    assert by_file[:2] == ["the file", "a <CPU>"] and by_file[2].startswith("bf16, group of 2")
    assert cells(performance.projection_table(runs, store, []))[1][0] == "1 recorded runs"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"secods": 5}, "unknown parameter 'secods'; did you mean 'seconds'?"),
        ({"seconds": -5}, "seconds is -5; it must be a finite number > 0"),
        ({"seconds": "soon"}, "seconds is 'soon'; it must be a number"),
        ({"group": 0}, "group is 0"),
        ({"group": True}, "group is True; it must be a whole number"),
        ({"student": "resnet21"}, "unknown model 'resnet21'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"teacher_batch_norm": "none"}, "unknown teacher batch_norm 'none'"),
        ({"threads": "many"}, "threads is 'many'; it must be auto or a whole number >= 1"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
        ({"profile": "papr"}, "did you mean 'paper'?"),
    ],
)
def test_bad_parameters_get_one_sentence(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_performance(given)


def test_a_missing_file_and_a_cell_out_of_order(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        open_performance({"recorded": str(tmp_path / "none.json")})
    with pytest.raises(ConfigError, match="call page"):
        open_performance({}).table()


def test_the_profile_decides_pair_and_length_but_not_the_arithmetic():
    injected = load_profile("smoke")  # as papermill does it
    smoke = open_performance(injected | {"seeds": [0]}).request
    assert (smoke.teacher, smoke.student, smoke.batch_size) == ("resnet20", "resnet8", 64)
    assert smoke.seconds == 20 and smoke.precisions == ("fp32", "auto") and smoke.compile == "no"
    paper = open_performance({"profile": "paper", "precision": "bf16", "compile": True, "group": 4}).request
    assert (paper.teacher, paper.student, paper.seconds) == ("resnet56", "resnet20", 100)
    assert paper.precisions == ("fp32", "bf16") and paper.compile == "engine" and paper.group == 4
    assert open_performance({"teacher_batch_norm": "batch"}).request.batch_norms == ("batch",)


@pytest.mark.slow
def test_chapter_executes(result, tmp_path):
    named = tmp_path / "named.json"
    result.save(named)
    out = tmp_path / "out.ipynb"
    call = [
        sys.executable, "-m", "papermill", str(paths.home() / "book" / "performance.ipynb"), str(out),
        "--no-progress-bar", "-f", str(paths.params() / "smoke.yaml"), "-p", "recorded", str(named),
    ]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    text = json.dumps(nbformat.read(out, as_version=4).cells, ensure_ascii=False)
    for said in (
        "nothing is timed now", "4.50 (4.25–4.75)", "alt=", "278,324", "38.9", "hours for the whole profile",
        "rkd bench --pair resnet20/resnet8",
    ):  # fmt: skip
        assert said in re.sub(r"</?strong>", "", text), said


def test_parameters_are_typed_and_explained():
    call = [
        sys.executable,
        "-m",
        "papermill",
        "--help-notebook",
        str(paths.home() / "book" / "performance.ipynb"),
    ]
    text = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Unknown type" not in text
    explained = dict(re.findall(r"^  (\w+): (\w+) \(default [^)]*\)\s+\S", text, re.M))
    assert explained["seconds"] == "float" and explained["recorded"] == "str" and len(explained) == 12
