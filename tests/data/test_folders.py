"""Images in folders and torchvision's sets: layouts, one decoding, what is refused and what is said."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from rkd.data import DataConfig, full_name, load
from rkd.data.sources import reader_of
from rkd.errors import ConfigError, DataError

CLASSES = ("cats and dogs", "Ärger", "<b>")


def draw(path, colour, size=(20, 14), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **how)


@pytest.fixture
def folder(tmp_path):
    """Two parts; images of several sizes, kinds and depths, one turned by its EXIF entry, one with an alpha channel."""
    for n, name in enumerate(CLASSES):
        for i in range(4):
            draw(tmp_path / "imgs" / "train" / name / f"{i}.png", (80 * n, 10 * i, 7))
        deep = tmp_path / "imgs" / "val" / name / "deep" / "er" / "0.JPEG"
        draw(deep, (80 * n, 100, 200), (30, 30), quality=95)
    turned = Image.new("RGB", (20, 14), (1, 2, 3))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "imgs" / "train" / CLASSES[0] / "turned.jpg", exif=exif)
    Image.new("RGBA", (14, 14), (9, 9, 9, 0)).save(tmp_path / "imgs" / "train" / CLASSES[0] / "alpha.png")
    Image.new("L", (14, 14), 77).save(tmp_path / "imgs" / "train" / CLASSES[0] / "grey.png")
    (tmp_path / "imgs" / "train" / CLASSES[0] / "notes.txt").write_text("no image")
    return tmp_path / "imgs"


def config(folder, **values):
    return DataConfig(f"{folder}/", **({"normalisation": "measured", "image_size": 8} | values))


def test_parts_are_read_and_decoded_once(folder, monkeypatch):
    images = load(config(folder))
    assert images.class_names == tuple(sorted(CLASSES))
    assert images.train_x.shape == (15, 8, 8, 3) and images.test_x.shape == (3, 8, 8, 3)
    assert (images.test_y.numpy() == [0, 1, 2]).all()
    grey = next(x for x in images.train_x if (x == 77).all())
    assert grey.shape == (8, 8, 3)
    mean = images.train_x.double().mean((0, 1, 2)) / 255
    assert images.mean == pytest.approx(mean.tolist(), abs=1e-4)

    monkeypatch.setattr("rkd.data.folders._decode", None)  # not again
    assert load(config(folder)).checksum == images.checksum
    assert load(config(folder, train_images=6)).train_x.shape == (6, 8, 8, 3)
    found = reader_of(f"{folder}/").identity(config(folder), folder)
    load(config(folder, sha256=found))
    with pytest.raises(DataError, match="are not those this run was planned with"):
        load(config(folder, sha256="0" * 64))


def test_deep_greys_keep_their_shades(folder):
    """16 bits are brought to 8; of what has no range of its own nothing is guessed."""
    levels = np.tile(np.array([0, 257, 25_700, 65_535], np.uint16).repeat(2), (8, 1))
    deep = folder / "train" / CLASSES[2] / "0.png"
    Image.fromarray(levels).save(deep)
    images = load(config(folder))
    assert [0, 0, 1, 1, 100, 100, 255, 255] in images.train_x[:, 0, :, 0].tolist()
    assert images.notes == ("2 of 18 images are grey: repeated to three channels",)
    Image.fromarray(levels.astype(np.float32)).save(deep.with_suffix(".tiff"))
    with pytest.raises(DataError, match=r"0.tiff \(pixels of mode F may be of any range"):
        load(config(folder))


def test_what_is_decoded_is_checked_and_follows_the_files(folder):
    before = load(config(folder)).checksum
    kept = next((folder.parent / "imgs.decoded").glob("*/train.npy"))
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"is damaged: its checksum differs; delete it"):
        load(config(folder))
    kept.write_bytes(whole)
    draw(folder / "train" / CLASSES[0] / "0.png", (255, 255, 255))
    os.utime(folder / "train" / CLASSES[0] / "0.png", ns=(1, 1))
    assert load(config(folder)).checksum != before


def test_a_share_is_set_aside_where_there_are_no_parts(folder):
    flat = config(folder / "train", test_share=0.25)
    images = load(flat)
    assert np.bincount(images.test_y).tolist() == [1, 2, 1] and len(images.train_y) == 11
    assert load(flat).checksum == images.checksum != load(dataclasses.replace(flat, seed=1)).checksum
    for share, said in ((None, "say which share"), (0.9, "has 4 images, too few for test_share=0.9")):
        with pytest.raises(DataError, match=said):
            load(config(folder / "train", test_share=share))
    with pytest.raises(DataError, match=r"but .* has a part val/ for tests"):
        load(config(folder, test_share=0.2))
    with pytest.raises(ConfigError, match="test_share is 1"):
        config(folder, test_share=1)


def test_tiny_imagenet(tmp_path):
    for name in ("n01", "n02"):
        draw(tmp_path / "train" / name / "images" / f"{name}_0.JPEG", (5, 5, 5), (64, 64))
    lines = [("val_0.JPEG", "n02"), ("val_1.JPEG", "n01")]
    for file, _ in lines:
        draw(tmp_path / "val" / "images" / file, (9, 9, 9), (64, 64))
    text = "".join(f"{file}\t{name}\t0\t0\t62\t62\n" for file, name in lines)
    (tmp_path / "val" / "val_annotations.txt").write_text(text)
    images = load(config(tmp_path, image_size=None))  # they have one size
    assert images.train_x.shape == (2, 64, 64, 3) and sorted(images.test_y.tolist()) == [0, 1]


def broken(folder):
    (folder / "train" / CLASSES[0] / "0.png").write_bytes(b"no image")
    (folder / "val" / CLASSES[1] / "deep" / "er" / "0.JPEG").write_bytes(b"")


def alone(folder):
    for name in ("new", "newer"):
        draw(folder / "val" / name / "0.png", (1, 1, 1))


def unparted(folder):
    (folder / "val").rename(folder / "other")


def dangling(folder):
    (folder / "train" / CLASSES[0] / "gone.png").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("change", "values", "said"),
    [
        (
            broken,
            {},
            r"2 files cannot be read as images: train/cats and dogs/0.png \(.*\), val/Ärger/deep/er/0.J",
        ),
        (alone, {}, "has images of class 'new', 'newer' for tests, but none to train on"),
        (lambda folder: None, {"image_size": None}, r"images are of \d+ x \d+ .*; say which size"),
        (unparted, {}, "has a part train/, but none of test/, val/"),
        (dangling, {}, r"imgs/ cannot be read: .* No such file or directory: .*gone.png"),
    ],
)
def test_refused(folder, change, values, said):
    change(folder)
    with pytest.raises(DataError, match=said):
        load(config(folder, **values))
    assert not list(folder.parent.glob("imgs.decoded/*/about.json"))


def test_duplicates_and_one_sided_classes_are_said(folder):
    (folder / "val" / "Ärger" / "deep" / "er" / "0.JPEG").unlink()
    for twin in (folder / "val" / CLASSES[0] / "twin.png", folder / "train" / CLASSES[1] / "other.png"):
        twin.write_bytes((folder / "train" / CLASSES[0] / "1.png").read_bytes())
    load(config(folder))
    notes = json.loads(next(folder.parent.glob("imgs.decoded/*/about.json")).read_text())["notes"]
    assert notes == [
        "1 of 19 images are grey: repeated to three channels",
        "1 images are in both parts: train/cats and dogs/1.png = val/cats and dogs/twin.png",
        "1 images to train on are of two classes: train/cats and dogs/1.png = train/Ärger/other.png",
        "1 classes have no image for tests: Ärger",
    ]


def test_what_is_too_much_for_a_sentence_stands_in_a_file(folder, done):
    for i in range(12):
        draw(folder / "val" / CLASSES[0] / f"again{i:02}.png", (0, 10, 7))  # as train's 1.png
    out = done(f"data {folder} --image-size 8")
    kept = folder.parent / "imgs.decoded" / "in-both-parts.txt"
    assert f"12 images are in both parts: train/{CLASSES[0]}/1.png = val/{CLASSES[0]}/again00.png, " in out
    assert f"again09.png and 2 more, all in {kept}" in out
    assert len(kept.read_text().splitlines()) == 12 and kept.read_text().endswith("again11.png\n")
    for i in range(11):
        (folder / "train" / CLASSES[1] / f"bad{i:02}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"11 files cannot be read .* and 1 more, all in .*unreadable\.txt"):
        load(config(folder))
    assert "bad10.png (" in (folder.parent / "imgs.decoded" / "unreadable.txt").read_text()


def test_empty_folders_are_no_classes_and_are_said(folder, tmp_path):
    for part in ("train", "val"):
        (folder / part / "empty").mkdir()
    images = load(config(folder))
    assert images.class_names == tuple(sorted(CLASSES))
    assert images.notes[0] == "1 folders hold no images to train on: empty"
    (tmp_path / "bare" / "folder").mkdir(parents=True)
    with pytest.raises(DataError, match="bare holds no images"):
        load(config(tmp_path / "bare"))


def test_too_little_room(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match=r"18 images of 8 x 8, 0 MB are to be kept .* where 0 MB are free"):
        load(config(folder))


def test_names(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert full_name("imgs") == "imgs/" and full_name("cifar10") == "cifar10" and full_name("x/y") == "x/y"
    with pytest.raises(DataError, match=re.escape("the folder of images 'nowhere/' is neither in")):
        load(DataConfig("nowhere/"))
    with pytest.raises(ConfigError, match="unknown data set 'imgs'"):
        DataConfig("imgs")
    with pytest.raises(ConfigError, match="image_size is for folders of images"):
        DataConfig("cifar10", image_size=64)


def test_torchvision(tmp_path, monkeypatch):
    """A set that torchvision would download, made on the spot."""
    from torchvision import datasets

    class Small:
        classes = ("zero", "one")

        def __init__(self, root, train, download=False):
            self.targets = [0, 1, 1] if train else [1, 0]

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, index):
            return Image.new("L", (12, 12), 100 * self.targets[index]), self.targets[index]

    monkeypatch.setattr(datasets, "Small", Small, raising=False)
    images = load(DataConfig("torchvision:Small", normalisation="imagenet"), tmp_path)
    assert images.train_x.shape == (3, 12, 12, 3) and images.class_names == ("zero", "one")
    assert (images.test_x[0] == 100).all() and images.mean == (0.485, 0.456, 0.406)
    for name in ("Nothing", "ImageFolder"):
        with pytest.raises(DataError, match=f"torchvision has no data set '{name}'"):
            load(DataConfig(f"torchvision:{name}"), tmp_path)
