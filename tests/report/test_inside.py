"""Attention and pyramid: pictures follow the arrays, numbers follow naive loops, the notebook runs once."""

import base64
import io
import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from cells import execute
from PIL import Image

from rkd.experiments import workspace
from rkd.experiments.snapshots import Snapshots
from rkd.records import Store
from rkd.report import experiment
from rkd.report.interactive.plot import pager
from rkd.report.interactive.tiles import attention_tiles, map_column
from rkd.review import ReviewOptions, hcl

SIZES = {"pooled": 1, "stage 2": 8, "stage 1": 16}
RE_CODE = ReviewOptions(hcl_assign="position", hcl_duplicates="count", hcl_normaliser="all")
TINY = {
    "profile": "smoke", "train_images": 100, "test_images": 100, "epochs": 2, "seeds": [5, 6], "teacher": "resnet8",
    "student": "resnet8", "budget": {},
}  # fmt: skip


@pytest.fixture
def arrays():
    """Of three images after epochs 1 and 4; the deepest level fuses nothing."""
    rng = np.random.default_rng(7)
    found = {"epochs": np.array([1, 4]), "levels": np.array(list(SIZES)), "labels": np.arange(3)}
    found["places"] = np.arange(3)
    found["images"] = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found["classes"] = np.array(["cat", "dog & fox", "<owl>"])
    for i, side in enumerate(SIZES.values()):
        for epoch in (1, 4) if i else ():
            found[f"attention_{epoch}_{i}"] = rng.integers(0, 256, (3, 2, side, side), dtype=np.uint8)
        for who in ("student", "teacher"):
            found[f"{who}_{i}"] = rng.normal(size=(3, side, side)).astype(np.float16)
    return found


@pytest.fixture
def maps(arrays):
    return Snapshots((1, 4), tuple(SIZES), arrays["images"], tuple(arrays["classes"]), arrays)


@pytest.fixture(scope="module")
def cell():
    """What the notebook's cells define."""
    words = "get_chapter", "def fusing", "def mean_weights", "def comparisons"
    return execute("inside", *words, shown=[], drawable=iter, display=lambda *things: None)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Executes the notebook under given parameters, where nothing is on file: text of everything it shows, and its
    names."""

    def store_for(profile, results=None):
        return Store(Path(results or tmp_path / profile), tmp_path / "work")

    for module in (workspace, experiment):
        monkeypatch.setattr(module, "store_for", store_for)

    def run(**given):
        shown = []

        def display(*things):
            shown.extend(thing._repr_html_() for thing in things)

        names = execute("inside", **{"display": display, "image": None, **given})
        return "\n".join(shown), names

    return run


def pictures(text):
    """(alternative text, PNG) of every <img> in HTML, in order."""
    found = re.findall(r'<img alt="([^"]*)"[^>]*base64,([^"]+)"', text)
    assert len(found) == text.count("<img"), "every picture has an alternative text"
    return [(alt, base64.b64decode(data)) for alt, data in found]


@pytest.mark.parametrize(("side", "block"), [(32, 4), (7, 18), (200, 1)])
def test_every_value_is_a_block_of_its_colour(side, block):
    maps = np.random.default_rng(0).uniform(-0.2, 1.2, (3, side, side))
    drawn = np.asarray(Image.open(io.BytesIO(map_column(maps, "viridis", 0, 1))))
    step = (len(drawn) - 3 * side * block) // 2 + side * block  # two gaps
    for n, i, j in [(0, 0, 0), (1, side - 1, 0), (2, 3, side - 1)]:
        block_of = drawn[n * step + i * block :, j * block :][:block, :block].reshape(-1, 4)
        expected = 255 * np.array(matplotlib.colormaps["viridis"](float(np.clip(maps[n, i, j], 0, 1))))
        assert (block_of == block_of[0]).all() and np.abs(block_of[0] - expected).max() < 2.5
    assert (drawn[side * block : step, :, 3] == 0).all(), "between maps is the page's own colour"
    for maps, high in ((np.array([[[np.nan]]]), 1), (np.zeros((1, 2, 2)), 0)):
        with pytest.raises(ValueError, match="cannot be drawn"):
            map_column(maps, "viridis", 0, high)


def test_attention_pictures_and_means_follow_the_maps(cell, maps):
    levels = cell["fusing"](maps)
    assert levels == ["stage 2", "stage 1"]
    means = cell["mean_weights"](maps, levels).set_index(["epoch", "level", "weight"])
    assert len(means) == 8
    for epoch in maps.epochs:
        (_, images), *drawn = pictures(attention_tiles(maps, epoch))
        assert (np.asarray(Image.open(io.BytesIO(images)))[136:264:4, ::4, :3] == maps.images[1]).all()
        for (alt, png), (level, side) in zip(drawn, itertools.product(levels, range(2)), strict=True):
            raw = maps.arrays[f"attention_{epoch}_{maps.levels.index(level)}"][:, side] / 255
            name = cell["WEIGHTS"][side]
            assert png == map_column(raw.astype(np.float32), "viridis", 0, 1)
            assert f"{name} at {level}" in alt and f"after epoch {epoch}, mean {raw.mean():.2f}" in alt
            assert means.loc[epoch, level, name].tolist() == pytest.approx([raw.mean(), raw.std()], abs=1e-6)


@pytest.mark.parametrize("options", [ReviewOptions(), RE_CODE], ids=["authors", "re_code"])
def test_pooled_differences_equal_a_naive_loop_and_their_sum_is_hcl(cell, maps, options):
    for level, h in SIZES.items():
        student, teacher = (x.astype(float) for x in maps.pair(level))
        parts = cell["comparisons"](maps, level, options)
        for part in parts:
            k = part["size"]
            naive = (student - teacher).reshape(3, k, h // k, k, h // k).mean(axis=(2, 4))
            assert part["maps"][2] == pytest.approx(naive, abs=1e-5)
        pair = [torch.from_numpy(x)[:, None] for x in (student, teacher)]
        whole = sum(part["share"] * np.square(part["maps"][2]).mean() for part in parts)
        assert whole == pytest.approx(float(hcl(*pair, options)), rel=1e-4)
    assert [part["size"] for part in parts] == [16, 4, 2, 1]
    assert [part["size"] for part in cell["comparisons"](maps, "pooled", RE_CODE)] == [1, 1]
    student, _ = maps.pair("stage 2")
    part = cell["comparisons"](maps, "stage 2", ReviewOptions(hcl_pooling="max"))[1]
    assert part["maps"][0, 2, 1, 3] == student[2, 2:4, 6:8].max()
    (only,) = cell["comparisons"](maps, "stage 2", ReviewOptions(loss="l2"))
    assert (only["size"], only["share"]) == (8, 1) and (only["maps"][0] == student).all()


def test_pyramid_pictures_and_printed_numbers(cell, maps):
    parts = cell["comparisons"](maps, "stage 1", ReviewOptions())
    made = cell["level_page"](parts, 2)
    bound = max(np.abs(part["maps"][:, 2]).max() for part in parts)
    for part, (alt, png) in zip(parts, pictures(made), strict=False):  # the colour bar follows
        mse = np.square(part["maps"][2, 2]).mean()
        assert png == map_column(part["maps"][:, 2], "RdBu_r", -bound, bound)
        assert f"MSE {mse:.3g}" in alt and f"MSE {mse:.3g}<br>weight {part['weight']:g}" in made
    equal = [{**part, "maps": np.zeros_like(part["maps"])} for part in parts]
    assert "HCL of this channel and image: 0." in cell["level_page"](equal, 0)
    assert "adds nothing" in cell["level_page"]([], 0)
    assert "<form" not in pager({"only": made}, "level", slides=True)


@pytest.mark.slow
def test_notebook_trains_once_and_says_what_lacks(page, tmp_path, capsys):
    text, names = page(**TINY, results=str(tmp_path))
    (kept,), store = names["shown"], names["page"].store
    assert kept.run.seed == 5 and kept.run.options.attention and kept.run.network == "resnet8"
    assert text.count('class="rkd-figure" data-kind="pager"') == 2 and "shows the machinery only" in text
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.suffix in (".json", ".npz", ".pt")}
    page(**TINY, results=str(tmp_path))
    assert before == {p: p.stat().st_mtime_ns for p in before}
    record = store.path(kept.run.id).read_bytes()
    store.maps(kept.run.id).unlink()
    page(**TINY, results=str(tmp_path))
    assert store.maps(kept.run.id).exists()
    assert store.path(kept.run.id).read_bytes() == record
    said = re.findall(r"1 run: (.) recorded before, (.) trained now", capsys.readouterr().out)
    assert said == [("0", "1"), ("1", "0"), ("1", "0")]
    text, _ = page(**TINY | {"epochs": 1}, results=str(tmp_path), attention=False)
    assert text.count("without attention") == 2 and text.count('class="rkd-figure" data-kind="pager"') == 1


def test_maps_on_file_are_shown_first_beside_a_smoke_run(page, arrays, tmp_path):
    run = "51e0075f892f"
    committed, folder = Store(*workspace.result_folders("mini")), workspace.store_for("mini")
    folder.save(committed.load(run))
    folder.maps(run).parent.mkdir()
    np.savez(folder.maps(run), run=np.array(run), size=np.array(32), **arrays)
    text, names = page(**TINY, results=str(tmp_path / "none"), on_missing="skip")
    assert [kept.run.id == run for kept in names["shown"]] == [True, False]
    assert "On file, profile mini: ResNet-8 ← ResNet-20, 4 epochs on 12,000 images of CIFAR-100." in text
    assert "a tendency, no evidence" in text and text.index("On file") < text.index("This execution")
    assert "dog &amp; fox" in text and "<owl>" not in text
    assert text.count("is not recorded") == 4 and ">missing</td>" in text
    assert [run.seed for run in names["page"].lines[0].runs] == [5]
    execute("inside", "get_chapter", **names)  # no cell leaves a value under the name of a parameter
