"""The page about a reader's own images, executed on a reader's folder."""

import numpy as np
import pytest
import torch
from cells import outputs, papermill
from PIL import Image


@pytest.mark.slow
def test_a_folder_goes_in_and_a_student_comes_out(tmp_path):
    """Standing where the folder lies: what is made stands beside it, and is found again."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("one", "two", "three"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / split / name / f"{i}.png")
    given = {"dataset": "mine", "image_size": 32, "epochs": 1, "teacher": "resnet14", "student": "resnet8"}
    words = [word for name, value in given.items() for word in ("-p", name, value)]
    told = []
    for _ in range(2):
        done = papermill("your_own_data", "out.ipynb", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(outputs(tmp_path / "out.ipynb"))
    assert "4 runs: 0 recorded before, 4 trained now" in told[0] and "4 recorded before, 0" in told[1]
    assert "classes          3" in told[0] and "images of mine" in told[0] and str(tmp_path) not in told[0]
    student = torch.jit.load(tmp_path / "mine.results" / "student.ts")
    assert student(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
