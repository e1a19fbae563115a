"""What is told while runs train. Event files hold every epoch of every run once, under the names and with the values of
the record, resumed or not."""

import sys

import numpy as np
import pytest
from conftest import Silent, StopAfter, tiny_review

from rkd.errors import ConfigError
from rkd.experiments.progress import Progress
from rkd.experiments.runner import Runner
from rkd.experiments.tensorboard import EVENTS, TensorBoard


def scalars(folder):
    """Tag -> [(step, value)] as TensorBoard's own reader has them, nothing left out."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_each_run_of_a_group_has_its_curves_once_resumed_or_not(tmp_path, store):
    """Stopped in the second epoch, resumed by another process in a folder that holds an older file."""
    pytest.importorskip("tensorboard")
    runs, folder = [tiny_review(), tiny_review(ce_weight=0.5)], tmp_path / "tb"

    def runner(**options):
        return Runner(store, tmp_path, "cpu", progress=TensorBoard(folder, Silent()), **options)

    (first := runner(stop=StopAfter(5))).run(runs)  # two batches and a score, and into the second epoch
    assert [step for step, _ in scalars(folder / runs[0].id)["lr"]] == [1]
    assert len(first.progress.inner.epochs) == 2 and first.progress.inner.titles, "it hears all"
    (folder / runs[0].id / EVENTS.replace("*", "old")).write_bytes(b"")
    records = runner().run(runs)
    assert {p.name for p in folder.iterdir()} == {run.id for run in runs}
    for run in runs:
        found, curves = scalars(folder / run.id), records[run.id].curves
        assert len(list((folder / run.id).glob(EVENTS))) == 1
        assert {tag.rpartition("/")[2] for tag in found} == {*curves}
        assert {"accuracy/test_accuracy", "loss/loss_review", "lr"} < {*found}
        for tag, points in found.items():  # records keep six digits
            values = list(enumerate(curves[tag.rpartition("/")[2]], 1))
            np.testing.assert_allclose(points, values, rtol=5e-6, err_msg=tag)


def test_without_tensorboard_one_sentence_before_anything_is_trained(tmp_path, monkeypatch, rkd):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
    status, _, err = rkd(f"run --student resnet8 --results {tmp_path / 'r'} --tensorboard {tmp_path}")
    assert status == 2 and "pip install tensorboard" in err and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(("epoch", "start"), [(0, 0), (2, 60)])
def test_rate_counts_what_this_process_trained_on(epoch, start):
    progress = Progress()
    progress.begin("a run", 4, 100)
    progress.batch(epoch, start, 100)
    progress._bar.start_t -= 10
    progress.batch(epoch, start + 20, 100)
    left = (400 - 100 * epoch - start - 20) // 2
    assert str(progress._bar) == f"2.00 images/s, {left // 60:02d}:{left % 60:02d} left"
