"""Maps kept beside a record: what they hold, when they are taken, and that training does not notice."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import tiny_data, tiny_plain, tiny_review

from rkd import models
from rkd.experiments import snapshots
from rkd.experiments.runner import Runner
from rkd.experiments.snapshots import load_snapshots
from rkd.review import ReviewKD, ReviewOptions
from rkd.review.framework import level_maps_of


@pytest.mark.parametrize("residual", ["mid", "output_direct"])
def test_attention_is_what_the_block_computes(residual):
    """Against the plain formula: concatenate, convolve, sigmoid."""
    torch.manual_seed(0)
    student, teacher = models.build("resnet8").double(), models.build("resnet14").double()
    review = ReviewKD(student, teacher, ReviewOptions(residual=residual)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    levels = level_maps_of(review, student, teacher, images)
    assert [maps.level for maps in levels] == ["pooled", "stage 3", "stage 2", "stage 1"]
    assert levels[0].attention is None

    for module in (student, teacher, review):
        module.eval()
    taps, passed_on = student.taps(images), None
    for maps, block, x in zip(
        levels, review.connector.abfs, [taps.pooled[:, :, None, None], *reversed(taps.stages)], strict=True
    ):
        if passed_on is not None:
            projected = passed_on if block.residual_conv is None else block.residual_conv(passed_on)
            projected = torch.nn.functional.interpolate(projected, size=x.shape[-2:], mode="nearest")
            z = torch.sigmoid(block.att_conv[0](torch.cat([block.conv1(x), projected], 1)))
            torch.testing.assert_close(maps.attention, z, rtol=1e-10, atol=1e-12)
        output, passed_on = block(x, passed_on, maps.teacher.shape[-2:])
        torch.testing.assert_close(maps.fused, output)
    torch.testing.assert_close(levels[1].teacher, teacher.taps(images).stages_pre[2])


def test_maps_are_kept_beside_the_record_and_change_nothing(store, silent, tmp_path, capsys):
    due = snapshots.due(240)
    assert snapshots.due(4) == (1, 2, 3, 4) and due[0] == 1 and due[-1] == 240 and len(due) == 12
    config = tiny_review()
    runner = Runner(store, tmp_path, "cpu", progress=silent, maps=True)
    record = runner.run([config, tiny_plain()])[config.id]
    kept = load_snapshots(store, config.id)
    assert kept.epochs == (1, 2) and kept.levels == ("pooled", "stage 3", "stage 2", "stage 1")
    assert kept.images.shape == (6, 32, 32, 3) and len(set(kept.classes)) == 6
    assert kept.attention(1, "pooled") is None
    first, last = kept.attention(1, "stage 1"), kept.attention(2, "stage 1")
    assert first.shape == (6, 2, 32, 32) and 0 <= first.min() < first.max() <= 1
    assert not np.array_equal(first, last)
    student, teacher = kept.pair("stage 2")
    assert student.shape == teacher.shape == (6, 16, 16) and teacher.std() > 0
    assert load_snapshots(store, tiny_plain().id) is None, "nothing to show of an undistilled run"

    other = type(store)(tmp_path / "other", tmp_path / "otherwork")
    plain = Runner(other, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert (plain.curves, plain.result) == (record.curves, record.result)

    # Recorded without maps: trained again for them, the record untouched. With maps: nothing is trained.
    before = other.path(config.id).read_bytes()
    begun = len(silent.titles)
    Runner(other, tmp_path, "cpu", progress=silent, maps=True).run([config])
    assert other.path(config.id).read_bytes() == before and len(silent.titles) == begun + 1
    again = load_snapshots(other, config.id)
    assert all(np.array_equal(again.arrays[name], kept.arrays[name]) for name in kept.arrays)

    path = other.maps(config.id)
    other.maps("0" * 12).write_bytes(path.read_bytes())
    assert load_snapshots(other, "0" * 12) is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_snapshots(other, config.id) is None
    said = capsys.readouterr().err
    assert f"holds maps of run '{config.id}'" in said and f"{path}: it is damaged" in said


def test_images_of_other_data_sets_are_not_kept(store, silent, tmp_path):
    """Of a data set that is not ours to hand on, the file has places; the images come from the set, where it is."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[::-1], y_test=y[::-1])
    data = tiny_data(name="own.npz", train_images=None, test_images=None, normalisation="cifar100")
    base = tiny_review(epochs=1)
    teacher = dataclasses.replace(base.teacher, run=dataclasses.replace(base.teacher.run, data=data))
    config = dataclasses.replace(base, data=data, teacher=teacher)
    Runner(store, tmp_path, "cpu", progress=silent, maps=True).run([config])
    kept = load_snapshots(store, config.id)
    assert "images" not in kept.arrays and not kept.pictured
    assert kept.images.shape == (4, 32, 32, 3) and kept.images.std() == 0
    with_set = load_snapshots(store, config.id, tmp_path)
    assert with_set.pictured
    np.testing.assert_array_equal(with_set.images, x[::-1][:4])
    (tmp_path / "own.npz").unlink()
    assert not load_snapshots(store, config.id, tmp_path).pictured
