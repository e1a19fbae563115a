"""What a recorded student is for: files that run without the package, its features, its deploy form, and evaluation."""

import dataclasses
import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import ROOT

from rkd import files, models
from rkd.data import evaluation_batches
from rkd.errors import RkdError
from rkd.experiments.deploy import deploy_report, deployed
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.models.packaging import FACTS, package
from rkd.records import Record, Store

TINY = {"profile": "smoke", "train_images": 64, "test_images": 100, "epochs": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runner, configs of a reparameterised and of a plain run, both recorded."""
    folder = tmp_path_factory.mktemp("results")
    runner = Runner(Store(folder, folder / "work"), folder, "cpu")
    builder = Builder(resolve("run", TINY))
    configs = builder.plain("represnet20", 0), builder.plain("resnet8", 0)
    runner.run(configs)
    return runner, *configs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Files are written to a folder of the test's own."""
    monkeypatch.setenv("RKD_HOME", str(ROOT))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def few_images(trained, tmp_path_factory):
    """The run's 100 test images in a file of their own, which takes less time than drawing the whole set."""
    images = deployed(*trained[:2])[2]
    path = tmp_path_factory.mktemp("data") / "few.npz"
    x, y = images.test_x.numpy(), images.test_y.numpy()
    np.savez(path, x_train=255 - x, y_train=y, x_test=x, y_test=y)  # those of both parts would be told
    return path


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
    runner, _, config = trained
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


def test_features(trained, done, tmp_path):
    runner, _, config = trained
    where = f"--results {runner.store.records}"
    done(f"features {config.id} --out {tmp_path / 'f.npz'} {where}")
    network, images = runner.network(config)
    x, y = next(evaluation_batches(images.test_x, images.test_y, images.mean, images.std, 100))
    with torch.no_grad():
        taps = network.eval().taps(x)
    with np.load(tmp_path / "f.npz") as found:
        assert found["pooled_train"].shape == (64, 64) and (found["y_test"] == y.numpy()).all()
        assert np.allclose(found["pooled_test"], taps.pooled, atol=1e-5)
        assert np.allclose(found["logits_test"], taps.logits, atol=1e-5)


def test_differences_are_counted_over_all_images(trained, monkeypatch):
    """Against one pass over all test images, for a deploy form that was made wrong on purpose."""
    runner, config, _ = trained
    merge = models.deploy

    def wrong(network):
        merged = merge(network)
        with torch.no_grad():
            merged.fc.bias[3] += 1e5
        return merged

    monkeypatch.setattr("rkd.experiments.deploy.models.deploy", wrong)
    report = deploy_report(runner, config, batch_size=8, rounds=1, seconds=0.001)
    found = report.loc["deployed"]
    network, merged, images = deployed(runner, config)
    (x, y), *more = evaluation_batches(images.test_x, images.test_y, images.mean, images.std, 100)
    with torch.no_grad():
        ours, others = network(x), merged(x)
    assert not more and (others.argmax(1) == 3).all()
    assert found.logit_difference == pytest.approx((ours - others).abs().max().item(), rel=1e-6)
    assert report.loc["trained"].largest_logit == pytest.approx(ours.abs().max().item(), rel=1e-6)
    assert found.changed_predictions == (ours.argmax(1) != 3).sum()
    assert found.accuracy == 100 * (y == 3).double().mean()


def test_what_merging_saves_is_printed(trained, rkd, done, monkeypatch):
    runner, config, _ = trained
    monkeypatch.setattr("rkd.cli.evaluate.SPEED_BATCH", 8)
    said, call = (
        runner.store.load(config.id).accuracy("best"),
        f"evaluate {config.id} --deploy --weights best",
    )
    out = done(f"{call} --results {runner.store.records}")
    rows = {line[:17].strip(): line[17:].replace(",", "").split() for line in out.splitlines()}
    assert f"best weights: {said:.2f} % in the record\n" in out and "; 0 predictions differ" in out
    assert rows["parameters"] == ["997684", "277636"] and rows["accuracy, %"] == [f"{said:.2f}"] * 2
    trained_macs, merged_macs = map(float, rows["M multiply-adds"])
    assert trained_macs > merged_macs == round(models.macs(models.build("resnet20")) / 1e6, 2)
    trained_speed, merged_speed = map(float, rows["images/s"])
    assert merged_speed > trained_speed > 0
    apart, largest = re.search(r"at most (\S+) \(the largest is (\S+)\)", out).groups()
    assert 0 < float(apart) < 1e-5 * float(largest)
    monkeypatch.setattr(Record, "accuracy", lambda *_: said + 1)
    assert rkd(f"{call} --results {runner.store.records}")[0] == 1


def test_export_then_evaluate(trained, rkd, done, tmp_path, few_images):
    runner, config, _ = trained
    said, path = f"{runner.store.load(config.id).accuracy():.2f} %", tmp_path / "student.safetensors"
    out = done(f"convert {config.id} --out {path} --results {runner.store.records}")
    assert f"wrote {path} (" in out and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert facts_in(path)["network"] == "represnet20_deploy"
    loaded, merged = models.build("represnet20_deploy", 100), deployed(runner, config)[1].state_dict()
    models.load_weights(loaded, path)
    assert all(torch.equal(merged[key], value) for key, value in loaded.state_dict().items())

    here = f"{said} on 100 test images of embedded with embedded statistics; {said} stated in the file\n"
    assert done(f"evaluate --checkpoint {path}") == f"{path}: {here}"
    call = (
        f"evaluate --checkpoint {path} --dataset {few_images}"  # what is told goes before what the file says
    )
    assert f"on 100 test images of {few_images} with half" in done(f"{call} --normalisation half")
    assert "not those of this network" in rkd(f"{call} --model represnet20")[2]
    # the run's own weights, told what they are, merged on the way
    weights = runner.weights_file(config.id, "last")
    told = f"--model represnet20 --dataset {few_images} --normalisation embedded --deploy"
    assert done(f"evaluate --checkpoint {weights} {told}") == (
        f"{weights}: weights from 'student'\n{weights}: {here.replace('of embedded', f'of {few_images}')}"
    )


def test_a_file_that_states_another_accuracy_has_the_known_statistics_tried(rkd, tmp_path, few_images):
    torch.manual_seed(0)
    path, network = tmp_path / "file.pt", models.build("resnet8")
    call = f"evaluate --checkpoint {path} --model resnet8 --dataset {few_images}"
    torch.save(
        {"net": network.state_dict(), "ema": {k: v * 2 for k, v in network.state_dict().items()}}, path
    )
    status, _, err = rkd(call)
    assert status == 2 and "'net', 'ema'; say which one is meant (--entry)" in err
    status, out, _ = rkd(
        f"{call} --entry net --normalisation '{{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}'"
    )
    assert status == 0 and "weights from 'net'" in out and "with the given statistics\n" in out
    found = float(out.splitlines()[1].split(": ")[1].split()[0])
    torch.save({"net": network.state_dict(), "acc": found}, path)
    _, out, _ = rkd(f"{call} --normalisation half")
    assert out.endswith(f"with half statistics; {found:.2f} % stated in the file\n")
    torch.save({"net": network.state_dict(), "acc": 99.0}, path)
    _, out, _ = rkd(f"{call} --normalisation half")
    assert "99.00 % stated in the file" in out
    best = (
        float(out.splitlines()[-1].split(": ")[1].split()[0])
        if "comes nearest, and does not" in out
        else found
    )
    assert best > found or out.endswith("\nnone of the known statistics comes nearer\n")
    nearest = next((line.split()[-1][:-1] for line in out.splitlines() if "comes nearest" in line), "half")
    assert rkd(f"{call} --normalisation {nearest}")[1].endswith(
        "\nnone of the known statistics comes nearer\n"
    )


def test_refusals_and_other_files(trained, rkd, tmp_path, few_images):
    runner, config, plain = trained
    where = f"--results {runner.store.records}"
    for line, said in (
        ("evaluate ffffffffffff", "not recorded"),
        ("export-model ffffffffffff --out x.onnx", "not recorded"),
        (f"export-model {plain.id} --out x.pth", "its suffix says what is written: .safetensors"),
        (f"features {plain.id} --out x.csv", "features are written as .npz"),
        (f"evaluate {plain.id} --deploy", f"run {plain.id} is of resnet8, which is not reparameterised"),
    ):
        status, out, err = rkd(f"{line} {where}")
        assert status == 2 and said in err and out == "" and err.count("\n") == 1
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(RkdError, match=f"weights of run {other.id} are not on this machine"):
        deploy_report(runner, other)

    path = tmp_path / "file.safetensors"
    rkd(f"export-model {plain.id} --out {path} {where}")
    weights, facts = safetensors.torch.load_file(path), facts_in(path)
    (tmp_path / "evil_for_test.py").write_text("open('ran', 'w')")
    few, damaged = {"name": str(few_images), "normalisation": "half"}, "what it says of itself is damaged"
    evil = "model 'evil_for_test:f', named by file.safetensors, is code from elsewhere, and is not"
    for changes, said in (
        ({"accuracy": "nan"}, f"{damaged} (accuracy is nan"),
        ({"class_names": "100"}, f"{damaged} (class_names is 100; it must be a list"),
        ({"class_names": "[" * 5000}, damaged),
        ({"data": "cifar100"}, damaged),
        ({"data": '{"name": 5}'}, f"{damaged} (name is 5; it must be text"),
        ({"data": '{"name": "embedded", "colour": "red"}'}, damaged),
        ({"network": "evil_for_test:f"}, evil),
        ({"network": "os:_exit"}, "--trust os:_exit"),
        ({"network": "no_such"}, "unknown model 'no_such'"),
        ({"class_names": '["a"]'}, "file.safetensors is of 1 classes, but embedded has 100"),
        (
            {"data": json.dumps(few)},
            "without its sha256, so that any file could be meant; name it with --dataset",
        ),
        ({"data": json.dumps({**few, "sha256": "0" * 64})}, "its checksum has changed"),
        ({"data": json.dumps({**few, "sha256": files.sha256(few_images)})}, ""),
    ):
        safetensors.torch.save_file(weights, path, {**facts, **changes})
        status, _, err = rkd("evaluate --checkpoint file.safetensors")
        assert (status, err.count("\n")) == ((2, 1) if said else (0, 0)) and said in err, err
    assert not (tmp_path / "ran").exists()
    safetensors.torch.save_file({k: v * float("nan") for k, v in weights.items()}, path, facts)
    said = rkd(f"evaluate --checkpoint file.safetensors --dataset {few_images}")[2]
    assert "of its tensors hold NaN or infinity, conv1.weight first" in said
    safetensors.torch.save_file(weights, path)
    assert "--checkpoint needs --model" in rkd(f"evaluate --checkpoint {path}")[2]
    path.write_text("404: Not Found")
    assert "cannot be read, or is damaged" in rkd(f"evaluate --checkpoint {path}")[2]


def test_weights_that_are_no_numbers_are_not_exported(trained, rkd, tmp_path):
    runner, _, plain = trained
    path = runner.weights_file(plain.id, "last")
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    content["student"]["fc.bias"][0] = float("nan")  # as those of a run that diverged
    torch.save(content, path)
    call = f"export-model {plain.id} --out {tmp_path}/x.safetensors --results {runner.store.records}"
    status, _, err = rkd(call)
    path.write_bytes(whole)
    assert status == 2 and f"the last weights of run {plain.id} hold NaN or infinity, fc.bias first" in err
    assert not list(tmp_path.iterdir())
