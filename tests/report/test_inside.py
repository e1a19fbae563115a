"""Attention and pyramid: pictures follow the arrays, figures follow naive loops, sliders work in a real browser."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("plotly", reason="plotly is not installed (pip install -e .[book])")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e .[book])")

import matplotlib
from browser import chromium
from IPython.display import HTML
from PIL import Image

from rkd import paths
from rkd.errors import ConfigError, RkdError
from rkd.experiments.settings import load_profile
from rkd.experiments.snapshots import Snapshots
from rkd.experiments.workspace import store_for
from rkd.records import Store
from rkd.report import inside
from rkd.report.interactive import attention, pyramid
from rkd.report.interactive.markup import tag
from rkd.report.interactive.stack import Stack
from rkd.report.interactive.strips import column, img, photos
from rkd.review import ReviewOptions, hcl

LEVELS = ("pooled", "stage 2", "stage 1")
SIZES = {"pooled": 1, "stage 2": 8, "stage 1": 16}
RE_CODE = ReviewOptions(hcl_assign="position", hcl_duplicates="count", hcl_normaliser="all")


def arrays(images=3, epochs=(1, 4), attend=True):
    rng = np.random.default_rng(7)
    found = {
        "epochs": np.array(epochs),
        "levels": np.array(LEVELS),
        "images": rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8),
        "labels": np.arange(images),
        "classes": np.array(["cat", "dog & fox", "<owl>"][:images]),
    }
    for i, level in enumerate(LEVELS):
        side = SIZES[level]
        for epoch in epochs:
            if attend and level != "pooled":
                found[f"attention_{epoch}_{i}"] = rng.integers(
                    0, 256, (images, 2, side, side), dtype=np.uint8
                )
        for who in ("student", "teacher"):
            found[f"{who}_{i}"] = rng.normal(size=(images, side, side)).astype(np.float16)
    return found


def snapshots(**values):
    a = arrays(**values)
    return Snapshots(
        tuple(a["epochs"].tolist()), LEVELS, a["images"], a["labels"], tuple(a["classes"].tolist()), a
    )


def pixels(png):
    """(H, W, 4) uint8."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def pictures(text):
    """(alternative text, PNG) of every <img> in HTML, in order."""
    found = re.findall(r'<img alt="([^"]*)"[^>]*base64,([^"]+)"', text)
    assert len(found) == text.count("<img"), "every picture has an alternative text"
    return [(alt, base64.b64decode(data)) for alt, data in found]


@pytest.fixture
def shown(monkeypatch):
    """Text of what is displayed, in order."""
    found = []
    monkeypatch.setattr(inside, "display", lambda *things: found.extend(t._repr_html_() for t in things))
    return found


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "block"), [(8, 16), (32, 4), (7, 18), (200, 1)])
def test_every_value_is_a_block_of_its_colour(side, block):
    maps = np.random.default_rng(0).uniform(-0.2, 1.2, (3, side, side))
    drawn = pixels(column(maps, "viridis", 0.0, 1.0))
    step = (len(drawn) + 0.0 - 3 * side * block) / 2 + side * block  # two gaps
    assert drawn.shape[1] == side * block and step == int(step) > side * block
    exact = matplotlib.colormaps["viridis"]
    for n, i, j in [(0, 0, 0), (1, side - 1, 0), (2, 3, side - 1), (0, 5, 2)]:
        top, left = int(n * step) + i * block, j * block
        cell = drawn[top : top + block, left : left + block].reshape(-1, 4)
        assert (cell == cell[0]).all() and cell[0, 3] == 255
        expected = 255 * np.array(exact(float(np.clip(maps[n, i, j], 0, 1)))[:3])
        assert np.abs(cell[0, :3] - expected).max() < 2.5, "within one of 255 steps of the map"
    assert (drawn[side * block : int(step), :, 3] == 0).all(), (
        "what lies between maps is the page's own colour"
    )


def test_values_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="cannot be drawn"):
        column(np.array([[[np.nan]]]), "viridis", 0, 1)
    with pytest.raises(ValueError, match="cannot be drawn"):
        column(np.zeros((1, 2, 2)), "viridis", 1, 1)


def test_photos_keep_their_pixels():
    colours = np.random.default_rng(1).integers(0, 256, (40, 3), dtype=np.uint8)
    images = colours[np.random.default_rng(2).integers(0, 40, (2, 32, 32))]
    drawn = pixels(photos(images))
    assert drawn.shape == (2 * 128 + 8, 128, 4)
    for n in range(2):
        part = drawn[n * 136 : n * 136 + 128]
        assert (part[::4, ::4, :3] == images[n]).all() and (part[3::4, 3::4, :3] == images[n]).all()
    assert (drawn[128:136, :, 3] == 0).all()


def test_attention_pictures_follow_the_maps():
    s = snapshots()
    made = attention.attention_stack(s)
    assert list(made.pages) == ["after epoch 1 of 4", "after epoch 4 of 4"] and made.start == 1
    for epoch, page in zip(s.epochs, made.pages.values(), strict=True):
        drawn = pictures(page)
        assert len(drawn) == 1 + 2 * 2
        for k, (level, side) in enumerate([("stage 2", 0), ("stage 2", 1), ("stage 1", 0), ("stage 1", 1)]):
            alt, png = drawn[1 + k]
            z = s.attention(epoch, level)[:, side]
            assert png == column(z, "viridis", 0, 1)
            size = SIZES[level]
            said = f"z{'₁₂'[side]} of the {('student map', 'residual')[side]} at {level} ({size} × {size})"
            assert said in alt and f"after epoch {epoch}, mean {z.mean():.2f}" in alt
    said = made._repr_html_()
    assert "dog &amp; fox, &lt;owl&gt;" in said and "<owl>" not in said
    assert "Bright: the map passes" in said and "colours from 0 to 1" in said


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_means_and_spreads_against_a_loop():
    s = snapshots()
    found = attention.mean_weights(s)
    assert [(m.epoch, m.level) for m in found] == [(e, x) for e in (1, 4) for x in LEVELS[1:]]
    for m in found:
        for side in range(2):
            values = [
                int(v) / 255 for v in s.arrays[f"attention_{m.epoch}_{LEVELS.index(m.level)}"][:, side].flat
            ]
            mean = sum(values) / len(values)
            assert m.mean[side] == pytest.approx(mean, abs=1e-7)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            assert m.spread[side] == pytest.approx(variance**0.5, abs=1e-6)


def test_the_sentence_is_made_from_the_numbers():
    s = snapshots()
    for (epoch, i), (z1, z2) in {
        (1, 1): (51, 102),
        (1, 2): (51, 51),
        (4, 1): (51, 148),
        (4, 2): (102, 0),
    }.items():
        z = s.arrays[f"attention_{epoch}_{i}"]
        z[:, 0], z[:, 1] = z1, z2
    assert attention.attention_sentence(s) == (
        "After epoch 4 the residual weighs more than the student's own map at 1 of 2 levels (stage 2: 0.58 against "
        "0.20; stage 1: 0.00 against 0.40). Over images and positions the weights vary by a standard deviation of "
        "0.00 to 0.00. Since epoch 1, z₁ at stage 1 changed most, by +0.20."
    )
    cells = re.findall(r'rkd-number">([\d.]+)', attention.means_table(s))
    assert cells == ["0.20", "0.40", "0.20", "0.58", "0.20", "0.20", "0.40", "0.00"]
    drawn = {trace.name: trace.y for trace in attention.means_plot(s, "a run").figure.data}
    assert drawn["stage 2, z₁ student map"] == pytest.approx([0.2, 0.2])
    assert drawn["stage 1, z₁ student map"] == pytest.approx([0.2, 0.4])


def naive_pool(maps, size):
    """Average over equal squares, by loops, in float64."""
    n, side = len(maps), maps.shape[1]
    block = side // size
    out = np.zeros((n, size, size))
    for image in range(n):
        for i in range(side):
            for j in range(side):
                out[image, i // block, j // block] += float(maps[image, i, j]) / block**2
    return out


@pytest.mark.parametrize("options", [ReviewOptions(), RE_CODE], ids=["authors", "re_code"])
def test_pooled_differences_equal_a_naive_loop_and_their_sum_is_hcl(options):
    s = snapshots()
    for level in LEVELS:
        student, teacher = s.pair(level)
        parts = pyramid.comparisons(s, level, options)
        for p in parts:
            expected = naive_pool(student.astype(float) - teacher, p.size)
            assert p.difference == pytest.approx(expected, abs=1e-5)
            assert p.student == pytest.approx(naive_pool(student, p.size), abs=1e-5)
            assert p.mse() == pytest.approx((expected**2).mean(), rel=1e-4)
            assert p.mse(1) == pytest.approx((expected[1] ** 2).mean(), rel=1e-4)
        pair = [torch.from_numpy(maps)[:, None].double() for maps in (student, teacher)]
        assert sum(p.weight * p.mse() for p in parts) == pytest.approx(float(hcl(*pair, options)), rel=1e-4)
    assert [p.size for p in pyramid.comparisons(s, "stage 1", options)] == [16, 4, 2, 1]
    assert [p.size for p in pyramid.comparisons(s, "pooled", RE_CODE)] == [1, 1]


def test_maximum_pooling_and_l2():
    s = snapshots()
    student, _ = s.pair("stage 2")
    part = pyramid.comparisons(s, "stage 2", ReviewOptions(hcl_pooling="max"))[1]
    assert part.size == 4
    assert part.student[2, 1, 3] == student[2, 2:4, 6:8].max()
    (only,) = pyramid.comparisons(s, "stage 2", ReviewOptions(loss="l2"))
    assert (only.size, only.weight) == (8, 1.0)
    assert only.mse() == pytest.approx(((student - s.pair("stage 2")[1]).astype(float) ** 2).mean(), rel=1e-5)


def test_pyramid_pictures_and_printed_numbers():
    s, options = snapshots(), ReviewOptions()
    made = pyramid.pyramid_stack(s, options, image=2)
    assert list(made.pages) == [f"{level}, {SIZES[level]} × {SIZES[level]}" for level in LEVELS]
    for level, page in zip(LEVELS, made.pages.values(), strict=True):
        parts = pyramid.comparisons(s, level, options)
        drawn = pictures(page)[: len(parts)]  # the colour bar follows
        bound = max(
            np.abs([*p.student[2].flat, *p.teacher[2].flat, *p.difference[2].flat]).max() for p in parts
        )
        for p, (alt, png) in zip(parts, drawn, strict=True):
            maps = np.stack([p.student[2], p.teacher[2], p.difference[2]])
            assert png == column(maps, "RdBu_r", -bound, bound)
            assert f"at {level} pooled to {p.size} × {p.size}, MSE {p.mse(2):.3g}" in alt
            assert f"MSE {p.mse(2):.3g}<br>weight {p.listed:g}" in page
    table = pyramid.pyramid_table(s, options)
    for level in LEVELS:
        total = 0.0
        for p in pyramid.comparisons(s, level, options):
            assert f'<span class="rkd-number">{p.mse():.3g}</span>' in table
            assert f">{p.size} × {p.size} </span>" in table and f"> weight {p.listed:g}, " in table
            total += p.weight * p.mse()
        assert f"<strong>{total:.3g}</strong>" in table
    left = 100 * (naive_pool(s.pair("stage 1")[0].astype(float) - s.pair("stage 1")[1], 1) ** 2).mean()
    left /= ((s.pair("stage 1")[0].astype(float) - s.pair("stage 1")[1]) ** 2).mean()
    assert f"{left:.0f} % at stage 1 (16 × 16 to 1 × 1)" in pyramid.pyramid_sentence(s, options)
    with pytest.raises(ConfigError, match="image is 3; the run keeps maps of images 0 to 2"):
        pyramid.pyramid_stack(s, options, image=3)


def test_equal_maps_have_a_picture_too():
    s = snapshots()
    for i in range(len(LEVELS)):
        for who in ("student", "teacher"):
            s.arrays[f"{who}_{i}"][:] = 0
    pyramid.pyramid_stack(s, ReviewOptions())
    assert "At no level are two sizes compared" in pyramid.pyramid_sentence(s, ReviewOptions())
    assert "<strong>0</strong>" in pyramid.pyramid_table(s, ReviewOptions())


# --- sliders ---------------------------------------------------------------------------------------------------------


def test_a_lone_page_needs_no_slider_and_each_start_a_page():
    page = tag("p", "only")
    assert "<form" not in Stack({"only": page}, "step", slider=True)._repr_html_()
    with pytest.raises(ConfigError, match="start is 1; there are pages 0 to 0"):
        Stack({"only": page}, "step", start=1)


@pytest.mark.slow
@pytest.mark.browser
def test_sliders_without_a_kernel(tmp_path):
    """Opened as a file: arrow keys step; without scripts the start stands alone; nothing is wider than a phone."""
    from selenium.webdriver import Keys

    path = tmp_path / "page.html"
    body = attention.attention_stack(snapshots())._repr_html_()
    path.write_text(
        f"<!doctype html><meta charset=utf-8><main style='max-width: 330px'>{body}</main>", "utf-8"
    )
    chrome = chromium(tmp_path / "chromium")
    pages = """return [...document.querySelectorAll('.rkd-page')].map(p => p.offsetHeight > 200)"""
    form = "return document.querySelector('form').offsetHeight > 0"
    try:
        chrome.get(path.as_uri())
        slider = chrome.find_element("css selector", "input[type=range]")
        assert chrome.execute_script(form) and chrome.execute_script(pages) == [False, True]
        slider.send_keys(Keys.ARROW_LEFT)
        assert chrome.execute_script(pages) == [True, False]
        assert slider.get_attribute("aria-valuetext") == "after epoch 1 of 4"
        assert chrome.execute_script("return [...document.images].every(i => i.alt && i.naturalWidth)")
        wide = "return [...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right)"
        assert max(chrome.execute_script(wide)) <= 330 + 8
        assert not [e["message"] for e in chrome.get_log("browser") if e["level"] == "SEVERE"]
        path.write_text(body.replace("<script>", "<script type='text/plain'>"), "utf-8")
        chrome.get(path.as_uri())
        assert not chrome.execute_script(form) and chrome.execute_script(pages) == [False, True]
    finally:
        chrome.quit()


# --- the page --------------------------------------------------------------------------------------------------------

TINY = {
    "profile": "smoke", "train_images": 100, "test_images": 100, "epochs": 2, "seeds": [5, 6], "teacher": "resnet8",
    "student": "resnet8",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("inside")


@pytest.fixture
def execute(shown):
    """Executes a page: text of everything it shows, and the page."""

    def run(**given):
        shown.clear()
        page = inside.open_inside(given)
        for name in (
            "run",
            "attention",
            "attention_means",
            "pyramid",
            "pyramid_errors",
            "injected",
            "provenance",
        ):
            made = getattr(page, name)()
            if made is not None:
                shown.append(made.data if isinstance(made, HTML) else made)
        return "\n".join(shown), page

    return run


@pytest.mark.slow
def test_page_trains_once_and_its_run_is_table_3s(execute, results, tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "RECORDED", ())
    text, page = execute(**TINY, results=str(results))
    run = page.line.runs[0]
    assert run.seed == 5 and run.options.attention and run.options.loss == "hcl" and run.network == "resnet8"
    assert "was trained now" in text and "shows the machinery only" in text
    assert text.count('data-kind="stack"') >= 2 and "weight z₁ of the student map" in text
    assert "the residual weighs more than" in text and f"maps/{run.id}.npz" in text
    before = {p: p.stat().st_mtime_ns for p in results.rglob("*.*") if p.suffix in (".json", ".npz", ".pt")}
    again, _ = execute(**TINY, results=str(results))
    assert "was recorded, and is loaded" in again
    assert before == {
        p: p.stat().st_mtime_ns for p in results.rglob("*.*") if p.suffix in (".json", ".npz", ".pt")
    }
    maps = page.store.maps(run.id)
    record = page.store.path(run.id).read_bytes()
    maps.unlink()
    third, _ = execute(**TINY, results=str(results))
    assert (
        "was trained again for them" in third
        and maps.exists()
        and page.store.path(run.id).read_bytes() == record
    )


def test_page_without_attention_still_has_its_pyramid(execute, results, monkeypatch):
    monkeypatch.setattr(inside, "RECORDED", ())
    text, page = execute(**TINY | {"epochs": 1}, results=str(results), attention=False)
    assert text.count(inside.NO_ATTENTION) == 2 and "Pooling to the smallest size leaves" in text
    assert attention.attention_levels(page.shown[0].snapshots) == ()


def test_page_with_nothing_to_show_says_so(execute, tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "RECORDED", ())
    text, _ = execute(**TINY, results=str(tmp_path / "none"), on_missing="skip")
    assert text.count("is not recorded") == 4 and "<td>missing</td>" in text


def test_maps_on_file_are_shown_first_beside_a_smoke_run(execute, tmp_path, monkeypatch):
    committed, folder = store_for("mini"), Store(tmp_path / "mini", tmp_path / "work")
    _, line = inside._full_line({"profile": "mini"})
    run = next(committed.recorded(line.runs[0])).id
    folder.save(committed.load(run))
    folder.maps(run).parent.mkdir()
    np.savez(folder.maps(run), run=np.array(run), size=np.array(32), **arrays())
    monkeypatch.setattr(
        inside, "store_for", lambda profile: folder if profile == "mini" else store_for(profile)
    )
    text, page = execute(**TINY, results=str(tmp_path / "none"), on_missing="skip")
    assert [shown.run.id == run for shown in page.shown] == [True, False]
    assert "On file, profile mini: ResNet-8 ← ResNet-20, 4 epochs on 12,000 images of CIFAR-100." in text
    assert "a tendency, no evidence" in text and text.index("On file") < text.index("This execution")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imag": 5}, "unknown parameter 'imag'; did you mean 'image'?"),
        ({"image": 6}, "image is 6; it must be a whole number from 0 to 5"),
        ({"image": True}, "image is True"),
        ({"student": "resnet21"}, "unknown model 'resnet21'"),
        ({"profile": "papr"}, "did you mean 'paper'?"),
    ],
)
def test_bad_parameters_get_one_sentence(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        inside.open_inside(given)


def test_cells_out_of_order_and_the_profiles_run():
    with pytest.raises(RkdError, match=r"call page\.run"):
        inside.open_inside({}).attention()
    page = inside.open_inside(load_profile("paper"))
    run = page.line.runs[0]
    assert (run.seed, run.epochs, run.network, run.teacher.name) == (0, 240, "resnet20", "resnet56")


@pytest.mark.slow
def test_chapter_executes(tmp_path):
    out = tmp_path / "out.ipynb"
    call = [
        sys.executable, "-m", "papermill", str(paths.home() / "book" / "inside.ipynb"), str(out), "--no-progress-bar",
        "-f", str(paths.params() / "smoke.yaml"), "-y", "{train_images: 100, test_images: 100, epochs: 2, budget: {}}",
        "-p", "student", "resnet8", "-p", "teacher", "resnet8", "-p", "results", str(tmp_path / "r"),
    ]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "unknown parameter" not in done.stderr.lower(), "the profile's keys are all declared"
    assert out.read_text().count('data-kind=\\"stack\\"') >= 2 and out.stat().st_size < 8e6


def test_an_image_says_what_it_shows():
    png = column(np.zeros((1, 2, 2)), "viridis", 0, 1)
    assert img(png, 'a "map"').startswith('<img alt="a &quot;map&quot;" width="128" height="128" ')
