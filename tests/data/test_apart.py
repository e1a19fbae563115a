"""Images that do not fit on the device: read from the disk, brought there batch by batch, the same to the bit."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same, images_of, small, small_plain, stand_in, trained
from PIL import Image

from rkd.data import Batches, DataConfig, ImageSet, load
from rkd.data import batches as batches_module
from rkd.data import images as images_module
from rkd.data.images import measure_statistics
from rkd.experiments import group
from rkd.experiments.runner import Runner
from rkd.records import Store
from rkd.training import accuracy


@pytest.fixture
def apart(monkeypatch):
    """As where images lie on the host and all else on a GPU."""

    def switch(on):
        monkeypatch.setattr(batches_module, "on_other_device", lambda x, device: on)

    return switch


def mapped(path, n=70, size=24):
    x = np.random.default_rng(n).integers(0, 256, (n, size, size, 3), np.uint8)
    np.save(path, x)
    x, y = torch.from_numpy(np.load(path, mmap_mode="c")), torch.arange(n) % 5
    parts, mean, std = (x, y, x[:9], y[:9], x[:0], y[:0]), (0.5, 0.4, 0.3), (0.2, 0.3, 0.3)
    return ImageSet("own", 5, *parts, mean, std, "", tuple("abcde"))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_batches_are_the_same_to_the_bit(mode, padding, apart, tmp_path):
    images, found = mapped(tmp_path / "x.npy"), []
    for on in (False, True):
        apart(on)
        batches = Batches(images, padding, True, mode)
        every = (batch for epoch in range(2) for batch in batches.epoch(epoch, 1, 16))
        found.append([[part.clone() for part in batch] for batch in every])
    assert len(found[0]) == 10 and {len(y) for _, y, _ in found[0]} == {16, 6}
    for mine, theirs in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("config", "capture"), [(small(), None), (small_plain(), stand_in)])
def test_runs_and_scores_are_the_same_to_the_bit(config, capture, apart):
    found = []
    for on in (False, True):
        apart(on)
        found.append(trained(config, capture=capture))
        i = images_of(config.data)
        found[-1].again = accuracy(found[-1].student, i.test_x, i.test_y, i.mean, i.std, 7)
    assert_same(*found)
    assert found[0].again == found[1].again == pytest.approx(found[0].curves["test_accuracy"][-1])


def test_what_stays_on_the_host_is_decided_by_its_size(tmp_path):
    images = mapped(tmp_path / "x.npy")
    size = images.train_x.nbytes + images.test_x.nbytes
    there, here = images.to("meta", most=size), images.to("meta", most=size - 1)
    assert there.train_x.device.type == there.train_y.device.type == "meta" and not there.notes
    assert here.train_x is images.train_x and here.test_x is images.test_x
    assert here.train_y.device.type == here.test_y.device.type == "meta"
    assert re.fullmatch(r"its images, 0 MB, do not fit on meta beside .* batch by batch", here.notes[0])
    assert images.to("cpu", most=0).train_x is images.train_x


def test_a_cpu_reads_from_the_disk_and_keeps_no_copy(tmp_path):
    def private():
        return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    images = mapped(tmp_path / "x.npy", n=600, size=224)
    size, before = images.train_x.nbytes, private()
    batches = Batches(images, 4, True)
    for _ in batches.epoch(0, 0, 8):
        pass
    measure_statistics(images.train_x)
    assert size > 9e7 and private() - before < size / 2


@pytest.mark.parametrize("chunk", [1, 5000, 2**24])
def test_statistics_are_those_of_all_values_at_once(chunk, monkeypatch):
    monkeypatch.setattr(images_module, "CHUNK", chunk)
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (41, 9, 9, 3), np.uint8))
    mean, std = measure_statistics(x)
    values = x.double() / 255
    assert mean == pytest.approx(values.mean((0, 1, 2)).tolist(), abs=5.1e-5)
    assert std == pytest.approx(values.std((0, 1, 2), correction=0).tolist(), abs=5.1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_graphs_find_what_is_brought(tmp_path, silent, monkeypatch):
    config, found = small(), []
    for share in (images_module.SHARE, 0):
        monkeypatch.setattr(images_module, "SHARE", share)
        group.load_images.cache_clear()
        store = Store(tmp_path / str(share), tmp_path / "work" / str(share))
        found.append(Runner(store, tmp_path, "cuda", progress=silent).run([config])[config.id])
    assert found[0].curves == found[1].curves and found[0].result == found[1].result
    assert [record.cost["graph"] for record in found] == [True, True]
    assert any("batch by batch" in said for said in silent.said)


def test_a_decoded_folder_is_read_where_it_lies(tmp_path):
    if not Path("/proc/self/maps").exists():
        pytest.skip("what is mapped is read from /proc")
    for split, name, i in itertools.product(("train", "test"), "ab", range(3)):
        (tmp_path / "own" / split / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (i, 9, 9)).save(tmp_path / "own" / split / name / f"{i}.png")
    images = load(DataConfig(f"{tmp_path}/own/", "measured"))
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("train.npy")]
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if str(tmp_path) in line]
    assert any(start <= images.train_x.data_ptr() < end for start, end in spans)
