"""`rkd bench --negatives`: what it compares is the same kind of draw; how much quicker ours is."""

import numpy as np
import pytest
import torch

from rkd.bench.negatives import (
    CONVENTIONAL,
    KIND,
    NEWER,
    OURS,
    NegativesRequest,
    NegativesResult,
    PerImage,
    measure_negatives,
)
from rkd.bench.result import files
from rkd.cli import main
from rkd.errors import ConfigError, RecordError
from rkd.methods.negatives import Contrasts


def test_both_give_each_image_and_others_of_other_classes():
    labels = torch.arange(60) % 4
    indices = torch.tensor([3, 8, 50])
    plain = PerImage(labels.numpy(), 7, lambda a, k: np.random.RandomState(0).choice(a, k, replace=False))
    for found in (plain.batch(indices.tolist()), Contrasts(labels, 7, seed=0)(indices)):
        assert found.shape == (3, 8) and found.dtype == torch.int64
        assert torch.equal(found[:, 0], indices)
        for i, row in zip(indices, found[:, 1:], strict=True):
            assert len(row.unique()) == 7 and (labels[row] != labels[i]).all()


def test_from_the_command_line_to_a_file(tmp_path, capsys):
    path = tmp_path / "negatives.json"
    call = ["bench", "--negatives", "20", "--batch-size", "4", "--seconds", "0.1", "--device", "cpu"]
    assert main([*call, "--out", str(path)]) == 0
    text = capsys.readouterr().out
    assert "20 per image, batch 4" in text and "1/12500 of an epoch's draw" in text
    assert "rkd bench --negatives 20 --batch-size 4 --device cpu --seconds 0.1" in text
    result = NegativesResult.load(path)
    assert list(files(tmp_path, KIND)) == [path]
    rounds = result.header["rounds"]
    assert rounds >= 3 and set(result.times_ms) == {OURS, CONVENTIONAL, NEWER}
    assert all(len(found) == rounds and min(found) > 0 for found in result.times_ms.values())
    # An epoch's draw is part of our time.
    ours = result.times_ms[OURS]
    assert all(step > draw / 12500 for step, draw in zip(ours, result.draw_ms, strict=True))
    ratios = sorted(a / b for a, b in zip(result.times_ms[CONVENTIONAL], ours, strict=True))
    assert ratios[0] <= result.ratio <= ratios[-1]
    path.write_text("{}")
    with pytest.raises(RecordError, match="is not what"):
        NegativesResult.load(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--negatives", "49501"], "negatives is 49501; it must be between 1 and 49500"),
        (["--negatives", "0"], "negatives is 0"),
        (["--negatives", "--batch-size", "0"], "batch_size is 0"),
        (["--negatives", "--seconds", "-1"], "seconds is -1.0"),
        (["--negatives", "--gang", "2"], "--gang says nothing about --negatives"),
        (["--negatives", "--teacher-batch-norm", "batch"], "--teacher-batch-norm says nothing"),
    ],
)
def test_refused(call, message, capsys):
    assert main(["bench", *call]) == 2
    assert message in capsys.readouterr().err


def test_refused_request():
    with pytest.raises(ConfigError, match="between 1 and 9,"):
        NegativesRequest(negatives=10, train_images=10, classes=10)


@pytest.mark.slow
def test_ours_is_at_least_twenty_times_as_quick():
    assert measure_negatives(NegativesRequest(device="cpu", seconds=10)).ratio >= 20
