"""The chapter on ModReduce: its lines, its table of students, its figure of weights."""

from types import SimpleNamespace

import pytest
from cells import execute
from evidence import whole

from rkd import published
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.settings import resolve
from rkd.methods.modreduce import AGGREGATIONS, ModReduceOptions, online_share
from rkd.models import canonical
from rkd.training import RunConfig, TeacherConfig


def lines_under(**given):
    return {line.key: line for line in get_chapter("modreduce").lines(resolve("modreduce", given))}


@pytest.fixture(scope="module")
def paper():
    return lines_under(profile="paper")


def test_each_published_figure_has_its_line(paper):
    """Every row of the source's table, by the key its pair and method give, with the printed value among its line's."""
    keys = {
        "teacher": "teacher", "student baseline": "student", "KD (Hinton)": "kd", "SemCKD": "semckd", "CRD": "crd",
        "ModReduce": "modreduce",
    }  # fmt: skip
    rows = published.load(source="modreduce", metric="top1_acc_percent")
    assert len(rows) == 15 * 6
    for row in rows.itertuples():
        line = paper[f"{canonical(row.student)}-{canonical(row.teacher)}-{keys[row.method]}"]
        assert row.number in [p.value for p in line.published]
        if row.method == "ModReduce":
            assert paper[f"{line.key}-asynchronous"].published == line.published
    assert len(paper) == 15 * 7 + 5 == len(get_chapter("modreduce").pairs) * 7 + len(AGGREGATIONS)


def test_runs_are_those_of_the_source(paper):
    for teacher, student in get_chapter("modreduce").pairs:
        for key in ("kd", "semckd", "crd", "modreduce", "modreduce-asynchronous"):
            run = paper[f"{student}-{teacher}-{key}"].runs[0]
            small = "mobilenet" in student or "shufflenet" in student
            assert (run.network, run.epochs) == (student, 240)
            assert run.optimiser.lr == (0.01 if small else 0.05) and not run.optimiser.nesterov
            assert (run.ce_weight, run.teacher.batch_norm) == (0.0 if "modreduce" in key else 1.0, "running")
    pair = "resnet20-resnet56-"
    assert paper[f"{pair}modreduce"].runs[0].options == ModReduceOptions()
    assert paper[f"{pair}modreduce-asynchronous"].runs[0].options == ModReduceOptions(cutoff_epochs=220)
    parts = {part.method: part.options.loss_weight for part in paper[f"{pair}crd"].runs[0].options.parts}
    assert parts == {"crd": 0.8, "kd": 1.0}
    for name in AGGREGATIONS:
        assert paper[f"{pair}modreduce-{name}"].runs[0].options.aggregation == name
    behind = [key.rpartition("-modreduce-")[2] for key in paper]
    assert [name for name in behind if name in AGGREGATIONS] == list(AGGREGATIONS)
    assert paper[f"{pair}modreduce"].runs == paper[f"{pair}modreduce-wavg"].runs


@pytest.mark.parametrize("epochs", [1, 6, 30, 240])
def test_runs_of_any_length_end_online_as_the_long_ones_do(epochs):
    given = {"profile": "smoke", "epochs": epochs, "pairs": [["resnet14", "resnet8"]], "seeds": [0]}
    for line in lines_under(**given).values():
        if line.key.endswith(("-modreduce", "-fc")):
            shares = [online_share(epoch, line.runs[0].options) for epoch in range(epochs)]
            assert shares == sorted(shares) and shares[-1] == pytest.approx(0.7)
        if line.key.endswith("asynchronous"):
            late = epochs - line.runs[0].options.cutoff_epochs
            assert late >= 1 and late == pytest.approx(epochs / 12, abs=1)
            assert f"after the first {epochs - late} of {epochs} epochs" in line.note


def test_a_choice_of_methods():
    lines = lines_under(profile="paper", methods=["crd"], pairs=[["wrn_40_2", "wrn_16_2"]])
    assert [key.rpartition("-")[2] for key in lines] == ["teacher", "student", "crd"]


def record(seed, response, relational, feature, group, status="finished"):
    """Of a run of two epochs; each argument is (accuracy after the first, after the last)."""
    taught = {"method": "modreduce", "options": ModReduceOptions(), "ce_weight": 0.0}
    taught["teacher"] = TeacherConfig(run=RunConfig("resnet14", epochs=2))
    config = RunConfig("resnet8", seed=seed, epochs=2, **taught)
    curves = {"test_accuracy": list(response), "online_share": [0.1, 0.2]}
    result = {"last_accuracy": response[1], "best_accuracy": max(response)}
    for name, values in (("relational", relational), ("feature", feature), ("group", group)):
        result |= {f"last_accuracy_{name}": values[1], f"best_accuracy_{name}": max(values)}
    ends = {"response": 0.2, "relational": 0.3, "feature": 0.4}
    curves |= {f"weight_{name}": [1 / 3, end] for name, end in ends.items()}
    return whole(config, status, curves, result)


def names_of(*records):
    """What the notebook's cells find."""
    configs = tuple(r.config for r in records) or (record(0, *[(1.0, 2.0)] * 4).config,)
    line = Line("resnet8-resnet14-modreduce-wavg", "ModReduce, W_Avg", configs, "a pair")
    of = SimpleNamespace(lines=[line], records={r.id: r for r in records}, is_self_test=False)
    of.under = lambda profile: ([], {})
    return {"experiment": of}


def students_of(*records):
    return execute("modreduce", "def students_of", **names_of(*records))["students"].iloc[0]


def test_table_of_students_by_hand():
    found = students_of(
        record(0, (10.0, 20.0), (35.0, 30.0), (25.0, 24.0), (40.0, 50.0)),
        record(1, (10.0, 22.0), (31.0, 28.0), (20.0, 29.0), (40.0, 52.0)),
    )
    assert found["response student":].tolist() == [
        "21.00 ± 1.41", "29.00 ± 1.41", "26.50 ± 3.54", "51.00 ± 1.41", "29.50 ± 0.71", "33.00 ± 2.83",
        "relational 2", "2",
    ]  # fmt: skip


def test_what_is_missing_is_said():
    assert students_of()["runs"] == "0, 1 missing"
    assert students_of(record(0, *[(1.0, 2.0)] * 4, status="diverged"))["runs"] == "0, 1 diverged"
    drawn = execute("modreduce", "def students_of", "shares = ", **names_of())["drawing"]
    assert "Nothing measured" in drawn.data


def test_figure_of_weights_draws_what_records_hold():
    names = names_of(record(0, *[(1.0, 2.0)] * 4), record(1, *[(1.0, 2.0)] * 4))
    found = execute("modreduce", "def students_of", "shares = ", **names)
    assert "W_Avg: relational student ends at 0.30" in found["drawing"].alt
    lines = [line.get_ydata() for line in found["grid"].axes_dict["W_Avg"].get_lines()]
    assert any(list(y) == pytest.approx([1 / 3, 0.3]) for y in lines if len(y) == 2)
    assert any(list(y) == [0.1, 0.2] for y in lines)
