"""Data sets: configs, subsets, files, and every way a file can be wrong."""

import hashlib
import pickle
import re
from collections import Counter
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from rkd.data import Batches, DataConfig, describe, is_there, load, measure_statistics, preset
from rkd.data.embedded import image
from rkd.data.subsets import choose
from rkd.errors import ConfigError, DataError

# --- configs


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "cifar1000"}, "cifar1000.*did you mean 'cifar100'"),
        ({"normalisation": "cifar"}, "unknown normalisation 'cifar'.*cifar100_crd"),
    ],
)
def test_bad_values_are_named(values, words):
    with pytest.raises(ConfigError, match=words):
        DataConfig(**values)


def test_presets_are_the_published_numbers():
    assert preset("cifar10_reviewkd").mean == pytest.approx((0.491373, 0.482353, 0.446667), abs=1e-6)
    assert preset("cifar10_reviewkd").std == pytest.approx((0.247059, 0.243529, 0.261569), abs=1e-6)
    assert preset("cifar100_crd").std == (0.2675, 0.2565, 0.2761)


# --- subsets


def test_subsets_are_balanced_nested_and_apart_from_the_holdout():
    labels = np.arange(700) % 7
    kept, held = choose(labels, 7, 60, 30, 3, "training")
    assert sorted(Counter(labels[kept]).items()) == [(0, 9), (1, 9), (2, 9), (3, 9), (4, 8), (5, 8), (6, 8)]
    assert sorted(Counter(labels[held]).items()) == [(0, 5), (1, 5), *((c, 4) for c in range(2, 7))]
    assert not set(kept) & set(held) and (np.diff(kept) > 0).all()
    larger, held_again = choose(labels, 7, 200, 30, 3, "training")
    assert set(kept) < set(larger) and held.tolist() == held_again.tolist()
    rest, _ = choose(labels, 7, None, 30, 3, "training")
    assert set(rest) | set(held) == set(range(700)) and len(rest) == 670


def test_subsets_depend_on_seed_and_split():
    labels = np.arange(700) % 7
    of = (0, "training"), (1, "training"), (0, "test")
    first, *others = (choose(labels, 7, 70, 0, *each)[0].tolist() for each in of)
    assert first not in others


@pytest.mark.parametrize(
    ("labels", "holdout", "words"),
    [
        (np.arange(700) % 7, 700, "700 training images are to be held out.*has 700"),
        (np.repeat(np.arange(7), [90, 5] + 5 * [100]), 70, "10 training images of class 1.*which has 5"),
    ],
)
def test_too_many_images_held_out(labels, holdout, words):
    with pytest.raises(DataError, match=words):
        choose(labels, 7, 1, holdout, 0, "training")


def test_where_there_are_fewer_than_asked_for_all_are_taken(tmp_path):
    labels = np.repeat(np.arange(3), [5, 90, 100])
    kept, held = choose(labels, 3, 60, 3, 0, "training")
    assert np.bincount(labels[kept]).tolist() == [4, 20, 20] and not set(kept) & set(held)
    assert len(choose(labels, 3, 193, 3, 0, "training")[0]) == 192
    few = load(replace(saved(tmp_path), train_images=4000, test_images=6))
    assert (len(few.train_y), few.checksum) == (12, load(saved(tmp_path)).checksum)
    (note,) = few.notes
    assert re.fullmatch("4,000 training images were asked for; .* has 12, and all are used", note)


# --- npz


def arrays(size=8, n=12, **others):
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8),
        "y_train": np.arange(n) % 3,
        "x_test": rng.integers(0, 256, (6, size, size, 3), dtype=np.uint8),
        "y_test": np.arange(6, dtype=np.uint8) % 3,
    }
    return {k: v for k, v in {**good, **others}.items() if v is not None}


def saved(folder, **changes):
    path = folder / "own.npz"
    np.savez(path, **arrays(**changes))
    return DataConfig(str(path))


def test_npz_of_either_layout(tmp_path, size=16):
    plain = arrays(size)
    first = load(saved(tmp_path, size=size))
    turned = {k: plain[k].transpose(0, 3, 1, 2) for k in ("x_train", "x_test")}
    second = load(saved(tmp_path, size=size, **turned))
    assert first.train_x.shape == (12, size, size, 3)
    assert np.array_equal(first.train_x.numpy(), plain["x_train"])
    assert first.checksum == second.checksum and first.classes == 3 and first.class_names == ("0", "1", "2")
    assert first.test_y.dtype == torch.int64


@pytest.mark.parametrize("form", [lambda x: x, lambda x: x[..., None], lambda x: x[:, None]])
def test_grey_images_are_repeated_to_three_channels(tmp_path, form):
    grey = arrays()["x_train"][..., 0]
    found = load(saved(tmp_path, x_train=form(grey)))
    assert found.train_x.is_contiguous()
    assert np.array_equal(found.train_x.numpy(), np.stack([grey] * 3, axis=3))
    assert found.notes == ("the train images are grey: repeated to three channels",)


def test_images_in_both_parts_and_classes_without_tests_are_named(tmp_path):
    test = arrays()["x_test"]
    test[[1, 5]] = arrays()["x_train"][4]
    notes = load(saved(tmp_path, x_test=test, y_test=np.array([0, 1, 0, 1, 0, 1]))).notes
    assert notes == (
        "2 images are in both parts: x_train[4] = x_test[1], x_train[4] = x_test[5]",
        "1 classes have no image for tests: 2",
    )
    assert not load(saved(tmp_path)).notes


def test_class_names_are_any_text(tmp_path):
    told = ["Käse", "火", "\N{SNOWMAN}"]
    for names in (np.array(told), np.array([name.encode() for name in told])):
        assert load(saved(tmp_path, class_names=names)).class_names == tuple(told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": np.array([b"\xff", b"a", b"b"])}, "class_names are no text in UTF-8"),
        ({"class_names": np.array(["\ud800", "a", "b"])}, "class_names are no text in UTF-8"),
        ({"x_test": None}, "no array x_test; needed are x_train"),
        ({"x_train": np.zeros((12, 8, 8, 3))}, "x_train must be .*uint8.*float64"),
        ({"x_train": np.zeros((12, 8, 6, 3), np.uint8)}, r"square.*\(12, 8, 6, 3\)"),
        ({"x_train": np.zeros((12, 8, 8, 4), np.uint8)}, r"not uint8 of shape \(12, 8, 8, 4\)"),
        ({"y_train": np.full(12, 2**64 - 1, np.uint64)}, "without a gap, not to 18446744073709551615"),
        ({"x_test": np.zeros((6, 9, 9, 3), np.uint8)}, r"\(8, 8, 3\), but test images are \(9, 9, 3\)"),
        ({"y_train": np.arange(11) % 3}, r"each of the 12 images of x_train, not int64 of shape \(11,\)"),
        ({"y_train": np.arange(12) % 3 - 1}, "must run from 0 without a gap, not -1 to 1"),
        ({"y_train": np.arange(12) % 3 * 1.0}, "y_train must be whole numbers.* not float64"),
        ({"y_train": np.arange(12) % 3 * 2}, "must run from 0 without a gap, not 0 to 4"),
        ({"y_test": np.arange(6)}, "y_test has class 3, 4, 5, of which y_train has no image"),
        ({"class_names": np.array(["a", "b"])}, "class_names has shape .*3 classes"),
        ({"y_train": np.array([None] * 12)}, "cannot be read as an npz file of plain arrays"),
    ],
)
def test_malformed_npz(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as caught:
        load(saved(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_images_of_one_value_want_statistics_of_others(tmp_path):
    config = saved(tmp_path, x_train=np.full((12, 8, 8, 3), (1, 2, 3), np.uint8))
    images = load(replace(config, normalisation="measured"))
    with pytest.raises(DataError, match="a channel has one value in all training images"):
        Batches(images, padding=0, flip=False)
    assert load(replace(config, normalisation="cifar100")).std == preset("cifar100").std


def test_npz_that_is_none_or_in_the_data_folder(tmp_path):
    own, none = DataConfig("own.npz"), tmp_path / "none.npz"
    none.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        load(DataConfig(str(none)))
    with pytest.raises(DataError, match=r"'own\.npz' is neither"):
        load(own, tmp_path)
    assert not is_there(own, tmp_path)
    saved(tmp_path)
    assert len(load(DataConfig("own.npz", train_images=6, holdout=3), tmp_path).holdout_y) == 3


# --- the set in memory


def test_checksum_changes_with_a_pixel_a_label_and_the_choice(tmp_path):
    turned = {key: arrays()[key][::-1] for key in ("x_train", "y_test")}
    sums = {load(saved(tmp_path, **{key: value})).checksum for key, value in turned.items()}
    whole = saved(tmp_path)
    sums |= {load(whole).checksum, load(DataConfig(whole.name, train_images=6)).checksum}
    assert len(sums) == 4


def test_describe_measures_by_the_formula(tmp_path):
    facts = describe(saved(tmp_path))
    x = arrays()["x_train"].reshape(-1, 3) / 255
    assert facts["mean"] == pytest.approx(x.mean(0), abs=5.1e-5)
    assert facts["std"] == pytest.approx(x.std(0), abs=5.1e-5)
    assert (facts["train_images"], facts["test_images"], facts["classes"]) == (12, 6, 3)
    assert facts["size"] == "8 x 8" and len(facts["sha256"]) == 64


# --- CIFAR, from a folder made here


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A root with CIFAR-100's three files, of ten images, whose sums torchvision is told."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(1)
    names = {"fine_label_names": [f"kind {i}" for i in range(10)]}
    sums = {}
    for name in ("train", "test", "meta"):
        data = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "fine_labels": list(range(10))}
        raw = pickle.dumps(names if name == "meta" else data)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    return tmp_path


def no_network(self):
    raise URLError("no route to host")


def test_cifar_that_is_there_is_not_downloaded_again(cifar, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR100, "download", no_network)
    images = load(DataConfig("cifar100"), cifar)
    raw = pickle.loads((cifar / "cifar-100-python" / "train").read_bytes())["data"]
    assert np.array_equal(images.train_x.numpy(), raw.reshape(10, 3, 32, 32).transpose(0, 2, 3, 1))
    assert images.class_names[3] == "kind 3" and images.train_y.tolist() == list(range(10))


def test_damaged_cifar_is_named(cifar):
    path = cifar / "cifar-100-python" / "test"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"cifar-100-python' is damaged.*rkd show data cifar100 --root"):
        load(DataConfig("cifar100"), cifar)


def test_missing_cifar(cifar, monkeypatch):
    root = cifar / "elsewhere"
    monkeypatch.setattr(datasets.CIFAR100, "download", no_network)
    for how, words in (
        ({"download": False}, r"cifar100 is not in .*`rkd show data cifar100 --root .*elsewhere`"),
        ({}, r"could not be downloaded.*no route to host.*cifar-100-python"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            load(DataConfig("cifar100"), root, **how)
        assert "\n" not in str(caught.value) and root.exists() == (not how)


def test_cifar_is_there_when_all_its_files_are_and_one_that_is_missing_is_fetched_once(cifar, monkeypatch):
    path, calls = cifar / "cifar-100-python" / "meta", []
    raw = path.read_bytes()
    path.unlink()
    assert not is_there(DataConfig("cifar100"), cifar)
    monkeypatch.setattr(datasets.CIFAR100, "download", lambda self: calls.append(path.write_bytes(raw)))
    for _ in range(2):
        assert load(DataConfig("cifar100"), cifar).classes == 10
    assert len(calls) == 1 and is_there(DataConfig("cifar100"), cifar)


# --- embedded

MEASURED = (0.3462, 0.3542, 0.3365)
IMAGE_42_7 = "cac3d58f2ed752e0775b7137b81f9d40afcce88cf957f16cd61e5ef0e1adb413"


def test_embedded_images_are_all_different_and_do_not_depend_on_how_many_are_made():
    small = load(DataConfig("embedded", train_images=100, test_images=100))
    large = load(DataConfig("embedded", train_images=200, test_images=100, holdout=100))
    other = load(DataConfig("embedded", train_images=100, test_images=100, seed=1))
    assert {x.tobytes() for x in small.train_x.numpy()} < {x.tobytes() for x in large.train_x.numpy()}
    assert torch.bincount(small.train_y).tolist() == [1] * 100 and len({*small.class_names}) == 100
    parts = (large.train_x, large.test_x, large.holdout_x, other.train_x, other.test_x)
    assert len({x.tobytes() for part in parts for x in part.numpy()}) == 600
    image.cache_clear()
    assert load(DataConfig("embedded", train_images=100, test_images=100)).checksum == small.checksum


def test_embedded_is_the_same_on_every_machine_and_its_preset_fits():
    x = torch.from_numpy(np.stack([image(0, "train", label, 0) for label in range(100)]))
    assert measure_statistics(x)[0] == MEASURED
    assert hashlib.sha256(image(0, "train", 42, 7).tobytes()).hexdigest() == IMAGE_42_7
    for measured, named in zip(
        measure_statistics(x), (preset("embedded").mean, preset("embedded").std), strict=True
    ):
        assert measured == pytest.approx(named, abs=0.02)
    assert x.flatten(1).double().std(1).min() > 10  # no empty canvas
