"""A recorded student as files that run without the package, and its features."""

import json

import numpy as np
import pytest
import safetensors
import torch

from rkd import models
from rkd.data import evaluation_batches
from rkd.errors import RkdError
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.models.packaging import FACTS, package
from rkd.records import Store

TINY = {"profile": "smoke", "train_images": 32, "test_images": 20, "epochs": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    runner = Runner(Store(folder, folder / "work"), folder, "cpu")
    config = Builder(resolve("run", TINY)).plain("resnet8", 0)
    runner.run([config])
    return runner, config


def facts_in(path):
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata()
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra = {FACTS: ""}
    if path.suffix == ".ts":
        torch.jit.load(path, _extra_files=extra)
    else:
        torch.export.load(path, extra_files=extra)
    return json.loads(extra[FACTS])


@pytest.mark.parametrize("suffix", [".safetensors", ".ts", ".pt2", ".onnx"])
def test_a_run_is_written_and_says_what_it_is(trained, done, tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    runner, config = trained
    path = tmp_path / f"student{suffix}"
    out = done(f"export-model {config.id} --out {path} --results {runner.store.records}")
    assert f"wrote {path}" in out and float(out.split("at most ")[1].split()[0]) < 1e-5
    facts, images = facts_in(path), runner.network(config)[1]
    assert json.loads(facts["mean"]) == pytest.approx(images.mean) and facts["size"] == "32"
    assert json.loads(facts["class_names"]) == list(images.class_names) and facts["run"] == config.id


@pytest.mark.parametrize("name", ["wrn_16_1", "vgg8", "resnet20_a", "represnet20"])
def test_families_trace(name, tmp_path):
    torch.manual_seed(0)
    network, x = models.build(name, 10), torch.randn(3, 3, 32, 32)
    assert package(network, tmp_path / "net.ts", x, {}) < 1e-5
    assert network.training


FIRSTS = [names[0] for names in models.groups().values()]


@pytest.mark.filterwarnings("ignore")  # of torch.jit, about itself
@pytest.mark.parametrize("name", [*FIRSTS, "shufflenetv1", "shufflenetv2"])
def test_families_script(name):
    """In either mode, and for sizes other than it was ever shown."""
    torch.manual_seed(0)
    network = models.build(name, 10)
    scripted = torch.jit.script(network)
    for mode, size in ((True, 32), (False, 64)):
        x = torch.randn(2, 3, size, size)
        network.train(mode), scripted.train(mode)
        assert torch.equal(scripted(x), network(x))


def test_what_computes_something_else_is_not_written(tmp_path):
    class Random(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) + torch.rand(1)

    with pytest.raises(RkdError, match="was not written: read back as TorchScript its logits differ"):
        package(Random(), tmp_path / "net.ts", torch.randn(3, 3, 8, 8), {})
    assert not list(tmp_path.iterdir())


def test_features(trained, done, rkd, tmp_path):
    runner, config = trained
    where = f"--results {runner.store.records}"
    done(f"features {config.id} --out {tmp_path / 'f.npz'} {where}")
    network, images = runner.network(config)
    x, y = next(evaluation_batches(images.test_x, images.test_y, images.mean, images.std, 20))
    with torch.no_grad():
        taps = network.eval().taps(x)
    with np.load(tmp_path / "f.npz") as found:
        assert found["pooled_train"].shape == (32, 64) and (found["y_test"] == y.numpy()).all()
        assert np.allclose(found["pooled_test"], taps.pooled, atol=1e-5)
        assert np.allclose(found["logits_test"], taps.logits, atol=1e-5)
    for line, said in (
        (f"features {config.id} --out x.csv {where}", "features are written as .npz"),
        (f"export-model {config.id} --out x.pth {where}", "its suffix says what is written: .safetensors"),
        (f"export-model ffffffffffff --out x.onnx {where}", "not recorded"),
    ):
        status, _, err = rkd(line)
        assert status == 2 and said in err and err.count("\n") == 1
