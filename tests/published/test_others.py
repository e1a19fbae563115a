"""Single runs that others measured: what is on record, written and read again, and what a wrong file is told."""

import pytest

from rkd.errors import ConfigError, RecordError
from rkd.published import others
from rkd.published.others import OtherRun, as_csv, other_runs, read_runs

RUN = {"repository": "a/b", "dataset": "cifar100", "student": "resnet20", "method": "kd", "epochs": 4}


def test_what_is_on_record():
    runs = other_runs()
    assert len(runs) >= 131 and all(run.commit and run.file for run in runs)
    own = [run for run in runs if run.behind == "knowledge_distillation"]
    assert len(own) == 69 and all(run.last is None and len(run.lines) == 1 for run in own)
    both = [run for run in runs if run.epochs == 240 and None not in (run.last, run.best)]
    assert len(both) == 48


def test_written_and_read_again(tmp_path):
    curve = (10.0, 51.25, 60.125, 59.0)
    made = [
        OtherRun(**RUN, last=59.0, best=60.125, curve=curve, lines=("table3/full", "table6/full"), note='a "b", c\nd'),
        OtherRun(**RUN, best=1 / 3, behind="kdrefine", run=2, teacher="resnet56"),
    ]  # fmt: skip
    (tmp_path / "b.csv").write_text(as_csv(made), encoding="utf-8")
    (tmp_path / "a.csv").write_text(as_csv(made[:1]), encoding="utf-8")
    assert other_runs(tmp_path) == [made[0], *made] and other_runs(tmp_path / "nowhere") == []
    for path in others.others_folder().glob("*.csv"):
        again = tmp_path / "again.csv"
        again.write_text(as_csv(read_runs(path)), encoding="utf-8")
        assert read_runs(again) == read_runs(path)


def test_columns_may_be_left_out_or_reordered(tmp_path):
    path = tmp_path / "mine.csv"
    text = "last,method,student,dataset,repository,epochs\n71.5,kd,resnet20,cifar100,a/b,240\n"
    path.write_text(text, encoding="utf-8-sig")  # as spreadsheets write it
    assert read_runs(path) == [OtherRun(**{**RUN, "epochs": 240}, last=71.5)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "neither last nor best"),
        ({"last": 70.0, "best": 69.0}, "best is 69, below the last epoch's 70"),
        ({"last": 101.0}, "last"),
        ({"last": float("nan")}, "last"),
        ({"last": 70.0, "epochs": 0}, "epochs"),
        ({"last": 70.0, "behind": "re_papr"}, "did you mean 're_paper'"),
        ({"last": 3.0, "curve": (1.0, 2.0, 3.0)}, "3 accuracies for 4 epochs"),
        ({"last": 5.0, "curve": (1.0, 2.0, 3.0, 4.0)}, "last is 5, but 4 by its curve"),
        ({"best": 3.0, "curve": (1.0, 2.0, 3.0, 4.0)}, "best is 3, but 4 by its curve"),
        ({"last": 70.0, "colour": "red"}, "colour"),
    ],
)
def test_what_no_run_can_be(values, said):
    with pytest.raises(ConfigError, match=said) as error:
        others.from_values(OtherRun, {**RUN, **values})
    assert "\n" not in str(error.value)


HEAD = "repository,dataset,student,method,epochs,last\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD + "a/b,cifar100,resnet20,kd,240\n", "bad.csv, line 2: it needs 6 cells"),
        (HEAD + "a/b,cifar100,resnet20,kd,240,70\na/b,cifar100,resnet20,kd,240,70,71\n", "bad.csv, line 3: it needs 6"),
        (HEAD + "a/b,cifar100,resnet20,kd,240,seventy\n", "bad.csv, line 2: .*seventy"),
        (HEAD + "a/b,cifar100,resnet20,kd,240,=1+1\n", "bad.csv, line 2: .*=1"),
        (HEAD + "a/b,cifar100,resnet20,kd,1e9999,70\n", "bad.csv, line 2: .*epochs"),
        ("who,accuracy\nme,70\n", "bad.csv, line 2: .*"),
        (HEAD.encode() + b"a/b,cifar100,\xff\xfe,kd,240,70\n", "is no table of runs"),
        (HEAD + 'a/b,"cifar100\n', "is no table of runs"),
        (HEAD + "a/b," + "x" * 200_000 + ",resnet20,kd,240,70\n", "is no table of runs"),
        (None, "is no table of runs"),
    ],
    ids=["short", "long", "word", "formula", "endless", "other columns", "bytes", "quote", "huge", "folder"],
)  # fmt: skip
def test_a_wrong_or_hostile_file_is_one_sentence(content, said, tmp_path):
    path = tmp_path / "bad.csv"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordError, match=said) as error:
        other_runs(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
