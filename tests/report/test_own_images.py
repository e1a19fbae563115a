"""The page about a reader's own images, executed on a reader's folder."""

import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from rkd import paths


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
    call = [
        sys.executable, "-m", "papermill", str(paths.home() / "book" / "your_own_data.ipynb"), "out.ipynb",
        "--no-progress-bar", "-p", "dataset", "mine", "-p", "image_size", "32", "-p", "epochs", "1",
        "-p", "teacher", "resnet14", "-p", "student", "resnet8",
    ]  # fmt: skip
    told = []
    for _ in range(2):
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        told.append("".join(o.get("text", "") for c in cells for o in c.get("outputs", [])))
    assert "4 runs: 0 recorded before, 4 trained now" in told[0] and "4 recorded before, 0" in told[1]
    assert "classes          3" in told[0] and "images of mine" in told[0] and str(tmp_path) not in told[0]
    student = torch.jit.load(tmp_path / "mine.results" / "student.ts")
    assert student(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
