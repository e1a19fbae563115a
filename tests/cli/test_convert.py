"""From a recorded reparameterised student to its deploy form and back: report, file, evaluation, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import ROOT

from rkd import files, models
from rkd.data import evaluation_batches
from rkd.errors import RecordError, RkdError
from rkd.experiments.deploy import deploy_report, deployed, read_deployed, save_deployed
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.records import Store

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


def test_report(trained):
    runner, config, _ = trained
    report = deploy_report(runner, config, "best", batch_size=8, rounds=2, seconds=0.01)
    trained, merged = report.loc["trained"], report.loc["deployed"]
    assert (trained.parameters, merged.parameters) == (997_684, 277_636)
    assert trained.macs > merged.macs == models.macs(models.build("resnet20"))
    accuracy = runner.store.load(config.id).accuracy("best")
    assert trained.accuracy == merged.accuracy == pytest.approx(accuracy)
    assert merged.changed_predictions == 0 and 0 < merged.logit_difference < 1e-5 * trained.largest_logit
    assert merged.images_per_second > trained.images_per_second > 0


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


def test_convert_then_evaluate(trained, rkd, done, tmp_path, few_images):
    runner, config, _ = trained
    where = f"--results {runner.store.records}"
    said = f"{runner.store.load(config.id).accuracy():.2f} %"
    status, out, err = rkd(f"convert {config.id} --batch-size 8 {where}")
    path = tmp_path / f"represnet20_deploy-{config.id}-last.pt"
    assert (status, err) == (0, "") and f"wrote {path.name} (" in out and "0 predictions differ" in out
    rows = {line[:17].strip(): line[17:].split() for line in out.splitlines()}
    assert rows["parameters"] == ["997,684", "277,636"] and rows["accuracy, %"] == [said.split()[0]] * 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

    header, weights = read_deployed(path), runner.weights_file(config.id, "last")
    assert (header.network, header.run, header.classes) == ("represnet20_deploy", config.id, 100)
    assert header.source_sha256 == files.sha256(weights) and header.data == config.data
    assert header.normalisation["mean"] == pytest.approx(deployed(runner, config)[2].mean)
    loaded, merged = models.build("represnet20_deploy", 100), deployed(runner, config)[1].state_dict()
    models.load_weights(loaded, path)
    assert all(torch.equal(merged[key], value) for key, value in loaded.state_dict().items())

    assert done(f"evaluate --checkpoint {path}") == (
        f"{path}: {said} on 100 test images of embedded with embedded statistics\n"
    )
    out = done(f"evaluate {config.id} --deploy {where}")
    assert out == f"{config.id} last merged: {said} now, {said} in the record\n"
    call = (
        f"evaluate --checkpoint {path} --dataset {few_images}"  # what is told goes before what the file says
    )
    assert f"on 100 test images of {few_images}" in done(f"{call} --normalisation half")
    assert "not those of this network" in rkd(f"{call} --model represnet20")[2]
    # the run's own weights, told what they are, merged on the way
    told = f"--model represnet20 --dataset {few_images} --normalisation embedded --deploy"
    out = done(f"evaluate --checkpoint {weights} {told}")
    assert out == (
        f"{weights}: weights from 'student'\n"
        f"{weights}: {said} on 100 test images of {few_images} with embedded statistics; {said} stated in the file\n"
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
    where, path = f"--results {runner.store.records}", tmp_path / "file.pt"
    for line, said in (
        ("convert ffffffffffff", "not recorded"),
        (f"convert {config.id} --batch-size 0", "batch_size is 0"),
        (f"evaluate {plain.id} --deploy", f"run {plain.id} is of resnet8, which is not reparameterised"),
    ):
        status, out, err = rkd(f"{line} {where}")
        assert status == 2 and said in err and out == "" and err.count("\n") == 1
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(RkdError, match=f"weights of run {other.id} are not on this machine"):
        deploy_report(runner, other)
    torch.save(models.build("resnet8").state_dict(), path)
    assert read_deployed(path) is None
    status, _, err = rkd(f"evaluate --checkpoint {path}")
    assert status == 2 and "--checkpoint needs --model" in err
    torch.save({"epoch": 3, "model": {}, "accuracy": torch.tensor(7.0), "best": [1, 2.5]}, path)
    assert models.checkpoint_header(path) == {"epoch": 3, "model": {}, "best": [1, 2.5]}

    save_deployed(runner, config, path)
    whole = torch.load(path, weights_only=True)
    for content, said in (
        ({**whole, "classes": -1}, "classes is -1"),
        ({**whole, "classes": "many"}, "classes is 'many'"),
        ({**whole, "accuracy": float("nan")}, "accuracy is nan"),
        ({**whole, "accuracy": 1e9}, "accuracy is 1000000000.0"),
        ({**whole, "run": "../../x"}, "run is '../../x'"),
        ({**whole, "weights": ["last"]}, "unknown weights"),
        ({**whole, "normalisation": {"mean": [1]}}, "damaged: "),
        ({**whole, "data": {"name": 5}}, "name is 5; it must be text"),
        ({**whole, "data": "embedded"}, "data is 'embedded'"),
        ([1], "holds a list"),
        ({k: v for k, v in whole.items() if k != "network"}, "damaged: DeployHeader needs network"),
        ({**whole, "data": {"name": "embedded", "colour": "red"}}, r"damaged: .*colour"),
        ({**whole, "network": 5}, "damaged: network is 5; it must be text"),
    ):
        torch.save(content, path)
        with pytest.raises(RecordError, match=said):
            read_deployed(path)
    (tmp_path / "evil_for_test.py").write_text("open('ran', 'w')")
    few = {"name": str(few_images), "normalisation": "half"}
    for changes, said in (
        (
            {"network": "evil_for_test:f"},
            "model 'evil_for_test:f', named by file.pt, is code from elsewhere, and is not",
        ),
        ({"network": "os:_exit"}, "--trust os:_exit"),
        ({"network": "no_such"}, "unknown model 'no_such'"),
        ({"classes": 10**9}, "file.pt is of 1000000000 classes, but embedded has 100"),
        ({"data": few}, "without its sha256, so that any file could be meant; name it with --dataset"),
        ({"data": {**few, "sha256": "0" * 64}}, "its checksum has changed"),
        ({"data": {**few, "sha256": files.sha256(few_images)}}, ""),
    ):
        torch.save({**whole, **changes}, path)
        status, out, err = rkd("evaluate --checkpoint file.pt")
        assert (status, err.count("\n")) == ((2, 1) if said else (0, 0)) and said in err, err
    assert not (tmp_path / "ran").exists()
    torch.save({**whole, "model": {k: v * float("nan") for k, v in whole["model"].items()}}, path)
    said = rkd(f"evaluate --checkpoint file.pt --dataset {few_images}")[2]
    assert "file.pt: 50 of its tensors hold NaN or infinity, conv1.weight first" in said
    path.write_text("404: Not Found")
    with pytest.raises(RecordError, match="is not a checkpoint, or is damaged"):
        read_deployed(path)
