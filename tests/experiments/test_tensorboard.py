"""Event files hold every epoch of every run once, under the names and with the values of the record, resumed or not."""

import sys

import numpy as np
import pytest
from conftest import Silent, tiny_plain, tiny_review

from rkd.cli import main
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.experiments.tensorboard import EVENTS, TensorBoard, watch


def scalars(folder):
    """Tag -> [(step, value)] as TensorBoard's own reader has them, nothing left out."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def board(folder):
    pytest.importorskip("tensorboard")
    return TensorBoard(folder, Silent())


def expected(record):
    tags = {
        "lr": "lr", "train_accuracy": "accuracy/train_accuracy", "test_accuracy": "accuracy/test_accuracy",
        "loss_ce": "loss/loss_ce", "loss_review": "loss/loss_review",
    }  # fmt: skip
    return {tags[name]: list(enumerate(values, 1)) for name, values in record.curves.items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for tag, points in wanted.items():  # records keep six digits
        np.testing.assert_allclose(found[tag], points, rtol=5e-6, err_msg=tag)


def test_each_run_of_a_group_has_its_curves_and_the_inner_progress_hears_all(tmp_path, store):
    runs = [tiny_review(seed=0), tiny_review(seed=0, ce_weight=0.5), tiny_plain()]
    progress = board(tmp_path / "tb")
    records = Runner(store, tmp_path, "cpu", progress=progress).run(runs)
    assert {p.name for p in (tmp_path / "tb").iterdir()} == {run.id for run in runs}
    for run in runs:
        assert_same(scalars(tmp_path / "tb" / run.id), expected(records[run.id]))
    assert len(progress.inner.epochs) == 2 * len(runs) and progress.inner.titles


def test_resumed_and_repeated_epochs_stand_there_once(tmp_path, store):
    """Stopped in the second epoch, resumed by another process with a folder that holds epochs of a lost future."""
    run = tiny_plain(epochs=3)
    asked = 0

    def stop(seconds):
        nonlocal asked
        asked += 1
        return asked > 5  # two batches and a score, and into the second epoch

    Runner(store, tmp_path, "cpu", progress=board(tmp_path / "tb"), stop=stop).run([run])
    folder = tmp_path / "tb" / run.id
    assert [step for step, _ in scalars(folder)["lr"]] == [1]
    stray = board(tmp_path / "other")
    Runner(type(store)(tmp_path / "r2", tmp_path / "w2"), tmp_path, "cpu", progress=stray).run([run])
    for file in (tmp_path / "other" / run.id).glob(EVENTS):  # a file that knows all three epochs
        file.rename(folder / file.name)
    record = Runner(store, tmp_path, "cpu", progress=board(tmp_path / "tb")).run([run])[run.id]
    assert len(list(folder.glob(EVENTS))) == 1
    assert_same(scalars(folder), expected(record))


def test_command_line_writes_where_it_is_told(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    tiny = ["--set", "train_images=100", "--set", "test_images=100", "--set", "epochs=1", "--device", "cpu"]
    call = ["run", "--student", "resnet8", "--results", str(tmp_path / "r"), *tiny]
    assert main([*call, "--tensorboard", str(tmp_path / "tb")]) == 0
    run = capsys.readouterr().out.split()[0]
    assert [step for step, _ in scalars(tmp_path / "tb" / run)["accuracy/test_accuracy"]] == [1]


def test_without_tensorboard_one_sentence_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        watch(tmp_path)
    assert watch(None) is None
