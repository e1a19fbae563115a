"""From a recorded reparameterised student to its deploy form and back: report, file, evaluation, refusals."""

import dataclasses

import numpy as np
import pytest
import torch

from rkd import files, models
from rkd.cli import main
from rkd.data import evaluation_batches
from rkd.errors import ConfigError, RecordError, RkdError
from rkd.experiments.deploy import deploy_report, deployed, read_deployed, save_deployed
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.records import Store

TINY = {"profile": "smoke", "train_images": 64, "test_images": 100, "epochs": 2, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runner, configs of a reparameterised and of a plain run, both recorded."""
    folder = tmp_path_factory.mktemp("results")
    runner = Runner(Store(folder, folder / "work"), folder, "cpu")
    builder = Builder(resolve("run", TINY))
    configs = builder.plain("represnet20", 0), builder.plain("resnet8", 0)
    runner.run(configs)
    return runner, *configs


@pytest.fixture
def rkd(trained, capsys, tmp_path, monkeypatch):
    results = trained[0].store.records
    monkeypatch.setenv("RKD_HOME", str(models.__path__[0] + "/../.."))
    monkeypatch.chdir(tmp_path)

    def call(*arguments, recorded=True):
        named = ["--results", str(results)] if recorded else []
        status = main([*map(str, arguments), *named])
        out = capsys.readouterr()
        return status, out.out, out.err

    return call


@pytest.fixture(scope="module")
def few_images(trained, tmp_path_factory):
    """The run's 100 test images in a file of their own, which takes less time than drawing the whole set."""
    images = deployed(*trained[:2])[2]
    path = tmp_path_factory.mktemp("data") / "few.npz"
    arrays = {"x": images.test_x.numpy(), "y": images.test_y.numpy()}
    np.savez(
        path, **{f"{key}_{split}": value for key, value in arrays.items() for split in ("train", "test")}
    )
    return path


def test_report(trained):
    runner, config, _ = trained
    record = runner.store.load(config.id)
    for which in ("last", "best"):
        report = deploy_report(runner, config, which, batch_size=8, rounds=2, seconds=0.01)
        trained, merged = report.loc["trained"], report.loc["deployed"]
        assert (trained.parameters, merged.parameters) == (997_684, 277_636)
        assert trained.macs > merged.macs == models.macs(models.build("resnet20"))
        assert trained.accuracy == merged.accuracy == pytest.approx(record.accuracy(which))
        assert merged.changed_predictions == 0
        assert 0 < merged.logit_difference < 1e-5 * trained.largest_logit
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


def test_convert_then_evaluate(trained, rkd, tmp_path, few_images):
    runner, config, _ = trained
    said = f"{runner.store.load(config.id).accuracy():.2f} %"
    status, out, err = rkd("convert", config.id, "--batch-size", 8)
    path = tmp_path / f"represnet20_deploy-{config.id}-last.pt"
    assert (status, err) == (0, "") and f"wrote {path.name} (" in out
    rows = {line[:17].strip(): line[17:].split() for line in out.splitlines()}
    assert rows["parameters"] == ["997,684", "277,636"]
    assert rows["accuracy, %"] == [said.split()[0]] * 2
    assert "0 predictions differ" in out
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

    header = read_deployed(path)
    assert header.network == "represnet20_deploy" and header.run == config.id
    assert header.source_sha256 == files.sha256(runner.weights_file(config.id, "last"))
    assert header.data == config.data and header.classes == 100
    assert header.normalisation["mean"] == pytest.approx(deployed(runner, config)[2].mean)

    loaded = models.build("represnet20_deploy", 100)
    models.load_weights(loaded, path)
    merged = deployed(runner, config)[1].state_dict()
    assert all(torch.equal(merged[key], value) for key, value in loaded.state_dict().items())

    status, out, _ = rkd("evaluate", "--checkpoint", path, recorded=False)
    assert status == 0 and out == f"{path}: {said} on 100 test images of embedded\n"
    status, out, _ = rkd("evaluate", config.id, "--deploy")
    assert status == 0 and out == f"{config.id} last merged: {said} now, {said} in the record\n"
    # the run's own weights, told what they are, merged on the way
    weights = runner.weights_file(config.id, "last")
    told = ["--model", "represnet20", "--dataset", few_images, "--normalisation", "embedded", "--deploy"]
    status, out, _ = rkd("evaluate", "--checkpoint", weights, *told, recorded=False)
    assert status == 0 and out == f"{weights}: {said} on 100 test images of {few_images}\n"


def test_what_is_told_goes_before_what_the_file_says(trained, rkd, tmp_path, few_images):
    runner, config, _ = trained
    save_deployed(runner, config, tmp_path / "best.pt", "best")
    assert read_deployed(tmp_path / "best.pt").weights == "best"
    call = ["evaluate", "--checkpoint", "best.pt", "--dataset", few_images]
    status, out, _ = rkd(*call, "--normalisation", "half", recorded=False)
    assert status == 0 and f"on 100 test images of {few_images}" in out
    status, _, err = rkd(*call, "--model", "represnet20", recorded=False)
    assert status == 2 and "not those of this network" in err and err.count("\n") == 1


def test_plain_networks_have_nothing_to_merge(trained, rkd, tmp_path):
    runner, _, plain = trained
    for call in (["convert", plain.id], ["evaluate", plain.id, "--deploy"]):
        status, out, err = rkd(*call)
        assert status == 2 and out == "" and err.count("\n") == 1
        assert f"run {plain.id} is of resnet8, which is not reparameterised" in err and "represnet20" in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="no branches to merge"):
        deploy_report(runner, plain)


def test_refusals(trained, rkd, tmp_path):
    runner, config, _ = trained
    for arguments, said in (
        (["convert", "ffffffffffff"], "not recorded"),
        (["convert", config.id, "--batch-size", 0], "batch_size is 0"),
    ):
        status, _, err = rkd(*arguments)
        assert status == 2 and said in err and err.count("\n") == 1
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(RkdError, match=f"weights of run {other.id} are not on this machine"):
        deploy_report(runner, other)


def test_other_files(trained, rkd, tmp_path):
    runner, config, _ = trained
    path = tmp_path / "file.pt"
    torch.save(models.build("resnet8").state_dict(), path)
    assert read_deployed(path) is None
    status, _, err = rkd("evaluate", "--checkpoint", path, recorded=False)
    assert status == 2 and "--checkpoint needs --model" in err
    torch.save({"epoch": 3, "model": {}, "accuracy": torch.tensor(7.0), "best": [1, 2.5]}, path)
    assert models.checkpoint_header(path) == {"epoch": 3, "model": {}, "best": [1, 2.5]}
    torch.save([1], path)
    with pytest.raises(RecordError, match="holds a list"):
        read_deployed(path)

    save_deployed(runner, config, path)
    whole = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in whole.items() if key != "network"}, path)
    with pytest.raises(RecordError, match="damaged: DeployHeader needs network"):
        read_deployed(path)
    torch.save({**whole, "data": {"name": "embedded", "colour": "red"}}, path)
    with pytest.raises(RecordError, match=r"damaged: .*colour"):
        read_deployed(path)
    path.write_text("404: Not Found")
    with pytest.raises(RecordError, match="is not a checkpoint, or is damaged"):
        read_deployed(path)


def test_models_shows_both_forms(rkd):
    status, out, _ = rkd("models", "represnet20", recorded=False)
    assert status == 0 and "997,684 parameters" in out
    assert "merged  277,636 parameters, 40,818,944 multiply-adds" in out
    status, out, _ = rkd("models", "resnet8", recorded=False)
    assert "merged" not in out


def test_models_lists_every_network_in_its_group(rkd):
    status, out, _ = rkd("models", "--classes", 10, recorded=False)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    assert status == 0 and set(rows) == set(models.names())
    assert rows["vgg8"] == ["3,918,858", "96.15"]
    assert rows["repvgg8"][2:] == ["merged:", "3,915,914", "96.15"]
    assert [group for group in models.groups() if group not in out.splitlines()] == []
