"""`rkd bench --negatives`: what it compares is the same kind of draw; how much quicker ours is."""

import json

import pytest
import torch

from rkd.bench.negatives import CONVENTIONAL, KIND, OURS, per_image
from rkd.bench.result import files
from rkd.cli import main
from rkd.methods.negatives import Contrasts


def test_both_give_each_image_and_others_of_other_classes():
    labels, indices = torch.arange(60) % 4, torch.tensor([3, 8, 50])
    plain = per_image(labels.numpy(), 7)
    for found in (plain(indices.tolist()), Contrasts(labels, 7, seed=0)(indices)):
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
    found = json.loads(path.read_text())
    assert list(files(tmp_path, KIND)) == [path]
    rounds, times = found["header"]["rounds"], found["times_ms"]
    assert rounds >= 3 and set(times) == {OURS, CONVENTIONAL}
    assert all(len(ms) == rounds and min(ms) > 0 for ms in times.values())
    # An epoch's draw is part of our time.
    assert all(step > draw / 12500 for step, draw in zip(times[OURS], found["draw_ms"], strict=True))
    assert sum(times[CONVENTIONAL]) > 5 * sum(times[OURS])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--negatives", "49501"], "negatives is 49501; it must be between 1 and 49500"),
        (["--negatives", "--batch-size", "0"], "batch_size is 0"),
        (["--negatives", "--seconds", "-1"], "seconds is -1.0"),
        (["--negatives", "--group", "2"], "--group says nothing about --negatives"),
    ],
)
def test_refused(call, message, capsys):
    assert main(["bench", *call]) == 2
    assert message in capsys.readouterr().err
